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
//! Bounds: a line, a group, a file; what waits is bounded by the transport's streams. Files are never deleted here.
//!
//! Not here: what is recorded (`daemon::authorise`), whose key it is (`identity`).

pub mod chain;
mod log;
mod ocsf;
pub mod record;
pub mod seal;
pub mod segment;
mod verify;
mod writer;

pub use log::{Log, OpenError, Unrecorded};
pub use ocsf::ocsf;
pub use record::{Entry, Outcome, Record};
pub use seal::{PublicKey, Sign};
pub use verify::{Found, VerifyError, verify};

#[cfg(test)]
mod tamper_tests;
#[cfg(test)]
mod writer_tests;
