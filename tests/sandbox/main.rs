//! The sandbox on the real kernel, with the real bubblewrap: what must fail, what must keep working, what is said.
//!
//! Needs `oqto-runner` built beside these tests, bubblewrap, python3, git and node. Run by root, harnesses run as
//! the owner of each bed's workspace; run by anybody else, as themselves.
#![expect(
    clippy::unwrap_used,
    reason = "a bed that cannot be made is a test that failed"
)]

mod acp_host;
mod attempt;
mod bad_input;
mod bait;
mod bed;
mod by_hand;
mod cgroup;
mod check;
mod direct;
mod doors;
mod escapes;
mod explain;
mod files;
mod kernel;
mod network;
mod ownership;
mod table;
mod weak;
mod workloads;
