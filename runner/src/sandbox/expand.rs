//! What fits a pattern on this host at this moment.
//!
//! The walk begins at the pattern's base and follows no link below it. It is bounded, and past its bounds is an error:
//! a rule that holds for a part of what it names would be another rule.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, XFS_SUPER_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};

use super::view::{ViewError, is_absent, resolved, unreadable};
use crate::policy::{Part, Pattern};

/// Names that are looked at for one plan: about two seconds, or the largest of repositories with everything that was
/// installed into it.
const LOOKED_AT_MAX: usize = 1_000_000;

/// Paths that the patterns of one plan may stand for. Each becomes one or more mounts, and bubblewrap takes 9000 words.
const MATCHES_MAX: usize = 1000;

/// Names that are remembered between patterns, since many begin alike.
const REMEMBERED_MAX: usize = 100_000;

/// The disk, as far as patterns of one plan had to look at it.
#[derive(Debug, Default)]
pub(super) struct Expansion {
    listed: BTreeMap<PathBuf, Listing>,
    /// What stands at plain names; several patterns ask for `.git` in each directory.
    stood: HashMap<PathBuf, Stands>,
    remembered: usize,
    looked_at: usize,
    matches: usize,
}

/// What is in a directory.
#[derive(Clone, Debug, Default)]
struct Listing {
    directories: Rc<[OsString]>,
    /// Everything else; `None` if nobody asked for it, as most patterns do not, and most names are of these.
    others: Option<Rc<[OsString]>>,
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Directory,
    Other,
    Nothing,
}

impl Expansion {
    /// The paths that a pattern stands for, in order: a single path whether it exists or not, and of a glob those that
    /// exist. Of a glob that ends in plain names, as `*/.git/hooks` does, the first of these has to exist; what becomes
    /// of the rest is for the caller to see.
    pub(super) fn paths(&mut self, pattern: &Pattern) -> Result<Vec<PathBuf>, ViewError> {
        let base = pattern.base().as_path();
        let Some(glob) = pattern.glob() else {
            return Ok(vec![base.to_owned()]);
        };
        let Some(real) = resolved(base)? else {
            return Ok(Vec::new());
        };
        let mut walk = Walk {
            expansion: self,
            pattern,
            parts: glob.parts(),
            found: BTreeSet::new(),
            left: vec![(real.clone(), 0)],
        };
        walk.go()?;
        let found = walk.found;
        if let Some(path) = found.iter().find(|path| path.to_str().is_none()) {
            return Err(ViewError::NoText { path: path.clone() });
        }
        self.matches += found.len();
        // By the name that the policy gives the base.
        let named = |path: PathBuf| match path.strip_prefix(&real) {
            Ok(rest) if rest.as_os_str().is_empty() => base.to_owned(),
            Ok(rest) => base.join(rest),
            Err(_) => path,
        };
        Ok(found.into_iter().map(named).collect())
    }

    fn list(&mut self, directory: &Path, others: Others, pattern: &Pattern) -> Result<Listing, ViewError> {
        if let Some(listing) = self.listed.get(directory)
            && (others == Others::Unwanted || listing.others.is_some())
        {
            let listing = listing.clone();
            self.look(listing.len(), pattern)?;
            return Ok(listing);
        }
        let listing = self.read(directory, others, pattern)?;
        if self.remembered + listing.len() <= REMEMBERED_MAX {
            self.remembered += listing.len();
            self.listed.insert(directory.to_owned(), listing.clone());
        }
        Ok(listing)
    }

    fn stands(&mut self, path: &Path, pattern: &Pattern) -> Result<Stands, ViewError> {
        self.look(1, pattern)?;
        if let Some(stands) = self.stood.get(path) {
            return Ok(*stands);
        }
        let stands = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => Stands::Directory,
            Ok(_) => Stands::Other,
            Err(error) if is_absent(&error) => Stands::Nothing,
            Err(error) if unreachable(path.parent().unwrap_or(path), &error) => Stands::Nothing,
            Err(source) => return Err(unreadable(path, source)),
        };
        if self.stood.len() < REMEMBERED_MAX {
            self.stood.insert(path.to_owned(), stands);
        }
        Ok(stands)
    }

    fn read(&mut self, directory: &Path, others: Others, pattern: &Pattern) -> Result<Listing, ViewError> {
        if others == Others::Unwanted && is_leaf(directory) {
            self.look(1, pattern)?;
            return Ok(Listing::default());
        }
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) || unreachable(directory, &error) => {
                return Ok(Listing::default());
            }
            Err(source) => return Err(unreadable(directory, source)),
        };
        let (mut directories, mut rest) = (Vec::new(), Vec::new());
        for entry in entries {
            self.look(1, pattern)?;
            let entry = entry.map_err(|source| unreadable(directory, source))?;
            let kind = entry
                .file_type()
                .map_err(|source| unreadable(directory, source))?;
            if kind.is_dir() {
                directories.push(entry.file_name());
            } else if others == Others::Wanted {
                rest.push(entry.file_name());
            }
        }
        Ok(Listing {
            directories: directories.into(),
            others: (others == Others::Wanted).then(|| rest.into()),
        })
    }

    fn look(&mut self, more: usize, pattern: &Pattern) -> Result<(), ViewError> {
        self.looked_at += more;
        if self.looked_at <= LOOKED_AT_MAX {
            return Ok(());
        }
        Err(ViewError::TooMany {
            pattern: pattern.clone(),
            bound: LOOKED_AT_MAX,
            what: "names had to be looked at for it and the patterns before it",
        })
    }
}

/// Whether what is no directory matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    Wanted,
    Unwanted,
}

impl Listing {
    fn len(&self) -> usize {
        self.directories.len() + self.others.as_ref().map_or(0, |others| others.len())
    }
}

/// The way of one pattern through the disk.
struct Walk<'a> {
    expansion: &'a mut Expansion,
    pattern: &'a Pattern,
    parts: &'a [Part],
    found: BTreeSet<PathBuf>,
    /// Directories that fit the parts before this one.
    left: Vec<(PathBuf, usize)>,
}

impl Walk<'_> {
    /// By hand and not by recursion: a tree may be deeper than a stack.
    fn go(&mut self) -> Result<(), ViewError> {
        while let Some((directory, at)) = self.left.pop() {
            match &self.parts[at..] {
                [] => _ = self.found.insert(directory),
                [Part::Name(name), ..] => self.plain(&directory.join(name), at + 1)?,
                [Part::Fit(fit), ..] => self.fitting(&directory, fit, at)?,
                [Part::Any, ..] => self.any(&directory, at)?,
            }
            if self.expansion.matches + self.found.len() > MATCHES_MAX {
                return Err(ViewError::TooMany {
                    pattern: self.pattern.clone(),
                    bound: MATCHES_MAX,
                    what: "paths fit it",
                });
            }
        }
        Ok(())
    }

    /// A plain name after a wildcard.
    fn plain(&mut self, path: &Path, at: usize) -> Result<(), ViewError> {
        let stands = self.expansion.stands(path, self.pattern)?;
        if stands == Stands::Nothing {
            return Ok(());
        }
        let names: Option<PathBuf> = self.parts[at..]
            .iter()
            .map(|part| match part {
                Part::Name(name) => Some(name),
                Part::Fit(_) | Part::Any => None,
            })
            .collect();
        match names {
            Some(names) if names.as_os_str().is_empty() => _ = self.found.insert(path.to_owned()),
            Some(names) => _ = self.found.insert(path.join(names)),
            None if stands == Stands::Directory => self.left.push((path.to_owned(), at)),
            None => {}
        }
        Ok(())
    }

    /// A name with wildcards.
    fn fitting(&mut self, directory: &Path, fit: &str, at: usize) -> Result<(), ViewError> {
        let last = at + 1 == self.parts.len();
        let others = if last { Others::Wanted } else { Others::Unwanted };
        let listing = self.expansion.list(directory, others, self.pattern)?;
        let fits = |name: &&OsString| crate::policy::name_fits(fit, &name.to_string_lossy());
        let directories = listing.directories.iter().filter(fits);
        self.left
            .extend(directories.map(|name| (directory.join(name), at + 1)));
        if let (true, Some(others)) = (last, &listing.others) {
            let others = others.iter().filter(fits);
            self.found.extend(others.map(|name| directory.join(name)));
        }
        Ok(())
    }

    /// Any number of directories.
    fn any(&mut self, directory: &Path, at: usize) -> Result<(), ViewError> {
        self.left.push((directory.to_owned(), at + 1));
        if at + 1 == self.parts.len() {
            // What is below a match is covered with it.
            return Ok(());
        }
        let listing = self.expansion.list(directory, Others::Unwanted, self.pattern)?;
        let below = listing.directories.iter().map(|name| (directory.join(name), at));
        self.left.extend(below);
        Ok(())
    }
}

/// File systems that count a directory's links exactly: one for its name, one for its `.`, and one for the `..` of each
/// directory in it. Others answer 1, or what they like.
const COUNTING: [FsType; 3] = [EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC];

/// Whether a directory is known to have none in it. Most of a large tree are such, and full of files that no pattern asks
/// for, so that not reading them is most of what looking costs.
fn is_leaf(directory: &Path) -> bool {
    fs::symlink_metadata(directory).is_ok_and(|found| found.is_dir() && found.nlink() == 2)
        && statfs(directory).is_ok_and(|found| COUNTING.contains(&found.filesystem_type()))
}

/// Whether a directory was refused for good: it is another user's, and may not even be passed through, so nothing of
/// it is in a session's reach. One's own directory only looks so, until somebody changes its mode.
fn unreachable(directory: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
        && fs::symlink_metadata(directory).is_ok_and(|found| found.uid() != crate::sys::effective_uid())
        && access(directory, AccessFlags::X_OK).is_err()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::policy::AbsolutePath;

    /// What a pattern below `above` stands for, without `above`.
    fn found(above: &Path, glob: &str) -> Vec<String> {
        let json = serde_json::json!({ "base": above, "glob": glob });
        let pattern: Pattern = serde_json::from_value(json).unwrap();
        let paths = Expansion::default().paths(&pattern).unwrap();
        let names = paths.into_iter().map(|path| {
            let rest = path.strip_prefix(above).unwrap();
            rest.to_str().unwrap().to_owned()
        });
        names.collect()
    }

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let above = tempfile::tempdir().unwrap();
        for file in files {
            let path = above.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        above
    }

    #[test]
    fn what_is_found_is_what_the_pattern_says_of_itself() {
        let above = tree(&["a/.env", "a/b/.env", ".env", "a/b/env", "c.key", ".git/hooks/x"]);
        let path = above.path();
        assert_eq!(found(path, "**/.env"), [".env", "a/.env", "a/b/.env"]);
        assert_eq!(found(path, "*/.env"), ["a/.env"]);
        assert_eq!(found(path, "*.key"), ["c.key"]);
        assert_eq!(found(path, "**"), [""]);
        assert_eq!(found(path, "?"), ["a"]);
        assert_eq!(found(path, "*/b/*"), ["a/b/.env", "a/b/env"]);
        // The file that stands in the way of a protected path is what has to be protected.
        assert_eq!(found(path, "*/.env/x"), ["a/.env/x"]);
        let pattern: Pattern =
            serde_json::from_value(serde_json::json!({ "base": path, "glob": "**/.env" })).unwrap();
        for match_ in Expansion::default().paths(&pattern).unwrap() {
            assert!(pattern.matches(&AbsolutePath::try_from(match_.as_path()).unwrap()));
        }
    }

    #[test]
    fn no_link_is_followed_and_a_link_that_fits_is_found() {
        let above = tree(&["a/secret/.env"]);
        symlink(above.path().join("a"), above.path().join("link")).unwrap();
        symlink("/nonexistent", above.path().join("a/.env")).unwrap();
        assert_eq!(found(above.path(), "**/.env"), ["a/.env", "a/secret/.env"]);
        assert_eq!(found(above.path(), "*/secret/.env"), ["a/secret/.env"]);
    }

    #[test]
    fn a_directory_in_a_directory_of_files_is_found_wherever_the_tree_lies() {
        // Memory and the disk, where they are not the same.
        for place in ["/dev/shm", "/var/tmp", "/tmp"] {
            let above = tempfile::tempdir_in(place).unwrap();
            for directory in ["files", "both/deep", "both/.git/hooks"] {
                fs::create_dir_all(above.path().join(directory)).unwrap();
            }
            for number in 0..100 {
                fs::write(above.path().join(format!("files/{number}")), "").unwrap();
                fs::write(above.path().join(format!("both/{number}")), "").unwrap();
            }
            fs::create_dir_all(above.path().join("both/deep/.git/hooks")).unwrap();
            let path = above.path();
            assert_eq!(found(path, "*/.git/hooks"), ["both/.git/hooks"], "{place}");
            assert_eq!(found(path, "*/*/.git/hooks"), ["both/deep/.git/hooks"], "{place}");
            assert_eq!(found(&path.join("files"), "9?").len(), 10, "{place}");
        }
    }

    #[test]
    fn a_tree_deeper_than_a_stack_is_no_matter() {
        let above = tree(&[]);
        let mut path = above.path().to_owned();
        while path.as_os_str().len() < 4000 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(".env"), "").unwrap();
        assert_eq!(found(above.path(), "**/.env").len(), 1);
    }

    #[test]
    fn more_matches_than_there_can_be_mounts_are_an_error_that_names_the_pattern() {
        let names: Vec<String> = (0..=MATCHES_MAX).map(|number| format!("{number}.key")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let above = tree(&names);
        let json = serde_json::json!({ "base": above.path(), "glob": "*.key" });
        let pattern: Pattern = serde_json::from_value(json).unwrap();
        let error = Expansion::default().paths(&pattern).unwrap_err().to_string();
        assert!(error.contains("*.key") && error.contains("1000"), "{error}");
    }
}
