//! Rules, and who said them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::pattern::Pattern;
use super::permission::PermissionRule;

/// Who said a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A line of a file.
    Line {
        /// Which file, as errors name it.
        file: Arc<str>,
        /// Which line, from 1.
        line: usize,
    },
    /// The runner itself, for every session.
    Runner,
    /// The harness, which cannot run without it.
    Harness,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::Runner => f.write_str("the runner"),
            Self::Harness => f.write_str("the harness"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Something with who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ruled<T> {
    pub(super) value: T,
    pub(super) source: Source,
}

/// One rule of a plan, to look up who said it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Readable and executable.
    Read(Pattern),
    /// Writable too.
    Write(Pattern),
    /// Empty, and never given to anybody who asks.
    Deny(Pattern),
    /// Empty.
    Mask(Pattern),
    /// Never writable.
    Protect(Pattern),
    /// The value of a variable.
    Set(String),
    /// A variable that is taken from whoever starts the session.
    Pass(String),
    /// Which network there is.
    Network,
    /// To which ports may be connected.
    Connect,
    /// On which ports may be listened.
    Bind,
    /// A group of system calls that are refused.
    Group(String),
    /// A group of system calls that are allowed.
    Allow(String),
    /// A limit.
    Limit(Limit),
    /// Whether a layer may be missing.
    Layer(LayerName),
    /// What is allowed without asking anybody.
    Permit(PermissionRule),
    /// What is denied without asking anybody.
    Forbid(PermissionRule),
    /// What becomes of a request that no rule speaks of.
    Otherwise,
    /// How long somebody may think.
    Timeout,
}

/// What a policy may limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields of `Limits` say it")]
pub enum Limit {
    ProcessMemoryMib,
    MemoryMib,
    CpuPercent,
    Processes,
    OpenFiles,
    ProcessCpuSeconds,
    FileSizeMib,
    CoreMib,
    TmpMib,
}

impl Limit {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::ProcessMemoryMib,
        Self::MemoryMib,
        Self::CpuPercent,
        Self::Processes,
        Self::OpenFiles,
        Self::ProcessCpuSeconds,
        Self::FileSizeMib,
        Self::CoreMib,
        Self::TmpMib,
    ];

    /// Its key in a policy.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ProcessMemoryMib => "process_memory_mib",
            Self::MemoryMib => "memory_mib",
            Self::CpuPercent => "cpu_percent",
            Self::Processes => "processes",
            Self::OpenFiles => "open_files",
            Self::ProcessCpuSeconds => "process_cpu_seconds",
            Self::FileSizeMib => "file_size_mib",
            Self::CoreMib => "core_mib",
            Self::TmpMib => "tmp_mib",
        }
    }
}

/// A layer that a policy may do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields of `Layers` say it")]
pub enum LayerName {
    Namespaces,
    Cgroup,
    CgroupNamespace,
    Landlock,
    Seccomp,
}

impl LayerName {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::Namespaces,
        Self::Cgroup,
        Self::CgroupNamespace,
        Self::Landlock,
        Self::Seccomp,
    ];

    /// Its key in a policy.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Cgroup => "cgroup",
            Self::CgroupNamespace => "cgroup_namespace",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }
}
