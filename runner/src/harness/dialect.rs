//! The dialect of one running harness: what it said so far, as far as the next line depends on it.

use oqto_protocol::command::Command;
use oqto_protocol::event::InputRequest;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use serde::{Deserialize, Serialize};

use super::exec::Exec;
use super::fragment::Fragment;
use super::pi::Pi;
use super::registry::Harness;
use crate::bounds::WRITE_LEN_MAX;

/// The dialect of one running harness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// The pi coding agent.
    Pi(Pi),
    /// Shell commands.
    Exec(Exec),
}

/// What is to be written for a command, and how it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speech {
    /// The bytes for the harness's input, whole lines.
    pub bytes: Vec<u8>,
    /// How the command is answered.
    pub expect: Expect,
}

/// How a command is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// By the harness, in a [`Fragment::Answer`].
    Answer,
    /// By having been written.
    Nothing,
}

impl Speech {
    /// Something to say that is not longer than a session takes at once.
    ///
    /// # Errors
    /// When it is longer.
    pub(super) fn new(bytes: Vec<u8>, expect: Expect) -> Result<Self, Fault> {
        if bytes.len() > WRITE_LEN_MAX {
            let message = format!(
                "what the harness would be told for it is {} bytes long, more than the {WRITE_LEN_MAX} that a \
                 session takes at once",
                bytes.len()
            );
            return Err(Fault::new(FaultCode::Limit, message));
        }
        Ok(Self { bytes, expect })
    }
}

/// A request of the agent that waits for an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Its name.
    pub request_id: String,
    /// What is asked.
    pub request: InputRequest,
    /// When the agent stops asking, Unix milliseconds.
    pub until: Option<u64>,
}

impl Dialect {
    /// The dialect of a harness that has said nothing yet.
    #[must_use]
    pub fn new(harness: Harness) -> Self {
        match harness {
            Harness::Pi => Self::Pi(Pi::default()),
            Harness::Exec => Self::Exec(Exec::default()),
        }
    }

    /// The harness that speaks it.
    #[must_use]
    pub fn harness(&self) -> Harness {
        match self {
            Self::Pi(_) => Harness::Pi,
            Self::Exec(_) => Harness::Exec,
        }
    }

    /// What to write first, so that the harness says that it is ready. Empty for one that says so unasked.
    #[must_use]
    pub fn probe(&self) -> Vec<u8> {
        match self {
            Self::Pi(_) => Pi::probe(),
            Self::Exec(_) => Vec::new(),
        }
    }

    /// Understands one line. Never fails: what is none of the dialect is [`Fragment::Stray`].
    pub fn push(&mut self, line: &[u8], now_ms: u64, out: &mut Vec<Fragment>) {
        match self {
            Self::Pi(pi) => pi.push(line, now_ms, out),
            Self::Exec(exec) => exec.push(line, now_ms, out),
        }
    }

    /// Says a command. `asked` are the requests that wait for an answer.
    ///
    /// # Errors
    /// When the harness has no words for it.
    pub fn say(&mut self, command: &Command, id: CommandId, asked: &[Asked]) -> Result<Speech, Fault> {
        match self {
            Self::Pi(_) => Pi::say(command, id, asked),
            Self::Exec(exec) => exec.say(command, id),
        }
    }

    /// Until when the dialect waits for what may not come, Unix milliseconds.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        match self {
            Self::Pi(pi) => pi.deadline(),
            Self::Exec(_) => None,
        }
    }

    /// The deadline has passed.
    pub fn expire(&mut self, out: &mut Vec<Fragment>) {
        match self {
            Self::Pi(pi) => pi.expire(out),
            Self::Exec(_) => {}
        }
    }

    /// Whether nothing said so far is still open.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        match self {
            Self::Pi(pi) => pi.at_rest(),
            Self::Exec(exec) => exec.at_rest(),
        }
    }
}
