//! The doors of the sandbox: `sandbox run`, `sandbox check`, and `enter`, which only the runner itself opens.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cause::chain;
use crate::policy::PolicyName;
use crate::sandbox::check::{self, Check, Tried, check};
use crate::sandbox::enter;
use crate::sandbox::report::Enforced;
use crate::sandbox::run::{Job, Outcome, RunError, run};

/// What can be done with a sandbox by hand.
#[derive(Debug, clap::Subcommand)]
pub(super) enum SandboxCommand {
    /// Run any program in a sandbox, without a daemon
    Run(RunArgs),
    /// Make a sandbox here and try from inside what it must stop
    Check(CheckArgs),
    /// Say what a policy allows here, and which line of which file says so
    Explain(super::explain::ExplainArgs),
}

/// `sandbox check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The policy whose sandbox is checked
    #[arg(long, value_name = "NAME", default_value = "workspace")]
    policy: PolicyName,
    /// A directory of policies beside the shipped ones
    #[arg(long, value_name = "DIR")]
    policy_dir: Option<PathBuf>,
    /// A policy that must not be gone beyond: what asks for more is refused
    #[arg(long, value_name = "NAME")]
    at_most: Option<PolicyName>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// `sandbox run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// The policy that holds it
    #[arg(long, value_name = "NAME", default_value = "workspace")]
    pub policy: PolicyName,
    /// A directory of policies beside the shipped ones
    #[arg(long, value_name = "DIR")]
    pub policy_dir: Option<PathBuf>,
    /// A policy that must not be gone beyond: what asks for more is refused
    #[arg(long, value_name = "NAME")]
    pub at_most: Option<PolicyName>,
    /// The workspace, which is also where the program starts
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub cwd: PathBuf,
    /// Say on standard error, as JSON, what was enforced
    #[arg(long)]
    pub json: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub command: Vec<OsString>,
}

/// Runs `sandbox …`.
#[must_use]
pub(super) fn sandbox(command: SandboxCommand) -> ExitCode {
    match command {
        SandboxCommand::Run(args) => sandbox_run(args),
        SandboxCommand::Check(args) => sandbox_check(args),
        SandboxCommand::Explain(args) => super::explain::explain(args),
    }
}

/// Runs `enter`; `words` are those after it.
#[must_use]
pub(super) fn enter(words: impl Iterator<Item = OsString>) -> ExitCode {
    enter::enter(words)
}

fn sandbox_run(args: RunArgs) -> ExitCode {
    let RunArgs {
        policy,
        policy_dir,
        at_most,
        cwd,
        json,
        mut command,
    } = args;
    let args = command.split_off(1);
    let program = command.pop().unwrap_or_default();
    match run(&Job {
        policy,
        policy_dir,
        policy_at_most: at_most,
        workspace: cwd,
        program,
        args,
        without: BTreeSet::new(),
    }) {
        Ok(Outcome {
            code,
            layers,
            changed,
            unsealed,
            left,
        }) => {
            if json {
                say(&self::json(&layers));
            }
            for path in changed {
                say(&format!(
                    "oqto-runner: {} was not there to be protected and has changed; look at it before you use it\n",
                    path.display()
                ));
            }
            for path in unsealed {
                say(&format!(
                    "oqto-runner: {} was replaced from outside meanwhile, which ended its protection; look at it before \
                     you use it\n",
                    path.display()
                ));
            }
            for path in left {
                say(&format!("oqto-runner: {} could not be removed\n", path.display()));
            }
            ExitCode::from(code)
        }
        Err(error) => {
            say(&format!("oqto-runner: {}\n", chain(&error)));
            ExitCode::from(RunError::code(&error))
        }
    }
}

fn sandbox_check(args: CheckArgs) -> ExitCode {
    let CheckArgs {
        policy,
        policy_dir,
        at_most,
        json,
    } = args;
    let check = match check(&check::Job {
        policy,
        policy_dir,
        policy_at_most: at_most,
        without: BTreeSet::new(),
    }) {
        Ok(check) => check,
        Err(error) => return super::failed(&error),
    };
    let text = match json {
        true => self::json(&check),
        false => page(&check),
    };
    let told = io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(!check.holds || told.is_err()))
}

/// A check for people: the failures cannot be overlooked, and what was not tried is said.
fn page(check: &Check) -> String {
    let mut text = format!(
        "policy {} on Linux {}, oqto-runner {}\n\n",
        check.policy, check.kernel, check.version
    );
    for Enforced { layer, state, detail } in &check.layers {
        text.push_str(&format!("{state:<9} {layer}: {detail}\n"));
    }
    text.push('\n');
    for tried in &check.attempts {
        text.push_str(&attempt_line(tried));
    }
    let count = |of: fn(&Tried) -> bool| check.attempts.iter().filter(|tried| of(tried)).count();
    let (forbidden, failed) = (count(|tried| tried.forbidden), count(Tried::failed));
    let verdict = match failed {
        0 => "all stopped".to_owned(),
        failed => format!("{failed} NOT STOPPED: do not trust this sandbox"),
    };
    text.push_str(&format!("\n{forbidden} attempts, {verdict}\n"));
    text
}

fn attempt_line(tried: &Tried) -> String {
    let Tried {
        what,
        forbidden,
        stopped_by,
        answer,
        ..
    } = tried;
    let (mark, by) = match (forbidden, stopped_by) {
        (false, _) => ("allowed", "the policy does not forbid it".to_owned()),
        (true, Some(layer)) => ("stopped", layer.to_string()),
        (true, None) => ("FAILED", "no layer".to_owned()),
    };
    let answer = match (forbidden, answer) {
        (false, _) => String::new(),
        (true, Some(answer)) => format!(" ({answer})"),
        (true, None) => " (it ended the one who tried)".to_owned(),
    };
    format!("{mark:<9} {what}: {by}{answer}\n")
}

pub(super) fn json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).expect("layers and texts can always be said in JSON");
    format!("{text}\n")
}

fn say(text: &str) {
    // There is nobody else to tell that standard error is closed.
    let _ = io::stderr().write_all(text.as_bytes());
}
