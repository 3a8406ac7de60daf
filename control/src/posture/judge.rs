//! Rules against a statement.

use std::fmt;

use oqto_protocol::id::{Digest, RunnerId};
use serde::Serialize;

use super::document::{Fingerprint, Posture, Rules};
use super::release::Release;
use super::verify::Verified;

/// A rule, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The kernel's landlock has this version or a later one.
    LandlockMin,
    /// The sandbox has its filter of system calls.
    Seccomp,
    /// The sandbox has these layers.
    Layers,
    /// What was tried from inside the sandbox was stopped.
    Sandbox,
    /// The program is one of these: the one that runs, and the one that holds the next session.
    Binary,
    /// The software has this version or a later one.
    VersionMin,
    /// The kernel has this release or a later one.
    KernelMin,
    /// The policies of these names are these.
    Policies,
}

/// What a rule wants and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// What it wants, for people.
    pub wanted: String,
    /// What was found, for people. It is the runner's word: clean it before it reaches a terminal.
    pub found: String,
    /// Whether that is good enough.
    pub holds: bool,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LandlockMin => "landlock_min",
            Self::Seccomp => "seccomp",
            Self::Layers => "layers",
            Self::Sandbox => "sandbox",
            Self::Binary => "binary",
            Self::VersionMin => "version_min",
            Self::KernelMin => "kernel_min",
            Self::Policies => "policies",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule, wanted, found, ..
        } = self;
        write!(f, "{rule} wants {wanted}, and there is {found}")
    }
}

impl Posture {
    /// What every rule for this runner says, in a fixed order.
    #[must_use]
    pub fn judge(&self, runner: &RunnerId, verified: &Verified) -> Vec<Finding> {
        let Rules {
            landlock_min,
            seccomp,
            layers,
            sandbox,
            binary,
            version_min,
            kernel_min,
            policies,
            // No finding: it says when to ask again.
            max_age: _,
        } = self.rules(runner);
        let statement = verified.statement();
        let mut findings = Vec::new();
        if let Some(least) = landlock_min {
            findings.push(landlock(least, verified));
        }
        if seccomp.is_some() {
            findings.push(enforced(Rule::Seccomp, ["seccomp"].into_iter(), verified));
        }
        if let Some(names) = layers {
            findings.push(enforced(Rule::Layers, names.iter().map(String::as_str), verified));
        }
        if sandbox.is_some() {
            findings.push(holds(verified));
        }
        if let Some(known) = binary {
            findings.push(one_of(&known, verified));
        }
        if let Some(least) = version_min {
            findings.push(at_least(Rule::VersionMin, least.0, &statement.version));
        }
        if let Some(least) = kernel_min {
            findings.push(at_least(Rule::KernelMin, least.0, &statement.kernel));
        }
        for (name, wanted) in policies.into_iter().flatten() {
            findings.push(policy(&name, wanted, verified));
        }
        findings
    }
}

fn finding(rule: Rule, wanted: String, found: Result<String, String>) -> Finding {
    let holds = found.is_ok();
    let found = found.unwrap_or_else(|found| found);
    Finding {
        rule,
        wanted,
        found,
        holds,
    }
}

fn no_report(why: &str) -> String {
    format!("no report: {why}")
}

fn landlock(least: i32, verified: &Verified) -> Finding {
    let found = match verified.sandbox() {
        Ok(check) => match check.landlock_abi {
            Some(version) if version >= least => Ok(format!("version {version}")),
            Some(version) => Err(format!("version {version}")),
            None => Err("none".to_owned()),
        },
        Err(why) => Err(no_report(why)),
    };
    finding(Rule::LandlockMin, format!("version {least} or later"), found)
}

fn enforced<'a>(rule: Rule, names: impl Iterator<Item = &'a str> + Clone, verified: &Verified) -> Finding {
    let wanted = names.clone().collect::<Vec<_>>().join(", ");
    let found = match verified.sandbox() {
        Ok(check) => {
            let missing: Vec<_> = names
                .filter_map(|name| match check.layer(name) {
                    Some(layer) if layer.is_enforced() => None,
                    Some(layer) => Some(format!("{name} {}: {}", layer.state, layer.detail)),
                    None => Some(format!("no layer {name}")),
                })
                .collect();
            match missing.is_empty() {
                true => Ok("enforced".to_owned()),
                false => Err(missing.join("; ")),
            }
        }
        Err(why) => Err(no_report(why)),
    };
    finding(rule, format!("{wanted} enforced"), found)
}

fn holds(verified: &Verified) -> Finding {
    let found = match verified.sandbox() {
        Ok(check) => {
            let not_stopped: Vec<_> = check.not_stopped().collect();
            match (not_stopped.is_empty(), check.holds, check.tried()) {
                (true, true, 0) => Err("a report of no attempts".to_owned()),
                (true, true, tried) => Ok(format!("all {tried} stopped")),
                (true, false, _) => Err("a report that says it does not hold".to_owned()),
                (false, ..) => Err(format!("not stopped: {}", not_stopped.join(", "))),
            }
        }
        Err(why) => Err(no_report(why)),
    };
    finding(Rule::Sandbox, "all attempts stopped".to_owned(), found)
}

fn one_of(known: &[Fingerprint], verified: &Verified) -> Finding {
    let is_known = |digest: Digest| known.contains(&Fingerprint(digest));
    let running = verified.statement().binary;
    let found = match verified.sandbox() {
        _ if !is_known(running) => Err(format!("sha256:{running}")),
        // A runner whose file was replaced goes on as it was, and its next session is held by what lies there now.
        Ok(check) if !is_known(check.binary) => {
            Err(format!("sha256:{} on the disk since it started", check.binary))
        }
        Ok(_) => Ok(format!("sha256:{running}")),
        Err(why) => Err(no_report(why)),
    };
    let wanted: Vec<_> = known.iter().map(|known| format!("sha256:{}", known.0)).collect();
    let wanted = match &wanted[..] {
        [] => "none at all".to_owned(),
        [only] => only.clone(),
        several => format!("one of {}", several.join(", ")),
    };
    finding(Rule::Binary, wanted, found)
}

fn at_least(rule: Rule, least: Release, found: &str) -> Finding {
    let is_enough = found.parse::<Release>().is_ok_and(|found| found >= least);
    let found = found.to_owned();
    let found = if is_enough { Ok(found) } else { Err(found) };
    finding(rule, format!("{least} or later"), found)
}

fn policy(name: &str, wanted: Fingerprint, verified: &Verified) -> Finding {
    let listed = verified
        .statement()
        .policies
        .iter()
        .find(|policy| policy.name == name);
    let found = match listed {
        Some(policy) if policy.digest == wanted.0 => Ok(format!("{name} sha256:{}", policy.digest)),
        Some(policy) => Err(format!("{name} sha256:{}", policy.digest)),
        None => Err(format!("no policy {name}")),
    };
    finding(Rule::Policies, format!("{name} sha256:{}", wanted.0), found)
}
