//! The doors of `oqto-runner`. No logic: each parses its words and calls one function.
//!
//! Floor: doors.

mod audit;
mod doctor;
mod enrol;
mod explain;
mod heap;
mod sandbox;
mod serve;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::audit::record::is_plain;
use crate::harness::Serve;
use crate::shim;

/// Runs AI coding agents in a sandbox on this host, and streams what they do
#[derive(clap::Parser)]
#[command(name = "oqto-runner", version, arg_required_else_help = true, after_help = HELP)]
struct Words {
    #[command(subcommand)]
    door: Door,
}

#[derive(clap::Subcommand)]
enum Door {
    /// Run the daemon
    Serve(serve::ServeArgs),
    /// Get a certificate from a control, for a token
    Enrol(enrol::EnrolArgs),
    /// Try programs in a sandbox, without a daemon
    #[command(subcommand)]
    Sandbox(sandbox::SandboxCommand),
    /// Read and verify the log of who asked this runner for what
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Say what this host can enforce and start, and how to get the rest
    Doctor(doctor::DoctorArgs),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

const HELP: &str = "Examples:
  oqto-runner doctor                            what this host can enforce and start
  oqto-runner sandbox check                     whether a sandbox holds here
  oqto-runner sandbox run -- make test          any program, no daemon
  oqto-runner sandbox explain .env              what a policy allows, and which line says so
  oqto-runner audit verify                      whether the audit log is whole
  oqto-runner serve                             the daemon, as a systemd unit starts it
  oqto-runner enrol --help                      how a runner comes to belong to a control

Exit codes: 0 done, 1 not usable (doctor), not stopped (sandbox check) or not whole (audit verify), 2 usage, 125 the runner failed; `sandbox run` ends with the program's
own code, 128 + n for signal n, 126 when the program cannot be executed, 127 when it is not there.";

/// Runs the door that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // Every start of a harness goes through these, and a shim stays: they neither wait for the help texts of the
    // others nor keep the pages of the parser in memory.
    match words.next().as_ref().and_then(|word| word.to_str()) {
        Some("enter") => return sandbox::enter(words),
        Some("check-inside") => return crate::sandbox::check::inside(words),
        Some("shim") => return shim(words),
        Some("acp-host") => return acp_host(words),
        Some("exec-agent") => return crate::exec_agent::serve(),
        _ => {}
    }
    match Words::parse().door {
        Door::Serve(args) => serve::serve(args),
        Door::Enrol(args) => enrol::enrol(args),
        Door::Sandbox(command) => sandbox::sandbox(command),
        Door::Audit(command) => audit::audit(command),
        Door::Doctor(args) => doctor::doctor(&args),
        Door::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Words::command(),
                "oqto-runner",
                &mut std::io::stdout(),
            );
            ExitCode::SUCCESS
        }
        Door::Man => match clap_mangen::Man::new(Words::command()).render(&mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
    }
}

/// Keeps one session's program alive and its every byte on disk. Started by the daemon, with `--dir DIR`.
fn shim(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    match (words.next(), words.next(), words.next()) {
        (Some(option), Some(dir), None) if option == "--dir" => {
            shim::run(Path::new(&dir), crate::sandbox::look)
        }
        _ => {
            eprintln!("usage: oqto-runner shim --dir DIR");
            ExitCode::from(2)
        }
    }
}

/// Serves an agent inside its sandbox what it asks its client for. Started by `enter`, with `[--fs] [--terminal] -- PROGRAM
/// [ARGS]`.
fn acp_host(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let mut serve = Serve::default();
    let program = loop {
        match words.next().as_ref().and_then(|word| word.to_str()) {
            Some("--fs") => serve.fs = true,
            Some("--terminal") => serve.terminal = true,
            Some("--") => break words.next(),
            _ => break None,
        }
    };
    match program {
        Some(program) => crate::acp_host::serve(serve, &program, words),
        None => {
            eprintln!("usage: oqto-runner acp-host [--fs] [--terminal] -- PROGRAM [ARGS]");
            ExitCode::from(2)
        }
    }
}

/// Says what failed, with its causes, once.
fn failed(error: &dyn std::error::Error) -> ExitCode {
    // A peer may have said some of it.
    eprintln!("oqto-runner: {}", plain(&crate::cause::chain(error)));
    ExitCode::from(125)
}

/// What must not write to the terminal: what others said of themselves.
fn plain(text: &str) -> String {
    text.replace(|c| !matches!(c, '\n' | '\t') && !is_plain(c), "\u{fffd}")
}
