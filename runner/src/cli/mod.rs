//! The doors of `oqto-runner`. No logic: each parses its words and calls one function.
//!
//! Floor: doors.

use std::process::ExitCode;

/// Runs the door that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::from(125)
}
