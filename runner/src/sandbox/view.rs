//! What the harness sees of the disk: a plan's paths, as they are on this host at this moment.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::policy::{Network, Pattern, Plan};
use crate::sys;

use super::entry::{Rights, Rule, Same};
use super::expand::Expansion;
use super::survey::{self, Survey};
use super::wrap::{HOME, WrapError};

/// What stands at one path of the harness's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mount {
    /// A file or directory of the host that cannot be written.
    ReadOnly(PathBuf),
    /// A file or directory of the host that can.
    Writable(PathBuf),
    /// A link, as the host has it.
    Link(PathBuf),
    /// An empty directory in memory that can be written.
    Memory,
    /// An empty directory.
    EmptyDirectory,
    /// An empty file.
    EmptyFile,
}

/// The harness's root, each path once. Sorted, so that what lies above is mounted before what lies below.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) mounts: BTreeMap<PathBuf, Mount>,
    /// The workspace, which an earlier session may have written even if this one may not.
    workspace: PathBuf,
    /// The protected paths that it was made by.
    pub(super) survey: Survey,
}

/// Why the disk does not fit the plan.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A path cannot be looked at.
    #[error("cannot look at {path}")]
    Unreadable {
        /// Which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The workspace has become a link since it was asked for.
    #[error(
        "the workspace {path} is not a directory, or has a symbolic link on its way; name the directory itself"
    )]
    NotADirectory {
        /// Which path.
        path: PathBuf,
    },
    /// A pattern stands for too much to hold it to its word.
    #[error("more than {bound} {what}: the pattern {pattern}; write it narrower")]
    TooMany {
        /// Which pattern.
        pattern: Pattern,
        /// How many there may be.
        bound: usize,
        /// Of what.
        what: &'static str,
    },
    /// A path that a session gets leads elsewhere, by a link that an earlier session may have made.
    #[error(
        "{path} leads to {leads_to} by a symbolic link, which whoever works there may have made; name the file or \
         directory itself"
    )]
    Linked {
        /// Which path.
        path: PathBuf,
        /// Where it leads.
        leads_to: PathBuf,
    },
    /// A path that a pattern stands for cannot be written down.
    #[error("the name of {} is no text (UTF-8), and what the policy says of it cannot be held; rename it", path.display())]
    NoText {
        /// Which path.
        path: PathBuf,
    },
    /// A pattern of what may be written stands for nothing.
    #[error("nothing fits the pattern {pattern}, and what may be written has to exist")]
    Nothing {
        /// Which pattern.
        pattern: Pattern,
    },
}

/// What a plan gives, as paths of this host.
struct Given {
    workspace: PathBuf,
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

impl Given {
    fn of(plan: &Plan, expansion: &mut Expansion) -> Result<Self, ViewError> {
        let mut read = Vec::new();
        for pattern in &plan.files.read {
            read.extend(expansion.paths(pattern)?);
        }
        let mut write = Vec::new();
        for pattern in &plan.files.write {
            let paths = expansion.paths(pattern)?;
            if paths.is_empty() {
                let pattern = pattern.clone();
                return Err(ViewError::Nothing { pattern });
            }
            write.extend(paths);
        }
        Ok(Self {
            workspace: plan.workspace.as_path().to_owned(),
            read,
            write,
        })
    }

    /// Whether what stands at that path is for whoever works in a sandbox to lay out, in this session or before it.
    fn exposes(&self, path: &Path) -> bool {
        let below = |root: &PathBuf| path != root && path.starts_with(root);
        path.starts_with(&self.workspace) || self.write.iter().any(below)
    }
}

/// Directories in memory that every harness has.
const MEMORY: &[&str] = &["/tmp", "/var/tmp"];

impl View {
    /// Looks at the disk. The result is checked again from inside ([`Same`]), since it may change in between.
    pub(super) fn of(plan: &Plan) -> Result<Self, ViewError> {
        let workspace = plan.workspace.as_path();
        if resolved(workspace)?.as_deref() != Some(workspace) || !workspace.is_dir() {
            return Err(ViewError::NotADirectory {
                path: workspace.to_owned(),
            });
        }
        let mut view = Self {
            workspace: workspace.to_owned(),
            ..Self::default()
        };
        for path in MEMORY {
            view.mounts.insert(PathBuf::from(path), Mount::Memory);
        }
        view.mounts.insert(
            PathBuf::from(HOME),
            Mount::Writable(match resolved(plan.home.as_path())? {
                Some(home) => home,
                None => plan.home.as_path().to_owned(),
            }),
        );
        let mut expansion = Expansion::default();
        let given = Given::of(plan, &mut expansion)?;
        for path in &given.read {
            view.read(&given, path)?;
        }
        if plan.network == Network::Host {
            view.resolver(&given)?;
        }
        for path in &given.write {
            let Some(from) = resolved(path)? else {
                return Err(unreadable(path, io::ErrorKind::NotFound.into()));
            };
            if from != *path && given.exposes(path) {
                return Err(linked(path, from));
            }
            view.mounts.insert(path.clone(), Mount::Writable(from));
        }
        for pattern in &plan.files.hidden {
            for path in expansion.paths(pattern)? {
                view.hide(&path)?;
            }
        }
        let survey = survey::survey(plan, &given.write, &mut expansion)?;
        for path in survey.sealed() {
            view.seal(path)?;
        }
        view.survey = survey;
        Ok(view)
    }

    /// A path that may be a link, as `/bin` is on most hosts: kept as one where its target is in view anyway.
    fn read(&mut self, given: &Given, path: &Path) -> Result<(), ViewError> {
        let Some(from) = resolved(path)? else {
            return Ok(());
        };
        // What may be written stays so where it is named as readable too.
        if given
            .write
            .iter()
            .any(|root| path.starts_with(root) && from.starts_with(root))
        {
            return Ok(());
        }
        if from != path && given.exposes(path) {
            return self.read_link(given, path, from);
        }
        let shows = |given: &PathBuf| given != path && from.starts_with(given);
        let mount = match fs::read_link(path) {
            Ok(target) if given.read.iter().chain(&given.write).any(shows) => Mount::Link(target),
            Ok(_) | Err(_) => Mount::ReadOnly(from),
        };
        self.mounts.insert(path.to_owned(), mount);
        Ok(())
    }

    /// A link that an earlier session may have made stays a link: to follow it would give whatever it was pointed at.
    fn read_link(&mut self, given: &Given, path: &Path, from: PathBuf) -> Result<(), ViewError> {
        let above = |root: &PathBuf| root != path && path.starts_with(root);
        if given.read.iter().chain(&given.write).any(above) {
            // In view with its directory, as what it is.
            return Ok(());
        }
        let straight = match path.parent() {
            Some(parent) => resolved(parent)?.as_deref() == Some(parent),
            None => false,
        };
        match fs::read_link(path) {
            Ok(target) if straight => {
                self.mounts.insert(path.to_owned(), Mount::Link(target));
                Ok(())
            }
            Ok(_) | Err(_) => Err(linked(path, from)),
        }
    }

    /// Names have to be looked up somewhere: the list of resolvers is often a link out of `/etc`.
    fn resolver(&mut self, given: &Given) -> Result<(), ViewError> {
        let Some(from) = resolved(Path::new("/etc/resolv.conf"))? else {
            return Ok(());
        };
        if !given.read.iter().any(|given| from.starts_with(given)) {
            self.mounts.insert(from.clone(), Mount::ReadOnly(from));
        }
        Ok(())
    }

    /// Covers a path of the host that would be in view, and whatever else shows a part of it.
    fn hide(&mut self, path: &Path) -> Result<(), ViewError> {
        let Some(real) = resolved(path)? else {
            return Ok(());
        };
        for (at, mount) in &mut self.mounts {
            match mount {
                // The session's own home lies in the runner's state, which is closed to everybody else.
                Mount::ReadOnly(from) | Mount::Writable(from)
                    if from.starts_with(&real) && at != Path::new(HOME) =>
                {
                    *mount = empty(from);
                }
                _ => {}
            }
        }
        let empty = empty(&real);
        for path in self.shown(&real) {
            self.pin(&path);
            self.mounts.insert(path, empty.clone());
        }
        Ok(())
    }

    /// Covers a path of the host with itself, read-only, by whatever name it can be reached.
    fn seal(&mut self, path: &Path) -> Result<(), ViewError> {
        let Some(real) = resolved(path)? else {
            return Ok(());
        };
        for path in self.shown(&real) {
            self.pin(&path);
            self.mounts.insert(path, Mount::ReadOnly(real.clone()));
        }
        Ok(())
    }

    /// Where a path of the host, without links, is in view.
    fn shown(&self, real: &Path) -> Vec<PathBuf> {
        let shown = |(at, mount): (&PathBuf, &Mount)| match mount {
            Mount::ReadOnly(from) | Mount::Writable(from) => match real.strip_prefix(from).ok()? {
                // Joining nothing would add a slash, and a file with one is a directory.
                rest if rest.as_os_str().is_empty() => Some(at.clone()),
                rest => Some(at.join(rest)),
            },
            Mount::Link(_) | Mount::Memory | Mount::EmptyDirectory | Mount::EmptyFile => None,
        };
        let mut shown: Vec<PathBuf> = self.mounts.iter().filter_map(shown).collect();
        shown.sort();
        shown.dedup();
        shown
    }

    /// Makes a mount of every directory between a writable root and `path`, because what is a mount cannot be
    /// renamed: otherwise the cover would go away with its directory, and a new one could be put in its place.
    fn pin(&mut self, path: &Path) {
        let root = self
            .mounts
            .iter()
            .rev()
            .find(|(at, _)| path.starts_with(at) && path != at.as_path());
        let Some((root, Mount::Writable(from))) = root else {
            return;
        };
        let (root, from) = (root.clone(), from.clone());
        for directory in path.ancestors().skip(1).take_while(|above| *above != root) {
            let Ok(rest) = directory.strip_prefix(&root) else {
                return;
            };
            self.mounts
                .entry(directory.to_owned())
                .or_insert(Mount::Writable(from.join(rest)));
        }
    }

    /// The path of a program, without links, that what runs in this view cannot have replaced, now or earlier.
    pub(super) fn trusted(&self, program: &Path) -> Result<PathBuf, WrapError> {
        let real = fs::canonicalize(program).map_err(|source| unreadable(program, source))?;
        let within = |mount: &Mount| match mount {
            Mount::Writable(from) if real.starts_with(from) => Some(from.clone()),
            _ => None,
        };
        let ours = real.starts_with(&self.workspace).then(|| self.workspace.clone());
        match ours.or_else(|| self.mounts.values().find_map(within)) {
            Some(root) => Err(WrapError::Writable { path: real, root }),
            None => Ok(real),
        }
    }

    /// What landlock allows: the view again, in as few rules as say it.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let fixed = [
            ("/", Rights::List),
            ("/proc", Rights::Read),
            ("/dev", Rights::Device),
            ("/dev/shm", Rights::Write),
        ];
        let mut rules: Vec<Rule> = fixed
            .iter()
            .map(|(path, rights)| Rule {
                path: PathBuf::from(path),
                rights: *rights,
            })
            .collect();
        for (path, mount) in &self.mounts {
            let rights = match mount {
                Mount::ReadOnly(_) => Rights::Read,
                Mount::Writable(_) | Mount::Memory => Rights::Write,
                Mount::Link(_) | Mount::EmptyDirectory | Mount::EmptyFile => continue,
            };
            // Rights hold for all below, so what lies below the same rights or greater ones says nothing new.
            let said = |rule: &Rule| path.starts_with(&rule.path) && rule.rights.include(rights);
            if !rules.iter().any(said) {
                rules.push(Rule {
                    path: path.clone(),
                    rights,
                });
            }
        }
        rules
    }

    /// What every path of the host has to be inside, so that a link put in its place meanwhile is found.
    pub(super) fn same(&self) -> Result<Vec<Same>, ViewError> {
        let hosts = self.mounts.iter().filter_map(|(at, mount)| match mount {
            Mount::ReadOnly(from) | Mount::Writable(from) => Some((at, from)),
            Mount::Link(_) | Mount::Memory | Mount::EmptyDirectory | Mount::EmptyFile => None,
        });
        hosts
            .map(|(at, from)| {
                // The links were resolved, so one on the way now was put there since: followed, it would be taken for
                // what was chosen, here as by bubblewrap.
                let found = sys::open_straight(from).and_then(|file| file.metadata());
                let found = found.map_err(|source| unreadable(from, source))?;
                Ok(Same {
                    path: at.clone(),
                    device: found.dev(),
                    inode: found.ino(),
                })
            })
            .collect()
    }
}

/// Nothing, in the place of a file or directory.
fn empty(path: &Path) -> Mount {
    if path.is_dir() {
        Mount::EmptyDirectory
    } else {
        Mount::EmptyFile
    }
}

/// The path without links, or `None` if there is nothing.
pub(super) fn resolved(path: &Path) -> Result<Option<PathBuf>, ViewError> {
    match fs::canonicalize(path) {
        Ok(real) => Ok(Some(real)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(unreadable(path, source)),
    }
}

pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn linked(path: &Path, leads_to: PathBuf) -> ViewError {
    ViewError::Linked {
        path: path.to_owned(),
        leads_to,
    }
}

pub(super) fn unreadable(path: &Path, source: io::Error) -> ViewError {
    ViewError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use crate::policy::{AbsolutePath, Catalog, Request, resolve};

    use super::*;

    /// A plan whose workspace is `w` below `above`.
    fn plan(above: &Path) -> Plan {
        let path = |path: &Path| AbsolutePath::try_from(path).unwrap();
        for name in ["w", "home"] {
            fs::create_dir(above.join(name)).unwrap();
        }
        let request = Request {
            workspace: path(&above.join("w")),
            user_home: path(Path::new("/nonexistent")),
            session_home: path(&above.join("home")),
            read: Vec::new(),
            closed: Vec::new(),
            network_for: None,
            policy_at_most: None,
            workspace_file: None,
        };
        resolve(&Catalog::shipped(), &"workspace".parse().unwrap(), &request).unwrap()
    }

    fn survey(plan: &Plan) -> Survey {
        View::of(plan).unwrap().survey
    }

    #[test]
    fn directories_above_a_protected_path_are_pinned_and_those_above_the_workspace_are_not() {
        let above = tempfile::tempdir().unwrap();
        let plan = plan(above.path());
        let git = above.path().join("w/.git");
        fs::create_dir_all(git.join("hooks")).unwrap();
        let view = View::of(&plan).unwrap();
        assert_eq!(view.mounts.get(&git), Some(&Mount::Writable(git.clone())));
        assert_eq!(
            view.mounts.get(&git.join("hooks")),
            Some(&Mount::ReadOnly(git.join("hooks")))
        );
        assert_eq!(view.mounts.get(above.path()), None);
    }

    #[test]
    fn a_repository_whose_name_is_no_text_is_named_as_what_is_in_the_way() {
        use std::os::unix::ffi::OsStrExt as _;
        let above = tempfile::tempdir().unwrap();
        let plan = plan(above.path());
        let repository = above.path().join("w").join(std::ffi::OsStr::from_bytes(b"a\xff"));
        fs::create_dir_all(repository.join(".git/hooks")).unwrap();
        let error = View::of(&plan).unwrap_err().to_string();
        assert!(
            error.contains("/w/a\u{fffd}/.git/") && error.contains("is no text"),
            "{error}"
        );
    }

    #[test]
    fn repositories_in_the_repository_are_protected_and_new_ones_are_told() {
        let above = tempfile::tempdir().unwrap();
        let plan = plan(above.path());
        let path = |name: &str| above.path().join("w").join(name);
        for name in [
            "one/.git/hooks",
            "two/deep/.git/hooks",
            ".git/modules/a/b/hooks",
            "none/hooks",
        ] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("one/.git/config"), "").unwrap();
        let survey = survey(&plan);
        let protected = [
            ".git/modules/a/b/hooks",
            "one/.git/config",
            "one/.git/hooks",
            "two/deep/.git/hooks",
        ];
        assert_eq!(survey.sealed(), protected.map(path));
        assert_eq!(survey.changed(), Vec::<PathBuf>::new());
        fs::create_dir_all(path("three/.git/hooks")).unwrap();
        fs::create_dir_all(path("four/five")).unwrap();
        fs::write(path("four/five/.git"), "gitdir: ../../.git/modules/a").unwrap();
        assert_eq!(
            survey.changed(),
            [path("four/five/.git"), path("three/.git/hooks")]
        );
        let view = View::of(&plan).unwrap();
        assert_eq!(
            view.mounts.get(&path("one")),
            Some(&Mount::Writable(path("one"))),
            "it cannot be renamed"
        );
    }

    #[test]
    fn what_is_masked_stays_masked_for_who_names_it_itself() {
        let above = tempfile::tempdir().unwrap();
        let mut plan = plan(above.path());
        let path = |name: &str| above.path().join("w").join(name);
        fs::create_dir_all(path("secret/inner")).unwrap();
        fs::write(path("a.env"), "").unwrap();
        let pattern = |path: &Path| Pattern::from(AbsolutePath::try_from(path).unwrap());
        plan.files.read.push(pattern(&path("secret/inner")));
        plan.files.hidden.push(pattern(&path("secret")));
        let glob = serde_json::json!({ "base": path(""), "glob": "**/*.env" });
        plan.files.hidden.push(serde_json::from_value(glob).unwrap());
        let view = View::of(&plan).unwrap();
        assert_eq!(view.mounts.get(&path("secret")), Some(&Mount::EmptyDirectory));
        assert_eq!(view.mounts.get(&path("a.env")), Some(&Mount::EmptyFile));
        assert!(
            view.mounts.iter().all(|(at, mount)| {
                !at.starts_with(path("secret/inner")) || *mount == Mount::EmptyDirectory
            })
        );
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_protected_itself() {
        let above = tempfile::tempdir().unwrap();
        let plan = plan(above.path());
        let git = above.path().join("w/.git");
        fs::write(&git, "gitdir: elsewhere").unwrap();
        assert_eq!(survey(&plan).sealed(), [git.as_path()]);
    }

    #[test]
    fn a_survey_sees_what_appears_and_what_points_elsewhere() {
        let above = tempfile::tempdir().unwrap();
        let plan = plan(above.path());
        let (link, file) = (above.path().join("w/.vscode"), above.path().join("w/.envrc"));
        symlink("/nonexistent", &link).unwrap();
        let survey = survey(&plan);
        assert_eq!(survey.changed(), Vec::<PathBuf>::new());
        fs::write(&file, "").unwrap();
        fs::remove_file(&link).unwrap();
        symlink("/elsewhere", &link).unwrap();
        assert_eq!(survey.changed(), [file, link]);
    }

    #[test]
    fn no_landlock_rule_says_what_another_one_does() {
        let above = tempfile::tempdir().unwrap();
        let plan = plan(above.path());
        fs::create_dir_all(above.path().join("w/.git/hooks")).unwrap();
        let rules = View::of(&plan).unwrap().rules();
        let below = |path: &Path| rules.iter().filter(|rule| rule.path.starts_with(path)).count();
        assert_eq!(
            below(&above.path().join("w")),
            0,
            "the workspace lies in /tmp, which may be written anyway"
        );
        assert_eq!(below(Path::new("/usr")), 1);
    }

    #[test]
    fn what_a_session_gets_is_never_where_a_link_of_the_workspace_leads() {
        let above = tempfile::tempdir().unwrap();
        let mut plan = plan(above.path());
        let path = |name: &str| above.path().join(name);
        fs::create_dir_all(path("outside/inner")).unwrap();
        symlink(path("outside"), path("w/link")).unwrap();
        let pattern = |name: &str| Pattern::from(AbsolutePath::try_from(path(name).as_path()).unwrap());
        let shows_outside = |view: &View| {
            let mut mounts = view.mounts.values();
            mounts.any(|mount| {
                matches!(mount, Mount::ReadOnly(from) | Mount::Writable(from) if from.starts_with(path("outside")))
            })
        };
        (plan.files.write, plan.files.read) = (Vec::new(), vec![pattern("w/link")]);
        let view = View::of(&plan).unwrap();
        assert!(!shows_outside(&view));
        assert_eq!(
            view.mounts.get(&path("w/link")),
            Some(&Mount::Link(path("outside")))
        );
        plan.files.read.push(pattern("w"));
        assert!(!shows_outside(&View::of(&plan).unwrap()));
        plan.files.read = vec![pattern("w/link/inner")];
        assert!(matches!(View::of(&plan), Err(ViewError::Linked { .. })));
        (plan.files.write, plan.files.read) = (vec![pattern("w/link")], Vec::new());
        assert!(matches!(View::of(&plan), Err(ViewError::Linked { .. })));
    }

    #[test]
    fn a_link_put_in_a_path_s_place_is_not_taken_for_what_was_chosen() {
        let above = tempfile::tempdir().unwrap();
        let plan = plan(above.path());
        let (git, outside) = (above.path().join("w/.git"), above.path().join("outside"));
        fs::create_dir_all(git.join("hooks")).unwrap();
        fs::create_dir_all(outside.join("hooks")).unwrap();
        let view = View::of(&plan).unwrap();
        assert!(view.same().is_ok());
        fs::rename(&git, above.path().join("w/away")).unwrap();
        symlink("../outside", &git).unwrap();
        assert!(matches!(view.same(), Err(ViewError::Unreadable { .. })));
    }

    #[test]
    fn a_workspace_that_became_a_link_is_refused() {
        let above = tempfile::tempdir().unwrap();
        let plan = plan(above.path());
        fs::remove_dir(above.path().join("w")).unwrap();
        symlink("/usr", above.path().join("w")).unwrap();
        assert!(matches!(View::of(&plan), Err(ViewError::NotADirectory { .. })));
    }
}
