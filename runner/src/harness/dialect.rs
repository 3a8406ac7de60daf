//! The dialect of one running harness: what it said so far, as far as the next line depends on it.

use oqto_protocol::command::Command;
use oqto_protocol::event::InputRequest;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use serde::{Deserialize, Serialize};

use super::acp::Acp;
use super::definition::{Serve, Tongue};
use super::exec::Exec;
use super::fragment::Fragment;
use super::pi::Pi;
use crate::bounds::WRITE_LEN_MAX;

/// The dialect of one running harness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Dialect {
    /// The pi coding agent.
    Pi(Pi),
    /// Shell commands.
    Exec(Exec),
    /// An agent of the Agent Client Protocol.
    Acp(Box<Acp>),
}

/// With what a harness begins, beside what its process was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// The workspace, as it is called inside the sandbox.
    pub cwd: String,
    /// The harness's own session to go on with.
    pub continue_session: Option<String>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The mode that it is to be put in.
    pub mode: Option<String>,
    /// What it is served of the protocol's files and terminals, by whoever started it inside the sandbox.
    pub serve: Serve,
    /// Its version, where that is known.
    pub version: Option<String>,
    /// In which way of its own it is told who its user is, where it asks for that.
    pub auth_method: Option<String>,
    /// Whether it was made to ask before it acts: then nothing is said to one that does not.
    pub asks: bool,
}

/// What is to be written for a command, and how it is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Speech {
    /// The bytes for the harness's input, whole lines.
    pub bytes: Vec<u8>,
    /// How the command is answered.
    pub expect: Expect,
    /// What saying it means already, where the harness does not repeat it.
    pub means: Vec<Fragment>,
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
        Ok(Self {
            bytes,
            expect,
            means: Vec::new(),
        })
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
    pub fn new(tongue: Tongue) -> Self {
        match tongue {
            Tongue::Pi => Self::Pi(Pi::default()),
            Tongue::Exec => Self::Exec(Exec::default()),
            Tongue::Acp => Self::Acp(Box::default()),
        }
    }

    /// Which one it is.
    #[must_use]
    pub fn tongue(&self) -> Tongue {
        match self {
            Self::Pi(_) => Tongue::Pi,
            Self::Exec(_) => Tongue::Exec,
            Self::Acp(_) => Tongue::Acp,
        }
    }

    /// Whether the harness repeats a message at its end: else what its pieces said is all that there is of it.
    #[must_use]
    pub fn repeats_messages(&self) -> bool {
        match self {
            Self::Pi(_) | Self::Exec(_) => true,
            Self::Acp(_) => false,
        }
    }

    /// What to write first, so that the harness says that it is ready. Empty for one that says so unasked.
    #[must_use]
    pub fn probe(&mut self, beginning: &Beginning) -> Vec<u8> {
        match self {
            Self::Pi(pi) => pi.begin(beginning),
            Self::Exec(_) => Vec::new(),
            Self::Acp(acp) => acp.begin(beginning),
        }
    }

    /// What to write so that a harness that lives says what it is now; empty for one that says so unasked.
    #[must_use]
    pub fn look_again(&self) -> Vec<u8> {
        match self {
            Self::Pi(_) => super::pi::probe(),
            Self::Exec(_) | Self::Acp(_) => Vec::new(),
        }
    }

    /// Whether the harness's own name for a request that it takes back is this one.
    #[must_use]
    pub fn names(&self, request_id: &str, own: &str) -> bool {
        match self {
            Self::Pi(_) | Self::Exec(_) => request_id == own,
            Self::Acp(_) => super::acp::is_of(request_id, own),
        }
    }

    /// Understands one line. Never fails: what is none of the dialect is [`Fragment::Stray`].
    pub fn push(&mut self, line: &[u8], now_ms: u64, out: &mut Vec<Fragment>) {
        match self {
            Self::Pi(pi) => pi.push(line, now_ms, out),
            Self::Exec(exec) => exec.push(line, now_ms, out),
            Self::Acp(acp) => acp.push(line, now_ms, out),
        }
    }

    /// Says a command. `asked` are the requests that wait for an answer.
    ///
    /// # Errors
    /// When the harness has no words for it.
    pub fn say(&mut self, command: &Command, id: CommandId, asked: &[Asked]) -> Result<Speech, Fault> {
        match self {
            Self::Pi(pi) => pi.say(command, id, asked),
            Self::Exec(exec) => exec.say(command, id),
            Self::Acp(acp) => acp.say(command, id, asked),
        }
    }

    /// Nobody waits for the answer to this command any more.
    pub fn forget(&mut self, command: CommandId) {
        match self {
            Self::Pi(_) | Self::Exec(_) => {}
            Self::Acp(acp) => acp.forget(command),
        }
    }

    /// Until when the dialect waits for what may not come, Unix milliseconds.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        match self {
            Self::Pi(pi) => pi.deadline(),
            Self::Exec(_) => None,
            Self::Acp(acp) => acp.deadline(),
        }
    }

    /// The deadline has passed.
    pub fn expire(&mut self, out: &mut Vec<Fragment>) {
        match self {
            Self::Pi(pi) => pi.expire(out),
            Self::Exec(_) => {}
            Self::Acp(acp) => acp.expire(out),
        }
    }

    /// Whether something runs outside of any run, which an abort ends.
    #[must_use]
    pub fn works_aside(&self) -> bool {
        match self {
            Self::Pi(pi) => pi.works_aside(),
            Self::Exec(_) | Self::Acp(_) => false,
        }
    }

    /// Whether nothing said so far is still open.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        match self {
            Self::Pi(pi) => pi.at_rest(),
            Self::Exec(exec) => exec.at_rest(),
            Self::Acp(acp) => acp.at_rest(),
        }
    }
}
