//! What is kept beside the key: the certificate, and the newest trust statement.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use oqto_protocol::enrol::Grant;
use oqto_protocol::id::{AuthorityId, RunnerId};
use oqto_protocol::trust::Trust;
use serde::{Deserialize, Serialize};

use super::store::{self, StoreError, io_error};
use super::trust::{Statement, TrustError};
use crate::private;

const CERTIFICATE: &str = "certificate.json";
const STATEMENT: &str = "trust.json";

/// The longest statement's file, bytes: the most that can be revoked is 1.6 MB, a third more in base64.
const STATEMENT_LEN_MAX: u64 = 4 * 1024 * 1024;

/// How long another process of this runner may take with its identity: it writes one small file.
const LOCK_MAX: Duration = Duration::from_secs(10);

/// How often that is looked at.
const LOCK_LOOK: Duration = Duration::from_millis(10);

/// A certificate as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    // In one object with the rest, as it was when it was all that is kept: such a file is read as well.
    #[serde(flatten)]
    pub(super) grant: Grant,
    /// When it was taken, by this host's clock, Unix milliseconds.
    #[serde(default)]
    pub(super) taken_at: u64,
    /// The newest trust statement that was known when the roots were given that the grant has: those count, and not that
    /// statement's. Later ones count more.
    #[serde(default)]
    pub(super) statement: u64,
}

/// By what a file shows that it was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    inode: u64,
    len: u64,
    changed: (i64, i64),
}

impl Kept {
    pub(super) fn read(dir: &Path) -> Result<Option<(Self, Seen)>, StoreError> {
        let path = dir.join(CERTIFICATE);
        let Some(text) = store::read(&path)? else {
            return Ok(None);
        };
        let kept = serde_json::from_str(&text).map_err(|source| StoreError::Json {
            path: path.clone(),
            source,
        })?;
        Ok(Some((kept, look(&path)?)))
    }

    pub(super) fn write(&self, dir: &Path) -> Result<Seen, StoreError> {
        write(&dir.join(CERTIFICATE), self)?;
        look(&dir.join(CERTIFICATE))
    }
}

/// What the certificate's file shows now; `None` when it cannot be looked at.
pub(super) fn seen(dir: &Path) -> Option<Seen> {
    look(&dir.join(CERTIFICATE)).ok()
}

fn look(path: &Path) -> Result<Seen, StoreError> {
    let found = fs::symlink_metadata(path).map_err(|e| io_error("look at", path, e))?;
    Ok(Seen {
        inode: found.ino(),
        len: found.len(),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

/// Names a runner that nobody has signed yet: nothing is kept under another name before.
pub(super) fn name(dir: &Path, wanted: &RunnerId) -> Result<(), StoreError> {
    if store::read(&dir.join(CERTIFICATE))?.is_some() {
        return Ok(());
    }
    store::write(&dir.join("runner-id"), wanted.as_str().as_bytes())
}

/// The newest trust statement of `authority`; of another one, that this runner belonged to before, nothing counts.
pub(super) fn read_statement(dir: &Path, authority: &AuthorityId) -> Result<Option<Statement>, StoreError> {
    let path = dir.join(STATEMENT);
    let Some(text) = store::read_up_to(&path, STATEMENT_LEN_MAX)? else {
        return Ok(None);
    };
    let signed: Trust = serde_json::from_str(&text).map_err(|source| StoreError::Json {
        path: path.clone(),
        source,
    })?;
    match Statement::read(signed, authority) {
        Ok(statement) => Ok(Some(statement)),
        Err(TrustError::OtherAuthority { .. }) => Ok(None),
        Err(source) => Err(StoreError::Statement { path, source }),
    }
}

pub(super) fn write_statement(dir: &Path, statement: &Statement) -> Result<(), StoreError> {
    write(&dir.join(STATEMENT), &statement.signed)
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let text = serde_json::to_vec(value).map_err(|source| StoreError::Json {
        path: path.to_owned(),
        source,
    })?;
    store::write(path, &text)
}

/// Keeps other processes of this runner from its identity: `serve`, which renews it, and `enrol`.
pub(super) fn lock(dir: &Path) -> Result<Flock<File>, StoreError> {
    private::dir(dir, 0o700)?;
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| io_error("open", &path, e))?;
    let until = Instant::now() + LOCK_MAX;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            // Nothing waits for a lock with a bound.
            Err((same, nix::Error::EWOULDBLOCK)) if Instant::now() < until => same,
            Err((_, error)) => return Err(io_error("lock", &path, io::Error::from(error))),
        };
        std::thread::sleep(LOCK_LOOK);
    }
}
