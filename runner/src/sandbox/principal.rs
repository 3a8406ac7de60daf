//! As whom harnesses run: never as root, because the kernel trusts root's number with the host even without a
//! single capability.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getegid, geteuid, setgid, setgroups, setuid};

/// The number that stands for whoever has none; files of strangers show it too, so nobody can be told apart by it.
pub(super) const NOBODY: u32 = 65534;

/// A user of the host, not root and not nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    uid: Uid,
    gid: Gid,
    home: PathBuf,
}

/// Why no harness can run.
#[derive(Debug, thiserror::Error)]
pub enum PrincipalError {
    /// The workspace cannot be looked at.
    #[error("cannot tell whose the workspace {path} is")]
    Workspace {
        /// Which workspace.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The runner is root, and so is the workspace's owner.
    #[error(
        "the workspace {path} belongs to root, and no harness runs as root: use a directory of the agent's own that \
         belongs to a user, or name a user as principal in runner.toml"
    )]
    Root {
        /// Which workspace.
        path: PathBuf,
    },
    /// The chosen user is root or nobody, or has root's group.
    #[error("harnesses cannot run as user {uid} of group {gid}: neither may be root's, nor the user nobody")]
    Unfit {
        /// Who was chosen.
        uid: Uid,
        /// Its group.
        gid: Gid,
    },
    /// The database of users cannot be read.
    #[error("cannot ask the host for the user {uid}")]
    Database {
        /// Who was asked for.
        uid: Uid,
        /// Why not.
        source: Errno,
    },
}

/// The step of becoming a user that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot become user {uid}: {step}")]
pub struct AssumeError {
    uid: Uid,
    step: &'static str,
    source: Errno,
}

impl Principal {
    /// Who runs the harness of a session in this workspace: the runner's own user; if that is root, the user that
    /// its configuration names; if it names none, the workspace's owner.
    ///
    /// # Errors
    ///
    /// It would be root, nobody, or cannot be told.
    pub fn choose(configured: Option<(Uid, Gid)>, workspace: &Path) -> Result<Self, PrincipalError> {
        let own = geteuid();
        if !own.is_root() {
            return Self::known(own, getegid());
        }
        if let Some((uid, gid)) = configured {
            return Self::known(uid, gid);
        }
        let path = || workspace.to_owned();
        let owner =
            fs::metadata(workspace).map_err(|source| PrincipalError::Workspace { path: path(), source })?;
        if owner.uid() == 0 {
            return Err(PrincipalError::Root { path: path() });
        }
        Self::known(Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()))
    }

    /// Its number.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// The number of its group.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid.as_raw()
    }

    /// Its home directory on the host.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Whether a file of that owner, group and mode lets it do what `bits` (of `rwx`) say.
    pub(super) fn may(&self, metadata: &fs::Metadata, bits: u32) -> bool {
        let shift = match (metadata.uid() == self.uid(), metadata.gid() == self.gid()) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        (metadata.mode() >> shift) & bits == bits
    }

    /// Makes this process that user for good, without any other group. Does nothing if it is that user already.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn assume(&self) -> Result<(), AssumeError> {
        if geteuid() == self.uid {
            return Ok(());
        }
        let failed = |step| {
            move |source| AssumeError {
                uid: self.uid,
                step,
                source,
            }
        };
        setgroups(&[self.gid]).map_err(failed("its groups"))?;
        setgid(self.gid).map_err(failed("its group"))?;
        setuid(self.uid).map_err(failed("its number"))
    }

    /// A user by number, whom the host's database may or may not know.
    fn known(uid: Uid, gid: Gid) -> Result<Self, PrincipalError> {
        let user = User::from_uid(uid).map_err(|source| PrincipalError::Database { uid, source })?;
        // A home that no workspace lies above or below.
        let (gid, home) = user.map_or((gid, PathBuf::from("/nonexistent")), |user| (user.gid, user.dir));
        if uid.is_root() || uid.as_raw() == NOBODY || gid.as_raw() == 0 {
            return Err(PrincipalError::Unfit { uid, gid });
        }
        Ok(Self { uid, gid, home })
    }
}
