//! What the tests share: a private home with everything, the built programs, real agents, the scripted model.
//!
//! Everything that can be awaited is awaited. What cannot (a process that is not ours, a file of another program) is
//! looked at every few milliseconds by [`wait_until`], which has a bound and says what did not come.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "a bed that cannot be made is a test that failed"
)]

mod agents;
pub mod bench;
mod ended;
mod home;
mod model;
mod not_run;
mod process;
mod programs;
mod wait;

pub use agents::{Agents, agents};
pub use ended::{Ended, end, events};
pub use home::{Home, Owner};
pub use model::Model;
pub use not_run::not_run;
pub use process::{Process, signal};
pub use programs::{built, example, is_root, tests_dir};
pub use wait::wait_until;

/// A user that no host has.
pub const SOMEBODY: u32 = 61_234;
