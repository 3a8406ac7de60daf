//! Giving up everything that the plan does not name, and proving it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{getppid, setsid};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::policy::{Need, Network};

use super::entry::{Direct, Entry, Namespaces, Same};
use super::report::{Enforced, Layer, State};
use super::{landlock, rlimit, seccomp};
use crate::cause::chain;

/// Proof that every layer of a plan was accepted by the kernel. Only `confine` makes one.
#[must_use]
pub struct Confined(());

/// Becomes the program. Returns only if it cannot be started.
pub fn exec_agent(
    _: Confined,
    program: &OsStr,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
) -> io::Error {
    Command::new(program).args(args).env_clear().envs(env).exec()
}

/// Why the sandbox is not one.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfineError {
    /// The kernel does not say what it should.
    #[error("cannot read {path}")]
    Kernel {
        /// What was asked.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The process is still in a namespace of the host, or not in one that it should share.
    #[error("the {kind} namespace is {}", if *.shared { "the host's" } else { "not the host's" })]
    Namespace {
        /// Which kind.
        kind: &'static str,
        /// Whether it is the host's.
        shared: bool,
    },
    /// The process is the host's root.
    #[error("this is root outside the sandbox too")]
    Root,
    /// The capabilities cannot be given up.
    #[error("cannot give up capabilities")]
    Capabilities {
        /// Why not.
        source: io::Error,
    },
    /// A capability is left.
    #[error("the capabilities {set} are not empty: {value}")]
    Capability {
        /// Which set.
        set: &'static str,
        /// What is in it.
        value: String,
    },
    /// A path is not what was chosen outside.
    #[error("{path} is not the file that was chosen: somebody replaced it meanwhile")]
    Replaced {
        /// Which path.
        path: PathBuf,
    },
    /// A path cannot be looked at.
    #[error("cannot look at {path}")]
    Look {
        /// Which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The directory to start in cannot be entered.
    #[error("cannot start in {path}")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel did not take the promise of no new privileges.
    #[error("cannot give up new privileges")]
    NoNewPrivileges {
        /// Why not.
        source: Errno,
    },
    /// The starter's session cannot be left, or its end not be shared.
    #[error("cannot bind this process to whoever started it")]
    Alone {
        /// Why not.
        source: Errno,
    },
    /// Whoever started this made no cgroup for it, and it is required.
    #[error("it was not started in a cgroup of its own")]
    NoGroup,
    /// Blocked signals cannot be unblocked.
    #[error("cannot unblock signals")]
    Signals {
        /// Why not.
        source: Errno,
    },
    /// Limits.
    #[error("the limits do not hold")]
    Limits {
        /// Why not.
        #[from]
        source: rlimit::LimitError,
    },
    /// Landlock.
    #[error("landlock does not hold")]
    Landlock {
        /// Why not.
        #[from]
        source: landlock::LandlockError,
    },
    /// Seccomp.
    #[error("seccomp does not hold")]
    Seccomp {
        /// Why not.
        #[from]
        source: seccomp::SeccompError,
    },
    /// Something that must fail did not.
    #[error("it was possible to {what}")]
    Possible {
        /// What.
        what: &'static str,
    },
}

/// How one layer is enforced, after those that are done.
type Step = fn(&Entry, &mut Ground) -> Result<(State, String), ConfineError>;

/// What is known while layers are enforced.
struct Ground {
    done: Vec<Enforced>,
    /// The kernel's word on this process. Opened first, because landlock may leave no way to it.
    status: File,
}

/// The layers as `wrap` explains them, in its order.
const STEPS: [(Layer, Step); 8] = [
    (Layer::Namespaces, |entry, _| match &entry.direct {
        Some(direct) => Ok((State::Absent, direct.why.clone())),
        None => enforced(namespaces(entry)?),
    }),
    (Layer::Mounts, |entry, _| match &entry.direct {
        Some(_) => Ok((
            State::Absent,
            "the host's own root, held by landlock alone".to_owned(),
        )),
        None => enforced(mounts(&entry.same)?),
    }),
    (Layer::Privileges, |entry, ground| {
        enforced(privileges(entry, ground)?)
    }),
    (Layer::Cgroup, |entry, _| grouped(entry)),
    (Layer::Limits, |entry, _| {
        enforced(rlimit::restrict(&entry.limits)?)
    }),
    (Layer::Landlock, |entry, _| landlocked(entry)),
    (Layer::Seccomp, |entry, _| filtered(entry)),
    (Layer::SelfTest, |entry, ground| {
        enforced(self_test(entry, ground)?)
    }),
];

/// Enforces everything, layer by layer. The first that fails ends it.
pub(super) fn confine(entry: &Entry) -> Result<(Confined, Vec<Enforced>), (Layer, ConfineError)> {
    settle(entry).map_err(|error| (Layer::Mounts, error))?;
    let mut ground = Ground {
        done: Vec::new(),
        status: open_status().map_err(|error| (Layer::Privileges, error))?,
    };
    for (layer, step) in STEPS {
        let (state, detail) = if entry.without.contains(&layer) {
            (State::Off, "left out for a test".to_owned())
        } else {
            step(entry, &mut ground).map_err(|error| (layer, error))?
        };
        ground.done.push(Enforced { layer, state, detail });
    }
    Ok((Confined(()), ground.done))
}

/// Where the program starts, and that it can be stopped: whoever started this may have blocked signals.
fn settle(entry: &Entry) -> Result<(), ConfineError> {
    if let Some(direct) = &entry.direct {
        stand_alone(direct)?;
    }
    std::env::set_current_dir(&entry.cwd).map_err(|source| ConfineError::Directory {
        path: entry.cwd.clone(),
        source,
    })?;
    SigSet::empty()
        .thread_set_mask()
        .map_err(|source| ConfineError::Signals { source })
}

/// What bubblewrap does otherwise: leaves the starter's session and ends with the starter. That the starter ended before
/// is seen when it is told that all holds, since nobody reads that then.
fn stand_alone(direct: &Direct) -> Result<(), ConfineError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&direct.tmp);
    made.map_err(|source| ConfineError::Directory {
        path: direct.tmp.clone(),
        source,
    })?;
    match setsid() {
        // Whoever leads a session already has left every other.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(source) => return Err(ConfineError::Alone { source }),
    }
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|source| ConfineError::Alone { source })
}

fn enforced(detail: String) -> Result<(State, String), ConfineError> {
    Ok((State::Enforced, detail))
}

/// Only the starter knows, and nobody who starts programs for a session fails to say it.
fn grouped(entry: &Entry) -> Result<(State, String), ConfineError> {
    match (entry.cgroup.clone(), entry.layers.cgroup) {
        (Some(told), _) => Ok(told),
        (None, Need::IfAvailable) => Ok((State::Absent, "nobody made one".to_owned())),
        (None, Need::Required) => Err(ConfineError::NoGroup),
    }
}

fn landlocked(entry: &Entry) -> Result<(State, String), ConfineError> {
    match (landlock::restrict(&entry.landlock), entry.layers.landlock) {
        (Err(error @ landlock::LandlockError::Missing), Need::IfAvailable) => {
            Ok((State::Absent, error.to_string()))
        }
        // What the kernel knows of it holds by now; the rest is said.
        (Err(error @ landlock::LandlockError::Old { .. }), Need::IfAvailable) => enforced(error.to_string()),
        (result, _) => enforced(result?),
    }
}

fn filtered(entry: &Entry) -> Result<(State, String), ConfineError> {
    match (seccomp::restrict(&entry.filters), entry.layers.seccomp) {
        // Only for want of it: a filter that the kernel has but does not take is a fault of ours.
        (Err(seccomp::SeccompError { source }), Need::IfAvailable) if !seccomp::known() => {
            Ok((State::Absent, chain(&source)))
        }
        (result, _) => enforced(result?),
    }
}

/// Asks the kernel in which namespaces this is, instead of believing that bubblewrap did what it was told.
fn namespaces(entry: &Entry) -> Result<String, ConfineError> {
    let Entry {
        outside,
        network,
        layers,
        ..
    } = entry;
    let inside = Namespaces::own().map_err(|source| ConfineError::Kernel {
        path: "/proc/self/ns",
        source,
    })?;
    let private = [
        ("user", &outside.user, &inside.user),
        ("mount", &outside.mount, &inside.mount),
        ("pid", &outside.pid, &inside.pid),
        ("ipc", &outside.ipc, &inside.ipc),
        ("uts", &outside.uts, &inside.uts),
    ];
    let mut names = Vec::new();
    for (kind, outside, inside) in private {
        // A kind that the kernel does not have is not one of its own either.
        if inside.is_none() || outside == inside {
            return Err(ConfineError::Namespace { kind, shared: true });
        }
        names.push(kind);
    }
    let cgroup_shared = inside.cgroup.is_none() || outside.cgroup == inside.cgroup;
    match (cgroup_shared, layers.cgroup_namespace) {
        (false, _) => names.push("cgroup"),
        (true, Need::Required) => {
            return Err(ConfineError::Namespace {
                kind: "cgroup",
                shared: true,
            });
        }
        (true, Need::IfAvailable) => names.push("cgroup the host's"),
    }
    let network_shared = outside.network == inside.network;
    match (*network, network_shared) {
        (Network::None, false) => names.push("network"),
        (Network::Host, true) => names.push("network the host's"),
        (Network::None, true) | (Network::Host, false) => {
            return Err(ConfineError::Namespace {
                kind: "network",
                shared: network_shared,
            });
        }
    }
    Ok(names.join(", "))
}

/// Between choosing a path and mounting it somebody may have put a link to something else in its place.
fn mounts(same: &[Same]) -> Result<String, ConfineError> {
    for Same { path, device, inode } in same {
        let found = fs::metadata(path).map_err(|source| ConfineError::Look {
            path: path.clone(),
            source,
        })?;
        if (found.dev(), found.ino()) != (*device, *inode) {
            return Err(ConfineError::Replaced { path: path.clone() });
        }
    }
    Ok(format!("{} paths of the host", same.len()))
}

/// What bubblewrap does where there is one: even an ordinary user may have been given some (systemd gives its users'
/// managers one, to wake the machine), and what can be inherited, programs inherit.
fn drop_capabilities() -> Result<(), ConfineError> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets).map_err(|errno| ConfineError::Capabilities { source: errno.into() })
}

fn privileges(entry: &Entry, ground: &mut Ground) -> Result<String, ConfineError> {
    // These files belong to the host's root, whatever root means here: who owns them is root outside. The map of
    // users would not tell, since there is a namespace in between.
    let sysctl = "/proc/sys";
    let owner = fs::metadata(sysctl).map_err(|source| ConfineError::Kernel { path: sysctl, source })?;
    if owner.uid() == nix::unistd::geteuid().as_raw() {
        return Err(ConfineError::Root);
    }
    if entry.direct.is_some() {
        drop_capabilities()?;
    }
    let status = ground.status()?;
    // Nobody may lower the bound of what programs may ever get but who has some; with no new privileges it is nothing.
    let sets: &[&str] = match entry.direct {
        Some(_) => &["CapInh", "CapPrm", "CapEff", "CapAmb"],
        None => &["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"],
    };
    for set in sets.iter().copied() {
        let value = field(&status, set);
        if value.bytes().any(|digit| digit != b'0') || value.is_empty() {
            return Err(ConfineError::Capability {
                set,
                value: value.to_owned(),
            });
        }
    }
    nix::sys::prctl::set_no_new_privs().map_err(|source| ConfineError::NoNewPrivileges { source })?;
    Ok("no capabilities, no new privileges, not root outside".to_owned())
}

/// Tries what must fail, each by a layer that holds.
fn self_test(entry: &Entry, ground: &mut Ground) -> Result<String, ConfineError> {
    let status = ground.status()?;
    let holds = |layer| {
        let mut done = ground.done.iter();
        done.any(|done| done.layer == layer && done.state == State::Enforced)
    };
    let writable = |path| OpenOptions::new().write(true).open(path).is_ok();
    let mut refused = Vec::new();
    let mut refuse = |what, possible: bool| match possible {
        true => Err(ConfineError::Possible { what }),
        false => {
            refused.push(what);
            Ok(())
        }
    };
    if holds(Layer::Privileges) {
        refuse("gain privileges", field(&status, "NoNewPrivs") != "1")?;
        let unshared = nix::sched::unshare(CloneFlags::CLONE_NEWUSER).is_ok();
        refuse("make a user namespace", unshared)?;
    }
    if holds(Layer::Seccomp) {
        let unfiltered = field(&status, "Seccomp") != "2";
        refuse("leave the filter of system calls", unfiltered)?;
    }
    refuse(
        "write the host's settings",
        writable("/proc/sys/kernel/core_pattern"),
    )?;
    if holds(Layer::Landlock) {
        // A process may always rename itself, so here it is landlock alone that refuses.
        refuse("write what no landlock rule allows", writable("/proc/self/comm"))?;
    }
    if holds(Layer::Mounts) {
        refuse("write the root", fs::create_dir("/oqto-self-test").is_ok())?;
    }
    if entry.direct.is_some() {
        refuse("make a socket", UnixDatagram::unbound().is_ok())?;
        // Signal 0 reaches nobody, and is judged as every other.
        refuse("send signals outside", kill(getppid(), None).is_ok())?;
    }
    Ok(format!("refused: {}", refused.join(", ")))
}

const STATUS: &str = "/proc/self/status";

fn open_status() -> Result<File, ConfineError> {
    File::open(STATUS).map_err(|source| ConfineError::Kernel { path: STATUS, source })
}

impl Ground {
    fn status(&mut self) -> Result<String, ConfineError> {
        let mut text = String::new();
        let read = self
            .status
            .rewind()
            .and_then(|()| self.status.read_to_string(&mut text));
        read.map_err(|source| ConfineError::Kernel { path: STATUS, source })?;
        Ok(text)
    }
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(value).map(str::trim).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_was_replaced_meanwhile_is_found() {
        let found = fs::metadata("/").unwrap();
        let same = |inode| {
            [Same {
                path: PathBuf::from("/"),
                device: found.dev(),
                inode,
            }]
        };
        assert!(mounts(&same(found.ino())).is_ok());
        assert!(matches!(
            mounts(&same(found.ino() + 1)),
            Err(ConfineError::Replaced { .. })
        ));
    }

    #[test]
    fn a_process_in_the_namespaces_of_the_host_is_not_inside() {
        let entry = Entry {
            outside: Namespaces::own().unwrap(),
            network: Network::None,
            same: Vec::new(),
            landlock: crate::sandbox::entry::Landlock {
                rules: Vec::new(),
                ports: crate::policy::Ports::default(),
                needed: crate::sandbox::entry::Needed {
                    abi: 1,
                    linux: String::new(),
                    why: String::new(),
                },
            },
            filters: crate::sandbox::entry::Filters {
                program: Vec::new(),
                detail: String::new(),
            },
            limits: crate::policy::Limits::default(),
            layers: crate::policy::Layers::default(),
            without: std::collections::BTreeSet::new(),
            cgroup: None,
            direct: None,
            env: Vec::new(),
            cwd: PathBuf::from("/"),
        };
        assert!(matches!(
            namespaces(&entry),
            Err(ConfineError::Namespace {
                kind: "user",
                shared: true
            })
        ));
    }
}
