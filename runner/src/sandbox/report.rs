//! What `enter` tells the runner, one JSON a line: what it enforced, then, if the program could not be started, why.
//! End of file after the first line means that the program runs.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// The longest report, in bytes: a line for each layer and the text of one error.
pub(super) const LEN_MAX: usize = 64 * 1024;

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Every layer that the plan requires holds.
    Confined {
        /// Each layer, in the order in which they were enforced.
        layers: Vec<Enforced>,
    },
    /// Nothing of the harness runs.
    Failed {
        /// The layer that failed.
        layer: Layer,
        /// Why, with its causes.
        error: String,
    },
}

/// What became of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {
    /// Which one.
    pub layer: Layer,
    /// Whether it holds.
    pub state: State,
    /// How much of it, or why not.
    pub detail: String,
}

/// Whether a layer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The kernel accepted it.
    Enforced,
    /// The host does not have it, and the policy allows that.
    Absent,
    /// A test left it out ([`Host::without`](super::Host::without)).
    Off,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Enforced => "enforced",
            Self::Absent => "absent",
            Self::Off => "off",
        })
    }
}

/// A layer of the sandbox, or a step on the way into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// Reading what is to be enforced.
    Entry,
    /// Namespaces of its own.
    Namespaces,
    /// The files it sees.
    Mounts,
    /// No privileges and no way to get any.
    Privileges,
    /// A group of its own that limits it as a whole.
    Cgroup,
    /// Resource limits.
    Limits,
    /// Landlock.
    Landlock,
    /// Seccomp.
    Seccomp,
    /// Trying what must fail.
    SelfTest,
    /// Starting the program.
    Program,
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Entry => "entry",
            Self::Namespaces => "namespaces",
            Self::Mounts => "mounts",
            Self::Privileges => "privileges",
            Self::Cgroup => "cgroup",
            Self::Limits => "limits",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::SelfTest => "self-test",
            Self::Program => "program",
        })
    }
}

/// Why a report cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Reading failed.
    #[error("cannot read what the sandbox reports")]
    Io {
        /// Why.
        #[from]
        source: io::Error,
    },
    /// It is not a report.
    #[error("what the sandbox reports is not a report")]
    Malformed {
        /// What is wrong with it.
        #[from]
        source: serde_json::Error,
    },
}

/// Reads every line up to the end, which comes when the program runs or when nothing is left that could report.
///
/// # Errors
///
/// Reading fails, or what is read is no report.
pub fn read(from: impl Read) -> Result<Vec<Report>, ReportError> {
    let mut text = String::new();
    from.take(LEN_MAX as u64).read_to_string(&mut text)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
