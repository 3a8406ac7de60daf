//! A control, as `oqto_control` is one: its link's own rules judge each event, and what it keeps it acknowledges. One
//! keeps on disk and knows after a crash what it had; the other keeps nothing.

use oqto_control::history::Kept;
use oqto_control::link::{Acks, Admitted, Order};
use oqto_protocol::bounds::FRAME_LEN_MAX;
use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::{Event, Numbered};
use oqto_protocol::frame::{Frame, Kind};
use oqto_protocol::stream::Subscribed;

/// How one control follows one session.
#[derive(Debug)]
pub(crate) struct Follow {
    order: Order,
    acks: Acks,
    /// Bytes of frames that are not whole yet.
    buffer: Vec<u8>,
    is_subscribed: bool,
    /// What was handed out and is not on disk.
    waiting: Vec<Numbered>,
    /// What was handed out and is on disk, or would be if there were one.
    pub(crate) kept: Vec<Numbered>,
}

impl Follow {
    pub(crate) fn new() -> Self {
        Self {
            order: Order::after(Cursor::default()),
            acks: Acks::default(),
            buffer: Vec::new(),
            is_subscribed: false,
            waiting: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// The cursor to subscribe with; what the old stream still held is forgotten.
    pub(crate) fn subscribe(&mut self) -> Cursor {
        self.buffer.clear();
        self.is_subscribed = false;
        self.order.cursor()
    }

    pub(crate) fn cursor(&self) -> Cursor {
        self.order.cursor()
    }

    /// The control died: what was not kept is gone, and of one that keeps nothing all of it.
    pub(crate) fn crash(&mut self, is_durable: bool) {
        let kept = if is_durable {
            std::mem::take(&mut self.kept)
        } else {
            Vec::new()
        };
        *self = Self::new();
        self.order = Order::after(kept.last().map_or_else(Cursor::default, cursor_of));
        self.kept = kept;
    }

    /// Takes bytes of the stream; the events that are new.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Result<Vec<Numbered>, String> {
        self.buffer.extend_from_slice(bytes);
        let mut new = Vec::new();
        let mut taken = 0;
        while let Some((frame, rest)) =
            Frame::split(&self.buffer[taken..], FRAME_LEN_MAX).map_err(|error| error.to_string())?
        {
            taken = self.buffer.len() - rest.len();
            match frame.kind {
                Kind::SUBSCRIBED => {
                    let subscribed: Subscribed = frame.body().map_err(|error| error.to_string())?;
                    let from = self.order.cursor();
                    if from == Cursor::default() {
                        self.order = Order::after(subscribed.cursor);
                    } else if subscribed.cursor.epoch == from.epoch && subscribed.cursor.seq > from.seq {
                        return Err(format!("events after {} are kept no longer", from.seq));
                    }
                    self.acks.again(subscribed.cursor.seq);
                    self.is_subscribed = true;
                }
                Kind::EVENT if self.is_subscribed => {
                    let numbered: Numbered = frame.body().map_err(|error| error.to_string())?;
                    if self.order.admit(&numbered).map_err(|error| error.to_string())? == Admitted::New {
                        if let Event::StreamReset(reset) = &numbered.event {
                            self.acks.reset(reset.seq);
                        }
                        self.waiting.push(numbered.clone());
                        new.push(numbered);
                    }
                }
                kind => return Err(format!("a frame of kind {} comes where none may", kind.0)),
            }
        }
        self.buffer.drain(..taken);
        Ok(new)
    }

    pub(crate) fn has_unkept(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Keeps what waits; what is to be acknowledged.
    pub(crate) fn keep(&mut self, is_durable: bool) -> Option<u64> {
        for numbered in self.waiting.drain(..) {
            if let Event::StreamReset(reset) = &numbered.event {
                self.kept.retain(|kept| kept.seq <= reset.seq);
            }
            self.kept.push(numbered);
        }
        let last = cursor_of(self.kept.last()?);
        let kept = if is_durable {
            Kept::Durable(last)
        } else {
            Kept::Volatile
        };
        self.acks.kept(kept, self.order.cursor().epoch);
        self.acks.take().map(|ack| ack.seq)
    }

    /// The last number on disk.
    pub(crate) fn kept_seq(&self) -> u64 {
        self.kept.last().map_or(0, |kept| cursor_of(kept).seq)
    }

    /// Whether an end of work behind `cursor` was handed out.
    pub(crate) fn has_rested(&self, cursor: Cursor) -> bool {
        self.kept
            .iter()
            .chain(&self.waiting)
            .any(|told| (told.epoch > cursor.epoch || told.seq > cursor.seq) && is_rest(&told.event))
    }
}

/// Whether nothing more comes of the command at hand.
pub(crate) fn is_rest(event: &Event) -> bool {
    match event {
        Event::AgentIdle(_) | Event::SessionClosed(_) => true,
        Event::AgentError(error) => !error.recoverable,
        _ => false,
    }
}

fn cursor_of(numbered: &Numbered) -> Cursor {
    match &numbered.event {
        Event::StreamReset(reset) => Cursor {
            epoch: reset.epoch,
            seq: reset.seq,
        },
        _ => Cursor {
            epoch: numbered.epoch,
            seq: numbered.seq,
        },
    }
}

/// What a reader of these events has seen, whether neighbouring deltas came merged or not.
pub(crate) fn view<'a>(events: impl Iterator<Item = &'a Numbered>) -> Vec<String> {
    let mut seen: Vec<(String, String)> = Vec::new();
    for numbered in events {
        let (name, text) = match &numbered.event {
            Event::TextDelta(it) => (
                format!("text {} {}", it.message_id, it.content_index),
                it.delta.clone(),
            ),
            Event::ThinkingDelta(it) => (
                format!("thought {} {}", it.message_id, it.content_index),
                it.delta.clone(),
            ),
            Event::ToolCallDelta(it) => (
                format!("call {} {}", it.tool_call_id, it.content_index),
                it.delta.clone(),
            ),
            Event::StreamReset(_) => continue,
            event => (String::new(), format!("{} {event:?}", numbered.ts)),
        };
        match seen.last_mut() {
            Some((last, whole)) if *last == name && !name.is_empty() => whole.push_str(&text),
            _ => seen.push((name, text)),
        }
    }
    seen.into_iter()
        .map(|(name, text)| format!("{name} {text}"))
        .collect()
}
