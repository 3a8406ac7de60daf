//! What a session wants done.

use std::fmt;

use oqto_protocol::event::Event;
use oqto_protocol::id::CommandId;
use oqto_protocol::reply::Reply;
use sha2::{Digest as _, Sha256};

/// What a session wants done. The driver does it, in order, and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Give the event the next number and keep it.
    Record {
        /// When it happened, Unix milliseconds.
        at: u64,
        /// What happened.
        event: Event,
    },
    /// Write to the harness's standard input, unless that was done under this id before.
    Write {
        /// The write's name for ever.
        id: WriteId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Close the harness's standard input.
    CloseStdin,
    /// End the harness's process and all that it started, now.
    Kill,
    /// Start the harness again, with its own session. A tape that begins says that it was done; else
    /// [`super::Input::NotStarted`] is due.
    Start,
    /// Answer all who sent the command that this names.
    Reply(Reply),
    /// Answer a command with messages from the log.
    Messages {
        /// The command.
        id: CommandId,
        /// Only messages after this one.
        after_idx: Option<u64>,
        /// How many at most.
        limit: Option<u32>,
    },
    /// The session is at rest: a snapshot can be taken here.
    Rest,
}

/// Names a write for ever. The same tape gives the same names, so a write that is asked for again, since the tape
/// was read again, is known and left out.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriteId(pub [u8; 16]);

impl WriteId {
    /// The write that a command causes.
    pub(super) fn of(command: CommandId) -> Self {
        Self::hash(b"command", &command.0)
    }

    /// The `n`th write of the session's own.
    pub(super) fn own(n: u64) -> Self {
        Self::hash(b"session", &n.to_le_bytes())
    }

    /// What is written since the harness was silent for too long.
    pub(super) fn silence(since: u64) -> Self {
        Self::hash(b"silence", &since.to_le_bytes())
    }

    /// Hashed, so that no sender of commands can choose the name of a write that is not theirs.
    fn hash(whose: &[u8], what: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(whose).chain_update(what).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(bytes)
    }
}

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteId(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
