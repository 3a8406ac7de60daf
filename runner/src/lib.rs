//! The agent daemon of one Linux host.
//!
//! Modules stand on floors; a module names only modules of lower floors, and shells never name each other:
//! ground (`bounds` `cause` `clock` `landmark` `launch` `private` `sys` `waits`), core (`policy` `session` `harness`: no I/O, no clock, no tokio),
//! record (`event_log`), shell (`acp_host` `audit` `kernel_audit` `sandbox` `shim` `identity` `transport`), house (`supervisor` `attestation`), daemon, doors
//! (`cli`). `docs/ARCHITECTURE.md` has the whole picture.
#![forbid(unsafe_code)]

pub mod bounds;
pub mod cause;
pub mod clock;
pub mod landmark;
pub mod launch;
pub mod private;
pub mod sys;
mod waits;

pub mod harness;
pub mod policy;
pub mod session;

pub mod event_log;

pub mod acp_host;
pub mod audit;
pub mod exec_agent;
pub mod identity;
pub mod kernel_audit;
pub mod sandbox;
pub mod shim;
pub mod transport;

pub mod attestation;
pub mod supervisor;

pub mod daemon;

pub mod cli;
