//! The door `doctor`: what this host can do for its sessions, and how to get the rest.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::cause::chain;
use crate::kernel_audit;
use crate::policy::Need;
use crate::sandbox::probe::{Finding, probe};

/// `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs `doctor`: fails if the policy `workspace` could not be enforced here.
#[must_use]
pub(super) fn doctor(args: &DoctorArgs) -> ExitCode {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut findings = probe(&path, None);
    findings.push(records());
    let text = if args.json {
        super::sandbox::json(&findings)
    } else {
        findings.iter().map(line).collect()
    };
    let told = io::stdout().write_all(text.as_bytes());
    let lacks = |finding: &Finding| !finding.usable && finding.need == Need::Required;
    let usable = !findings.iter().any(lacks);
    ExitCode::from(u8::from(!usable || told.is_err()))
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
