//! What a line of a harness means, before the session gives it numbers and ids.

use oqto_protocol::codec::Json;
use oqto_protocol::event::{CompactEnd, CompactReason, Event, InputRequest, Phase};
use oqto_protocol::fault::Fault;
use oqto_protocol::id::CommandId;
use oqto_protocol::message::{Content, Part, Role, StopReason, Usage};
use oqto_protocol::reply::ReplyData;
use oqto_protocol::session::Capability;
use serde::{Deserialize, Serialize};

/// One piece of meaning.
#[derive(Clone, Debug, PartialEq)]
pub enum Fragment {
    /// The harness takes commands.
    Ready,
    /// What the harness says of itself; only what is given changes.
    State(Box<HarnessState>),
    /// A run begins, or goes on after a pause.
    Began(Phase),
    /// What it works at, within a run.
    Phase(Phase),
    /// A message begins.
    Started(Role),
    /// More text of it.
    Text {
        /// The text.
        delta: String,
        /// Which part.
        content_index: u32,
    },
    /// More thought of it.
    Thought {
        /// The thought.
        delta: String,
        /// Which part.
        content_index: u32,
    },
    /// A part of it that is neither text nor a call, whole.
    Part {
        /// What it is.
        content: Box<Content>,
        /// Which part.
        content_index: u32,
    },
    /// It begins to call a tool.
    CallStarted {
        /// The call.
        tool_call_id: String,
        /// The tool.
        name: String,
        /// Which part.
        content_index: u32,
    },
    /// More of the call's arguments.
    CallMore {
        /// A piece of JSON text.
        delta: String,
        /// Which part.
        content_index: u32,
    },
    /// The call is whole.
    CallEnded {
        /// The call.
        tool_call_id: String,
        /// The tool.
        name: String,
        /// Its arguments.
        input: Json,
        /// Which part.
        content_index: u32,
    },
    /// The message is whole.
    Finished(Box<Draft>),
    /// The message is whole, and what its pieces said is all of it: the parts of this stay empty.
    FinishedAsTold(Box<Draft>),
    /// What needs nothing of the session.
    Event(Event),
    /// The agent asks.
    Asks(InputRequest),
    /// The agent asks no longer what it asked under this name of its own.
    AsksNoMore(String),
    /// The context is being shortened.
    Compacts(CompactReason),
    /// It is shorter, or not.
    Compacted(Box<CompactEnd>),
    /// The run has ended.
    Ended(Outcome),
    /// A command is answered.
    Answer {
        /// Which.
        id: CommandId,
        /// The answer.
        answer: Result<Option<ReplyData>, Fault>,
    },
    /// A program that the harness ran was ended by a signal.
    EndedBy {
        /// Which.
        signal: i32,
    },
    /// Write this to the harness: whole lines, which nobody's command asked for.
    Write(Vec<u8>),
    /// The harness cannot begin, and what to do about it.
    Unable(String),
    /// The line is none of this dialect.
    Stray,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The agent was done.
    Done,
    /// At the output limit.
    Length,
    /// It was stopped.
    Aborted,
    /// Something failed.
    Failed {
        /// What.
        error: String,
    },
}

/// What a harness says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HarnessState {
    /// Whose model it uses.
    pub provider: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// How hard it thinks.
    pub thinking_level: Option<String>,
    /// The name of its own session.
    pub title: Option<String>,
    /// Its own session, by which it goes on when it is started again.
    #[serde(default)]
    pub own_session: Option<String>,
    /// What it can do, where it says that itself.
    #[serde(default)]
    pub capabilities: Option<Vec<Capability>>,
    /// Its version.
    #[serde(default)]
    pub version: Option<String>,
    /// All of it, the JSON text as it came.
    pub raw: Option<String>,
}

impl HarnessState {
    /// Takes what `newer` says and keeps the rest.
    pub fn merge(&mut self, newer: Self) {
        let Self {
            provider,
            model,
            thinking_level,
            title,
            own_session,
            capabilities,
            version,
            raw,
        } = newer;
        replace(&mut self.provider, provider);
        replace(&mut self.model, model);
        replace(&mut self.thinking_level, thinking_level);
        replace(&mut self.title, title);
        replace(&mut self.own_session, own_session);
        replace(&mut self.capabilities, capabilities);
        replace(&mut self.version, version);
        replace(&mut self.raw, raw);
    }
}

fn replace<T>(old: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *old = new;
    }
}

/// A whole message without its id and number.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub parts: Vec<Part>,
    /// The model that made it.
    pub model: Option<String>,
    /// Whose model it is.
    pub provider: Option<String>,
    /// Why an assistant stopped.
    pub stop_reason: Option<StopReason>,
    /// What it cost.
    pub usage: Option<Usage>,
    /// Of a tool's message: the call.
    pub tool_call_id: Option<String>,
    /// Of a tool's message: the tool.
    pub tool_name: Option<String>,
    /// Of a tool's message: whether the tool failed.
    pub is_error: Option<bool>,
    /// What the harness said beside it.
    pub metadata: Option<Json>,
}

impl Draft {
    /// A message of `role` that says `parts` and nothing beside.
    #[must_use]
    pub fn new(role: Role, parts: Vec<Part>) -> Self {
        Self {
            role,
            parts,
            model: None,
            provider: None,
            stop_reason: None,
            usage: None,
            tool_call_id: None,
            tool_name: None,
            is_error: None,
            metadata: None,
        }
    }
}
