//! The processes of this host, as `/proc` shows them.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its command line, for a human.
    pub words: String,
}

impl Process {
    /// Every process that has to do with a directory: by its command line, its working directory, its environment,
    /// what it holds open or what is mounted for it. Not this one, and nothing that has ended.
    #[must_use]
    pub fn about(dir: &Path) -> Vec<Self> {
        let own = std::process::id().to_string();
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        entries
            .filter(|entry| entry.file_name().as_bytes() != own.as_bytes())
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let path = entry.path();
                let words = words(&path)?;
                is_about(&path, dir).then_some(Self { pid, words })
            })
            .collect()
    }

    /// Whether it lives.
    #[must_use]
    pub fn lives(&self) -> bool {
        words(&Path::new("/proc").join(self.pid.to_string())).is_some()
    }

    /// Ends it by force.
    pub fn kill(&self) {
        signal(self.pid, Signal::SIGKILL);
    }
}

/// Sends a signal to a process, which may have ended.
///
/// # Panics
/// When it may not be sent.
pub fn signal(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("cannot send {signal} to {pid}: {error}"),
    }
}

/// The command line of a process; none when it has ended, waited for or not.
fn words(process: &Path) -> Option<String> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    if matches!(state, 'Z' | 'X') {
        return None;
    }
    let words = fs::read(process.join("cmdline")).ok()?;
    Some(String::from_utf8_lossy(&words).replace('\0', " "))
}

fn is_about(process: &Path, dir: &Path) -> bool {
    let text = dir.as_os_str().as_bytes();
    let says = |name: &str| {
        fs::read(process.join(name)).is_ok_and(|found| found.windows(text.len()).any(|at| at == text))
    };
    let points = |link: &Path| fs::read_link(link).is_ok_and(|to| to.starts_with(dir));
    says("cmdline")
        || says("environ")
        || says("mountinfo")
        || points(&process.join("cwd"))
        || fs::read_dir(process.join("fd"))
            .is_ok_and(|fds| fds.filter_map(Result::ok).any(|fd| points(&fd.path())))
}
