//! A group for each session in the kernel's tree of control groups (version 2): what it limits, it limits for all
//! processes of the session together, and all of them end at once.
//!
//! The runner divides the group that it was given (`Delegate=yes` of systemd) into one for itself, `oqto-runner`, because a
//! group with limits for others may hold no process, and one leaf a session. A program is born in its leaf: whoever
//! starts it steps in, starts it, and steps out again ([`Entrance`](crate::launch::Entrance)).
//!
//! Floor: shell. Promise: what a leaf says that it limits, the kernel took. Not here: whether a session may start
//! without one (`wrap` and whoever prepares it), limits of single processes (`rlimit`).

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Seek as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{AccessFlags, access};

use crate::cause;
use crate::launch::Doorway;
use crate::policy::{Limits, Need};

use super::report::State;

/// The runner's own group, in the one it was given.
const OWN: &str = "oqto-runner";

/// How long killed processes may take to be gone: the kernel has only to free what they held.
const EMPTY_MAX: Duration = Duration::from_secs(5);

const MIB: u64 = 1024 * 1024;

/// Why there is no group of its own.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Version 2 is not there, or only without this process in it.
    #[error("this host has no cgroup v2 hierarchy for this process (it has {found}); {BOOT}")]
    NoHierarchy {
        /// What there is instead.
        found: &'static str,
    },
    /// This process is in the group of the whole host.
    #[error("this process is in the root cgroup, which nobody was given to divide; {DELEGATE}")]
    Root,
    /// The group belongs to somebody else.
    #[error("the cgroup {path} cannot be divided by this process; {DELEGATE}")]
    NotDelegated {
        /// Which group.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Limits for the group cannot be had.
    #[error("the cgroup {path} has no controller {}; {DELEGATE}", .missing.join(", "))]
    Controllers {
        /// Which group.
        path: PathBuf,
        /// Which are missing.
        missing: Vec<&'static str>,
    },
    /// Other processes are in the group, so that it cannot be divided.
    #[error("other processes share the cgroup {path} with this one, so it cannot be divided; {DELEGATE}")]
    Shared {
        /// Which group.
        path: PathBuf,
    },
    /// The kernel does not say which groups there are.
    #[error("cannot read {path}")]
    Kernel {
        /// What was asked.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A limit was not taken.
    #[error("cannot set {path}")]
    Set {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl CgroupError {
    /// What to do to have one, which is the end of what this says; `None` where it is not for want of one.
    fn step(&self) -> Option<&'static str> {
        match self {
            Self::NoHierarchy { .. } => Some(BOOT),
            Self::Root | Self::NotDelegated { .. } | Self::Controllers { .. } | Self::Shared { .. } => {
                Some(DELEGATE)
            }
            Self::Kernel { .. } | Self::Set { .. } => None,
        }
    }
}

/// How a host without them gets them.
const BOOT: &str = "boot with systemd.unified_cgroup_hierarchy=1";

/// How one is got.
const DELEGATE: &str = "let systemd give it one: Delegate=yes and DelegateSubgroup=oqto-runner in the runner's unit, or by \
                        hand systemd-run --user --pty -p Delegate=yes COMMAND";

/// The group that this process was given, divided.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
}

/// One session's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    path: PathBuf,
    own: PathBuf,
    state: State,
    detail: String,
}

impl Leaf {
    /// What a starter needs to start a program in it.
    #[must_use]
    pub fn doorway(&self) -> Doorway {
        Doorway {
            inside: self.path.clone(),
            outside: self.own.clone(),
        }
    }

    /// Whether it limits everything that the plan says, and what it does limit.
    #[must_use]
    pub fn report(&self) -> (State, String) {
        (self.state, self.detail.clone())
    }

    /// Ends every process in it and removes it.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or its processes do not end.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.path)
    }
}

/// A leaf for a session, or what is said in its place: nothing is an error unless the plan requires the group.
///
/// # Errors
///
/// It is required, and the host does not give it.
pub fn leaf(name: &str, limits: &Limits, need: Need) -> Result<(Option<Leaf>, State, String), CgroupError> {
    leaf_of(Tree::take(), name, limits, need)
}

/// As [`leaf`], of a group that was taken before, or not.
pub(super) fn leaf_of(
    taken: Result<Tree, CgroupError>,
    name: &str,
    limits: &Limits,
    need: Need,
) -> Result<(Option<Leaf>, State, String), CgroupError> {
    match taken.and_then(|tree| tree.leaf(name, limits, need)) {
        Ok(leaf) => {
            let (state, detail) = leaf.report();
            Ok((Some(leaf), state, detail))
        }
        Err(error) if need == Need::IfAvailable => Ok((None, State::Absent, cause::chain(&error))),
        Err(error) => Err(error),
    }
}

/// Whether this process was given a group that it could divide, and with which limits. Nothing is changed to find out.
pub(super) fn probe() -> Result<String, (String, &'static str)> {
    divisible().map_err(|error| {
        let (said, step) = (cause::chain(&error), error.step().unwrap_or(DELEGATE));
        let detail = said.replacen(&format!("; {step}"), "", 1);
        (detail, step)
    })
}

fn divisible() -> Result<String, CgroupError> {
    let here = here()?;
    let divided = here.file_name().is_some_and(|name| name == OWN);
    let root = here.parent().filter(|_| divided).unwrap_or(&here).to_owned();
    let read = |name: &str| {
        fs::read_to_string(root.join(name)).map_err(|source| CgroupError::NotDelegated {
            path: root.clone(),
            source,
        })
    };
    for name in ["", "cgroup.procs", "cgroup.subtree_control"] {
        access(&root.join(name), AccessFlags::W_OK).map_err(|errno| CgroupError::NotDelegated {
            path: root.clone(),
            source: errno.into(),
        })?;
    }
    let own = std::process::id().to_string();
    if read("cgroup.procs")?.lines().any(|pid| pid != own) {
        return Err(CgroupError::Shared { path: root });
    }
    let there = read("cgroup.controllers")?;
    let wanted = ["memory", "pids", "cpu"].into_iter();
    let missing: Vec<_> = wanted.filter(|name| !lists(&there, name)).collect();
    if missing.is_empty() {
        Ok(format!(
            "{} can be divided, limits: memory, pids, cpu",
            root.display()
        ))
    } else {
        Err(CgroupError::Controllers { path: root, missing })
    }
}

/// The group that this process is in.
fn here() -> Result<PathBuf, CgroupError> {
    let read = |path| fs::read_to_string(path).map_err(|source| CgroupError::Kernel { path, source });
    // A kernel without cgroups has no such list, which is an answer.
    let groups = match read("/proc/self/cgroup") {
        Err(CgroupError::Kernel { source, .. }) if source.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    own_group(&read("/proc/self/mountinfo")?, &groups)
}

/// Whether one of the kernel's lists of controllers has this one.
fn lists(list: &str, name: &str) -> bool {
    list.split_whitespace().any(|known| known == name)
}

impl Tree {
    /// Moves this process into a group of its own within the one that it was given, unless it is there already.
    ///
    /// # Errors
    ///
    /// It was given none.
    pub fn take() -> Result<Self, CgroupError> {
        let here = here()?;
        if here.file_name().is_some_and(|name| name == OWN) {
            let root = here.parent().unwrap_or(&here).to_owned();
            return Ok(Self { root });
        }
        let own = here.join(OWN);
        let moved = match DirBuilder::new().mode(0o755).create(&own) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => fs::write(own.join("cgroup.procs"), "0"),
        };
        match moved {
            Ok(()) => Ok(Self { root: here }),
            Err(source) => {
                // Only if it is ours and empty; otherwise it is not in the way.
                let _ = fs::remove_dir(&own);
                Err(CgroupError::NotDelegated { path: here, source })
            }
        }
    }

    /// Makes the leaf of a session, with every limit of the plan that is of the session as a whole.
    ///
    /// # Errors
    ///
    /// It cannot be made, or lacks a controller and is required to have it; then nothing is left of it.
    pub fn leaf(&self, name: &str, limits: &Limits, need: Need) -> Result<Leaf, CgroupError> {
        let settings = settings(limits);
        let missing = self.enable(settings.iter().map(|setting| setting.controller).collect())?;
        if !missing.is_empty() && need == Need::Required {
            return Err(CgroupError::Controllers {
                path: self.root.clone(),
                missing,
            });
        }
        let path = self.root.join(name);
        DirBuilder::new()
            .mode(0o755)
            .create(&path)
            .map_err(|source| CgroupError::NotDelegated {
                path: path.clone(),
                source,
            })?;
        let held = settings
            .iter()
            .filter(|setting| !missing.contains(&setting.controller));
        let mut said = BTreeSet::new();
        for setting in held {
            let file = path.join(setting.file);
            if let Err(source) = fs::write(&file, &setting.value) {
                // Nothing was born in it yet; if it stays, the next sweep finds it.
                let _ = fs::remove_dir(&path);
                return Err(CgroupError::Set { path: file, source });
            }
            said.insert(setting.controller);
        }
        let said: Vec<&str> = said.into_iter().collect();
        let (state, detail) = match missing.is_empty() {
            true => (
                State::Enforced,
                format!("a group of its own, limits: {}", said.join(", ")),
            ),
            false => (
                State::Absent,
                format!("a group of its own without controller {}", missing.join(", ")),
            ),
        };
        Ok(Leaf {
            path,
            own: self.root.join(OWN),
            state,
            detail,
        })
    }

    /// Ends every process in a leaf and removes it, if it is there.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or its processes do not end.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        remove(&self.root.join(name))
    }

    /// Removes the leaves that nobody keeps, with whatever runs in them, and answers them.
    ///
    /// # Errors
    ///
    /// The group cannot be listed. A leaf that cannot be removed is answered with the reason.
    pub fn sweep(&self, kept: impl Fn(&str) -> bool) -> io::Result<Vec<(PathBuf, io::Result<()>)>> {
        let mut swept = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() && name != OWN && !kept(&name) {
                swept.push((entry.path(), remove(&entry.path())));
            }
        }
        Ok(swept)
    }

    /// Hands the controllers that are there on to the leaves, and answers those that are not.
    fn enable(&self, wanted: BTreeSet<&'static str>) -> Result<Vec<&'static str>, CgroupError> {
        let read = |name: &str| fs::read_to_string(self.root.join(name)).unwrap_or_default();
        let (there, on) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
        let mut missing = Vec::new();
        for name in wanted {
            if !lists(&there, name) {
                missing.push(name);
            } else if !lists(&on, name) {
                let file = self.root.join("cgroup.subtree_control");
                fs::write(&file, format!("+{name}")).map_err(|source| match source.raw_os_error() {
                    Some(errno) if errno == Errno::EBUSY as i32 => CgroupError::Shared {
                        path: self.root.clone(),
                    },
                    _ => CgroupError::Set { path: file, source },
                })?;
            }
        }
        Ok(missing)
    }
}

/// One file of a leaf and what is written to it.
struct Setting {
    controller: &'static str,
    file: &'static str,
    value: String,
}

fn settings(limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |controller, file, value: String| {
        settings.push(Setting {
            controller,
            file,
            value,
        });
    };
    if let Some(mib) = limits.memory_mib {
        set("memory", "memory.max", mib.saturating_mul(MIB).to_string());
        // What does not fit is not to be moved to the host's disk instead.
        set("memory", "memory.swap.max", "0".to_owned());
        // Half a session is of no use to anybody.
        set("memory", "memory.oom.group", "1".to_owned());
    }
    if let Some(processes) = limits.processes {
        set("pids", "pids.max", processes.to_string());
    }
    if let Some(percent) = limits.cpu_percent {
        // Of every 100 ms, in µs.
        set(
            "cpu",
            "cpu.max",
            format!("{} 100000", percent.saturating_mul(1000)),
        );
    }
    settings
}

/// The directory of this process's group, from the kernel's lists of mounts and of its groups.
fn own_group(mountinfo: &str, cgroup: &str) -> Result<PathBuf, CgroupError> {
    // "36 25 0:32 ROOT MOUNT_POINT OPTIONS [OPTIONAL]... - TYPE SOURCE OPTIONS"
    let mounts = mountinfo.lines().filter_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut words = front.split(' ').skip(3);
        let (root, at) = (words.next()?, words.next()?);
        back.starts_with("cgroup2 ").then_some((root, at))
    });
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    let Some(own) = own else {
        let found = match cgroup.is_empty() {
            true => "no cgroups",
            false => "cgroup v1 only",
        };
        return Err(CgroupError::NoHierarchy { found });
    };
    let below = |(root, at): (&str, &str)| {
        let rest = Path::new(own).strip_prefix(root).ok()?;
        Some(Path::new(at).join(rest))
    };
    if own == "/" {
        return Err(CgroupError::Root);
    }
    mounts
        .into_iter()
        .find_map(below)
        .ok_or(CgroupError::NoHierarchy {
            found: "cgroup v2, but not mounted here",
        })
}

/// Ends whatever is in a leaf, waits for it, and removes the leaf.
fn remove(leaf: &Path) -> io::Result<()> {
    match fs::write(leaf.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !leaf.exists() => return Ok(()),
        // Before Linux 5.14 there is no such file; then the leaf is removed if it is empty.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        done => done?,
    }
    let mut events = File::open(leaf.join("cgroup.events"))?;
    let until = Instant::now() + EMPTY_MAX;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "populated 0") {
            break;
        }
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        // The kernel says when the file says something else.
        let mut polled = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut polled, timeout) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    fs::remove_dir(leaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "24 29 0:21 / /sys rw - sysfs sysfs rw\n\
                          30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_group_is_found_below_its_mount() {
        let found = own_group(MOUNTS, "0::/system.slice/oqto.service\n").unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/system.slice/oqto.service"));
        let part = "30 24 0:26 /system.slice /cgroup rw - cgroup2 cgroup2 rw\n";
        let found = own_group(part, "1:name=systemd:/\n0::/system.slice/oqto.service\n").unwrap();
        assert_eq!(found, Path::new("/cgroup/oqto.service"));
        assert!(own_group(part, "0::/user.slice/a\n").is_err());
    }

    #[test]
    fn a_host_without_one_says_what_it_has() {
        let said = |cgroup| own_group(MOUNTS, cgroup).unwrap_err().to_string();
        assert!(said("").contains("it has no cgroups"));
        assert!(said("4:memory:/\n").contains("cgroup v1 only"));
        assert!(said("0::/\n").contains("Delegate=yes"));
        assert!(
            own_group("", "0::/a\n")
                .unwrap_err()
                .to_string()
                .contains("not mounted here")
        );
    }

    #[test]
    fn what_to_do_is_the_end_of_what_is_said() {
        let errors = [
            own_group(MOUNTS, "").unwrap_err(),
            own_group(MOUNTS, "0::/\n").unwrap_err(),
            CgroupError::Shared { path: "/a".into() },
        ];
        for error in errors {
            assert!(
                error
                    .to_string()
                    .ends_with(&format!("; {}", error.step().unwrap())),
                "{error}"
            );
        }
    }

    #[test]
    fn each_limit_of_the_whole_session_is_a_setting() {
        let limits = Limits {
            memory_mib: Some(2),
            cpu_percent: Some(150),
            processes: Some(7),
            ..Limits::default()
        };
        let said: Vec<String> = settings(&limits)
            .iter()
            .map(|setting| format!("{}={}", setting.file, setting.value))
            .collect();
        let expected = [
            "memory.max=2097152",
            "memory.swap.max=0",
            "memory.oom.group=1",
            "pids.max=7",
            "cpu.max=150000 100000",
        ];
        assert_eq!(said, expected);
        assert!(settings(&Limits::default()).is_empty());
    }
}
