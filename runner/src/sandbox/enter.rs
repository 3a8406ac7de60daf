//! The last stage, inside the sandbox: check, give up, prove, report, become the harness.
//!
//! Promise: [`Confined`] exists only after every layer that the plan requires was accepted by the kernel and what
//! must fail was seen to fail; only with one in hand can a program be started. Everything else ends this process.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;

use crate::policy::{Layers, Need, Network};

use super::entry::{self, Entry, Namespaces, Same};
use super::report::{Enforced, Layer, Report, State};
use super::{landlock, rlimit, seccomp};

/// The answer of a start that failed, as `env` and container engines give it.
const FAILED: u8 = 125;
/// The program is there and cannot be run.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such program.
const NOT_FOUND: u8 = 127;

/// Proof that every layer of a plan was accepted by the kernel. Only [`confine`] makes one.
#[must_use]
pub struct Confined(());

/// Why the sandbox is not one.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The arguments are not those of this door.
    #[error("enter is started by the runner only: --plan-fd N --report-fd N -- PROGRAM [ARGS]")]
    Arguments,
    /// A descriptor cannot be had.
    #[error("cannot open descriptor {number}")]
    Descriptor {
        /// Its number.
        number: RawFd,
        /// Why not.
        source: io::Error,
    },
    /// The entry cannot be read.
    #[error("cannot read what is to be enforced")]
    Entry {
        /// Why not.
        source: serde_json::Error,
    },
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
    /// The program cannot be started.
    #[error("cannot start {}", program.display())]
    Program {
        /// Which program.
        program: OsString,
        /// Why not.
        source: io::Error,
    },
}

/// The door: `--plan-fd N --report-fd N -- PROGRAM [ARGS]`. Returns only if it failed.
///
/// The arguments are read by hand: only [`wrap`](super::wrap()) writes them, and every start pays for reading them.
#[must_use]
pub fn enter(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(Arguments {
        plan,
        report,
        program,
        args,
    }) = Arguments::parse(arguments)
    else {
        // Without a descriptor there is nobody else to tell.
        let _ = writeln!(io::stderr(), "oqto-runner: {}", EnterError::Arguments);
        return ExitCode::from(FAILED);
    };
    let Ok(mut report) = OpenOptions::new().write(true).open(descriptor(report)) else {
        return ExitCode::from(FAILED);
    };
    let confined = read(plan)
        .map_err(|error| (Layer::Entry, error))
        .and_then(|entry| {
            close_all_but(report.as_raw_fd()).map_err(|error| (Layer::Entry, error))?;
            let (confined, layers) = confine(&entry)?;
            Ok((confined, layers, entry.env))
        });
    match confined {
        Ok((confined, layers, env)) => {
            if tell(&mut report, &Report::Confined { layers }).is_err() {
                return ExitCode::from(FAILED);
            }
            let source = exec_agent(confined, &program, args, env);
            let code = match source.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            };
            failed(
                &mut report,
                Layer::Program,
                &EnterError::Program { program, source },
                code,
            )
        }
        Err((layer, error)) => failed(&mut report, layer, &error, FAILED),
    }
}

/// Becomes the program. Returns only if it cannot be started.
pub fn exec_agent(
    _: Confined,
    program: &OsStr,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
) -> io::Error {
    Command::new(program).args(args).env_clear().envs(env).exec()
}

/// Enforces everything, in the order that `wrap` explains.
fn confine(entry: &Entry) -> Result<(Confined, Vec<Enforced>), (Layer, EnterError)> {
    let Entry {
        outside,
        network,
        same,
        rules,
        denials,
        limits,
        layers,
        env: _,
        cwd,
    } = entry;
    let mut done = Vec::new();
    let mut keep = |layer, state, detail| done.push(Enforced { layer, state, detail });
    let at = |layer| move |error: EnterError| (layer, error);

    let detail = namespaces(outside, *network, *layers).map_err(at(Layer::Namespaces))?;
    keep(Layer::Namespaces, State::Enforced, detail);
    let detail = mounts(same).map_err(at(Layer::Mounts))?;
    keep(Layer::Mounts, State::Enforced, detail);
    std::env::set_current_dir(cwd).map_err(|source| {
        (
            Layer::Mounts,
            EnterError::Directory {
                path: cwd.clone(),
                source,
            },
        )
    })?;
    let detail = privileges().map_err(at(Layer::Privileges))?;
    keep(Layer::Privileges, State::Enforced, detail);
    let detail = rlimit::restrict(limits).map_err(|error| (Layer::Limits, error.into()))?;
    keep(Layer::Limits, State::Enforced, detail);
    let (state, detail) = match (landlock::restrict(rules), layers.landlock) {
        (Ok(detail), _) => (State::Enforced, detail),
        (Err(error @ landlock::LandlockError::Missing), Need::IfAvailable) => {
            (State::Absent, error.to_string())
        }
        (Err(error), _) => return Err((Layer::Landlock, error.into())),
    };
    let landlocked = state;
    keep(Layer::Landlock, state, detail);
    let (state, detail) = match (seccomp::restrict(denials), layers.seccomp) {
        (Ok(detail), _) => (State::Enforced, detail),
        (Err(seccomp::SeccompError::Refused { source }), Need::IfAvailable) => {
            (State::Absent, chain(&source))
        }
        (Err(error), _) => return Err((Layer::Seccomp, error.into())),
    };
    keep(Layer::Seccomp, state, detail);
    let detail = self_test(landlocked, state).map_err(at(Layer::SelfTest))?;
    keep(Layer::SelfTest, State::Enforced, detail);
    Ok((Confined(()), done))
}

/// Asks the kernel in which namespaces this is, instead of believing that bubblewrap did what it was told.
fn namespaces(outside: &Namespaces, network: Network, layers: Layers) -> Result<String, EnterError> {
    let inside = Namespaces::own().map_err(|source| EnterError::Kernel {
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
            return Err(EnterError::Namespace { kind, shared: true });
        }
        names.push(kind);
    }
    let cgroup_shared = inside.cgroup.is_none() || outside.cgroup == inside.cgroup;
    match (cgroup_shared, layers.cgroup_namespace) {
        (false, _) => names.push("cgroup"),
        (true, Need::Required) => {
            return Err(EnterError::Namespace {
                kind: "cgroup",
                shared: true,
            });
        }
        (true, Need::IfAvailable) => names.push("cgroup the host's"),
    }
    let network_shared = outside.network == inside.network;
    match (network, network_shared) {
        (Network::None, false) => names.push("network"),
        (Network::Host, true) => names.push("network the host's"),
        (Network::None, true) | (Network::Host, false) => {
            return Err(EnterError::Namespace {
                kind: "network",
                shared: network_shared,
            });
        }
    }
    Ok(names.join(", "))
}

/// Between choosing a path and mounting it somebody may have put a link to something else in its place.
fn mounts(same: &[Same]) -> Result<String, EnterError> {
    for Same { path, device, inode } in same {
        let found = fs::metadata(path).map_err(|source| EnterError::Look {
            path: path.clone(),
            source,
        })?;
        if (found.dev(), found.ino()) != (*device, *inode) {
            return Err(EnterError::Replaced { path: path.clone() });
        }
    }
    Ok(format!("{} paths of the host", same.len()))
}

fn privileges() -> Result<String, EnterError> {
    // These files belong to the host's root, whatever root means here: who owns them is root outside. The map of
    // users would not tell, since there is a namespace in between.
    let sysctl = "/proc/sys";
    let owner = fs::metadata(sysctl).map_err(|source| EnterError::Kernel { path: sysctl, source })?;
    if owner.uid() == nix::unistd::geteuid().as_raw() {
        return Err(EnterError::Root);
    }
    let status = status()?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let value = field(&status, set);
        if value.bytes().any(|digit| digit != b'0') || value.is_empty() {
            return Err(EnterError::Capability {
                set,
                value: value.to_owned(),
            });
        }
    }
    // Whoever started this may have blocked signals, and a program that cannot be stopped is not confined either.
    SigSet::empty()
        .thread_set_mask()
        .map_err(|source| EnterError::Signals { source })?;
    nix::sys::prctl::set_no_new_privs().map_err(|source| EnterError::NoNewPrivileges { source })?;
    Ok("no capabilities, no new privileges, not root outside".to_owned())
}

/// Tries what must fail, each by the layer that must stop it.
fn self_test(landlock: State, seccomp: State) -> Result<String, EnterError> {
    let status = status()?;
    let filtered = matches!(seccomp, State::Absent) || field(&status, "Seccomp") == "2";
    if field(&status, "NoNewPrivs") != "1" {
        return Err(EnterError::Possible {
            what: "gain privileges",
        });
    }
    if !filtered {
        return Err(EnterError::Possible {
            what: "leave the filter of system calls",
        });
    }
    if nix::sched::unshare(CloneFlags::CLONE_NEWUSER).is_ok() {
        return Err(EnterError::Possible {
            what: "make a user namespace",
        });
    }
    let writable = |path| OpenOptions::new().write(true).open(path).is_ok();
    if writable("/proc/sys/kernel/core_pattern") {
        return Err(EnterError::Possible {
            what: "write the host's settings",
        });
    }
    // A process may always rename itself, so here it is landlock alone that refuses.
    if matches!(landlock, State::Enforced) && writable("/proc/self/comm") {
        return Err(EnterError::Possible {
            what: "write what no landlock rule allows",
        });
    }
    if fs::create_dir("/oqto-self-test").is_ok() {
        return Err(EnterError::Possible {
            what: "write the root",
        });
    }
    Ok("user namespace, host settings, foreign file, root: all refused".to_owned())
}

fn status() -> Result<String, EnterError> {
    let path = "/proc/self/status";
    fs::read_to_string(path).map_err(|source| EnterError::Kernel { path, source })
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(value).map(str::trim).unwrap_or_default()
}

struct Arguments {
    plan: RawFd,
    report: RawFd,
    program: OsString,
    args: Vec<OsString>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut number = |name: &str| -> Option<RawFd> {
            (words.next()? == name).then_some(())?;
            words.next()?.to_str()?.parse().ok().filter(|number| *number > 2)
        };
        let (plan, report) = (number("--plan-fd")?, number("--report-fd")?);
        (words.next()? == "--").then_some(())?;
        Some(Self {
            plan,
            report,
            program: words.next()?,
            args: words.collect(),
        })
    }
}

/// A descriptor that somebody else opened, by its name in the file system: opening it again gives one of our own,
/// which the program will not inherit.
fn descriptor(number: RawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{number}"))
}

fn read(number: RawFd) -> Result<Entry, EnterError> {
    let mut text = Vec::new();
    File::open(descriptor(number))
        .and_then(|file| file.take(entry::LEN_MAX).read_to_end(&mut text))
        .map_err(|source| EnterError::Descriptor { number, source })?;
    serde_json::from_slice(&text).map_err(|source| EnterError::Entry { source })
}

/// Closes whatever was inherited: a descriptor left open by mistake would be a hole that no layer sees.
fn close_all_but(kept: RawFd) -> Result<(), EnterError> {
    let path = "/proc/self/fd";
    let numbers = || -> io::Result<Vec<RawFd>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(path)? {
            numbers.extend(
                entry?
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<RawFd>().ok()),
            );
        }
        Ok(numbers)
    };
    let numbers = numbers().map_err(|source| EnterError::Kernel { path, source })?;
    for number in numbers
        .into_iter()
        .filter(|number| *number > 2 && *number != kept)
    {
        // One of them was the listing's own and is closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

fn tell(report: &mut File, line: &Report) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    report.write_all(&text)
}

fn failed(report: &mut File, layer: Layer, error: &EnterError, code: u8) -> ExitCode {
    // If nobody listens any more, the exit code still says it.
    let _ = tell(
        report,
        &Report::Failed {
            layer,
            error: chain(error),
        },
    );
    ExitCode::from(code)
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
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
            Err(EnterError::Replaced { .. })
        ));
    }

    #[test]
    fn a_process_in_the_namespaces_of_the_host_is_not_inside() {
        let own = Namespaces::own().unwrap();
        let result = namespaces(&own, Network::None, Layers::default());
        assert!(matches!(
            result,
            Err(EnterError::Namespace {
                kind: "user",
                shared: true
            })
        ));
    }

    #[test]
    fn the_door_opens_for_its_own_arguments_only() {
        let parse = |words: &[&str]| Arguments::parse(words.iter().map(OsString::from));
        assert!(parse(&["--plan-fd", "3", "--report-fd", "4", "--", "sh"]).is_some());
        for words in [
            &["--plan-fd", "3", "--report-fd", "4", "sh"][..],
            &["--plan-fd", "0", "--report-fd", "4", "--", "sh"],
            &["--plan-fd", "3", "--report-fd", "4", "--"],
            &["--report-fd", "3", "--plan-fd", "4", "--", "sh"],
            &[],
        ] {
            assert!(parse(words).is_none(), "{words:?}");
        }
    }
}
