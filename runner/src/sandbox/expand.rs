//! What fits a pattern on this host at this moment.
//!
//! The walk begins at the pattern's base and follows no link below it. It is bounded, and past its bounds is an error:
//! a rule that holds for a part of what it names would be another rule.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

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
    listed: BTreeMap<PathBuf, Rc<[Entry]>>,
    remembered: usize,
    looked_at: usize,
    matches: usize,
}

#[derive(Debug)]
struct Entry {
    name: OsString,
    is_dir: bool,
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
        let parts = glob.parts();
        let mut found = BTreeSet::new();
        // By hand and not by recursion: a tree may be deeper than a stack.
        let mut left = vec![(real.clone(), 0)];
        while let Some((directory, at)) = left.pop() {
            match &parts[at..] {
                [] => {
                    found.insert(directory);
                }
                [Part::Name(name), later @ ..] => {
                    self.plain(
                        &directory.join(name),
                        later,
                        at + 1,
                        pattern,
                        &mut found,
                        &mut left,
                    )?;
                }
                [Part::Fit(_) | Part::Any, ..] => {
                    self.step(&directory, at, pattern, &mut found, &mut left)?;
                }
            }
            if self.matches + found.len() > MATCHES_MAX {
                return Err(ViewError::TooMany {
                    pattern: pattern.clone(),
                    bound: MATCHES_MAX,
                    what: "paths fit it",
                });
            }
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

    /// A plain name after a wildcard.
    fn plain(
        &mut self,
        path: &Path,
        later: &[Part],
        at: usize,
        pattern: &Pattern,
        found: &mut BTreeSet<PathBuf>,
        left: &mut Vec<(PathBuf, usize)>,
    ) -> Result<(), ViewError> {
        self.look(1, pattern)?;
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) if unreachable(path.parent().unwrap_or(path), &error) => return Ok(()),
            Err(source) => return Err(unreadable(path, source)),
        };
        let names: Option<PathBuf> = later
            .iter()
            .map(|part| match part {
                Part::Name(name) => Some(name),
                Part::Fit(_) | Part::Any => None,
            })
            .collect();
        match names {
            Some(names) if names.as_os_str().is_empty() => _ = found.insert(path.to_owned()),
            Some(names) => _ = found.insert(path.join(names)),
            None if metadata.is_dir() => left.push((path.to_owned(), at)),
            None => {}
        }
        Ok(())
    }

    /// A wildcard.
    fn step(
        &mut self,
        directory: &Path,
        at: usize,
        pattern: &Pattern,
        found: &mut BTreeSet<PathBuf>,
        left: &mut Vec<(PathBuf, usize)>,
    ) -> Result<(), ViewError> {
        let parts = pattern.glob().map(crate::policy::Glob::parts).unwrap_or_default();
        let last = at + 1 == parts.len();
        let any = parts[at] == Part::Any;
        if any {
            // None of the names that it may stand for. What is below a match is covered with it.
            left.push((directory.to_owned(), at + 1));
            if last {
                return Ok(());
            }
        }
        let entries = self.list(directory, pattern)?;
        for Entry { name, is_dir } in entries.iter() {
            let fits = match &parts[at] {
                Part::Any => true,
                Part::Fit(fit) => crate::policy::name_fits(fit, &name.to_string_lossy()),
                Part::Name(plain) => name.as_os_str() == plain.as_str(),
            };
            match (fits, any, *is_dir) {
                (true, true, true) => left.push((directory.join(name), at)),
                (true, false, true) => left.push((directory.join(name), at + 1)),
                (true, false, false) if last => _ = found.insert(directory.join(name)),
                _ => {}
            }
        }
        Ok(())
    }

    fn list(&mut self, directory: &Path, pattern: &Pattern) -> Result<Rc<[Entry]>, ViewError> {
        if let Some(listed) = self.listed.get(directory) {
            let listed = Rc::clone(listed);
            self.look(listed.len(), pattern)?;
            return Ok(listed);
        }
        let mut listed = Vec::new();
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) || unreachable(directory, &error) => return Ok(Rc::from([])),
            Err(source) => return Err(unreadable(directory, source)),
        };
        for entry in entries {
            self.look(1, pattern)?;
            let entry = entry.map_err(|source| unreadable(directory, source))?;
            let kind = entry
                .file_type()
                .map_err(|source| unreadable(directory, source))?;
            listed.push(Entry {
                name: entry.file_name(),
                is_dir: kind.is_dir(),
            });
        }
        let listed: Rc<[Entry]> = listed.into();
        if self.remembered + listed.len() <= REMEMBERED_MAX {
            self.remembered += listed.len();
            self.listed.insert(directory.to_owned(), Rc::clone(&listed));
        }
        Ok(listed)
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
