//! Parts: the atoms of content.

use serde::{Deserialize, Serialize};

use crate::codec::{Json, grows, kinds, words};

use super::Media;

/// One atom of content, with its id. In JSON both are one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Unique within its message.
    pub id: String,
    /// What it holds.
    pub content: Content,
}

grows!(Part { id, content });

kinds! {
    /// What a part holds.
    pub enum Content, "type" {
        /// Text.
        1 "text" since 1 => Text(Text),
        /// What the model thought.
        2 "thinking" since 1 => Thinking(Thinking),
        /// A call of a tool.
        3 "tool_call" since 1 => ToolCall(ToolCall),
        /// What a tool gave back.
        4 "tool_result" since 1 => ToolResult(ToolResult),
        /// A picture.
        5 "image" since 1 => Image(Media),
        /// Sound.
        6 "audio" since 1 => Audio(Media),
        /// Moving pictures.
        7 "video" since 1 => Video(Media),
        /// Any other file.
        8 "attachment" since 1 => Attachment(Media),
        /// A place in a file.
        9 "file_ref" since 1 => FileRef(FileRef),
        /// What only one harness knows; in a part's JSON its type is `x-` and its name.
        10 "x" since 1 => Extension(Extension),
    }
}

/// Text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// The text.
    pub text: String,
    /// How to read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TextFormat>,
}

grows!(Text { text, format });

words! {
    /// How a text is to be read.
    pub enum TextFormat {
        /// As Markdown.
        0 "markdown" => Markdown,
        /// As it stands.
        1 "plain" => Plain,
    }
}

/// What the model thought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thinking {
    /// The thought.
    pub text: String,
}

grows!(Thinking { text });

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The harness's id of the call.
    pub tool_call_id: String,
    /// The tool.
    pub name: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    /// How far it is.
    pub status: ToolStatus,
}

grows!(ToolCall {
    tool_call_id,
    name,
    input,
    status
});

words! {
    /// How far a call is.
    pub enum ToolStatus {
        /// Not begun.
        0 "pending" => Pending,
        /// Begun.
        1 "running" => Running,
        /// Ended well.
        2 "success" => Success,
        /// Failed.
        3 "error" => Error,
    }
}

/// What a tool gave back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
    /// Whether it failed.
    pub is_error: bool,
    /// How long it took, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

grows!(ToolResult {
    tool_call_id,
    name,
    output,
    is_error,
    duration_ms
});

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileRef {
    /// The file.
    pub uri: String,
    /// What to call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Which lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<LineRange>,
}

grows!(FileRef { uri, label, range });

/// A range of lines, from 1, both ends included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineRange {
    /// The first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_line: Option<u32>,
    /// The last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_line: Option<u32>,
}

grows!(LineRange { start_line, end_line });

/// What only one harness knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name, without the `x-`.
    pub name: String,
    /// What it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Json>,
    /// What is said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Json>,
}

grows!(Extension { name, payload, meta });
