//! A program about to be started, as inert data.
//!
//! Floor: ground. What keeps shells apart: a sandbox is a function from [`Launch`] to [`Launch`], the shim and the
//! doors start one and know nothing of sandboxes.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use crate::sys;

/// A program about to be started. Its environment is exactly `env`; nothing is inherited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The program, an absolute path.
    pub program: OsString,
    /// Its arguments, without the program's own name.
    pub args: Vec<Arg>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where it starts, an absolute path.
    pub cwd: OsString,
}

/// One argument of a [`Launch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arg {
    /// The text itself.
    Text(OsString),
    /// Becomes the number of a descriptor from which the program reads these bytes (a sealed memory file), so
    /// that they stand on no command line.
    Data(Vec<u8>),
    /// Becomes the number of a pipe's writing end; what the program writes there is kept apart from its output.
    Report,
}

/// A program that was started.
#[derive(Debug)]
pub struct Spawned {
    /// The process. Whoever holds it reaps it.
    pub child: Child,
    /// The reading end of the pipe that the program has as [`Arg::Report`], when it has one.
    pub report: Option<OwnedFd>,
}

/// Where a program is born: a cgroup, which whoever starts it steps into and out of again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doorway {
    /// The group of the program.
    pub inside: PathBuf,
    /// The group of the one who starts it.
    pub outside: PathBuf,
}

/// A [`Doorway`] that was opened. The kernel asks who opened it and not who uses it, so that whoever gave up being
/// root since can still step through.
#[derive(Debug)]
pub struct Entrance {
    inside: File,
    outside: File,
}

impl Entrance {
    /// Opens both groups.
    ///
    /// # Errors
    /// When one of them is not there or not ours.
    pub fn open(doorway: &Doorway) -> io::Result<Self> {
        let open = |group: &Path| OpenOptions::new().write(true).open(group.join("cgroup.procs"));
        Ok(Self {
            inside: open(&doorway.inside)?,
            outside: open(&doorway.outside)?,
        })
    }

    /// Starts a program inside, if there is an inside: a child is born where its parent is, so it never was elsewhere.
    ///
    /// # Errors
    /// When the start fails, or a step does; then nothing runs.
    pub fn through(
        entrance: Option<&Self>,
        start: impl FnOnce() -> Result<Spawned, SpawnError>,
    ) -> Result<Spawned, SpawnError> {
        let Some(Self { inside, outside }) = entrance else {
            return start();
        };
        let step = |mut group: &File| {
            group
                .write_all(b"0")
                .map_err(|source| SpawnError::Cgroup { source })
        };
        step(inside)?;
        let started = start();
        if let Err(error) = step(outside) {
            if let Ok(mut spawned) = started {
                // Whoever starts programs must not stay inside; the error says that nothing runs.
                let _killed = spawned.child.kill().and_then(|()| spawned.child.wait());
            }
            return Err(error);
        }
        started
    }
}

/// Why a [`Launch`] did not become a process.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// It would have been looked up along somebody's `PATH`.
    #[error("program {program} is no absolute path")]
    NotAbsolute {
        /// The program as named.
        program: PathBuf,
    },
    /// A descriptor of an argument could not be made.
    #[error("cannot make the descriptor of argument {index}")]
    Descriptor {
        /// Which argument, counted from zero.
        index: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its group could not be entered or left.
    #[error("cannot step into the program's cgroup and out again")]
    Cgroup {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel did not start it.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Starts the program with these three streams and nothing else but the descriptors that its arguments name.
///
/// Call it from a process with one thread (the shim, the doors): while it runs, the descriptors of the arguments
/// are inherited by whatever is started, so a second thread could hand them to a stranger. There is no hook
/// between fork and exec, so the start costs the same however big the caller is.
///
/// # Errors
/// When a descriptor cannot be made or the kernel refuses the program; then nothing runs.
pub fn spawn(launch: &Launch, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Result<Spawned, SpawnError> {
    let Launch {
        program,
        args,
        env,
        cwd,
    } = launch;
    if !Path::new(program).is_absolute() {
        return Err(SpawnError::NotAbsolute {
            program: program.into(),
        });
    }
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir(cwd);
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    // They are closed here once the program has its own copies.
    let mut inherited = Vec::new();
    let mut report = None;
    for (index, arg) in args.iter().enumerate() {
        let fd = match arg {
            Arg::Text(text) => {
                command.arg(text);
                continue;
            }
            Arg::Data(bytes) => sys::sealed_memory(bytes),
            Arg::Report => pipe().map(|(reading, writing)| {
                report = Some(reading);
                writing
            }),
        };
        let fd = fd
            .and_then(|fd| sys::inherit(&fd).map(|()| fd))
            .map_err(|source| SpawnError::Descriptor { index, source })?;
        command.arg(fd.as_raw_fd().to_string());
        inherited.push(fd);
    }
    let child = command.spawn().map_err(|source| SpawnError::Start {
        program: program.into(),
        source,
    })?;
    Ok(Spawned { child, report })
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn shell(script: &str, rest: Vec<Arg>) -> Launch {
        let text = |text: &str| Arg::Text(text.into());
        let mut args = vec![text("-c"), text(script), text("sh")];
        args.extend(rest);
        Launch {
            program: "/bin/sh".into(),
            args,
            env: Vec::new(),
            cwd: "/".into(),
        }
    }

    fn output(launch: &Launch) -> (String, Option<OwnedFd>) {
        let spawned = spawn(launch, Stdio::null(), Stdio::piped(), Stdio::inherit()).unwrap();
        let output = spawned.child.wait_with_output().unwrap();
        assert!(output.status.success());
        (String::from_utf8(output.stdout).unwrap(), spawned.report)
    }

    #[test]
    fn data_stands_on_no_command_line_and_is_read_from_its_descriptor() {
        let launch = shell(
            "cat /proc/self/fd/$1; tr '\\0' ' ' </proc/$$/cmdline",
            vec![Arg::Data(b"hush;".to_vec())],
        );
        let (text, _) = output(&launch);
        let (data, command_line) = text.split_once(';').unwrap();
        assert_eq!(data, "hush");
        assert!(!command_line.ends_with("hush "), "{command_line}");
    }

    #[test]
    fn a_report_is_kept_apart_from_the_output() {
        let (text, report) = output(&shell(
            "echo said; echo ready >/proc/self/fd/$1",
            vec![Arg::Report],
        ));
        let mut reported = String::new();
        std::fs::File::from(report.unwrap())
            .read_to_string(&mut reported)
            .unwrap();
        assert_eq!((text.as_str(), reported.as_str()), ("said\n", "ready\n"));
    }

    #[test]
    fn the_environment_is_exactly_the_one_given() {
        let mut launch = shell("", Vec::new());
        launch.program = "/usr/bin/env".into();
        launch.args.clear();
        launch.env = vec![("ONLY".into(), "this".into())];
        assert_eq!(output(&launch).0, "ONLY=this\n");
    }

    #[test]
    fn a_program_without_its_path_is_refused() {
        let mut launch = shell("true", Vec::new());
        launch.program = "sh".into();
        let refused = spawn(&launch, Stdio::null(), Stdio::null(), Stdio::null());
        assert!(matches!(refused, Err(SpawnError::NotAbsolute { .. })));
    }
}
