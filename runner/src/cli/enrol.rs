//! The door `enrol`.

use std::path::PathBuf;
use std::process::ExitCode;

use oqto_protocol::id::{AuthorityId, RunnerId};
use serde::Serialize;

use crate::daemon::enrol::{NotEnrolled, Order};
use crate::daemon::{Config, Overrides, Target};
use crate::identity::enrol::read_token;
use crate::identity::{Credentials, Pin};

const HELP: &str = "The token and the pin come from `oqtoctl token create` on the control. A token is used once; it is read \
from a file that nobody else can read, or from standard input, and is never an argument:
  oqto-runner enrol --control control.example.org:7443 --ca-pin sha256:… --token-file token

A runner that runs takes the new certificate by itself.

Exit codes: 0 enrolled, 1 the control refuses the token, 2 usage, 3 the control is not reached, 4 the control does not have \
the pin, 5 the runner has a certificate that is good, 125 the runner failed.";

/// `enrol`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(super) struct EnrolArgs {
    /// Where the control listens
    #[arg(long, value_name = "HOST:PORT")]
    control: Target,
    /// The fingerprint of the authority's root
    #[arg(long, value_name = "sha256:HEX")]
    ca_pin: Pin,
    /// Where the token is; - is standard input
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// The name of this runner; without it the one that it has, or a random one
    #[arg(long, value_name = "ID")]
    runner_id: Option<RunnerId>,
    /// The configuration, as for serve
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the identity is kept, as for serve
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Also when the runner has a certificate that is good
    #[arg(long)]
    again: bool,
    /// Say what came of it as JSON
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Serialize)]
struct Enrolled {
    runner_id: RunnerId,
    authority_id: AuthorityId,
    /// The serial number of the certificate, hex.
    serial: String,
    /// Until when it is good, Unix milliseconds.
    not_after: u64,
    state_dir: PathBuf,
}

/// Gets a certificate for a token.
pub(super) fn enrol(args: EnrolArgs) -> ExitCode {
    let overrides = Overrides {
        state_dir: args.state_dir,
        ..Overrides::default()
    };
    let config = match Config::load(args.config.as_deref(), overrides) {
        Ok(config) => config,
        Err(error) => return super::failed(&error),
    };
    let token = match read_token(&args.token_file) {
        Ok(token) => token,
        Err(error) => return super::failed(&error),
    };
    let order = Order {
        control: args.control,
        pin: args.ca_pin,
        token,
        runner_id: args.runner_id,
        again: args.again,
    };
    match crate::daemon::enrol::enrol(&config.state_dir, order) {
        Ok(credentials) => say(&credentials, config.state_dir, args.json),
        Err(error) => {
            super::failed(&error);
            ExitCode::from(NotEnrolled::code(&error))
        }
    }
}

fn say(credentials: &Credentials, state_dir: PathBuf, as_json: bool) -> ExitCode {
    let now = credentials.now();
    let enrolled = Enrolled {
        runner_id: credentials.runner_id(),
        authority_id: credentials.authority_id(),
        serial: now.serial(),
        not_after: now.life().ends_at(),
        state_dir,
    };
    if as_json {
        return match serde_json::to_string(&enrolled) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => super::failed(&error),
        };
    }
    let left_h = enrolled.not_after.saturating_sub(crate::clock::unix_ms()) / 3_600_000;
    println!(
        "Enrolled as {} with authority {}.\nThe certificate is good for {left_h} h and is renewed over any link to a control.",
        enrolled.runner_id, enrolled.authority_id
    );
    ExitCode::SUCCESS
}
