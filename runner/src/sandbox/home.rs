//! A home for one run of `sandbox run`, which goes with it, or with the next one.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::sys;

/// What the names of homes begin with.
const PREFIX: &str = "oqto-run-";

/// How many homes that were left behind one run removes. The next one goes on.
const SWEPT_MAX: usize = 16;

/// A home for one run. A lock on it is held for as long as it is used, so that one that a killed run left is known by
/// nobody holding it.
pub(super) struct Home {
    path: PathBuf,
    lock: Option<Flock<File>>,
}

impl Home {
    /// Makes one in the directory for temporary files, and removes those that runs of the same user left there.
    pub(super) fn make() -> Result<Self, (PathBuf, io::Error)> {
        let above = env::temp_dir();
        let made = fs::canonicalize(&above).and_then(|above| {
            sweep(&above);
            loop {
                let path = nix::unistd::mkdtemp(&above.join(format!("{PREFIX}XXXXXX")))?;
                // Another run may have found it before the lock was taken, and removed it.
                if let Some(lock) = hold(&path)? {
                    let lock = Some(lock);
                    return Ok(Self { path, lock });
                }
            }
        });
        made.map_err(|source| (above, source))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Answers the path if it could not be removed, which the program can bring about.
    pub(super) fn remove(self) -> Option<PathBuf> {
        let path = self.path.clone();
        drop(self);
        path.exists().then_some(path)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A start that failed says so already; the home is empty then.
        let _ = sys::remove_tree(&self.path);
        drop(self.lock.take());
    }
}

/// Removes what runs left that were killed. What cannot be removed now is tried again by the next one.
fn sweep(above: &Path) {
    let Ok(entries) = fs::read_dir(above) else { return };
    let ours = entries.filter_map(Result::ok).filter(|entry| {
        entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX))
    });
    for path in ours.map(|entry| entry.path()).take(SWEPT_MAX) {
        if let Ok(Some(_held)) = hold(&path) {
            let _ = sys::remove_tree(&path);
        }
    }
}

/// Takes a home's lock; `None` when somebody has it, or when what stands there is not a home of this user's.
fn hold(path: &Path) -> io::Result<Option<Flock<File>>> {
    // Everybody may put anything into a directory for temporary files: links, and directories of their own.
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let opened = File::options().read(true).custom_flags(flags.bits()).open(path);
    let file = match opened {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => return Ok(None),
        file => file?,
    };
    let found = file.metadata()?;
    if found.uid() != sys::effective_uid() {
        return Ok(None);
    }
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, error)) => return Err(error.into()),
    };
    // Who held it before may have removed it.
    let same =
        fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (found.dev(), found.ino()));
    Ok(same.then_some(lock))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_homes_that_nobody_holds_are_removed_and_no_link_is_followed() {
        let above = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = above.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("left"), "").unwrap();
            path
        };
        let (left, held, other) = (make("oqto-run-left"), make("oqto-run-held"), make("another"));
        let link = above.path().join("oqto-run-link");
        symlink(&other, &link).unwrap();
        fs::write(above.path().join("oqto-run-file"), "").unwrap();
        let lock = hold(&held).unwrap().unwrap();
        sweep(above.path());
        assert!(!left.exists());
        for path in [
            held.join("left"),
            other.join("left"),
            link,
            above.path().join("oqto-run-file"),
        ] {
            assert!(path.symlink_metadata().is_ok(), "{}", path.display());
        }
        drop(lock);
        sweep(above.path());
        assert!(!held.exists());
    }

    #[test]
    fn a_home_that_was_removed_before_its_lock_was_taken_is_none() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("oqto-run-gone");
        fs::create_dir(&path).unwrap();
        let lock = hold(&path).unwrap().unwrap();
        assert!(hold(&path).unwrap().is_none());
        fs::remove_dir(&path).unwrap();
        drop(lock);
        assert!(hold(&path).unwrap().is_none());
    }
}
