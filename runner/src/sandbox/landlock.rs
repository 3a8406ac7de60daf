//! Landlock: the view's rights again, held by the kernel wherever a file is reached from.

use std::fs;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use super::entry::{Rights, Rule};

/// The newest version of the interface whose rights are tested here. What a newer kernel adds is left alone
/// until it is: a right nobody tested is one that breaks an agent.
const NEWEST: ABI = ABI::V7;

/// Why landlock does not hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum LandlockError {
    /// The kernel does not have it.
    #[error(
        "the kernel has no landlock; it is in Linux 5.13 and later, and needs landlock in the lsm= list at boot"
    )]
    Missing,
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

/// Allows this thread what the rules say and nothing else, for good. Answers how much of it the kernel knows.
pub(super) fn restrict(rules: &[Rule]) -> Result<String, LandlockError> {
    // Rights newer than the kernel are left out, and the report says so: which is all that "as far as the host goes"
    // can mean. That it goes anywhere at all is checked below.
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    let mut ruleset = ruleset.create()?;
    for rule in rules {
        let opened = PathFd::new(&rule.path).map_err(|source| LandlockError::Path {
            path: rule.path.clone(),
            source,
        })?;
        let mut rights = rights(rule.rights);
        if fs::metadata(&rule.path).is_ok_and(|found| !found.is_dir()) {
            rights &= AccessFs::from_file(NEWEST);
        }
        ruleset = ruleset.add_rule(PathBeneath::new(opened, rights))?;
    }
    let status = ruleset.restrict_self()?;
    match (status.ruleset, status.landlock) {
        (
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced,
            LandlockStatus::Available { effective_abi, .. },
        ) => Ok(describe(effective_abi)),
        _ => Err(LandlockError::Missing),
    }
}

/// What the host has, tried on a thread that ends right after.
pub(super) fn probe() -> Result<String, LandlockError> {
    let tried = std::thread::spawn(|| restrict(&[]));
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

fn describe(abi: ABI) -> String {
    let lacks = [
        (ABI::V2, "moving between directories is refused altogether"),
        (ABI::V3, "truncation is not covered"),
        (ABI::V5, "device ioctls are not covered"),
        (ABI::V6, "signals and abstract sockets are not covered"),
    ];
    let lacks = lacks
        .iter()
        .filter(|(since, _)| abi < *since)
        .map(|(_, lack)| format!(", {lack}"));
    format!("abi {}{}", abi as i32, lacks.collect::<String>())
}
