//! A session without namespaces: landlock and seccomp hold alone, where a policy allows that and the host gives no more.
//!
//! There is no view of its own then, so what the view shows becomes rules of landlock for the host's own paths, and what
//! they cannot say ends the start: a network, protected paths below something writable. Everything that namespaces
//! would have kept apart is refused by seccomp's group `shared-host`, sockets first.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::launch::Arg;
use crate::policy::{Calls, Catalog, CatalogError, Need, Network, Plan};

use super::entry::{Rights, Rule};
use super::view::{Mount, View};
use super::wrap::{HOME, RUNNER};

/// How many files and directories may stand beside hidden ones: each is a rule, and more than this is a policy that was
/// not meant for it.
const RULES_MAX: usize = 4096;

/// What of `/dev` a program needs and nobody is harmed by.
const DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];

/// What of `/proc` says nothing of other processes.
const PROC: [&str; 8] = [
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/loadavg",
    "/proc/uptime",
    "/proc/version",
    "/proc/filesystems",
    "/proc/sys",
];

/// Why a session cannot run without namespaces.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    /// The policy requires them.
    #[error(
        "the policy requires namespaces, and this host gives none: {why}; oqto-runner doctor says how to get them"
    )]
    Required {
        /// Why there are none.
        why: String,
    },
    /// The policy gives a network.
    #[error("without namespaces there is no session with a network, since nothing would hold it: {why}")]
    Network {
        /// Why there are none.
        why: String,
    },
    /// Landlock cannot take away what it gave above.
    #[error(
        "{path} is protected and lies below something writable, which only a mount can say; use a policy that does \
         not write there, or get namespaces: {why}"
    )]
    Protected {
        /// Which path.
        path: PathBuf,
        /// Why there are none.
        why: String,
    },
    /// Something hidden has too many neighbours.
    #[error("there are more than {RULES_MAX} files beside those that the policy hides, the last in {path}")]
    Rules {
        /// Where the last one is.
        path: PathBuf,
    },
    /// A directory cannot be looked at.
    #[error("cannot look at {path}")]
    Look {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A group of calls is not among the shipped ones.
    #[error("there is no group {name} of system calls")]
    Group {
        /// Which.
        name: &'static str,
    },
    /// The groups of calls cannot be read.
    #[error("the shipped groups of system calls cannot be read")]
    Groups {
        /// Why not.
        #[from]
        source: CatalogError,
    },
}

/// Whether the plan can be held without namespaces at all.
pub(super) fn allowed(plan: &Plan, why: &str) -> Result<(), DirectError> {
    let why = || why.to_owned();
    match (plan.layers.namespaces, plan.network) {
        (Need::Required, _) => Err(DirectError::Required { why: why() }),
        (Need::IfAvailable, Network::Host) => Err(DirectError::Network { why: why() }),
        (Need::IfAvailable, Network::None) => Ok(()),
    }
}

/// The view as rules for the host's own paths.
pub(super) fn rules(view: &View, runner: &Path, why: &str) -> Result<Vec<Rule>, DirectError> {
    let hidden: BTreeSet<PathBuf> = view
        .mounts
        .iter()
        .filter(|(_, mount)| matches!(mount, Mount::EmptyDirectory | Mount::EmptyFile))
        .map(|(at, _)| fs::canonicalize(at).unwrap_or_else(|_| at.clone()))
        .collect();
    let given = |wanted: Rights| {
        view.mounts.values().filter_map(move |mount| match mount {
            Mount::ReadOnly(from) if wanted == Rights::Read => Some(from),
            Mount::Writable(from) if wanted == Rights::Write => Some(from),
            _ => None,
        })
    };
    let writable: Vec<&PathBuf> = given(Rights::Write).collect();
    if let Some(path) = given(Rights::Read).find(|path| writable.iter().any(|root| path.starts_with(root))) {
        return Err(DirectError::Protected {
            path: path.clone(),
            why: why.to_owned(),
        });
    }
    let mut rules = Vec::new();
    for (paths, rights) in [(&DEVICES[..], Rights::Device), (&PROC[..], Rights::Read)] {
        let there = paths.iter().map(PathBuf::from).filter(|path| path.exists());
        rules.extend(there.map(|path| Rule { path, rights }));
    }
    rules.push(Rule {
        path: runner.to_owned(),
        rights: Rights::Read,
    });
    for rights in [Rights::Read, Rights::Write] {
        for path in given(rights) {
            around(path, rights, &hidden, &mut rules)?;
        }
    }
    Ok(rules)
}

/// Gives a path, or, if something below it is hidden, everything beside that.
fn around(
    path: &Path,
    rights: Rights,
    hidden: &BTreeSet<PathBuf>,
    rules: &mut Vec<Rule>,
) -> Result<(), DirectError> {
    if hidden.iter().any(|hidden| path.starts_with(hidden)) {
        return Ok(());
    }
    if !hidden.iter().any(|hidden| hidden.starts_with(path)) {
        if rules.len() >= RULES_MAX {
            return Err(DirectError::Rules {
                path: path.to_owned(),
            });
        }
        rules.push(Rule {
            path: path.to_owned(),
            rights,
        });
        return Ok(());
    }
    let look = |source| DirectError::Look {
        path: path.to_owned(),
        source,
    };
    for entry in fs::read_dir(path).map_err(look)? {
        let entry = entry.map_err(look)?;
        // A rule for a link would be one for what it points to, which has to be given by itself.
        if !entry.file_type().map_err(look)?.is_symlink() {
            around(&entry.path(), rights, hidden, rules)?;
        }
    }
    Ok(())
}

/// What namespaces and mounts stand beside in every other session, refused here whatever the policy names.
const GROUPS: [&str; 8] = [
    "shared-host",
    "namespaces",
    "mounts",
    "processes",
    "kernel",
    "keyrings",
    "terminal",
    "sockets",
];

/// The plan's calls, without those that only namespaces could hold.
pub(super) fn calls(plan: &Plan) -> Result<Calls, DirectError> {
    let catalog = Catalog::shipped();
    let groups = catalog.groups()?;
    let mut calls = plan.calls.clone();
    for name in GROUPS {
        let group = groups.group(name).ok_or(DirectError::Group { name })?;
        calls.denied.extend_from_slice(group);
    }
    Ok(calls)
}

/// An argument or value that was made for the inside, for the outside.
pub(super) fn outside(text: &OsStr, home: &Path, runner: &Path) -> OsString {
    if text == RUNNER {
        return runner.as_os_str().to_owned();
    }
    match text.as_bytes().strip_prefix(HOME.as_bytes()) {
        Some(rest) if rest.is_empty() || rest.starts_with(b"/") => {
            let mut path = home.as_os_str().to_owned().into_vec();
            path.extend_from_slice(rest);
            OsString::from_vec(path)
        }
        _ => text.to_owned(),
    }
}

/// As [`outside`], for an argument.
pub(super) fn argument(arg: Arg, home: &Path, runner: &Path) -> Arg {
    match arg {
        Arg::Text(text) => Arg::Text(outside(&text, home, runner)),
        Arg::Data(_) | Arg::Report => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_something_hidden_is_given_and_the_hidden_is_not() {
        let bed = tempfile::tempdir().unwrap();
        let path = |name: &str| bed.path().join(name);
        for directory in ["etc/ssh", "etc/ssl/private", "etc/ssl/certs"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        fs::write(path("etc/passwd"), "").unwrap();
        std::os::unix::fs::symlink("/", path("etc/link")).unwrap();
        let hidden = [path("etc/ssh"), path("etc/ssl/private")].into();
        let mut rules = Vec::new();
        around(&path("etc"), Rights::Read, &hidden, &mut rules).unwrap();
        let mut given: Vec<PathBuf> = rules.into_iter().map(|rule| rule.path).collect();
        given.sort();
        assert_eq!(given, [path("etc/passwd"), path("etc/ssl/certs")]);
    }

    #[test]
    fn paths_of_the_inside_are_those_of_the_outside() {
        let outside = |text: &str| outside(OsStr::new(text), Path::new("/s/home"), Path::new("/bin/runner"));
        assert_eq!(outside("/home/agent/.pi"), "/s/home/.pi");
        assert_eq!(outside("/home/agent"), "/s/home");
        assert_eq!(outside("/home/agents"), "/home/agents");
        assert_eq!(outside("/run/oqto/oqto-runner"), "/bin/runner");
    }
}
