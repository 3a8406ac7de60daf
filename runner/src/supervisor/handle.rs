//! A session as the rest of the runner holds it.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use oqto_protocol::command::CommandEnvelope;
use oqto_protocol::cursor::Cursor;
use oqto_protocol::reply::Reply;
use oqto_protocol::session::{SessionInfo, SessionState, SessionStatus};
use tokio::sync::{mpsc, oneshot, watch};

use super::record::SessionRecord;
use crate::event_log::{Resume, SessionLog};
use crate::shim::WriteId;

/// What a session's driver is asked.
pub(super) enum Ask {
    /// To carry out a command.
    Command(Box<CommandEnvelope>, oneshot::Sender<Reply>),
    /// How the session stands.
    State(oneshot::Sender<SessionStatus>),
    /// To end what runs, since the runner is stopping; under this name.
    Stop(WriteId),
}

/// A session, alive or ended.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) record: SessionRecord,
    pub(super) dir: PathBuf,
    /// Its events, held by its driver; with no driver they are where the record says.
    pub(super) log: Weak<SessionLog>,
    /// Where the shim of its harness is, while something of it runs.
    pub(super) shim_dir: watch::Receiver<Option<PathBuf>>,
    /// Its driver; `None` when it is unloaded, or ended before this runner began.
    pub(super) asks: Option<mpsc::Sender<Ask>>,
    /// What a list says of it; while it is driven but for the newest event.
    pub(super) info: watch::Receiver<SessionInfo>,
    /// Whether it has recorded its last event.
    pub(super) ended: watch::Receiver<bool>,
    /// Why it ended, once it has.
    pub(super) reason: Arc<OnceLock<String>>,
}

/// Where a session works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workplace {
    /// In a directory that was named when it was made, links resolved.
    Named(PathBuf),
    /// In one that the runner made for it.
    Own,
}

/// A session's events, to be followed.
pub struct Followed {
    /// Where they are.
    pub log: SessionLog,
    /// Whether there will be no more.
    pub ended: watch::Receiver<bool>,
}

impl Followed {
    /// Where a reader goes on that saw `seen` last.
    #[must_use]
    pub fn resume(&self, seen: Cursor) -> Resume {
        self.log.resume(u64::from(seen.epoch), seen.seq)
    }

    /// The newest event that is kept.
    #[must_use]
    pub fn newest(&self) -> Cursor {
        cursor(&self.log)
    }
}

impl Handle {
    /// Whether anything of it runs, or is about to.
    pub(super) fn lives(&self) -> bool {
        !*self.ended.borrow() && self.info.borrow().state != SessionState::Dormant
    }

    /// Where it works.
    pub(super) fn workplace(&self) -> Workplace {
        match self.record.config.cwd {
            Some(_) => Workplace::Named(self.record.workspace.clone()),
            None => Workplace::Own,
        }
    }

    /// What a list says of it.
    pub(super) fn info(&self) -> SessionInfo {
        let mut info = self.info.borrow().clone();
        if let Some(log) = self.log.upgrade() {
            info.cursor = cursor(&log);
        }
        if *self.ended.borrow() {
            info.state = SessionState::Closed;
        }
        info
    }

    /// How it stands, when nothing drives it any more.
    pub(super) fn ended_status(&self) -> SessionStatus {
        SessionStatus {
            info: self.info(),
            capabilities: Vec::new(),
            thinking_level: None,
            provider: self.record.config.provider.clone(),
            pending_request: None,
            sandbox: Some(self.record.sandbox.clone()),
            harness_state: None,
        }
    }
}

/// The newest event of a log.
pub(super) fn cursor(log: &SessionLog) -> Cursor {
    // An epoch grows by one a power failure.
    Cursor {
        epoch: u32::try_from(log.epoch()).unwrap_or(u32::MAX),
        seq: log.last_seq(),
    }
}
