//! What the official types of the Agent Client Protocol say of ours.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "what cannot be read is a test that failed")]

mod bed;
mod clients;
mod lines;
mod peers;
mod updates;
