//! The library and `oqtoctl` against a real QUIC server, real processes and a real disk.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "in a test an unwrap is an assertion, in its helpers too"
)]

mod authority;
mod bootstrap;
mod cli;
mod cli_authority;
mod clock;
mod connection;
mod dialler;
mod enrolment;
mod events;
mod link;
mod revocation;
mod support;
