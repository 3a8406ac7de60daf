//! The door `doctor`: what this host can do for its sessions, and how to get the rest.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use oqto_protocol::hello::HarnessInfo;
use serde::Serialize;

use crate::cause::chain;
use crate::daemon::{Config, Overrides};
use crate::kernel_audit;
use crate::policy::Need;
use crate::sandbox::probe::{Finding, probe};
use crate::supervisor;

/// `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    /// The configuration, which says what harnesses there are; without it the one that `serve` would read
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What a doctor finds.
#[derive(Serialize)]
struct Findings {
    /// What can be enforced.
    layers: Vec<Finding>,
    /// What can be started. One that is not installed is nothing wrong.
    harnesses: Vec<HarnessInfo>,
    /// Why `serve` would not start with this configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
}

/// Runs `doctor`: fails if the policy `workspace` could not be enforced here, or the configuration not be used.
#[must_use]
pub(super) fn doctor(args: &DoctorArgs) -> ExitCode {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut layers = probe(&path, None);
    layers.push(records());
    // Where it would keep things is not looked at, and nobody need have a home for that.
    let overrides = Overrides {
        state_dir: Some("/".into()),
        ..Overrides::default()
    };
    let (harnesses, configuration) = match Config::load(args.config.as_deref(), overrides) {
        Ok(config) => {
            let exe = std::env::current_exe().unwrap_or_else(|_| "oqto-runner".into());
            (supervisor::harnesses(&config.harnesses, &exe), None)
        }
        Err(error) => (Vec::new(), Some(chain(&error))),
    };
    let found = Findings {
        layers,
        harnesses,
        configuration,
    };
    let text = if args.json {
        super::sandbox::json(&found)
    } else {
        found.text()
    };
    let told = io::stdout().write_all(text.as_bytes());
    let lacks = |finding: &Finding| !finding.usable && finding.need == Need::Required;
    let usable = found.configuration.is_none() && !found.layers.iter().any(lacks);
    ExitCode::from(u8::from(!usable || told.is_err()))
}

impl Findings {
    fn text(&self) -> String {
        let layers: String = self.layers.iter().map(line).collect();
        let harnesses: String = self.harnesses.iter().map(harness_line).collect();
        let configuration = self.configuration.as_ref();
        let configuration = configuration.map(|why| format!("MISSING configuration: {why}\n"));
        // What packages and files say of themselves must not write to the terminal.
        let text = format!(
            "{layers}\nharnesses\n{harnesses}{}",
            configuration.unwrap_or_default()
        );
        super::plain(&text)
    }
}

fn harness_line(harness: &HarnessInfo) -> String {
    let HarnessInfo {
        name,
        program,
        problem,
        version,
        tested,
        warning,
        ..
    } = harness;
    let (mark, detail) = match (problem, program) {
        // What to do is the end of what is said.
        (Some(problem), _) => ("absent ", problem.replacen("; ", "\n        ", 1)),
        (None, program) => ("ok     ", program.clone().unwrap_or_default()),
    };
    let version = version.as_ref().map(|it| format!(" {it}")).unwrap_or_default();
    let tested = tested.as_ref().map(|it| format!(" (tested: {it})"));
    let tested = tested.unwrap_or_default();
    let warning = warning.as_ref().map(|it| format!("        warning: {it}\n"));
    let warning = warning.unwrap_or_default();
    format!("{mark} {name}{version}{tested}: {detail}\n{warning}")
}

fn line(finding: &Finding) -> String {
    let Finding {
        layer,
        usable,
        need,
        detail,
        step,
    } = finding;
    let mark = match (usable, need) {
        (true, _) => "ok     ",
        (false, Need::Required) => "MISSING",
        (false, Need::IfAvailable) => "absent ",
    };
    let step = step
        .as_ref()
        .map(|step| format!("        to get it: {step}\n"))
        .unwrap_or_default();
    format!("{mark} {layer}: {detail}\n{step}")
}

/// Whether the kernel's records of what was refused can be had. No layer needs them: they become events.
fn records() -> Finding {
    let found = kernel_audit::socket::probe().map_err(|error| chain(&error));
    let usable = found.is_ok();
    let (detail, step) = match found {
        Ok(()) => (
            "calls that killed their process; from Linux 6.15 with audit=1, what landlock denied".to_owned(),
            None,
        ),
        // What to do is the end of what is said.
        Err(said) => match said.split_once("; ") {
            Some((detail, step)) => (detail.to_owned(), Some(step.to_owned())),
            None => (said, Some("boot a kernel with CONFIG_AUDIT".to_owned())),
        },
    };
    Finding {
        layer: "records".to_owned(),
        usable,
        need: Need::IfAvailable,
        detail,
        step,
    }
}
