//! The doors of `oqto-runner`. No logic: each parses its words and calls one function.
//!
//! Floor: doors.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::shim;

#[derive(Debug, Parser)]
#[command(name = "oqto-runner", version)]
struct Words {
    #[command(subcommand)]
    door: Door,
}

#[derive(Debug, Subcommand)]
enum Door {
    /// Keeps one session's program alive and its every byte on disk. Started by the daemon.
    #[command(hide = true)]
    Shim {
        /// The session's directory.
        #[arg(long)]
        dir: PathBuf,
    },
}

/// Runs the door that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    match Words::parse().door {
        Door::Shim { dir } => shim::run(&dir),
    }
}
