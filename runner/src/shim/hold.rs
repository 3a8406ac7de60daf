//! Whether a shim lives, whatever state it is in: it holds a lock for its whole life, and the kernel says who does.
//!
//! A number on disk may be another process's by now, and a socket that refuses may belong to a shim that only begins. A
//! lock is let go when its process is gone, and by nothing else.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::start::ERROR_FILE;
use crate::{clock, sys};

/// How often a shim is looked at that is on its way. Nothing tells when a lock is let go.
const LOOK: Duration = Duration::from_millis(10);

/// How long a shim that was killed may take to be gone. Longer is a process that hangs in the kernel.
const DEATH_MAX: Duration = Duration::from_secs(5);

/// The lock of the shim in a session's directory.
#[derive(Debug)]
pub struct Hold {
    file: File,
    uid: u32,
}

/// Takes the lock, as the shim, on its standard error: the runner made that file, so nobody else could.
pub(super) fn take() -> io::Result<()> {
    sys::lock(io::stderr())
}

impl Hold {
    /// The lock of the shim in `dir`; `None` where no shim was started.
    ///
    /// # Errors
    /// When it cannot be looked at, or somebody else put another file in its place.
    pub fn of(dir: &Path) -> io::Result<Option<Self>> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = File::options()
            .read(true)
            .custom_flags(flags.bits())
            .open(dir.join(ERROR_FILE));
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let found = file.metadata()?;
        // The directory is the session's user's, who could have had anybody lock anything.
        if !found.is_file() || found.uid() != sys::effective_uid() || found.nlink() != 1 {
            return Err(io::Error::other(format!(
                "{ERROR_FILE} is not the file that the runner made"
            )));
        }
        let uid = dir.symlink_metadata()?.uid();
        Ok(Some(Self { file, uid }))
    }

    /// The shim's process; `None` when there is none any more.
    ///
    /// # Errors
    /// When the lock is somebody else's.
    pub fn holder(&self) -> io::Result<Option<i32>> {
        let Some(pid) = sys::lock_holder(&self.file)? else {
            return Ok(None);
        };
        match sys::real_uid_of(pid)? {
            // Before it became the session's user it is the runner's.
            Some(uid) if uid == self.uid || uid == sys::effective_uid() => Ok(Some(pid)),
            Some(uid) => Err(io::Error::other(format!(
                "process {pid} of user {uid} holds the lock of the shim"
            ))),
            None => Ok(None),
        }
    }

    /// Waits until the shim is gone, at most so long; whether it is.
    ///
    /// # Errors
    /// When the lock cannot be looked at.
    pub async fn let_go(&self, within: Duration) -> io::Result<bool> {
        let until = clock::instant() + within;
        while self.holder()?.is_some() {
            if clock::instant() >= until {
                return Ok(false);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(true)
    }

    /// Kills the shim, and with it what it runs; whether it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&self) -> io::Result<bool> {
        if let Some(pid) = self.holder()? {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.let_go(DEATH_MAX).await
    }
}
