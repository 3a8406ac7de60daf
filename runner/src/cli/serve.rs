//! The door `serve`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

use crate::daemon::{self, Config, Listen, Options, Overrides, Target};

/// `serve`.
#[derive(clap::Args)]
pub(super) struct ServeArgs {
    /// The configuration; without it /etc/oqto/runner.toml for root, else oqto/runner.toml in the user's own
    /// configuration directory, when it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to keep the identity, the sessions and their events
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one, and none does not listen
    #[arg(long, value_name = "ADDRESS:PORT|none")]
    listen: Option<Listen>,
    /// A control that this runner dials, and keeps a link to; may be given again
    #[arg(long, value_name = "HOST:PORT")]
    dial: Vec<Target>,
    /// Get a certificate over standard input and output from who starts this, say there where it listens, and go on
    /// in the background of nobody
    #[arg(long)]
    bootstrap: bool,
    /// End after so many seconds without a session and without a connection
    #[arg(long, value_name = "SECONDS")]
    exit_when_idle: Option<u64>,
    /// How much to log: off, error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LevelFilter,
}

/// Runs the daemon until it is told to stop.
pub(super) fn serve(args: ServeArgs) -> ExitCode {
    super::heap::shape();
    tracing_subscriber::fmt()
        .with_max_level(args.log)
        .with_writer(std::io::stderr)
        .with_ansi(
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()),
        )
        .with_target(false)
        // A log that cannot be written must not end what it would have told of.
        .log_internal_errors(false)
        .init();
    let overrides = Overrides {
        listen: args.listen,
        state_dir: args.state_dir,
        dial: args.dial,
    };
    let config = match Config::load(args.config.as_deref(), overrides) {
        Ok(config) => config,
        Err(error) => return super::failed(&error),
    };
    let options = Options {
        bootstrap: args.bootstrap,
        exit_when_idle: args.exit_when_idle.map(Duration::from_secs),
    };
    match daemon::run(config, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::failed(&error),
    }
}
