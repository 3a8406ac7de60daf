//! What `enter` is told: the part of a plan that is enforced from inside, and what it must find there.
//!
//! It comes through a descriptor, is read before anything of the harness runs, and stands on no command line.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::report::{Layer, State};
use crate::policy::{Layers, Limits, Network, Ports};

/// The longest entry, in bytes: a few hundred paths and system calls; past this something else is being read.
pub(super) const LEN_MAX: u64 = 4 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) outside: Namespaces,
    pub(super) network: Network,
    pub(super) same: Vec<Same>,
    pub(super) landlock: Landlock,
    pub(super) filters: Filters,
    pub(super) limits: Limits,
    /// What became of the group that it was born in, which only its starter knows.
    pub(super) cgroup: Option<(State, String)>,
    pub(super) layers: Layers,
    pub(super) without: BTreeSet<Layer>,
    /// Only where there are no namespaces.
    pub(super) direct: Option<Direct>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) cwd: PathBuf,
}

/// What stands in for namespaces and mounts where there are none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Direct {
    /// Why there are none.
    pub(super) why: String,
    /// A directory for temporary files, in the session's own home, to be made if it is not there.
    pub(super) tmp: PathBuf,
}

/// The namespaces that a process is in, by the names the kernel gives them; `None` where it has no such kind.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Namespaces {
    pub(super) user: Option<PathBuf>,
    pub(super) mount: Option<PathBuf>,
    pub(super) pid: Option<PathBuf>,
    pub(super) ipc: Option<PathBuf>,
    pub(super) uts: Option<PathBuf>,
    pub(super) network: Option<PathBuf>,
    pub(super) cgroup: Option<PathBuf>,
}

impl Namespaces {
    /// Those of this process.
    pub(super) fn own() -> io::Result<Self> {
        let link = |kind: &str| match fs::read_link(Path::new("/proc/self/ns").join(kind)) {
            Ok(name) => Ok(Some(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        Ok(Self {
            user: link("user")?,
            mount: link("mnt")?,
            pid: link("pid")?,
            ipc: link("ipc")?,
            uts: link("uts")?,
            network: link("net")?,
            cgroup: link("cgroup")?,
        })
    }
}

/// A path that has to be the very file or directory that was chosen outside.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Same {
    pub(super) path: PathBuf,
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// The system calls that are refused, ready for the kernel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filters {
    /// The program.
    pub(super) program: Vec<Instruction>,
    /// What it says, for the report.
    pub(super) detail: String,
}

/// One instruction of the program: its code, where to go if it holds and if it does not, its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Instruction(pub(super) u16, pub(super) u8, pub(super) u8, pub(super) u32);

/// What landlock has to hold.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Landlock {
    pub(super) rules: Vec<Rule>,
    pub(super) ports: Ports,
    pub(super) needed: Needed,
}

/// The version of landlock's interface that a plan rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Needed {
    pub(super) abi: i32,
    /// The first kernel that has it.
    pub(super) linux: String,
    /// What of the plan needs it.
    pub(super) why: String,
}

/// What landlock allows at a path and below it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) path: PathBuf,
    pub(super) rights: Rights,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Rights {
    /// Listing directories.
    List,
    /// Listing, reading, executing.
    Read,
    /// Reading and writing devices, and driving them.
    Device,
    /// Everything but making devices.
    Write,
}

impl Rights {
    /// Whether whoever has these rights has the others too.
    pub(super) fn include(self, other: Self) -> bool {
        match self {
            Self::List => matches!(other, Self::List),
            Self::Read => matches!(other, Self::List | Self::Read),
            Self::Device => matches!(other, Self::List | Self::Device),
            Self::Write => matches!(other, Self::List | Self::Read | Self::Write),
        }
    }
}
