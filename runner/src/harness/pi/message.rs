//! pi's messages as the protocol's.

use std::collections::BTreeMap;

use oqto_protocol::codec::{Blob, Json};
use oqto_protocol::message::{
    Content, Extension, Media, Part, Role, Source, SourceInline, StopReason, Text, Thinking, ToolCall,
    ToolResult, ToolStatus, Usage,
};
use serde::Deserialize as _;
use serde_json::value::RawValue;

use super::wire;
use crate::harness::fragment::Draft;

/// Who speaks. Roles that the protocol does not have (notes of extensions, summaries) are the system's.
pub(super) fn role(name: &str) -> Role {
    match name {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "toolResult" => Role::Tool,
        _ => Role::System,
    }
}

pub(super) fn stop_reason(word: &str) -> Option<StopReason> {
    match word {
        "stop" => Some(StopReason::Stop),
        "length" => Some(StopReason::Length),
        "toolUse" => Some(StopReason::ToolUse),
        "error" => Some(StopReason::Error),
        "aborted" => Some(StopReason::Aborted),
        _ => None,
    }
}

/// A finished message.
pub(super) fn draft(message: &wire::Message<'_>) -> Draft {
    let role = role(&message.role);
    let owned = |text: &Option<wire::Text<'_>>| text.as_deref().map(str::to_owned);
    let parts = match role {
        Role::Tool => vec![tool_result(message)],
        _ => parts(message),
    };
    Draft {
        role,
        parts,
        model: owned(&message.model),
        provider: owned(&message.provider),
        stop_reason: message.stop_reason.as_deref().and_then(stop_reason),
        usage: message.usage.as_ref().map(usage),
        tool_call_id: owned(&message.tool_call_id),
        tool_name: owned(&message.tool_name),
        is_error: message.is_error,
        metadata: metadata(message, role),
    }
}

fn usage(usage: &wire::Usage) -> Usage {
    Usage {
        input_tokens: usage.input,
        output_tokens: usage.output,
        cache_read_tokens: usage.cache_read,
        cache_write_tokens: usage.cache_write,
        cost_usd: usage.cost.as_ref().and_then(|cost| cost.total),
    }
}

/// What pi says beside the message that has no place of its own.
fn metadata(message: &wire::Message<'_>, role: Role) -> Option<Json> {
    let error = message
        .error_message
        .as_deref()
        .and_then(|text| serde_json::value::to_raw_value(text).ok());
    // The protocol has four roles and pi has more: which it was is kept.
    let other_role = match (&*message.role, role) {
        ("system", _) | (_, Role::User | Role::Assistant | Role::Tool | Role::Unknown(_)) => None,
        (name, Role::System) => serde_json::value::to_raw_value(name).ok(),
    };
    let beside: BTreeMap<&str, &RawValue> = [
        ("api", message.api),
        ("details", message.details),
        ("errorMessage", error.as_deref()),
        ("rawStopReason", message.raw_stop_reason),
        ("responseId", message.response_id),
        ("role", other_role.as_deref()),
        ("toolsAdded", message.tools_added),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.map(|value| (name, value)))
    .collect();
    if beside.is_empty() {
        return None;
    }
    serde_json::value::to_raw_value(&beside)
        .ok()
        .map(|raw| Json::from(&*raw))
}

fn tool_result(message: &wire::Message<'_>) -> Part {
    let owned = |text: &Option<wire::Text<'_>>| text.as_deref().map(str::to_owned);
    part(
        0,
        Content::ToolResult(ToolResult {
            tool_call_id: owned(&message.tool_call_id).unwrap_or_default(),
            name: owned(&message.tool_name),
            output: message.content.map(Json::from),
            is_error: message.is_error.unwrap_or(false),
            duration_ms: None,
        }),
    )
}

fn parts(message: &wire::Message<'_>) -> Vec<Part> {
    let mut parts = Vec::new();
    if let Some(content) = message.content {
        read_content(content, &mut parts);
    }
    // The system prompt's text stands in sections, its content is empty.
    if let Some(sections) = message.sections {
        parts.push(part(parts.len(), extension("pi-sections", sections)));
    }
    parts
}

/// Content is a text or a list of parts; part `n` of the list is part `n` of the message, since deltas count so.
fn read_content(content: &RawValue, parts: &mut Vec<Part>) {
    if let Ok(text) = String::deserialize(content) {
        if !text.is_empty() {
            parts.push(part(0, Content::Text(Text { text, format: None })));
        }
        return;
    }
    match Vec::<&RawValue>::deserialize(content) {
        Ok(list) => parts.extend(list.iter().enumerate().map(|(n, raw)| part(n, read_part(raw)))),
        Err(_) => parts.push(part(0, extension("pi-content", content))),
    }
}

fn read_part(raw: &RawValue) -> Content {
    let kept = || extension("pi-part", raw);
    let Ok(read) = wire::ContentPart::deserialize(raw) else {
        return kept();
    };
    let wire::ContentPart {
        type_,
        text,
        thinking,
        id,
        name,
        arguments,
        data,
        mime_type,
    } = read;
    let content = match &*type_ {
        "text" => text.map(|text| {
            Content::Text(Text {
                text: text.into_owned(),
                format: None,
            })
        }),
        "thinking" => thinking.map(|text| {
            Content::Thinking(Thinking {
                text: text.into_owned(),
            })
        }),
        "toolCall" => id.zip(name).map(|(id, name)| {
            Content::ToolCall(ToolCall {
                tool_call_id: id.into_owned(),
                name: name.into_owned(),
                input: arguments.map(Json::from),
                status: ToolStatus::Pending,
            })
        }),
        "image" => data
            .zip(mime_type)
            .and_then(|(data, mime)| image(data, mime.into_owned())),
        _ => None,
    };
    content.unwrap_or_else(kept)
}

fn image(data: &RawValue, mime: String) -> Option<Content> {
    let data = Blob::deserialize(data).ok()?;
    Some(Content::Image(Media {
        source: Source::SourceInline(SourceInline { data, mime }),
        alt: None,
        duration_sec: None,
        transcript: None,
        filename: None,
        size_bytes: None,
    }))
}

fn extension(name: &str, payload: &RawValue) -> Content {
    Content::Extension(Extension {
        name: name.to_owned(),
        payload: Some(Json::from(payload)),
        meta: None,
    })
}

/// A part with the id that its place gives it.
pub(super) fn part(index: usize, content: Content) -> Part {
    Part {
        id: format!("p-{index}"),
        content,
    }
}
