//! How a runner comes to belong to an authority, keeps its certificate fresh and learns whom to trust: the real binary,
//! real QUIC, and a control that is made by hand.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod authority;
mod control;
mod dialling;
mod enrolling;
mod renewing;
mod runner;
mod trusting;
