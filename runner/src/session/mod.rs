//! A session: one harness, from its start to its end, as a pure function of its tape.
//!
//! Floor: core (no I/O, no clock, no tokio, no randomness). Uses `bounds`, `harness`, and of `policy`
//! the rules of who answers the agent. [`Session::step`] takes one
//! record of the tape and says what is to be done as [`Action`]s; the driver only obeys. Promises:
//! - the same tape gives the same events with the same numbers, ids and times, however its bytes are cut: after a
//!   crash of the daemon the tape is simply read again;
//! - what is written to the harness for a command has an id that follows from the command's, so that reading the
//!   tape again writes nothing twice;
//! - every command gets exactly one reply, and the same id again the same reply;
//! - messages are numbered without gaps, and one that was begun is ended, be its harness alive or not;
//! - memory is bounded whatever the harness prints.
//!
//! Time is an argument. A deadline that lies before a record's time is expired, at its own time, before the record
//! is looked at; so reading a tape again needs no deadlines from outside to give the same events.
//!
//! Not here: whether a command may come from whom it came (`daemon`), where events are kept (`event_log`), what a
//! line of a harness means (`harness`).

mod action;
mod answers;
mod bounds;
mod commands;
mod deadlines;
mod ending;
mod fact;
mod fragments;
mod input;
mod machine;
mod permission;
#[cfg(test)]
mod permission_tests;
mod replies;
mod revival;
mod setup;
mod silence;
mod snapshot;
mod stage;
mod strays;
mod transcript;

pub use action::{Action, WriteId};
pub use fact::{BadFacts, Fact};
pub use input::{BadReport, ExitStatus, Input, NotStarted, Report};
pub use machine::Session;
pub use permission::Decision;
pub use revival::Continuation;
pub use setup::Setup;
pub use silence::{Silence, SilentAct};
pub use snapshot::{BadSnapshot, Outline, Snapshot};
