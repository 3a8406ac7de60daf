//! What the sandbox uses of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::principal::Principal;
use super::probe::Outer;
use super::report::{Layer, State};
use crate::policy::Pattern;

/// What the sandbox uses of the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// What the sandbox is made with.
    pub outer: Outer,
    /// This program, where the principal can reach it.
    pub runner_exe: PathBuf,
    /// The variables of whoever starts the session: policies name some to be passed on.
    pub env: BTreeMap<OsString, OsString>,
    /// As whom the harness runs.
    pub principal: Principal,
    /// Files that the program is shown beside those of the plan and cannot change, by their paths inside.
    pub shown: BTreeMap<PathBuf, Vec<u8>>,
    /// What became of the group that the session is to be born in ([`cgroup`](super::cgroup)).
    pub cgroup: Option<(State, String)>,
    /// Layers that are left out, so that a test can show that the others hold alone. No file, no variable and no option
    /// of the program reaches this, and a report says `off` for each.
    pub without: BTreeSet<Layer>,
}

impl Host {
    /// Whether a layer is not left out.
    pub(super) fn with(&self, layer: Layer) -> bool {
        !self.without.contains(&layer)
    }
}

/// Why the principal cannot reach this program.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// A file or directory on the way cannot be looked at.
    #[error("cannot look at {path}")]
    Look {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The copy cannot be made.
    #[error("cannot copy this program to {path}")]
    Copy {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The directory for copies could be changed by somebody else.
    #[error("{path} is no directory that only its owner, this process's user, can write")]
    Directory {
        /// Which.
        path: PathBuf,
    },
}

/// A path by which the principal can run `exe`, which this process runs: its own, or that of a copy in `bin_dir`, made
/// once.
///
/// A program that lies in what the session may write is copied too, whoever runs it: by the next session its own path
/// could lead to another. What is copied is the file that this process runs, which nobody can write meanwhile.
///
/// The copy is named by what the kernel says of the original (device, inode, length, times), so that telling whether
/// there is one already does not mean to read the whole program at every start.
///
/// # Errors
///
/// `bin_dir` is not safe, or the copy cannot be made.
pub fn reachable_exe(
    exe: &Path,
    principal: &Principal,
    bin_dir: &Path,
    writable: &[Pattern],
) -> Result<PathBuf, ReachError> {
    let exposed = writable.iter().any(|root| root.covers_path(exe));
    if !exposed && nix::unistd::geteuid().as_raw() == principal.uid() {
        return Ok(exe.to_owned());
    }
    let look = |path: &Path| {
        fs::metadata(path).map_err(|source| ReachError::Look {
            path: path.to_owned(),
            source,
        })
    };
    let running = Path::new("/proc/self/exe");
    let own = look(running)?;
    let mut reachable = !exposed && principal.may(&own, 0o5);
    for above in exe.ancestors().skip(1) {
        reachable = reachable && principal.may(&look(above)?, 0o1);
    }
    if reachable {
        return Ok(exe.to_owned());
    }
    private_directory(bin_dir)?;
    let name = format!(
        "oqto-runner-{:x}-{:x}-{:x}-{:x}",
        own.dev(),
        own.ino(),
        own.len(),
        own.mtime_nsec() ^ own.mtime()
    );
    let copy = bin_dir.join(name);
    if !copy.exists() {
        copy_once(running, &copy).map_err(|source| ReachError::Copy {
            path: copy.clone(),
            source,
        })?;
    }
    Ok(copy)
}

fn private_directory(path: &Path) -> Result<(), ReachError> {
    let failed = |source| ReachError::Copy {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(failed)?;
    let found = fs::symlink_metadata(path).map_err(failed)?;
    let own = nix::unistd::geteuid().as_raw();
    if found.is_dir() && found.uid() == own && found.mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(ReachError::Directory {
            path: path.to_owned(),
        })
    }
}

/// Whoever sees the name sees the whole copy: it gets it only at the end.
fn copy_once(from: &Path, to: &Path) -> io::Result<()> {
    let unfinished = to.with_extension(format!("{}.new", std::process::id()));
    let copied = || {
        let mut target = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o755)
            .open(&unfinished)?;
        io::copy(&mut File::open(from)?, &mut target)?;
        // Whatever the umask left of the mode.
        target.set_permissions(Permissions::from_mode(0o755))?;
        target.sync_all()?;
        fs::rename(&unfinished, to)
    };
    copied().inspect_err(|_| {
        // The copy failed already; a left-over that cannot be removed either changes nothing.
        let _ = fs::remove_file(&unfinished);
    })
}
