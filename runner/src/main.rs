//! `oqto-runner`: one binary, a few doors.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    oqto_runner::cli::main()
}
