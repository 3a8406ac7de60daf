//! The doors of `oqto-runner`. No logic: each parses its words and calls one function.
//!
//! Floor: doors.

use std::process::ExitCode;

/// Runs the door that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(door) if door == "exec-agent" => crate::exec_agent::serve(),
        _ => ExitCode::from(125),
    }
}
