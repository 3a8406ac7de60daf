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
//! Links come and go, and neither [`Events`] nor commands end with them: a link that was lost is dialled again while
//! somebody needs it, a stream goes on from its exact cursor, a command is sent again under its id for a minute. The
//! same holds when the runner is killed or replaced by another build; the private one of this machine is started again.
//! [`Runner::link`] shows how the link stands, [`Events::update`] tells of interruptions who wants to know,
//! [`Events::patience`] and [`Runner::close`] end what should not wait.
//!
//! Nothing here panics and nothing is global to the process. It needs a tokio runtime with time and I/O. Futures may
//! be dropped at any point: a command that was sent may still have its effect, a subscription just ends.
//!
//! Floors, each naming only those before it: `bounds`, `authority`, `history`, `link` and `posture` (pure) → `connection` →
//! `events`, `fleet` → `bootstrap` → `runner`, `session` → `listener` → `control` → `cli`.
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
#[cfg(feature = "simulation")]
pub mod link;
#[cfg(not(feature = "simulation"))]
#[expect(unreachable_pub, reason = "public for simulations alone")]
mod link;
mod listener;
pub mod posture;
mod runner;
mod session;

pub use oqto_protocol as protocol;
pub use oqto_protocol::cursor::Cursor;
pub use oqto_protocol::event::{Envelope, Event};
pub use oqto_protocol::secret::Secret;
pub use oqto_protocol::session::SessionConfig;

pub use authority::{
    Authority, AuthorityError, BadSerial, IssueError, IssuedRecord, Outcome, Record, Revocable, Revocations,
    RevokeError, Revoked, RootInfo, RotateError, Serial, SignError, Standing, TokenError, TokenInfo,
};
#[cfg(feature = "local")]
pub use bootstrap::{LocalError, StartError};
pub use connection::{
    AttestError, ConnectError, ExchangeError, LinkState, ListenError, Refusal, RunnerAddr, TlsError,
};
pub use control::{Control, NoHome, OpenError, Options};
pub use events::{Events, EventsError, Mark, SubscribeError, Update};
pub use fleet::RecordError;
pub use link::OrderError;
pub use listener::{ListenOptions, Listener};
pub use posture::Posture;
pub use runner::{CommandError, QueryError, Runner};
pub use session::Session;
