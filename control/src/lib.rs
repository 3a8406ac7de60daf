//! Drives one or a thousand oqto runners from any Rust program.
//!
//! [`Control`] is the way in: it opens the private authority of this control, starts or finds the runner of this
//! machine and connects to others. A [`Runner`] makes [`Session`]s; a session is told things by its methods and tells
//! what happens by its [`Events`], a stream in order, without gaps and without repeats.
//!
//! ```no_run
//! # #[cfg(feature = "local")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use oqto_control::{Control, Options, SessionConfig};
//!
//! let control = Control::open(Options::of_user()?)?;
//! let runner = control.local().await?;
//! let (harness, policy) = ("pi".into(), Some("open-net".into()));
//! let session = runner.create(SessionConfig { harness, policy, ..SessionConfig::default() }).await?;
//! let mut events = session.events().await?;
//! session.prompt("What is in this directory?").await?;
//! while let Some(event) = events.next().await {
//!     println!("{:?}", event?.event);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here panics and nothing is global to the process. It needs a tokio runtime with time and I/O. Futures may
//! be dropped at any point: a command that was sent may still have its effect, a subscription just ends.
//!
//! Floors, each naming only those before it: `bounds`, `authority`, `history`, `link` (pure) → `connection` → `events`
//! → `runner`, `session` → `fleet`, `bootstrap` → `control` → `cli`.
#![forbid(unsafe_code)]

mod authority;
#[cfg(feature = "local")]
mod bootstrap;
mod bounds;
#[cfg(feature = "cli")]
pub mod cli;
mod connection;
mod control;
mod events;
mod fleet;
pub mod history;
mod link;
mod runner;
mod session;

pub use oqto_protocol as protocol;
pub use oqto_protocol::cursor::Cursor;
pub use oqto_protocol::event::{Envelope, Event};
pub use oqto_protocol::session::SessionConfig;

pub use authority::{Authority, AuthorityError, SignError};
#[cfg(feature = "local")]
pub use bootstrap::{LocalError, StartError};
pub use connection::{ConnectError, ExchangeError, Refusal, RunnerAddr, TlsError};
pub use control::{Control, NoHome, OpenError, Options};
pub use events::{Events, EventsError, SubscribeError};
pub use fleet::RecordError;
pub use link::OrderError;
pub use runner::{CommandError, QueryError, Runner};
pub use session::Session;
