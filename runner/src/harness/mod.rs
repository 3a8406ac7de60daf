//! Harnesses: how each agent is started, spoken to and understood.
//!
//! Floor: core (no I/O, no clock, no tokio, no randomness). Uses `bounds`. A [`Dialect`] is what one running
//! harness said so far, as little as its next line needs to be understood: bytes of its lines go in, [`Fragment`]s
//! come out; a command goes in, the bytes to write come out. Promise: the same lines at the same times give the
//! same fragments. Not here: which command is allowed when, the numbers of messages, replies (`session`).
//!
//! To add an agent that speaks the Agent Client Protocol: lines in `ready.toml`, and a recorded tape in `tests/tapes`. To add
//! a dialect: a variant of [`Tongue`], its directory, and tapes.

mod acp;
mod definition;
mod dialect;
mod excerpt;
mod exec;
mod fragment;
mod lines;
mod pi;
mod registry;
mod version;

pub use acp::Acp;
pub use definition::{Asks, BadDefinition, Definition, HarnessTable, Manner, Serve, Tongue};
pub use dialect::{Asked, Beginning, Dialect, Expect, Speech};
pub(crate) use excerpt::excerpt;
pub use exec::{Exec, Line as ExecLine, Order as ExecOrder};
pub use fragment::{Draft, Fragment, HarnessState, Outcome};
pub use lines::{LineTooLong, Lines};
pub use pi::Pi;
pub use registry::{
    Harness, Harnesses, Needs, Network, OwnSessions, PrivateDir, Shown, Start, UnknownHarness,
};
pub use version::{BadTested, Edition, Tested, reaches};
