//! What single agents say beside the protocol, in its places for that: what a turn cost, and that it failed.

use serde::Deserialize as _;
use serde_json::Value;
use serde_json::value::RawValue;

use super::wire;
use crate::harness::excerpt::excerpt;

/// How much of an error is told that stands beside an answer, in bytes.
const ERROR_LEN_MAX: usize = 2048;

/// What one request to its model cost: qwen says it beside a piece of text.
pub(super) fn used(meta: &RawValue) -> Option<wire::Usage> {
    let meta = value(meta, "\"usage\"")?;
    wire::Usage::deserialize(meta.get("usage")?).ok()
}

/// What a turn cost: gemini says it beside the answer to the prompt.
pub(super) fn used_in_all(meta: &RawValue) -> Option<wire::Usage> {
    let meta = value(meta, "\"quota\"")?;
    let counts = meta.pointer("/quota/token_count")?;
    Some(wire::Usage {
        input_tokens: counts.get("input_tokens")?.as_u64()?,
        output_tokens: counts.get("output_tokens")?.as_u64()?,
        ..wire::Usage::default()
    })
}

/// Whether the agent's own engine failed, where it says how that is: codex does, and then ends the turn as if all were
/// well, with the error as what the model said last.
pub(super) fn is_broken(meta: &RawValue) -> Option<bool> {
    let meta = value(meta, "\"threadStatus\"")?;
    let status = meta.pointer("/codex/threadStatus/type")?.as_str()?;
    Some(status == "systemError")
}

/// The error that stands beside the end of a turn.
pub(super) fn hidden_error(meta: &RawValue) -> Option<String> {
    let meta = value(meta, "\"error\"")?;
    let error = meta.pointer("/codex/error").filter(|error| !error.is_null())?;
    let text = error.pointer("/message").unwrap_or(error);
    let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
    Some(excerpt(text.as_bytes(), ERROR_LEN_MAX))
}

/// All of it, where it has this name: most of what stands there is none of ours.
fn value(meta: &RawValue, name: &str) -> Option<Value> {
    let text = meta.get();
    text.contains(name).then(|| serde_json::from_str(text).ok())?
}
