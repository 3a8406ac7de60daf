//! A message as it is kept: finished, with who said it and what it cost.

use serde::{Deserialize, Serialize};

use crate::codec::{Json, grows, words};
use crate::id::{MessageId, RunnerId, SessionId};

use super::Part;

/// One finished message. `(session, idx)` never names another content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The same in the message's start, its deltas and its end.
    pub id: MessageId,
    /// Its place in the session, from 0, without gaps.
    pub idx: u64,
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    #[serde(default)]
    pub parts: Vec<Part>,
    /// When it began, Unix milliseconds.
    pub created_at: u64,
    /// What the prompt that made this user message was called by its sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Who sent it, when the role does not say enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
    /// The model that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whose model it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Why an assistant stopped here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReason>,
    /// What it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// For a tool's message: the call that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// For a tool's message: the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    /// For a tool's message: whether the tool failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// What the harness said beside it, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
}

grows!(Message {
    id,
    idx,
    role,
    parts,
    created_at,
    client_id,
    sender,
    model,
    provider,
    stop_reason,
    usage,
    tool_call_id,
    tool_name,
    is_error,
    metadata
});

words! {
    /// Who speaks in a message.
    pub enum Role {
        /// The human, or who speaks for them.
        0 "user" => User,
        /// The model.
        1 "assistant" => Assistant,
        /// Instructions.
        2 "system" => System,
        /// A tool's result.
        3 "tool" => Tool,
    }
}

words! {
    /// Why an assistant stopped.
    pub enum StopReason {
        /// It was done.
        0 "stop" => Stop,
        /// The output limit.
        1 "length" => Length,
        /// It called tools.
        2 "tool_use" => ToolUse,
        /// The provider failed.
        3 "error" => Error,
        /// It was told to.
        4 "aborted" => Aborted,
    }
}

/// What a message cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens read from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<u64>,
    /// Tokens written to a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<u64>,
    /// The price in US dollars, as the harness reckons it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

grows!(Usage {
    input_tokens,
    output_tokens,
    cache_read_tokens,
    cache_write_tokens,
    cost_usd
});

/// Who sent a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sender {
    /// What it is.
    #[serde(rename = "type")]
    pub type_: SenderType,
    /// Its id.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// For an agent: its runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_id: Option<RunnerId>,
    /// For an agent: its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
}

grows!(Sender {
    type_,
    id,
    name,
    runner_id,
    session_id
});

words! {
    /// What sends messages.
    pub enum SenderType {
        /// A human.
        0 "user" => User,
        /// Another agent.
        1 "agent" => Agent,
        /// The system.
        2 "system" => System,
    }
}
