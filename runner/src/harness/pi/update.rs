//! The pieces of a message that is being made.

use std::borrow::Cow;

use memchr::memchr_iter;
use oqto_protocol::codec::Json;
use oqto_protocol::event::Phase;
use serde::Deserialize as _;
use serde_json::value::RawValue;

use super::translate::{NotOfPi, of};
use super::wire;
use crate::harness::fragment::Fragment;

/// How long the usage in front of a piece can be, in bytes; it has 150.
const USAGE_LEN_MAX: usize = 512;

/// A piece of a message. What the model writes arrives here, one call of this a token.
pub(super) fn read(line: &[u8], out: &mut Vec<Fragment>) -> Result<(), NotOfPi> {
    let event = match behind_usage(line) {
        Some(event) => of(event)?,
        None => {
            let update: wire::MessageUpdate<'_> = of(line)?;
            update.event
        }
    };
    let content_index = event.content_index;
    // Providers send empty ones to say that they live.
    let delta = event.delta.filter(|delta| !delta.is_empty()).map(Cow::into_owned);
    match &*event.type_ {
        "text_delta" => out.extend(delta.map(|delta| Fragment::Text { delta, content_index })),
        "thinking_delta" => out.extend(delta.map(|delta| Fragment::Thought { delta, content_index })),
        "toolcall_delta" => out.extend(delta.map(|delta| Fragment::CallMore { delta, content_index })),
        "text_start" => out.push(Fragment::Phase(Phase::Generating)),
        "thinking_start" => out.push(Fragment::Phase(Phase::Thinking)),
        "toolcall_start" => {
            let (tool_call_id, name) =
                named_call(event.id, event.tool_name, event.partial, content_index).ok_or(NotOfPi)?;
            out.push(Fragment::Phase(Phase::Generating));
            out.push(Fragment::CallStarted {
                tool_call_id,
                name,
                content_index,
            });
        }
        "toolcall_end" => {
            let call = event.tool_call.ok_or(NotOfPi)?;
            out.push(Fragment::CallEnded {
                tool_call_id: call.id.into_owned(),
                name: call.name.into_owned(),
                input: call.arguments.map(Json::from).unwrap_or_default(),
                content_index,
            });
        }
        // The message itself ends with `message_end`, its parts with it.
        "text_end" | "thinking_end" | "start" | "done" | "error" => {}
        _ => return Err(NotOfPi),
    }
    Ok(())
}

/// The event of a piece that stands behind the usage so far, as 0.87 writes it. The usage is numbers under pi's own
/// names, longer than most pieces and wanted only of finished messages: it is passed over rather than parsed.
fn behind_usage(line: &[u8]) -> Option<&[u8]> {
    let name = br#"},"assistantMessageEvent":"#;
    let rest = line.strip_prefix(br#"{"type":"message_update","usage":{"#)?;
    let mut ends = memchr_iter(b'}', &rest[..rest.len().min(USAGE_LEN_MAX)]);
    let at = ends.find(|at| rest[*at..].starts_with(name))?;
    rest[at + name.len()..].strip_suffix(b"}")
}

/// The id and the tool of a call that begins; up to 0.74 they stand only in the message so far.
fn named_call(
    id: Option<wire::Text<'_>>,
    name: Option<wire::Text<'_>>,
    partial: Option<&RawValue>,
    content_index: u32,
) -> Option<(String, String)> {
    if let (Some(id), Some(name)) = (id, name) {
        return Some((id.into_owned(), name.into_owned()));
    }
    let partial = wire::Partial::deserialize(partial?).ok()?;
    let mut content = partial.content.into_iter();
    let call = content.nth(usize::try_from(content_index).ok()?)?;
    Some((call.id?.into_owned(), call.name?.into_owned()))
}
