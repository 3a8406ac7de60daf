//! The connection: QUIC with certificates on both sides, Hello answered, one stream per concern.
//!
//! Uses `authority`, `bounds`. Promise: a [`Connection`] exists only after the runner proved its name and answered
//! Hello with the same. Every frame is bounded and every wait ends. Not here: what is sent again after a lost link
//! (`runner`), what order events come in and when to dial again (`link`), who gets a certificate (`authority`).
//!
//! Either side may dial: [`Dialer`] does, [`Listening`] takes in who comes. After that there is no difference.

mod attest;
mod dial;
mod duties;
mod endpoint;
mod exchange;
mod frames;
mod line;
mod listen;
mod registrar;
mod tls;

pub use attest::AttestError;
pub(crate) use attest::Unfit;
pub use dial::{ConnectError, RunnerAddr};
pub(crate) use dial::{Connection, Dialer};
pub(crate) use exchange::encode;
pub use exchange::{ExchangeError, Refusal};
pub(crate) use frames::{Fill, FrameReader};
#[cfg(feature = "local")]
pub(crate) use line::Dialling;
pub use line::LinkState;
pub(crate) use line::{Fixed, Line, Patience, Way, random};
pub use listen::ListenError;
pub(crate) use listen::Listening;
pub(crate) use registrar::Registrar;
pub use tls::TlsError;
