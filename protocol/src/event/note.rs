//! Settings that changed, and notes for people.

use serde::{Deserialize, Serialize};

use crate::codec::{grows, words};

/// Another model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelChanged {
    /// Whose.
    pub provider: String,
    /// Which.
    pub model_id: String,
}

grows!(ModelChanged { provider, model_id });

/// Another level of thinking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThinkingLevelChanged {
    /// Which.
    pub level: String,
}

grows!(ThinkingLevelChanged { level });

/// Another mode: how much the agent asks before it acts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModeChanged {
    /// Which, as the harness calls it.
    pub mode_id: String,
}

grows!(ModeChanged { mode_id });

/// A note for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notify {
    /// How much it matters.
    pub level: NotifyLevel,
    /// The note.
    pub message: String,
}

grows!(Notify { level, message });

words! {
    /// How much a note matters.
    pub enum NotifyLevel {
        /// Good to know.
        0 "info" => Info,
        /// Look at it.
        1 "warning" => Warning,
        /// Something is wrong.
        2 "error" => Error,
    }
}

/// A line for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Which line.
    pub key: String,
    /// What it says; without it the line goes away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

grows!(Status { key, text });

/// The harness has written its own session down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Persisted {
    /// How many messages.
    pub message_count: u64,
    /// Up to which event. In JSON not `seq`: that is the event's own number.
    #[serde(rename = "persisted_seq")]
    pub seq: u64,
}

grows!(Persisted { message_count, seq });
