//! The protected paths of a plan, as the disk has them: which a mount protects, and which have to be looked at again.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::landmark::{Change, Landmark, Stood};
use crate::policy::{Pattern, Plan};

use super::expand::Expansion;
use super::git;
use super::view::{ViewError, is_absent, resolved, unreadable};

/// The protected paths of a plan, as the disk has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survey {
    /// Each once, those that exist first.
    landmarks: Vec<Landmark>,
    patterns: Vec<Fitting>,
}

/// A pattern of protected paths, and what of the writable fitted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fitting {
    pattern: Pattern,
    paths: BTreeSet<PathBuf>,
}

impl Survey {
    /// This survey, written down for whoever is to [look](super::look()) again.
    ///
    /// # Errors
    ///
    /// A path of it is no text.
    pub fn watch(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Every protected path that is not what it was, and what became of it.
    #[must_use]
    pub fn changes(&self) -> Vec<(PathBuf, Change)> {
        let changed = |landmark: &Landmark| Some((landmark.path.clone(), landmark.change()?));
        let changed = self.landmarks.iter().filter_map(changed);
        let appeared = self.appeared().into_iter().map(|path| (path, Change::Appeared));
        changed.chain(appeared).collect()
    }

    /// The protected paths that exist and cannot be changed.
    #[must_use]
    pub fn sealed(&self) -> Vec<&Path> {
        let sealed = self.landmarks.iter().filter(|landmark| is_sealed(landmark));
        sealed.map(|landmark| landmark.path.as_path()).collect()
    }

    /// The sealed paths that somebody on the host has removed or put another file in the place of. The kernel takes
    /// a mount away together with what it stood on, so since then the program could write there.
    #[must_use]
    pub fn unsealed(&self) -> Vec<PathBuf> {
        self.no_more(is_sealed).collect()
    }

    /// The paths that no mount could protect and that are not now what they were: to be told to the user, since a
    /// program of his may obey them.
    #[must_use]
    pub fn changed(&self) -> Vec<PathBuf> {
        let changed = self.no_more(|landmark| !is_sealed(landmark));
        let all: BTreeSet<PathBuf> = changed.chain(self.appeared()).collect();
        all.into_iter().collect()
    }

    /// What fits a pattern and did not before.
    fn appeared(&self) -> BTreeSet<PathBuf> {
        let mut expansion = Expansion::default();
        let fitting = self.patterns.iter().flat_map(|Fitting { pattern, paths }| {
            // What cannot be looked at any more is not what it was.
            let now = expansion
                .paths(pattern)
                .unwrap_or_else(|_| vec![pattern.base().as_path().to_owned()]);
            let new = now.into_iter().filter(|path| !paths.contains(path));
            let there = |path: PathBuf| match found(Path::new("/"), &path) {
                Ok(Found::Absent) => None,
                // Once, and not for each path that would lie below it.
                Ok(Found::Blocked(file)) => Some(file),
                Ok(Found::There | Found::Link(_)) | Err(_) => Some(path),
            };
            new.filter_map(there).collect::<Vec<_>>()
        });
        fitting.collect()
    }

    fn no_more(&self, which: impl Fn(&Landmark) -> bool) -> impl Iterator<Item = PathBuf> {
        let changed = move |landmark: &&Landmark| which(landmark) && landmark.change().is_some();
        let changed = self.landmarks.iter().filter(changed);
        changed.map(|landmark| landmark.path.clone())
    }
}

fn is_sealed(landmark: &Landmark) -> bool {
    matches!(landmark.stood, Stood::File { .. })
}

/// Looks at the protected paths of a plan below the roots that may be written.
pub(super) fn survey(plan: &Plan, roots: &[PathBuf], expansion: &mut Expansion) -> Result<Survey, ViewError> {
    let mut stands = Stands::default();
    let mut patterns = Vec::new();
    for pattern in &plan.files.protect {
        let mut fitting = BTreeSet::new();
        for path in expansion.paths(pattern)? {
            if let Some(root) = roots.iter().find(|root| path.starts_with(root)) {
                let there = stands.add(root, &path, pattern, roots)?;
                fitting.extend(there.then_some(path));
            }
        }
        if pattern.glob().is_some() {
            patterns.push(Fitting {
                pattern: pattern.clone(),
                paths: fitting,
            });
        }
    }
    let Stands { there, open } = stands;
    let mut landmarks = there.into_iter().map(sealed).collect::<Result<Vec<_>, _>>()?;
    landmarks.extend(open);
    Ok(Survey { landmarks, patterns })
}

fn sealed(path: PathBuf) -> Result<Landmark, ViewError> {
    let found = fs::symlink_metadata(&path).map_err(|source| unreadable(&path, source))?;
    let (device, inode) = (found.dev(), found.ino());
    Ok(Landmark {
        path,
        stood: Stood::File { device, inode },
    })
}

/// What stands at the protected paths.
#[derive(Default)]
struct Stands {
    there: BTreeSet<PathBuf>,
    open: Vec<Landmark>,
}

impl Stands {
    /// Notes one protected path below a writable root, and says whether anything is there.
    fn add(
        &mut self,
        root: &Path,
        path: &Path,
        pattern: &Pattern,
        roots: &[PathBuf],
    ) -> Result<bool, ViewError> {
        let writable = |path: &PathBuf| roots.iter().any(|root| path.starts_with(root));
        let open = |stood| Landmark {
            path: path.to_owned(),
            stood,
        };
        match found(root, path)? {
            Found::There => {
                self.there.insert(path.to_owned());
            }
            Found::Blocked(file) => {
                for elsewhere in git::elsewhere(&file, path) {
                    self.there.extend(resolved(&elsewhere)?.filter(writable));
                }
                self.there.insert(file);
            }
            // A pattern finds by itself what appears later.
            Found::Absent if pattern.glob().is_some() => return Ok(false),
            Found::Absent => self.open.push(open(Stood::Nothing)),
            Found::Link(target) => {
                self.open.push(open(Stood::Link(target)));
                self.there.extend(resolved(path)?.filter(writable));
            }
        }
        Ok(true)
    }
}

enum Found {
    There,
    Absent,
    /// A file stands where a directory would have to be, as `.git` does in a linked worktree: as long as it stands,
    /// nothing can appear below, and what it says decides where others look instead.
    Blocked(PathBuf),
    Link(PathBuf),
}

/// Goes from `root` to `path` step by step, up to the first link.
fn found(root: &Path, path: &Path) -> Result<Found, ViewError> {
    let mut steps: Vec<&Path> = path.ancestors().take_while(|step| *step != root).collect();
    steps.reverse();
    for step in steps {
        match fs::symlink_metadata(step) {
            Ok(metadata) if metadata.is_symlink() => {
                return fs::read_link(step)
                    .map(Found::Link)
                    .map_err(|source| unreadable(step, source));
            }
            Ok(metadata) if !metadata.is_dir() && step != path => return Ok(Found::Blocked(step.to_owned())),
            Ok(_) => {}
            Err(error) if is_absent(&error) => return Ok(Found::Absent),
            Err(source) => return Err(unreadable(step, source)),
        }
    }
    Ok(Found::There)
}
