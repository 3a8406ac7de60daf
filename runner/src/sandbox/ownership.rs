//! Whose a file is that says what sessions may do: nobody else may be able to write it, or put another in its place.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Links that are followed on one way, as the kernel follows.
const LINKS_MAX: usize = 40;

/// Why a file cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// Something on its way cannot be looked at.
    #[error("cannot look at {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else owns it.
    #[error("{path} belongs to user {uid}, who could change what sessions may do; run chown {wanted} {path}")]
    Owner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Whose it has to be.
        wanted: u32,
    },
    /// Others may write it.
    #[error(
        "{path} has mode {mode:04o}, and others could change what sessions may do; run chmod go-w {path}, or keep it \
         elsewhere"
    )]
    Writable {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Links lead to links.
    #[error("{path} is a link behind too many others")]
    Links {
        /// Which.
        path: PathBuf,
    },
}

/// Checks a path, every directory on its way, and the same of whatever links on it lead to: root's runner believes only
/// root, anybody else's believes root and its own user.
///
/// A sticky directory such as `/tmp` may be on the way where a directory comes next: nobody else can remove or rename
/// that one, and a directory that somebody else made belongs to them. A file or a link directly in it proves less, since
/// others may put there one of root's that was made for another purpose, as a hard link or from a directory of theirs.
///
/// # Errors
///
/// Somebody else could change it.
pub(crate) fn owned(path: &Path) -> Result<(), OwnershipError> {
    owned_by(path, crate::sys::effective_uid())
}

fn owned_by(path: &Path, own: u32) -> Result<(), OwnershipError> {
    let absolute = std::path::absolute(path).map_err(|source| OwnershipError::Io {
        path: path.to_owned(),
        source,
    })?;
    let mut left: VecDeque<OsString> = names(&absolute).collect();
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let found = look(&next)?;
        judge(
            &at,
            own,
            if found.is_dir() {
                Sticky::Enough
            } else {
                Sticky::Open
            },
        )?;
        if !found.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(OwnershipError::Links { path: next });
        }
        // Whoever owns a link in a sticky directory can lead it elsewhere; its mode means nothing.
        judge_owner(&next, found.uid(), own)?;
        let target = fs::read_link(&next).map_err(|source| OwnershipError::Io { path: next, source })?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(name);
        }
    }
    judge(&at, own, Sticky::Open)
}

fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn look(path: &Path) -> Result<fs::Metadata, OwnershipError> {
    fs::symlink_metadata(path).map_err(|source| OwnershipError::Io {
        path: path.to_owned(),
        source,
    })
}

/// What the sticky bit of a directory that others may write is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sticky {
    /// What comes next in it is safe.
    Enough,
    /// Others can still put something there.
    Open,
}

fn judge(path: &Path, own: u32, sticky: Sticky) -> Result<(), OwnershipError> {
    let found = look(path)?;
    judge_owner(path, found.uid(), own)?;
    let mode = found.mode() & 0o7777;
    if mode & 0o022 == 0 || (mode & 0o1000 != 0 && sticky == Sticky::Enough) {
        return Ok(());
    }
    Err(OwnershipError::Writable {
        path: path.to_owned(),
        mode,
    })
}

fn judge_owner(path: &Path, uid: u32, own: u32) -> Result<(), OwnershipError> {
    if uid == 0 || uid == own {
        return Ok(());
    }
    Err(OwnershipError::Owner {
        path: path.to_owned(),
        uid,
        wanted: own,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn own() -> u32 {
        crate::sys::effective_uid()
    }

    fn bed() -> tempfile::TempDir {
        tempfile::Builder::new()
            .prefix("oqto-owned-")
            .tempdir_in("/tmp")
            .unwrap()
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_can_write_or_replace_is_named_with_the_mend() {
        let bed = bed();
        let (directory, file) = (bed.path().join("policies"), bed.path().join("policies/p.toml"));
        fs::create_dir(&directory).unwrap();
        fs::write(&file, "").unwrap();
        mode(&directory, 0o755);
        mode(&file, 0o644);
        owned(&file).unwrap();
        mode(&file, 0o664);
        let error = owned(&file).unwrap_err().to_string();
        assert!(
            error.contains("p.toml has mode 0664") && error.contains("chmod go-w"),
            "{error}"
        );
        mode(&file, 0o644);
        mode(&directory, 0o777);
        let error = owned(&file).unwrap_err().to_string();
        assert!(error.contains("policies has mode 0777"), "{error}");
    }

    #[test]
    fn a_link_is_as_good_as_what_it_leads_through() {
        let bed = bed();
        let (open, link) = (bed.path().join("open"), bed.path().join("link"));
        fs::create_dir(&open).unwrap();
        fs::write(open.join("p.toml"), "").unwrap();
        mode(&open.join("p.toml"), 0o644);
        symlink("open/p.toml", &link).unwrap();
        mode(&open, 0o755);
        owned(&link).unwrap();
        mode(&open, 0o777);
        assert!(matches!(owned(&link), Err(OwnershipError::Writable { .. })));
        symlink(bed.path().join("circle"), bed.path().join("circle")).unwrap();
        let circle = owned(&bed.path().join("circle"));
        assert!(matches!(circle, Err(OwnershipError::Links { .. })), "{circle:?}");
    }

    #[test]
    fn a_sticky_directory_is_enough_on_the_way_to_a_directory_and_to_nothing_else() {
        let bed = bed();
        let (sticky, directory) = (bed.path().join("sticky"), bed.path().join("sticky/policies"));
        fs::create_dir_all(&directory).unwrap();
        mode(&sticky, 0o1777);
        mode(&directory, 0o755);
        fs::write(directory.join("p.toml"), "").unwrap();
        mode(&directory.join("p.toml"), 0o644);
        owned(&directory).unwrap();
        owned(&directory.join("p.toml")).unwrap();
        let refused = |path: &Path| match owned(path) {
            Err(OwnershipError::Writable { path, .. }) => assert_eq!(path, sticky),
            other => panic!("{}: {other:?}", path.display()),
        };
        // It could hold anybody's policies beside these.
        refused(&sticky);
        fs::write(sticky.join("q.toml"), "").unwrap();
        mode(&sticky.join("q.toml"), 0o644);
        refused(&sticky.join("q.toml"));
        symlink(&directory, sticky.join("link")).unwrap();
        refused(&sticky.join("link/p.toml"));
        // Without the bit whoever may write there may put another directory in the place of this one.
        mode(&sticky, 0o777);
        refused(&directory);
    }

    #[test]
    fn another_users_file_is_named_with_its_owner() {
        let bed = bed();
        let file = bed.path().join("p.toml");
        fs::write(&file, "").unwrap();
        // Only root can give one away; anybody else's own is another's in the eyes of a runner that is not theirs.
        let (other, judge) = match own() {
            0 => (61_234, 0),
            own => (own, own + 1),
        };
        chown(&file, Some(other), None).unwrap();
        let error = owned_by(&file, judge).unwrap_err().to_string();
        assert!(
            error.contains(&format!("belongs to user {other}")) && error.contains(&format!("chown {judge} ")),
            "{error}"
        );
    }
}
