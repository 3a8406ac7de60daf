//! Tools at work.

use serde::{Deserialize, Serialize};

use crate::codec::{Json, grows, words};

/// A tool runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolStart {
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub name: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
}

grows!(ToolStart {
    tool_call_id,
    name,
    input
});

/// What a tool gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolProgress {
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub name: String,
    /// What it gave.
    pub partial_output: Json,
    /// Whether this is all so far or only what is new.
    pub mode: ProgressMode,
}

grows!(ToolProgress {
    tool_call_id,
    name,
    partial_output,
    mode
});

words! {
    /// How to read a tool's progress.
    pub enum ProgressMode {
        /// All that the tool gave so far.
        0 "whole" => Whole,
        /// What it gave since the last.
        1 "more" => More,
    }
}

/// A tool has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolEnd {
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub name: String,
    /// What it gave.
    pub output: Json,
    /// Whether it failed.
    pub is_error: bool,
    /// How long it took, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

grows!(ToolEnd {
    tool_call_id,
    name,
    output,
    is_error,
    duration_ms
});
