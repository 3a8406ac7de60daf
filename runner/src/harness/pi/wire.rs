//! The shapes of pi's lines, as far as they are read. Borrowed from the line wherever they can be; what is not
//! named is skipped unread.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A text of the line: borrowed unless it has escapes.
pub(super) type Text<'a> = Cow<'a, str>;

/// Only the type of a line.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) type_: Text<'a>,
}

/// An answer to a command.
#[derive(Deserialize)]
pub(super) struct Response<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) command: Option<Text<'a>>,
    pub(super) success: bool,
    #[serde(borrow, default)]
    pub(super) error: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
}

/// A piece of a message. Versions up to 0.74 repeat the whole message beside it, twice: skipped.
#[derive(Deserialize)]
pub(super) struct MessageUpdate<'a> {
    #[serde(borrow, rename = "assistantMessageEvent")]
    pub(super) event: AssistantEvent<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AssistantEvent<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) type_: Text<'a>,
    #[serde(default)]
    pub(super) content_index: u32,
    #[serde(borrow, default)]
    pub(super) delta: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tool_name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tool_call: Option<ToolCall<'a>>,
    /// The message so far, up to 0.74: there the only place that names a call at its start.
    #[serde(borrow, default)]
    pub(super) partial: Option<&'a RawValue>,
}

/// A message so far.
#[derive(Deserialize)]
pub(super) struct Partial<'a> {
    #[serde(borrow)]
    pub(super) content: Vec<ContentPart<'a>>,
}

#[derive(Deserialize)]
pub(super) struct ToolCall<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default)]
    pub(super) arguments: Option<&'a RawValue>,
}

/// A message's start. Its content is not read: its pieces follow, or its end does at once.
#[derive(Deserialize)]
pub(super) struct MessageStart<'a> {
    #[serde(borrow)]
    pub(super) message: MessageRole<'a>,
}

/// A message's end.
#[derive(Deserialize)]
pub(super) struct MessageEnd<'a> {
    #[serde(borrow)]
    pub(super) message: Message<'a>,
}

#[derive(Deserialize)]
pub(super) struct MessageRole<'a> {
    #[serde(borrow)]
    pub(super) role: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) role: Text<'a>,
    #[serde(borrow, default)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) provider: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) model: Option<Text<'a>>,
    #[serde(default)]
    pub(super) usage: Option<Usage>,
    #[serde(borrow, default)]
    pub(super) stop_reason: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) error_message: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tool_call_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tool_name: Option<Text<'a>>,
    #[serde(default)]
    pub(super) is_error: Option<bool>,
    #[serde(borrow, default)]
    pub(super) api: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) response_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) raw_stop_reason: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) details: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) sections: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) tools_added: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) input: u64,
    #[serde(default)]
    pub(super) output: u64,
    #[serde(default)]
    pub(super) cache_read: Option<u64>,
    #[serde(default)]
    pub(super) cache_write: Option<u64>,
    #[serde(default)]
    pub(super) cost: Option<Cost>,
}

#[derive(Deserialize)]
pub(super) struct Cost {
    #[serde(default)]
    pub(super) total: Option<f64>,
}

/// One part of a message's content.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContentPart<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) type_: Text<'a>,
    #[serde(borrow, default)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) thinking: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) mime_type: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolExecution<'a> {
    #[serde(borrow)]
    pub(super) tool_call_id: Text<'a>,
    #[serde(borrow)]
    pub(super) tool_name: Text<'a>,
    #[serde(borrow, default)]
    pub(super) args: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) partial_result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) is_error: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AgentEnd {
    /// Not there in versions that do not say.
    #[serde(default)]
    pub(super) will_retry: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RetryStart<'a> {
    pub(super) attempt: u32,
    #[serde(default)]
    pub(super) max_attempts: u32,
    #[serde(default)]
    pub(super) delay_ms: u64,
    #[serde(borrow, default)]
    pub(super) error_message: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RetryEnd<'a> {
    pub(super) success: bool,
    #[serde(default)]
    pub(super) attempt: u32,
    #[serde(borrow, default)]
    pub(super) final_error: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct CompactionStart<'a> {
    #[serde(borrow, default)]
    pub(super) reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CompactionEnd<'a> {
    #[serde(borrow, default)]
    pub(super) result: Option<Compaction<'a>>,
    #[serde(default)]
    pub(super) aborted: bool,
    #[serde(default)]
    pub(super) will_retry: bool,
    #[serde(borrow, default)]
    pub(super) error_message: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Compaction<'a> {
    #[serde(borrow, default)]
    pub(super) summary: Option<Text<'a>>,
    #[serde(default)]
    pub(super) tokens_before: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct ThinkingLevelChanged<'a> {
    #[serde(borrow)]
    pub(super) level: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct SessionInfoChanged<'a> {
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueueUpdate {
    #[serde(default)]
    pub(super) steering: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    pub(super) follow_up: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct BashUpdate<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) delta: &'a RawValue,
}

/// What became of a shell command of the user's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShellEnd {
    /// Not there when a signal ended it.
    #[serde(default)]
    pub(super) exit_code: Option<i64>,
    #[serde(default)]
    pub(super) cancelled: bool,
}

/// What an extension shows or asks.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UiRequest<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(borrow)]
    pub(super) method: Text<'a>,
    #[serde(borrow, default)]
    pub(super) title: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) message: Option<Text<'a>>,
    #[serde(default)]
    pub(super) options: Vec<String>,
    #[serde(borrow, default)]
    pub(super) placeholder: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) prefill: Option<Text<'a>>,
    #[serde(default)]
    pub(super) timeout: Option<u64>,
    #[serde(borrow, default)]
    pub(super) notify_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) status_key: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) status_text: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) widget_key: Option<Text<'a>>,
    #[serde(default)]
    pub(super) widget_lines: Option<Vec<String>>,
    #[serde(borrow, default)]
    pub(super) text: Option<Text<'a>>,
}

/// What `get_state` answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State<'a> {
    #[serde(borrow, default)]
    pub(super) model: Option<Model<'a>>,
    #[serde(borrow, default)]
    pub(super) thinking_level: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) session_name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) session_file: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Model<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(borrow)]
    pub(super) provider: Text<'a>,
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
    #[serde(default)]
    pub(super) reasoning: Option<bool>,
    #[serde(default)]
    pub(super) context_window: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct Models<'a> {
    #[serde(borrow)]
    pub(super) models: Vec<Model<'a>>,
}

/// What `cycle_model` answers; nothing when there is only one.
#[derive(Deserialize)]
pub(super) struct Cycled<'a> {
    #[serde(borrow)]
    pub(super) model: Model<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    #[serde(default)]
    pub(super) user_messages: u64,
    #[serde(default)]
    pub(super) assistant_messages: u64,
    #[serde(default)]
    pub(super) tool_calls: u64,
    pub(super) tokens: Tokens,
    #[serde(default)]
    pub(super) cost: Option<f64>,
}

#[derive(Deserialize)]
pub(super) struct Tokens {
    #[serde(default)]
    pub(super) input: u64,
    #[serde(default)]
    pub(super) output: u64,
}

/// Whether an extension stopped what was asked.
#[derive(Deserialize)]
pub(super) struct Cancelled {
    #[serde(default)]
    pub(super) cancelled: bool,
}
