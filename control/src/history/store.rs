//! The port of a history store.

use std::fmt::Debug;
use std::path::PathBuf;

use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::Envelope;
use oqto_protocol::id::{RunnerId, SessionId};

/// Names a session everywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionAddr {
    /// Where it is.
    pub runner_id: RunnerId,
    /// Which.
    pub session_id: SessionId,
}

/// How well events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Everything up to here outlives this process and this host's power: the runner may forget it.
    Durable(Cursor),
    /// Only in memory: the runner must not forget it.
    Volatile,
}

/// Why a store could not keep or find events.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An event has no form to be written in.
    #[error("cannot write an event down")]
    Encode(#[source] serde_json::Error),
    /// What was kept is not an event.
    #[error("line {line} of {} is not an event", path.display())]
    Corrupt {
        /// Where.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// Why.
        source: serde_json::Error,
    },
    /// The task that calls the store was ended.
    #[error("the store's task was ended")]
    Ended(#[source] tokio::task::JoinError),
    /// The store is somebody else's, and so is the reason.
    #[error("the store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Keeps events on this side. Calls may block: they are made on threads that may.
pub trait HistoryStore: Debug + Send + Sync {
    /// Keeps events that follow each other. An event that is kept already is passed over; a
    /// [`stream.reset`](oqto_protocol::event::StreamReset) says that what was kept behind its number never happened.
    ///
    /// # Errors
    /// When not all could be kept. The same events may come again.
    fn append(&self, session: &SessionAddr, events: &[Envelope]) -> Result<Kept, HistoryError>;

    /// The last event that is kept of a session; the default cursor for none.
    ///
    /// # Errors
    /// When what is kept cannot be read.
    fn last(&self, session: &SessionAddr) -> Result<Cursor, HistoryError>;
}
