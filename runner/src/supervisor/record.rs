//! What a session was asked to be, on disk beside it, so that it is found again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use oqto_protocol::id::{CommandId, SessionId};
use oqto_protocol::policy::SandboxReport;
use oqto_protocol::session::{SessionConfig, SessionInfo};
use serde::{Deserialize, Serialize};

use crate::harness::{Edition, Manner};
use crate::policy::Permissions;

/// The longest such file, bytes: a configuration comes in one frame, but nobody names that much.
const FILE_LEN_MAX: u64 = 4 * 1024 * 1024;

/// How long the name of a harness's own session may be that is kept here, bytes: it is a path, or a short id. A longer
/// one must not make the record one that cannot be read.
const OWN_SESSION_LEN_MAX: usize = 4096;

/// The file's name.
const FILE: &str = "session.json";

/// Its name once the session is being deleted.
const LEAVING: &str = "session.json.leaving";

/// What a session was asked to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionRecord {
    /// Its name.
    pub(super) id: SessionId,
    /// The command that made it: the same command again makes no second one.
    pub(super) created_by: CommandId,
    /// When, Unix milliseconds.
    pub(super) created_at: u64,
    /// What was asked for. The variables' values are left out: they may be secrets.
    pub(super) config: SessionConfig,
    /// Where it works, links resolved.
    pub(super) workspace: PathBuf,
    /// Its event log.
    pub(super) store: PathBuf,
    /// What was to hold it.
    pub(super) sandbox: SandboxReport,
    /// Who answers when its harness asks to be allowed something: what decided once decides the same when its tape is read
    /// again, whatever became of the policy meanwhile.
    #[serde(default)]
    pub(super) permissions: Permissions,
    /// What is looked at again when it has worked. Not there in those of before that was done.
    #[serde(default)]
    pub(super) watch: Option<String>,
    /// By which session of its own its harness could go on: what is needed where the event log, which has it too, is
    /// lost. Not there before the harness has said so, nor once the session has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) own_session: Option<String>,
    /// Which edition of its harness was started last.
    #[serde(default)]
    pub(super) edition: Edition,
    /// How its harness is spoken to, as it was defined when it was started last. Not there in those of before that was
    /// kept.
    #[serde(default)]
    pub(super) manner: Option<Manner>,
    /// What a list says of it while it is unloaded; none while more may be said of it.
    #[serde(default)]
    pub(super) unloaded: Option<SessionInfo>,
}

/// A record that cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no session's record")]
    Malformed {
        path: PathBuf,
        source: serde_json::Error,
    },
}

impl SessionRecord {
    /// Writes the record into the session's directory, whole or not at all.
    pub(super) fn keep(&self, dir: &Path) -> Result<(), RecordError> {
        let path = dir.join(FILE);
        let text = serde_json::to_vec(self).map_err(|source| RecordError::Malformed {
            path: path.clone(),
            source,
        })?;
        let new = dir.join("session.json.new");
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(dir)?.sync_all()
        })();
        written.map_err(|source| RecordError::Write { path, source })
    }

    /// Keeps by which session of its own the harness could go on, if that is news; whether it was.
    pub(super) fn keep_own_session(&mut self, own_session: Option<&str>, dir: &Path) -> bool {
        let own_session = own_session.filter(|name| name.len() <= OWN_SESSION_LEN_MAX);
        if self.own_session.as_deref() == own_session {
            return false;
        }
        self.own_session = own_session.map(str::to_owned);
        // Only a session whose event log is lost misses it; this one goes on.
        if let Err(error) = tokio::task::block_in_place(|| self.keep(dir)) {
            tracing::warn!(session = %self.id, error = %crate::cause::chain(&error), "its harness's own session is not noted");
        }
        true
    }

    /// Notes that the session is being deleted, which the next runner finishes. A disk without room has enough for that.
    pub(super) fn begin_to_leave(dir: &Path) -> Result<(), RecordError> {
        let path = dir.join(FILE);
        let noted = match fs::rename(&path, dir.join(LEAVING)) {
            // It is noted already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed.and_then(|()| File::open(dir)?.sync_all()),
        };
        noted.map_err(|source| RecordError::Write { path, source })
    }

    /// Reads the record of a session's directory.
    pub(super) fn open(dir: &Path) -> Result<Self, RecordError> {
        Self::read(&dir.join(FILE))
    }

    /// Reads the record of one that was being deleted; `None` when it was not.
    pub(super) fn open_leaving(dir: &Path) -> Result<Option<Self>, RecordError> {
        match Self::read(&dir.join(LEAVING)) {
            Err(RecordError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    fn read(path: &Path) -> Result<Self, RecordError> {
        let read_error = |source| RecordError::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = crate::sys::read_bounded(path, FILE_LEN_MAX).map_err(read_error)?;
        let bytes = bytes.ok_or_else(|| read_error(io::Error::other("it is too long")))?;
        serde_json::from_slice(&bytes).map_err(|source| RecordError::Malformed {
            path: path.to_owned(),
            source,
        })
    }
}
