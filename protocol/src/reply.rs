//! Replies: what became of a command.

use serde::{Deserialize, Serialize};

use crate::codec::{Json, grows, kinds};
use crate::cursor::Cursor;
use crate::fault::Fault;
use crate::id::CommandId;
use crate::message::Message;
use crate::session::{SessionInfo, SessionStats, SessionStatus};

/// What became of one command. It succeeded when there is no error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Which command.
    pub id: CommandId,
    /// Its name.
    pub cmd: String,
    /// Whether it was done.
    pub success: bool,
    /// What it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ReplyData>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
}

grows!(Reply {
    id,
    cmd,
    success,
    data,
    error
});

impl Reply {
    /// The command was done.
    #[must_use]
    pub fn done(id: CommandId, cmd: &str, data: Option<ReplyData>) -> Self {
        Self {
            id,
            cmd: cmd.to_owned(),
            success: true,
            data,
            error: None,
        }
    }

    /// The command was not done.
    #[must_use]
    pub fn refused(id: CommandId, cmd: &str, fault: Fault) -> Self {
        Self {
            id,
            cmd: cmd.to_owned(),
            success: false,
            data: None,
            error: Some(fault),
        }
    }
}

kinds! {
    /// What a command answers.
    pub enum ReplyData, "type" {
        /// The session that was made.
        1 "created" since 1 => Created(Created),
        /// The command was taken; its events follow.
        2 "accepted" since 1 => Accepted(Accepted),
        /// How the session stands.
        3 "state" since 1 => State(State),
        /// What was said.
        4 "messages" since 1 => Messages(Messages),
        /// What was used.
        5 "stats" since 1 => Stats(Stats),
        /// Which models there are.
        6 "models" since 1 => Models(Models),
        /// What the harness answers, as it came.
        7 "harness" since 1 => HarnessAnswer(HarnessAnswer),
        /// Sessions.
        8 "sessions" since 1 => Sessions(Sessions),
    }
}

/// The session that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// It.
    pub session: SessionInfo,
}

grows!(Created { session });

/// A command was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The newest event before its effects.
    pub cursor: Cursor,
}

grows!(Accepted { cursor });

/// How a session stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// In full.
    pub status: Box<SessionStatus>,
}

grows!(State { status });

/// What was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Messages {
    /// In order.
    #[serde(default)]
    pub messages: Vec<Message>,
    /// Whether there are more after these.
    pub more: bool,
}

grows!(Messages { messages, more });

/// What a session used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// The counts.
    pub stats: SessionStats,
}

grows!(Stats { stats });

/// Which models there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Models {
    /// Each.
    #[serde(default)]
    pub models: Vec<ModelInfo>,
}

grows!(Models { models });

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Whose.
    pub provider: String,
    /// Its name.
    pub id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it can think.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<bool>,
    /// How long its context may be, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u64>,
}

grows!(ModelInfo {
    provider,
    id,
    name,
    reasoning,
    context_tokens
});

/// What a harness answers, as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HarnessAnswer {
    /// The answer.
    pub answer: Json,
}

grows!(HarnessAnswer { answer });

/// Sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// Each.
    #[serde(default)]
    pub sessions: Vec<SessionInfo>,
}

grows!(Sessions { sessions });
