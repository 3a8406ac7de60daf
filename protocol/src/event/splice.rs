//! Events joined and shortened as bytes: what a log keeps and sends is a frame, and most of it needs no decoding.
//!
//! Pure. A [`Glance`] reads of an event's frame only which numbers it stands for and what kind it is; a [`Piece`] is a
//! delta of a message. Neighbouring pieces that go on with one another become one frame ([`merge`]); an event whose
//! neighbours before it are gone stands for their numbers too ([`Glance::append_from`]). A frame that cannot be read,
//! or that holds more than this version knows, is left as it is.

use crate::codec::{Input, Wire as _, framed};
use crate::frame::{self, HEADER_LEN, Kind, LENGTH_LEN};

/// The most text that is put together from several deltas, bytes: far below the longest frame, and more than one
/// write to a peer holds.
pub const MERGED_LEN_MAX: usize = 64 * 1024;

/// On the wire [`TextDelta`](super::TextDelta), [`ThinkingDelta`](super::ThinkingDelta) and
/// [`ToolCallDelta`](super::ToolCallDelta) are events of these kinds.
const TEXT_DELTA: u32 = 33;
const THINKING_DELTA: u32 = 34;
const TOOL_CALL_DELTA: u32 = 36;

/// An event's frame, read as far as its number.
#[derive(Clone, Copy, Debug)]
pub struct Glance<'a> {
    /// Which telling of the session.
    pub epoch: u32,
    /// The first number that it stands for.
    pub first_seq: u64,
    /// The last.
    pub seq: u64,
    /// From its time on.
    rest: &'a [u8],
}

/// A delta of a message.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The message.
    pub message_id: &'a str,
    ts: u64,
    kind: u32,
    /// Of a tool call's only. An empty slice would say the same, but comparing two of those hands `memcmp` an address that
    /// is none, which some processors take longer over than over all the rest of an event.
    tool_call_id: Option<&'a [u8]>,
    text: &'a [u8],
    content_index: u32,
}

impl<'a> Glance<'a> {
    /// Of a whole frame; `None` when it holds no event.
    #[must_use]
    pub fn of(frame: &'a [u8]) -> Option<Self> {
        let kind = frame.get(LENGTH_LEN..HEADER_LEN)?;
        if kind != Kind::EVENT.0.to_le_bytes() {
            return None;
        }
        let read = Input::new(&frame[HEADER_LEN..]).framed("event", |input| {
            let epoch = u32::decode(input)?;
            let seq = u64::decode(input)?;
            let first_seq = Option::<u64>::decode(input)?.unwrap_or(seq);
            Ok(Self {
                epoch,
                first_seq,
                seq,
                rest: input.rest(),
            })
        });
        read.ok().filter(|glance| glance.first_seq <= glance.seq)
    }

    /// The delta that it is; `None` when it is none, or holds more than this version knows.
    #[must_use]
    pub fn piece(&self) -> Option<Piece<'a>> {
        let mut input = Input::new(self.rest);
        let ts = u64::decode(&mut input).ok()?;
        let kind = u32::decode(&mut input).ok()?;
        if !matches!(kind, TEXT_DELTA | THINKING_DELTA | TOOL_CALL_DELTA) {
            return None;
        }
        let body = bytes(&mut input)?;
        let mut body = Input::new(body);
        let message_id = std::str::from_utf8(bytes(&mut body)?).ok()?;
        let tool_call_id = match kind {
            TOOL_CALL_DELTA => Some(bytes(&mut body)?),
            _ => None,
        };
        let text = bytes(&mut body)?;
        let content_index = u32::decode(&mut body).ok()?;
        (input.rest().is_empty() && body.rest().is_empty()).then_some(Piece {
            message_id,
            ts,
            kind,
            tool_call_id,
            text,
            content_index,
        })
    }

    /// Appends the same event as the one that stands for every number from `first_seq` on.
    pub fn append_from(&self, first_seq: u64, out: &mut Vec<u8>) {
        append_event(out, |out| {
            self.append_numbers(first_seq, out);
            out.extend_from_slice(self.rest);
        });
    }

    fn append_numbers(&self, first_seq: u64, out: &mut Vec<u8>) {
        self.epoch.encode(out);
        self.seq.encode(out);
        (first_seq < self.seq).then_some(first_seq).encode(out);
    }
}

impl Piece<'_> {
    /// Whether it goes on where `before` ended.
    fn continues(&self, before: &Self) -> bool {
        self.kind == before.kind
            && self.content_index == before.content_index
            && self.message_id == before.message_id
            && self.tool_call_id == before.tool_call_id
    }
}

/// Appends whole `frames` to `out`, neighbouring deltas of one message and content index as one frame with the numbers
/// of all, as old as its last.
pub fn merge(frames: &[u8], out: &mut Vec<u8>) {
    out.reserve(frames.len());
    let mut run: Option<Run<'_>> = None;
    let mut text = Vec::new();
    let mut at = 0;
    while let Some(frame) = frame_at(frames, at) {
        at += frame.len();
        let glance = Glance::of(frame);
        let piece = glance.as_ref().and_then(Glance::piece);
        let (Some(glance), Some(piece)) = (glance, piece) else {
            end(run.take(), &mut text, out);
            out.extend_from_slice(frame);
            continue;
        };
        if let Some(run) = &mut run
            && run.takes(&glance, &piece)
        {
            if text.is_empty() {
                text.extend_from_slice(run.piece.text);
            }
            text.extend_from_slice(piece.text);
            run.len += piece.text.len();
            (run.last, run.piece.ts) = (glance, piece.ts);
            run.count += 1;
            continue;
        }
        end(run.take(), &mut text, out);
        run = Some(Run {
            frame,
            first_seq: glance.first_seq,
            last: glance,
            piece,
            len: piece.text.len(),
            count: 1,
        });
    }
    end(run, &mut text, out);
    // What is no whole frame is not ours to judge.
    out.extend_from_slice(&frames[at..]);
}

/// How much of whole `frames`, the first of which is number `first_seq`, no reader can have merged with what follows
/// them: their bytes up to the end of the last one that is no delta, and its number. `None` when all of them are deltas.
/// What is no whole frame is not ours to judge, and counts as one event.
#[must_use]
pub fn settled(frames: &[u8], first_seq: u64) -> Option<(usize, u64)> {
    let (mut at, mut next_seq, mut settled) = (0, first_seq, None);
    while let Some(frame) = frame_at(frames, at) {
        at += frame.len();
        let glance = Glance::of(frame);
        let seq = glance.map_or(next_seq, |glance| glance.seq);
        if glance.and_then(|glance| glance.piece()).is_none() {
            settled = Some((at, seq));
        }
        next_seq = seq.saturating_add(1);
    }
    if at < frames.len() {
        return Some((frames.len(), next_seq));
    }
    settled
}

/// Neighbouring pieces that are to be one.
struct Run<'a> {
    /// The first one's frame.
    frame: &'a [u8],
    first_seq: u64,
    last: Glance<'a>,
    piece: Piece<'a>,
    /// How much text there is, bytes.
    len: usize,
    count: usize,
}

impl Run<'_> {
    fn takes(&self, next: &Glance<'_>, piece: &Piece<'_>) -> bool {
        piece.continues(&self.piece)
            && next.epoch == self.last.epoch
            && next.first_seq == self.last.seq.saturating_add(1)
            && self.len + piece.text.len() <= MERGED_LEN_MAX
    }
}

fn end(run: Option<Run<'_>>, text: &mut Vec<u8>, out: &mut Vec<u8>) {
    let Some(run) = run else { return };
    if run.count == 1 {
        out.extend_from_slice(run.frame);
        return;
    }
    let Piece {
        message_id,
        ts,
        kind,
        tool_call_id,
        text: _,
        content_index,
    } = run.piece;
    append_event(out, |out| {
        run.last.append_numbers(run.first_seq, out);
        ts.encode(out);
        kind.encode(out);
        framed(out, |out| {
            append_bytes(message_id.as_bytes(), out);
            if let Some(tool_call_id) = tool_call_id {
                append_bytes(tool_call_id, out);
            }
            append_bytes(text, out);
            content_index.encode(out);
        });
    });
    text.clear();
}

/// The frame at `at`, if it is there whole.
#[must_use]
pub fn frame_at(frames: &[u8], at: usize) -> Option<&[u8]> {
    let rest = frames.get(at..)?;
    let len = frame::frame_len(rest, usize::MAX).ok()??;
    rest.get(..len)
}

fn bytes<'a>(input: &mut Input<'a>) -> Option<&'a [u8]> {
    input
        .framed("text", |inner| {
            let all = inner.rest();
            Ok(all)
        })
        .ok()
}

fn append_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    (bytes.len() as u64).encode(out);
    out.extend_from_slice(bytes);
}

/// Appends a frame of an event whose fields `write` appends. What it is made of were frames within their bound.
fn append_event(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; LENGTH_LEN]);
    out.extend_from_slice(&Kind::EVENT.0.to_le_bytes());
    framed(out, write);
    let len = u32::try_from(out.len() - at - LENGTH_LEN).unwrap_or(u32::MAX);
    out[at..at + LENGTH_LEN].copy_from_slice(&len.to_le_bytes());
}
