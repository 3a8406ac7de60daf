//! `sandbox check`: makes a sandbox here and tries, from inside, what must not be possible.
//!
//! | file | what |
//! |---|---|
//! | `attempt` | what an attempt is, and which layer an answer speaks for |
//! | `files`, `kernel`, `network` | the attempts |
//! | `inside` | the door that makes them |
//! | `bait` | what they are after, laid out on the host |
//! | `run` | the whole: bait, sandbox, attempts, judgement |
//!
//! Floor: shell. Promise: an attempt counts as stopped only if the kernel gave an answer that one of the layers is
//! known to give; an answer that nobody expected counts against the sandbox. Where two layers give the same answer, the
//! one that is asked first is named: seccomp before everything else. The list is short and safe to run on any
//! host, since what it tries is harmless where it succeeds; the tests of the sandbox try far more.

mod attempt;
mod bait;
mod files;
mod inside;
mod kernel;
mod network;
mod run;

pub use attempt::Answer;
pub use inside::inside;
pub use run::{Check, CheckError, Job, Tried, check};
