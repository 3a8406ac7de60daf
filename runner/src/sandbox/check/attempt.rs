//! What an attempt is, and which layer an answer speaks for.

use std::fmt;
use std::io;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::policy::{AbsolutePath, Network, Permit, Plan, Probe};
use crate::sandbox::report::Layer;

use super::bait::Bait;
use super::{files, kernel, network};

/// Something that must not be possible in a sandbox.
pub(super) struct Attempt {
    /// Its name, which does not change: reports are compared by it.
    pub(super) name: &'static str,
    /// What is tried, after "it must not be possible to".
    pub(super) what: &'static str,
    /// Which policies forbid it.
    pub(super) forbidden: Forbidden,
    /// The answers that mean it was stopped, each with the layer that gives it.
    pub(super) stops: &'static [(Answer, Layer)],
    /// Tries it.
    pub(super) attempt: fn(&Bait) -> Answer,
}

/// When a policy forbids an attempt.
pub(super) enum Forbidden {
    /// Whatever it says.
    Always,
    /// When it protects this path of the workspace, or lets nothing be written there.
    Protected(&'static str),
    /// When it gives no network.
    NoNetwork,
    /// When it refuses this system call, always or for some arguments.
    Call(&'static str),
    /// When it limits how many files a process may open.
    OpenFiles,
}

impl Forbidden {
    /// Whether this plan forbids it.
    pub(super) fn by(&self, plan: &Plan) -> bool {
        match self {
            Self::Always => true,
            Self::Protected(path) => {
                let path = plan.workspace.as_path().join(path);
                let path = AbsolutePath::try_from(path.as_path());
                path.is_ok_and(|path| !plan.allows(&Probe::Write(path)))
            }
            Self::OpenFiles => plan.limits.open_files.is_some(),
            Self::NoNetwork => plan.network == Network::None,
            Self::Call(name) => {
                let calls = &plan.calls;
                let listed = |permit: &Permit| permit.call.name() == *name;
                calls.denied.iter().any(|denial| denial.call.name() == *name)
                    || calls
                        .allowed
                        .as_ref()
                        .is_some_and(|allowed| !allowed.iter().any(listed))
            }
        }
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It worked.
    Done,
    /// The kernel refused, with this number.
    Refused(i32),
    /// There was nothing to be had.
    Nothing,
}

impl Answer {
    pub(super) const fn errno(errno: Errno) -> Self {
        Self::Refused(errno as i32)
    }
}

impl<T> From<io::Result<T>> for Answer {
    fn from(result: io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::Done,
            // What the library itself refuses never reached the kernel, so that nothing was shown.
            Err(error) => error.raw_os_error().map_or(Self::Done, Self::Refused),
        }
    }
}

impl<T> From<nix::Result<T>> for Answer {
    fn from(result: nix::Result<T>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(errno) => Self::errno(errno),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("it worked"),
            Self::Refused(errno) => write!(f, "{:?}", Errno::from_raw(*errno)),
            Self::Nothing => f.write_str("nothing there"),
        }
    }
}

/// Every attempt there is.
pub(super) fn all() -> impl Iterator<Item = &'static Attempt> {
    [files::ATTEMPTS, kernel::ATTEMPTS, network::ATTEMPTS]
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_success_never_counts_as_stopped() {
        let names: BTreeSet<_> = all().map(|attempt| attempt.name).collect();
        assert_eq!(names.len(), all().count());
        for attempt in all() {
            assert!(!attempt.stops.is_empty(), "{}", attempt.name);
            assert!(
                attempt.stops.iter().all(|(answer, _)| *answer != Answer::Done),
                "{}",
                attempt.name
            );
        }
    }
}
