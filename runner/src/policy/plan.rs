//! What the sandbox of one session has to enforce, as inert data.

use std::collections::{BTreeMap, BTreeSet};

use oqto_protocol::id::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::catalog::PolicyName;
use super::path::AbsolutePath;
use super::pattern::Pattern;
use super::permission::Permissions;
use super::rule::{LayerName, Limit};
use super::seccomp::{Condition, Denial};
use super::syscall::Syscall;

/// Everything that is enforced for one session. Holds no secret: values of passed variables are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The policy that was asked for.
    pub policy: PolicyName,
    /// Where the harness works and starts.
    pub workspace: AbsolutePath,
    /// The session's own directory on the host that is the harness's home inside.
    pub home: AbsolutePath,
    /// Which files it sees.
    pub files: Files,
    /// Which variables it gets.
    pub env: Environment,
    /// Which network it has.
    pub network: Network,
    /// Which TCP ports of that network it may use.
    pub ports: Ports,
    /// Which system calls it may make.
    pub calls: Calls,
    /// How much of the host it may use.
    pub limits: Limits,
    /// Which layers may be missing.
    pub layers: Layers,
    /// Who answers when the harness asks to be allowed something.
    pub permissions: Permissions,
}

impl Plan {
    /// Names what this plan enforces. The session's own home is left out: it is another one each time, and the same policy
    /// in the same workspace should have the same name.
    ///
    /// # Panics
    ///
    /// Never: a plan is made of texts and numbers, which JSON can always say.
    #[must_use]
    pub fn digest(&self) -> Digest {
        // Fields stand in the order of the struct and maps are sorted, so there is one JSON for one plan.
        let mut plan = self.clone();
        plan.home = AbsolutePath::root();
        let json = serde_json::to_vec(&plan).expect("a plan is texts and numbers");
        Digest(Sha256::digest(json).into())
    }
}

/// Which files the harness sees. Every path is the host's own and the same inside. What fits a pattern is looked up when
/// the sandbox is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Readable and executable, with everything below. What the host does not have gives nothing.
    pub read: Vec<Pattern>,
    /// Writable too.
    pub write: Vec<Pattern>,
    /// Empty, although they lie below something given.
    pub hidden: Vec<Pattern>,
    /// Never writable, although they lie below something writable.
    pub protect: Vec<Pattern>,
}

/// Which variables the harness gets besides those that the sandbox itself defines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Set to these values.
    pub set: BTreeMap<String, String>,
    /// Taken from whoever starts the session, if they are set there.
    pub pass: BTreeSet<String>,
}

/// Which network the harness has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// One of its own, with nothing in it but its loopback.
    None,
    /// The host's, whole.
    Host,
}

/// Which TCP ports the harness may use; `None` means every one. Loopback counts like any other address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// To connect to.
    pub connect: Option<BTreeSet<u16>>,
    /// To listen on. Port 0, which lets the kernel choose, is a port like the others.
    pub bind: Option<BTreeSet<u16>>,
}

/// Which system calls the harness may make: those that no denial refuses and, if there is a list, that are on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calls {
    /// Refused, whatever else is said.
    pub denied: Vec<Denial>,
    /// All that is allowed; `None` means every call that is not refused.
    pub allowed: Option<Vec<Permit>>,
}

/// One system call that a list allows, always or when its arguments meet every condition. A call that stands in a list
/// more than once is allowed if one of its permits holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permit {
    /// Which call.
    pub call: Syscall,
    /// All of them have to hold; none at all means always.
    pub when: Vec<Condition>,
}

/// How much of the host the harness may use. What is `None` stays as the host has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Writable private memory of one process, in MiB.
    pub process_memory_mib: Option<u64>,
    /// Writable memory of the whole session, in MiB. Only a cgroup can limit it.
    pub memory_mib: Option<u64>,
    /// Processor time of the whole session, in percent of one processor. Only a cgroup can limit it.
    pub cpu_percent: Option<u64>,
    /// Processes and threads of the whole session.
    pub processes: Option<u64>,
    /// Open files of one process.
    pub open_files: Option<u64>,
    /// Processor time of one process, in seconds.
    pub process_cpu_seconds: Option<u64>,
    /// Size of one file, in MiB.
    pub file_size_mib: Option<u64>,
    /// Size of a core dump, in MiB.
    pub core_mib: Option<u64>,
    /// Size of each of `/tmp`, `/var/tmp` and `/dev/shm`, in MiB.
    pub tmp_mib: Option<u64>,
}

impl Limits {
    /// Those of a policy.
    pub(super) fn of(said: impl Iterator<Item = (Limit, u64)>) -> Self {
        let mut limits = Self::default();
        for (limit, value) in said {
            *limits.field(limit) = Some(value);
        }
        limits
    }

    /// One of them.
    #[must_use]
    pub fn limit(&self, limit: Limit) -> Option<u64> {
        *self.clone().field(limit)
    }

    fn field(&mut self, limit: Limit) -> &mut Option<u64> {
        match limit {
            Limit::ProcessMemoryMib => &mut self.process_memory_mib,
            Limit::MemoryMib => &mut self.memory_mib,
            Limit::CpuPercent => &mut self.cpu_percent,
            Limit::Processes => &mut self.processes,
            Limit::OpenFiles => &mut self.open_files,
            Limit::ProcessCpuSeconds => &mut self.process_cpu_seconds,
            Limit::FileSizeMib => &mut self.file_size_mib,
            Limit::CoreMib => &mut self.core_mib,
            Limit::TmpMib => &mut self.tmp_mib,
        }
    }
}

/// What happens where the host lacks a layer. Layers not named here are always required.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    /// The namespaces and mounts that bubblewrap makes. Without them landlock and seccomp hold alone.
    pub namespaces: Need,
    /// A cgroup of its own, which limits the session as a whole.
    pub cgroup: Need,
    /// The cgroup namespace.
    pub cgroup_namespace: Need,
    /// Landlock.
    pub landlock: Need,
    /// Seccomp.
    pub seccomp: Need,
}

impl Layers {
    /// Those of a policy.
    pub(super) fn of(said: impl Iterator<Item = (LayerName, Need)>) -> Self {
        let mut layers = Self::default();
        for (layer, need) in said {
            *layers.field(layer) = need;
        }
        layers
    }

    /// Whether one of them is needed.
    #[must_use]
    pub fn need(mut self, layer: LayerName) -> Need {
        *self.field(layer)
    }

    fn field(&mut self, layer: LayerName) -> &mut Need {
        match layer {
            LayerName::Namespaces => &mut self.namespaces,
            LayerName::Cgroup => &mut self.cgroup,
            LayerName::CgroupNamespace => &mut self.cgroup_namespace,
            LayerName::Landlock => &mut self.landlock,
            LayerName::Seccomp => &mut self.seccomp,
        }
    }
}

/// Whether a session may start without a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// It may not.
    #[default]
    Required,
    /// It may, and its report says so.
    IfAvailable,
}
