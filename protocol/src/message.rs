//! Messages: what was said, whole. Events of the stream are a view of a message being made.

use serde::{Deserialize, Serialize};

use crate::codec::{Blob, Json, grows, kinds, words};
use crate::id::{MessageId, RunnerId, SessionId};

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

/// One atom of content, with its id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
        /// What only one harness knows.
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

/// A picture, sound, film or file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Media {
    /// Where its bytes are.
    pub source: Source,
    /// What it shows, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alt: Option<String>,
    /// How long it plays, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_sec: Option<f64>,
    /// What is said in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Its size, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

grows!(Media {
    source,
    alt,
    duration_sec,
    transcript,
    filename,
    size_bytes
});

kinds! {
    /// Where the bytes of a medium are.
    pub enum Source, "kind" {
        /// At an address.
        1 "url" since 1 => SourceUrl(SourceUrl),
        /// In an attachment store.
        2 "attachment_ref" since 1 => SourceAttachment(SourceAttachment),
        /// Here.
        3 "base64" since 1 => SourceInline(SourceInline),
    }
}

/// Bytes at an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceUrl {
    /// The address.
    pub url: String,
    /// Their type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
}

grows!(SourceUrl { url, mime });

/// Bytes in an attachment store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceAttachment {
    /// Their name there.
    pub attachment_ref: String,
    /// Their type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
}

grows!(SourceAttachment { attachment_ref, mime });

/// Bytes that stand here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceInline {
    /// The bytes.
    pub data: Blob,
    /// Their type.
    pub mime: String,
}

grows!(SourceInline { data, mime });

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
