//! Landlock: the view's rights again, held by the kernel wherever a file is reached from.

use std::fs;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError,
    Scope,
};

use super::entry::{Landlock, Needed, Rights, Rule};
use super::probe::Outer;
use crate::policy::{Network, Plan, Ports};

/// The newest version of the interface whose rights are tested here. What a newer kernel adds is left alone
/// until it is: a right nobody tested is one that breaks an agent.
const NEWEST: ABI = ABI::V10;

/// Why landlock does not hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum LandlockError {
    /// The kernel does not have it.
    #[error(
        "the kernel has no landlock; it is in Linux 5.13 and later, and needs landlock in the lsm= list at boot"
    )]
    Missing,
    /// The kernel's landlock is older than the plan.
    #[error(
        "the kernel's landlock is of version {has}, and the policy rests on version {} (Linux {}): {}; boot a newer \
         kernel, or let the policy say landlock = \"if-available\" and do without",
        .needed.abi, .needed.linux, .needed.why
    )]
    Old {
        /// The version that the kernel has.
        has: i32,
        /// The one that is needed.
        needed: Needed,
    },
    /// A rule's path cannot be opened.
    #[error("no rule can be made for {path}")]
    Path {
        /// Which path.
        path: PathBuf,
        /// Why not.
        source: landlock::PathFdError,
    },
    /// The kernel refuses.
    #[error("the kernel refuses the rules")]
    Refused {
        /// Why.
        #[from]
        source: RulesetError,
    },
}

/// Nothing can be truncated that may only be read: the least that every plan rests on.
fn least() -> Needed {
    Needed {
        abi: ABI::V3 as i32,
        linux: "6.2".to_owned(),
        why: "older ones let read-only files be truncated".to_owned(),
    }
}

/// The version that a plan rests on.
pub(super) fn needed(plan: &Plan, outer: &Outer) -> Needed {
    let needed = |abi: ABI, linux: &str, why: &str| Needed {
        abi: abi as i32,
        linux: linux.to_owned(),
        why: why.to_owned(),
    };
    if matches!(outer, Outer::Nothing { .. }) {
        let why =
            "without namespaces nothing else keeps its signals and abstract sockets from the host's programs";
        needed(ABI::V6, "6.12", why)
    } else if plan.network == Network::Host {
        let why = "the host's network has abstract sockets of the host's programs";
        needed(ABI::V6, "6.12", why)
    } else if plan.ports != Ports::default() {
        needed(ABI::V4, "6.7", "it names ports")
    } else {
        least()
    }
}

/// Allows this thread what the rules say and nothing else, for good. Answers how much of it the kernel knows, which is
/// at least what is needed.
pub(super) fn restrict(landlock: &Landlock) -> Result<String, LandlockError> {
    let abi = enforce(landlock)?;
    Ok(describe(abi, &landlock.ports))
}

fn enforce(landlock: &Landlock) -> Result<ABI, LandlockError> {
    // Rights newer than the kernel are left out here, and everything that it knows is refused if it cannot be had; how
    // old a kernel may be is checked below.
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    let Ports { connect, bind } = &landlock.ports;
    let ports = [(connect, AccessNet::ConnectTcp), (bind, AccessNet::BindTcp)];
    for (_, access) in ports.iter().filter(|(named, _)| named.is_some()) {
        ruleset = ruleset.handle_access(*access)?;
    }
    let mut created = ruleset.create()?;
    for rule in &landlock.rules {
        created = beneath(created, rule)?;
    }
    for (named, access) in ports {
        for port in named.iter().flatten() {
            created = created.add_rule(NetPort::new(*port, access))?;
        }
    }
    // The kernel's audit log hears of what the harness is refused, and not of what `confine` tries to prove itself.
    let created = created.log_same_exec(false)?.log_new_exec(true)?;
    let status = created.restrict_self()?;
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        return Err(LandlockError::Missing);
    };
    sufficient(effective_abi, &landlock.needed)?;
    Ok(effective_abi)
}

fn sufficient(has: ABI, needed: &Needed) -> Result<(), LandlockError> {
    let has = has as i32;
    if has >= needed.abi {
        return Ok(());
    }
    Err(LandlockError::Old {
        has,
        needed: needed.clone(),
    })
}

fn beneath(created: RulesetCreated, rule: &Rule) -> Result<RulesetCreated, LandlockError> {
    let opened = PathFd::new(&rule.path).map_err(|source| LandlockError::Path {
        path: rule.path.clone(),
        source,
    })?;
    let mut rights = rights(rule.rights);
    if fs::metadata(&rule.path).is_ok_and(|found| !found.is_dir()) {
        rights &= AccessFs::from_file(NEWEST);
    }
    Ok(created.add_rule(PathBeneath::new(opened, rights))?)
}

/// What the host has, tried on a thread that ends right after.
pub(super) fn probe() -> Result<String, LandlockError> {
    try_enforce().map(|abi| describe(abi, &Ports::default()))
}

/// The version of the interface that the host has, as far as it is used here; none where that is too old or missing.
pub(super) fn version() -> Option<i32> {
    try_enforce().ok().map(|abi| abi as i32)
}

fn try_enforce() -> Result<ABI, LandlockError> {
    let nothing = || Landlock {
        rules: Vec::new(),
        ports: Ports::default(),
        needed: least(),
    };
    let tried = std::thread::spawn(move || enforce(&nothing()));
    tried.join().unwrap_or(Err(LandlockError::Missing))
}

fn rights(rights: Rights) -> BitFlags<AccessFs> {
    match rights {
        Rights::List => AccessFs::ReadDir.into(),
        Rights::Read => AccessFs::from_read(NEWEST),
        Rights::Device => {
            AccessFs::ReadDir
                | AccessFs::ReadFile
                | AccessFs::WriteFile
                | AccessFs::Truncate
                | AccessFs::IoctlDev
        }
        Rights::Write => AccessFs::from_all(NEWEST) & !(AccessFs::MakeChar | AccessFs::MakeBlock),
    }
}

fn describe(abi: ABI, ports: &Ports) -> String {
    let lacks = [
        (ABI::V2, "moving between directories is refused altogether"),
        (ABI::V3, "truncation is not covered"),
        (ABI::V4, "ports are not covered"),
        (ABI::V5, "device ioctls are not covered"),
        (ABI::V6, "signals and abstract sockets are not covered"),
        (ABI::V7, "refusals are not logged"),
        (ABI::V9, "unix sockets with a path are not covered"),
    ];
    let lacks = lacks
        .iter()
        .filter(|(since, _)| abi < *since)
        .map(|(_, lack)| format!(", {lack}"));
    let named = [("connect to", &ports.connect), ("listen on", &ports.bind)];
    let named = named
        .iter()
        .filter_map(|(what, ports)| Some(format!(", TCP ports to {what}: {}", ports.as_ref()?.len())));
    format!(
        "abi {}{}{}",
        abi as i32,
        named.collect::<String>(),
        lacks.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_older_than_the_policy_is_told_with_both_versions_and_the_reason() {
        let needed = Needed {
            abi: 4,
            linux: "6.7".to_owned(),
            why: "it names ports".to_owned(),
        };
        assert!(sufficient(ABI::V4, &needed).is_ok());
        assert!(sufficient(ABI::V7, &needed).is_ok());
        let error = sufficient(ABI::V3, &needed).unwrap_err().to_string();
        assert!(error.contains("of version 3"), "{error}");
        assert!(error.contains("version 4 (Linux 6.7): it names ports"), "{error}");
    }

    #[test]
    fn a_report_says_what_the_version_does_not_cover() {
        assert_eq!(describe(ABI::V9, &Ports::default()), "abi 9");
        let ports = Ports {
            connect: Some([80, 443].into()),
            bind: None,
        };
        assert_eq!(
            describe(ABI::V5, &ports),
            "abi 5, TCP ports to connect to: 2, signals and abstract sockets are not covered, refusals are not logged, \
             unix sockets with a path are not covered"
        );
    }
}
