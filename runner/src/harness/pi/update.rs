//! The pieces of a message that is being made.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memchr2};
use oqto_protocol::codec::Json;
use oqto_protocol::event::Phase;
use serde::Deserialize as _;
use serde_json::value::RawValue;

use super::translate::{NotOfPi, of};
use super::wire;
use crate::harness::fragment::Fragment;

/// How long the usage in front of a piece can be, in bytes; it has 150.
const USAGE_LEN_MAX: usize = 512;

/// What a line of up to 0.74 begins with that brings a piece.
const PIECE: &[u8] = br#"{"type":"message_update","assistantMessageEvent":{"type":""#;

/// A piece of a message. What the model writes arrives here, one call of this a token.
pub(super) fn read(line: &[u8], out: &mut Vec<Fragment>) -> Result<(), NotOfPi> {
    if let Some(piece) = before_repeats(line) {
        out.extend(more(piece.type_, piece.delta, piece.content_index));
        return Ok(());
    }
    let event = match behind_usage(line) {
        Some(event) => of(event)?,
        None => {
            let update: wire::MessageUpdate<'_> = of(line)?;
            update.event
        }
    };
    let content_index = event.content_index;
    match &*event.type_ {
        type_ @ ("text_delta" | "thinking_delta" | "toolcall_delta") => {
            let delta = event.delta.map(Cow::into_owned).unwrap_or_default();
            out.extend(more(type_, delta, content_index));
        }
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

/// More of a text, a thought or a call's arguments; nothing where it is empty: providers send such to say that they live.
fn more(type_: &str, delta: String, content_index: u32) -> Option<Fragment> {
    match type_ {
        _ if delta.is_empty() => None,
        "text_delta" => Some(Fragment::Text { delta, content_index }),
        "thinking_delta" => Some(Fragment::Thought { delta, content_index }),
        "toolcall_delta" => Some(Fragment::CallMore { delta, content_index }),
        _ => None,
    }
}

/// A piece of which nothing else has to be known.
struct Piece<'a> {
    type_: &'a str,
    content_index: u32,
    delta: String,
}

/// A piece as up to 0.74 writes it: in front of the message so far, which stands behind it twice. A megabyte of text
/// comes as 74 of such lines, so that the repeats are not looked at. Where the piece itself ends is found by the rules of
/// JSON, so that no text can pretend it; every other shape is `None` and is parsed.
fn before_repeats(line: &[u8]) -> Option<Piece<'_>> {
    let rest = line.strip_prefix(PIECE)?;
    let (type_, rest) = rest.split_at(memchr(b'"', rest)?);
    let type_ = std::str::from_utf8(type_)
        .ok()
        .filter(|it| it.ends_with("_delta"))?;
    let rest = rest.strip_prefix(br#"","contentIndex":"#)?;
    let (index, rest) = rest.split_at(memchr(b',', rest)?);
    let content_index = std::str::from_utf8(index).ok()?.parse().ok()?;
    let rest = rest.strip_prefix(br#","delta":"#)?;
    let text = text_in_front(rest)?;
    if !rest[text.len()..].starts_with(br#","partial":{"#) || !line.ends_with(b"}}") {
        return None;
    }
    let delta = serde_json::from_slice(text).ok()?;
    Some(Piece {
        type_,
        content_index,
        delta,
    })
}

/// The JSON text that bytes begin with, with its quotes.
fn text_in_front(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 1;
    bytes.strip_prefix(b"\"")?;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(&bytes[..=at]);
        }
        // What a backslash stands before is no end.
        at += 2;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn fragments(line: &str) -> Option<Vec<Fragment>> {
        let mut out = Vec::new();
        read(line.as_bytes(), &mut out).is_ok().then_some(out)
    }

    /// The line that up to 0.74 writes for a piece of a text.
    fn repeating(delta: &str, so_far: &str) -> String {
        let message = serde_json::json!({"role": "assistant", "content": [{"type": "text", "text": so_far}]});
        let delta = serde_json::to_string(delta).expect("a text");
        format!(
            r#"{{"type":"message_update","assistantMessageEvent":{{"type":"text_delta","contentIndex":0,"delta":{delta},"partial":{message}}},"message":{message}}}"#
        )
    }

    #[test]
    fn no_text_pretends_to_be_the_end_of_a_piece() {
        let marker = r#"","partial":{"role":"assistant"}},"message":{}}"#;
        let hostile = [
            marker,
            r#"\","partial":{"#,
            r#"a\"#,
            "\\\"",
            r#"","delta":"other"#,
            "line\nbreak \u{2028} 日本語 \u{0} \"",
        ];
        for text in hostile {
            for so_far in [text, marker, ""] {
                let line = repeating(text, so_far);
                assert!(before_repeats(line.as_bytes()).is_some(), "{line}");
                let expected = Fragment::Text {
                    delta: text.to_owned(),
                    content_index: 0,
                };
                assert_eq!(fragments(&line), Some(vec![expected]), "{line}");
            }
        }
    }

    #[test]
    fn a_piece_of_any_other_shape_is_parsed() {
        let line = repeating("more", "some");
        let expected = fragments(&line).expect("of pi");
        let others = [
            line.replace(
                r#""contentIndex":0,"delta":"more","#,
                r#""delta":"more","contentIndex":0,"#,
            ),
            line.replace(r#""type":"text_delta","#, r#""type": "text_delta","#),
            line.replace(r#","partial""#, r#","newer":1,"partial""#),
            line.replace("}}", "} }"),
        ];
        for other in others {
            assert_ne!(other, line);
            assert!(before_repeats(other.as_bytes()).is_none(), "{other}");
            assert_eq!(fragments(&other).as_ref(), Some(&expected), "{other}");
        }
        // Cut off, it is no piece at all.
        assert_eq!(fragments(&line[..line.len() - 1]), None);
        assert_eq!(fragments(&line[..80]), None);
    }
}
