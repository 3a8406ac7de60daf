//! Where a session is gone on with: at a mark that an event log kept, by whichever build, or at its beginning.
//!
//! Pure: what is known is given, and nothing is looked at.

use oqto_protocol::session::SessionState;
use serde::{Deserialize, Serialize};

use crate::session::{Action, Session, Setup, Snapshot};

/// Where a replay begins, kept with the events that came before it. Any build reads those of any other.
#[derive(Serialize, Deserialize)]
pub(super) struct Mark {
    /// Which start of the harness the tape is of, from 0.
    pub(super) generation: u64,
    /// How far that tape was read.
    pub(super) tape: u64,
    /// The boot of the host in which it began.
    pub(super) boot_id: String,
    /// The core as it was then.
    pub(super) core: Snapshot,
}

/// A mark that cannot be read: no build wrote it, or it is damaged.
#[derive(Debug, thiserror::Error)]
#[error("the mark in the event log is malformed")]
pub struct BadMark(#[source] serde_json::Error);

/// Where a session is gone on with.
#[derive(Debug)]
pub struct Origin {
    pub(super) core: Session,
    /// The number of the last event before.
    pub(super) seq: u64,
    /// Which start of the harness the tape is of.
    pub(super) generation: u64,
    /// Where on the tape.
    pub(super) tape: u64,
    pub(super) boot_id: String,
    /// What the core wants done before anything is read.
    pub(super) actions: Vec<Action>,
}

impl Origin {
    /// From the beginning of the first tape, which was at `created_at`.
    #[must_use]
    pub fn begin(setup: Setup, created_at: u64) -> Self {
        Self {
            core: Session::new(setup, created_at),
            seq: 0,
            generation: 0,
            tape: 0,
            boot_id: String::new(),
            actions: Vec::new(),
        }
    }

    /// Of a session of which everything is lost but by which session of its own its harness goes on, if it does, and
    /// which start of it was the last. What became of it is still to be said.
    #[must_use]
    pub fn lost(setup: Setup, own_session: Option<String>, generation: u64, now: u64) -> Self {
        let mut core = Session::new(setup, now);
        core.remember(own_session);
        Self {
            core,
            seq: 0,
            generation,
            tape: 0,
            boot_id: String::new(),
            actions: Vec::new(),
        }
    }

    /// From the newest mark that the log kept, or from the beginning. `setup` is that of the session.
    ///
    /// # Errors
    /// When the mark is none.
    pub fn new(mark: Option<&[u8]>, setup: Setup, created_at: u64) -> Result<Self, BadMark> {
        let Some(mark) = mark else {
            return Ok(Self::begin(setup, created_at));
        };
        let Mark {
            generation,
            tape,
            boot_id,
            core,
        } = serde_json::from_slice(mark).map_err(BadMark)?;
        let (session_id, outline) = (setup.session_id.clone(), core.outline());
        let (seq, mut actions) = (outline.seq(), Vec::new());
        let core = Session::restore(&core, setup.clone()).unwrap_or_else(|error| {
            // Of another build: what every build understands of it is enough to go on under the right numbers.
            tracing::info!(session = %session_id, reason = %crate::cause::chain(&error), "asking the harness again what it is");
            Session::resume(outline, setup, &mut actions)
        });
        Ok(Self {
            core,
            seq,
            generation,
            tape,
            boot_id,
            actions,
        })
    }

    /// Which start of the harness was the last, from 0.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Where on its tape.
    #[must_use]
    pub fn tape(&self) -> u64 {
        self.tape
    }

    /// Where the session is.
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.core.state()
    }

    /// Whether nothing of the session runs, so that its last tape is not needed again.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.core.is_down()
    }
}
