//! What stood at a path at one moment, to be compared with what stands there later.
//!
//! Floor: ground. Where no mount can protect a path, or where somebody outside can take the mount away, the least that
//! can be done is to look again and say so. Nothing here follows a link: paths lie where an agent may write.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A path, and what stood there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Landmark {
    /// Where, without links on the way where `stood` is a file.
    pub path: PathBuf,
    /// What.
    pub stood: Stood,
}

/// What stood at a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Stood {
    /// This file or directory.
    File {
        /// Its file system.
        device: u64,
        /// Its number there.
        inode: u64,
    },
    /// Nothing.
    Nothing,
    /// A link on the way, the first one, which led here.
    Link(PathBuf),
}

/// What became of a landmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Where nothing stood something stands.
    Appeared,
    /// What stood there is gone, or something else stands there, or nobody can tell any more.
    Replaced,
}

impl Landmark {
    /// What became of it; `None` while it stands as it stood.
    #[must_use]
    pub fn change(&self) -> Option<Change> {
        let same = match &self.stood {
            Stood::File { device, inode } => {
                fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == (*device, *inode))
            }
            Stood::Nothing => matches!(first(&self.path), First::Nothing),
            Stood::Link(target) => matches!(first(&self.path), First::Link(now) if now == *target),
        };
        match (same, &self.stood) {
            (true, _) => None,
            (false, Stood::Nothing) => Some(Change::Appeared),
            (false, Stood::File { .. } | Stood::Link(_)) => Some(Change::Replaced),
        }
    }
}

/// What is met first on the way to a path.
enum First {
    Nothing,
    Link(PathBuf),
    /// The path itself, a file in the way, or what cannot be looked at.
    Other,
}

fn first(path: &Path) -> First {
    let mut steps: Vec<&Path> = path.ancestors().collect();
    steps.reverse();
    for step in steps {
        match fs::symlink_metadata(step) {
            Ok(found) if found.is_symlink() => return fs::read_link(step).map_or(First::Other, First::Link),
            Ok(found) if !found.is_dir() && step != path => return First::Other,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return First::Nothing,
            Err(_) => return First::Other,
        }
    }
    First::Other
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn at(path: PathBuf, stood: Stood) -> Landmark {
        Landmark { path, stood }
    }

    #[test]
    fn what_appears_also_as_a_link_or_behind_one_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let below = at(root.join("a/b"), Stood::Nothing);
        assert_eq!(below.change(), None);
        fs::create_dir(root.join("a")).unwrap();
        assert_eq!(below.change(), None);
        symlink("/nonexistent", root.join("a/b")).unwrap();
        assert_eq!(below.change(), Some(Change::Appeared));
        let link = at(root.join("a/b"), Stood::Link("/nonexistent".into()));
        assert_eq!(link.change(), None);
        fs::remove_file(root.join("a/b")).unwrap();
        assert_eq!(link.change(), Some(Change::Replaced));
        fs::remove_dir(root.join("a")).unwrap();
        fs::write(root.join("a"), "in the way").unwrap();
        assert_eq!(below.change(), Some(Change::Appeared));
    }

    #[test]
    fn another_file_of_the_same_name_is_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, "ours").unwrap();
        let found = fs::metadata(&path).unwrap();
        let stood = Stood::File {
            device: found.dev(),
            inode: found.ino(),
        };
        let landmark = at(path.clone(), stood);
        fs::write(&path, "changed in place").unwrap();
        assert_eq!(landmark.change(), None);
        fs::write(dir.path().join("config.lock"), "theirs").unwrap();
        fs::rename(dir.path().join("config.lock"), &path).unwrap();
        assert_eq!(landmark.change(), Some(Change::Replaced));
    }
}
