//! A history in memory: for programs that show what happens and keep nothing.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::Envelope;

use super::{HistoryError, HistoryStore, Kept, SessionAddr};
use crate::link::cursor_of;

/// Keeps the newest events of each session. Never durable, so nothing is acknowledged.
#[derive(Debug)]
pub struct Memory {
    events_max: NonZeroUsize,
    sessions: Mutex<BTreeMap<SessionAddr, Kepts>>,
}

#[derive(Debug, Default)]
struct Kepts {
    last: Cursor,
    events: VecDeque<Envelope>,
}

impl Memory {
    /// Keeps at most `events_max` events of each session; older ones are dropped.
    #[must_use]
    pub fn new(events_max: NonZeroUsize) -> Self {
        Self {
            events_max,
            sessions: Mutex::default(),
        }
    }

    /// What is kept of a session, in order.
    #[must_use]
    pub fn events(&self, session: &SessionAddr) -> Vec<Envelope> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions
            .get(session)
            .map(|kept| kept.events.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Drops what is kept of a session.
    pub fn forget(&self, session: &SessionAddr) {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(session);
    }
}

impl HistoryStore for Memory {
    fn append(&self, session: &SessionAddr, events: &[Envelope]) -> Result<Kept, HistoryError> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = sessions.entry(session.clone()).or_default();
        for event in events {
            let Some(cursor) = cursor_of(event).filter(|cursor| *cursor > kept.last) else {
                continue;
            };
            if cursor.seq < kept.last.seq {
                kept.events
                    .retain(|event| event.seq.is_none_or(|seq| seq <= cursor.seq));
            }
            if kept.events.len() >= self.events_max.get() {
                kept.events.pop_front();
            }
            kept.events.push_back(event.clone());
            kept.last = cursor;
        }
        Ok(Kept::Volatile)
    }

    fn last(&self, session: &SessionAddr) -> Result<Cursor, HistoryError> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(sessions.get(session).map(|kept| kept.last).unwrap_or_default())
    }
}
