//! A message being made. Deltas are a view; the message stands whole in its end.

use serde::{Deserialize, Serialize};

use crate::codec::{Json, grows, words};
use crate::id::MessageId;
use crate::message::{Message, Role};

/// A message begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageStart {
    /// Its id.
    pub message_id: MessageId,
    /// Who speaks.
    pub role: Role,
}

grows!(MessageStart { message_id, role });

/// More text of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextDelta {
    /// The message.
    pub message_id: MessageId,
    /// The text.
    pub delta: String,
    /// Which part of the message, from 0.
    pub content_index: u32,
}

grows!(TextDelta {
    message_id,
    delta,
    content_index
});

/// More thought of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThinkingDelta {
    /// The message.
    pub message_id: MessageId,
    /// The thought.
    pub delta: String,
    /// Which part of the message, from 0.
    pub content_index: u32,
}

grows!(ThinkingDelta {
    message_id,
    delta,
    content_index
});

/// A message begins to call a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCallStart {
    /// The message.
    pub message_id: MessageId,
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub name: String,
    /// Which part of the message, from 0.
    pub content_index: u32,
}

grows!(ToolCallStart {
    message_id,
    tool_call_id,
    name,
    content_index
});

/// More of a call's arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCallDelta {
    /// The message.
    pub message_id: MessageId,
    /// The call.
    pub tool_call_id: String,
    /// A piece of JSON text.
    pub delta: String,
    /// Which part of the message, from 0.
    pub content_index: u32,
}

grows!(ToolCallDelta {
    message_id,
    tool_call_id,
    delta,
    content_index
});

/// A call is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCallEnd {
    /// The message.
    pub message_id: MessageId,
    /// The call.
    pub tool_call_id: String,
    /// Which part of the message, from 0.
    pub content_index: u32,
    /// The call.
    pub tool_call: FinishedCall,
}

grows!(ToolCallEnd {
    message_id,
    tool_call_id,
    content_index,
    tool_call
});

/// A whole call of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinishedCall {
    /// The call.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub input: Json,
}

grows!(FinishedCall { id, name, input });

/// A message is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageEnd {
    /// The message.
    pub message: Box<Message>,
}

grows!(MessageEnd { message });

/// A run has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamDone {
    /// How.
    pub reason: DoneReason,
}

grows!(StreamDone { reason });

words! {
    /// How a run ended.
    pub enum DoneReason {
        /// The agent was done.
        0 "stop" => Stop,
        /// The output limit.
        1 "length" => Length,
        /// Something failed.
        2 "error" => Error,
        /// It was told to.
        3 "aborted" => Aborted,
    }
}

/// The reader's cursor is of a lost tail. In JSON the fields have other names than here, since an
/// [`Envelope`](super::Envelope) has an `epoch` and a `seq` of its own beside them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamReset {
    /// The epoch that goes on.
    #[serde(rename = "reset_epoch")]
    pub epoch: u32,
    /// Its last number that the reader may keep; what it has beyond never happened.
    #[serde(rename = "reset_seq")]
    pub seq: u64,
}

grows!(StreamReset { epoch, seq });
