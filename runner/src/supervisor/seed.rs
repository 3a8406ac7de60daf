//! A harness's private configuration: a copy of the user's, which each session may change without changing another.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

use crate::harness::Definition;
use crate::sandbox::principal::Principal;

/// The longest such file, bytes.
const FILE_LEN_MAX: u64 = 4 * 1024 * 1024;

/// Why there is no private configuration.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The user's file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The copy cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Makes the new directory `to`, with a copy of what there is of the user's configuration: how to reach models, and
/// preferences.
///
/// # Errors
/// When a file that is there cannot be copied.
pub(super) fn seed(harness: &Definition, to: &Path, principal: &Principal) -> Result<(), SeedError> {
    let write_error = |path: &Path, source| SeedError::Write {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .mode(0o700)
        .create(to)
        .map_err(|source| write_error(to, source))?;
    let Some(dir) = &harness.config_dir else {
        return Ok(());
    };
    let from = match dir.strip_prefix("~") {
        Ok(below) => principal.home().join(below),
        Err(_) => dir.clone(),
    };
    for name in &harness.config_files {
        let path = from.join(name);
        let Some(bytes) = read(&path, principal).map_err(|source| SeedError::Read { path, source })? else {
            continue;
        };
        let copy = to.join(name);
        if let Some(dir) = copy.parent() {
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(dir);
            made.map_err(|source| write_error(dir, source))?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&copy).and_then(|mut file| file.write_all(&bytes));
        written.map_err(|source| write_error(&copy, source))?;
    }
    Ok(())
}

/// The bytes of a file that the principal may read itself; `None` when it is not there.
///
/// A runner that is root must not be led by the principal's links to what the principal may not see: it follows none,
/// and takes only what the principal owns.
fn read(path: &Path, principal: &Principal) -> io::Result<Option<Vec<u8>>> {
    let other = principal.uid() != nix::unistd::geteuid().as_raw();
    let resolve = if other {
        ResolveFlag::RESOLVE_NO_SYMLINKS
    } else {
        ResolveFlag::empty()
    };
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(resolve);
    let file = match openat2(AT_FDCWD, path, how) {
        Ok(fd) => File::from(fd),
        Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let found = file.metadata()?;
    if !found.is_file() || found.len() > FILE_LEN_MAX {
        return Err(io::Error::other(format!(
            "it is no plain file of at most {FILE_LEN_MAX} bytes"
        )));
    }
    if other && found.uid() != principal.uid() {
        return Err(io::Error::other(format!(
            "it does not belong to user {}",
            principal.uid()
        )));
    }
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Gives a directory that we made, with what we put there, to the principal. Nobody else could reach it so far.
///
/// # Errors
/// When the kernel says no.
pub(super) fn hand_over(dir: &Path, principal: &Principal) -> Result<(), SeedError> {
    if principal.uid() == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    give(dir, principal).map_err(|source| SeedError::Write {
        path: dir.to_owned(),
        source,
    })
}

fn give(path: &Path, principal: &Principal) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), principal)?;
        }
    }
    std::os::unix::fs::lchown(path, Some(principal.uid()), Some(principal.gid()))
}
