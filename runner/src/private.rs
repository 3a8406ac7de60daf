//! Directories and files that nobody else may change or look into, looked at before they are used.
//!
//! Floor: ground. What somebody else could have put there is refused and not mended: its owner has to know.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// A directory or file that is not this process's alone.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The file system said no.
    #[error("cannot {act} {path}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others could do more with it than they may.
    #[error("{path} is open to other users (mode {mode:04o}); run: chmod {wanted:04o} {path}")]
    Exposed {
        /// What.
        path: PathBuf,
        /// How open it is.
        mode: u32,
        /// The widest mode that it may have.
        wanted: u32,
    },
    /// It belongs to somebody else.
    #[error("{path} belongs to user {owner}, this runner is user {user}; run: chown {user} {path}")]
    Foreign {
        /// What.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        user: u32,
    },
    /// Something else stands there, a link for example.
    #[error("{path} is not a directory")]
    NotDirectory {
        /// What.
        path: PathBuf,
    },
}

/// Makes a directory of mode `mode`, or looks whether the one that is there is ours and no wider.
///
/// # Errors
/// When it cannot be made, is a link, belongs to somebody else, or is wider than `mode`.
pub fn dir(path: &Path, mode: u32) -> Result<(), PrivateError> {
    let failed = |act| {
        move |source| PrivateError::Io {
            act,
            path: path.to_owned(),
            source,
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(failed("make"))?;
    let found = fs::symlink_metadata(path).map_err(failed("look at"))?;
    if !found.is_dir() {
        return Err(PrivateError::NotDirectory {
            path: path.to_owned(),
        });
    }
    check(path, &found, mode)
}

/// Looks whether what is open or was looked at is ours, and its mode no wider than `wanted`.
///
/// # Errors
/// When it is not.
pub fn check(path: &Path, found: &Metadata, wanted: u32) -> Result<(), PrivateError> {
    let user = crate::sys::effective_uid();
    if found.uid() != user {
        return Err(PrivateError::Foreign {
            path: path.to_owned(),
            owner: found.uid(),
            user,
        });
    }
    let mode = found.mode() & 0o7777;
    // What only its owner may do with it is theirs to choose.
    if mode & 0o077 & !wanted != 0 {
        return Err(PrivateError::Exposed {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_directory_is_made_and_found_again_and_refused_when_it_was_opened_to_others() {
        let base = tempfile::tempdir().unwrap();
        for mode in [0o700, 0o711] {
            let path = base.path().join(format!("{mode:o}"));
            dir(&path, mode).unwrap();
            dir(&path, mode).unwrap();
            for wider in [mode | 0o040, mode | 0o002, mode | 0o004] {
                fs::set_permissions(&path, fs::Permissions::from_mode(wider)).unwrap();
                assert!(
                    matches!(dir(&path, mode), Err(PrivateError::Exposed { mode, .. }) if mode == wider),
                    "{wider:o}"
                );
            }
        }
    }

    #[test]
    fn a_link_is_no_directory() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("link");
        symlink(base.path(), &path).unwrap();
        assert!(matches!(
            dir(&path, 0o700),
            Err(PrivateError::NotDirectory { .. })
        ));
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        let (path, owner) = match crate::sys::effective_uid() {
            0 => {
                let base = tempfile::tempdir().unwrap().keep();
                std::os::unix::fs::chown(&base, Some(61_234), None).unwrap();
                (base, 61_234)
            }
            _ => ("/etc".into(), 0),
        };
        let found = dir(&path, 0o755);
        assert!(matches!(found, Err(PrivateError::Foreign { owner: found, .. }) if found == owner));
        if owner != 0 {
            fs::remove_dir(&path).unwrap();
        }
    }
}
