//! The doors of `oqto-runner`. No logic: each parses its words and calls one function.
//!
//! Floor: doors.

use std::process::ExitCode;

use clap::Parser as _;

pub mod sandbox;

#[derive(clap::Parser)]
#[command(name = "oqto-runner", version)]
struct Cli {
    #[command(subcommand)]
    door: Door,
}

#[derive(clap::Subcommand)]
enum Door {
    /// Try programs in a sandbox
    #[command(subcommand)]
    Sandbox(sandbox::SandboxCommand),
    /// Say what this host can enforce, and how to get the rest
    Doctor(sandbox::DoctorArgs),
}

/// Runs the door that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // Every start of a harness goes through it: it does not wait for the help texts of the others.
    if std::env::args_os().nth(1).is_some_and(|door| door == "enter") {
        words.next();
        return sandbox::enter(words);
    }
    match Cli::parse().door {
        Door::Sandbox(command) => sandbox::sandbox(command),
        Door::Doctor(args) => sandbox::doctor(&args),
    }
}
