//! The audit log: who asked this runner for what, and whether it was allowed, on disk before it is done.
//!
//! Floor: shell. One line of JSON a record, each with the hash of the one before ([`record`]); [`chain`] verifies them,
//! purely and in bounded memory; [`seal`] is what the runner's key signs. [`Log`] is the one writer: a thread that commits
//! for all who wait. [`segment`] is the files.
//!
//! Promises: whoever got `Ok` of [`Log::record`] finds the record after a loss of power. A record that was changed, removed,
//! moved or cut off is found by who has the runner's public key, and named. What cannot be written is refused and counted,
//! never passed over.
//!
//! Bounds: a line, a group, a file, all files together; what waits is bounded by the transport's streams. At the last of these
//! bounds nothing more is taken, or the oldest file goes and a record says so: [`Settings`].
//!
//! Not here: what is recorded (`daemon::authorise`), whose key it is (`identity`).

pub mod chain;
mod log;
mod ocsf;
pub mod record;
mod said;
pub mod seal;
pub mod segment;
mod settings;
mod sink;
mod tail;
mod verify;
mod writer;

pub use chain::Anchor;
pub use log::{Log, OpenError, Unrecorded};
pub use ocsf::ocsf;
pub use record::{Entry, Outcome, Record};
pub use said::for_people;
pub use seal::{PublicKey, Sign};
pub use settings::{AtBound, KEEP_LEN, Settings, Sink};
pub use tail::{Tail, TailError};
pub use verify::{Expected, Found, VerifyError, verify};

#[cfg(test)]
mod keep_tests;
#[cfg(test)]
mod tamper_tests;
#[cfg(test)]
mod writer_tests;
