//! The messages of a session: their numbers, and the one that is being made.

use oqto_protocol::codec::Json;
use oqto_protocol::event::{
    Event, FinishedCall, MessageEnd, MessageStart, TextDelta, ThinkingDelta, ToolCallDelta, ToolCallEnd,
    ToolCallStart,
};
use oqto_protocol::id::MessageId;
use oqto_protocol::message::{
    Content, Message, Part, Role, StopReason, Text, Thinking, ToolCall, ToolStatus,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::bounds::{PARTIAL_PARTS_MAX, SPOKEN_MAX};
use crate::harness::Draft;

/// The messages of a session.
#[derive(Debug)]
pub(super) struct Transcript {
    next_idx: u64,
    /// How much of a message that is being made is kept, in bytes.
    kept_max: usize,
    open: Option<Open>,
    spoken: Vec<Spoken>,
}

/// What was said under a name of the sender's, until the harness repeats it as a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spoken {
    text: String,
    client_id: String,
}

/// A message that is being made.
#[derive(Debug)]
struct Open {
    id: MessageId,
    idx: u64,
    role: Role,
    began: u64,
    /// What of it is there, for the case that its end never comes.
    pieces: Vec<(u32, Piece)>,
    len: usize,
    len_max: usize,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Thinking(String),
    Whole(Box<Content>),
    Call {
        id: String,
        name: String,
        arguments: String,
    },
}

impl Transcript {
    pub(super) fn new(next_idx: u64, kept_max: usize, spoken: Vec<Spoken>) -> Self {
        Self {
            next_idx,
            kept_max,
            open: None,
            spoken,
        }
    }

    pub(super) fn next_idx(&self) -> u64 {
        self.next_idx
    }

    /// Messages up to this number are there already; one that is open here and ends there is not ended a second time.
    pub(super) fn catch_up(&mut self, next_idx: u64) {
        self.open.take_if(|open| open.idx < next_idx);
        self.next_idx = self.next_idx.max(next_idx);
    }

    pub(super) fn spoken(&self) -> &[Spoken] {
        &self.spoken
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Remembers what is said to the harness, for the message that it will make of it. When too many
    /// are never seen again the oldest is forgotten: its message then lacks the sender's name, nothing else.
    pub(super) fn speak(&mut self, text: &str, client_id: Option<&str>) {
        if let Some(client_id) = client_id {
            if self.spoken.len() == SPOKEN_MAX {
                self.spoken.remove(0);
            }
            self.spoken.push(Spoken {
                text: text.to_owned(),
                client_id: client_id.to_owned(),
            });
        }
    }

    /// Forgets what was said: the harness took it back.
    pub(super) fn unspeak(&mut self) {
        self.spoken.clear();
    }

    /// A message begins.
    pub(super) fn start(&mut self, role: Role, now_ms: u64) -> Event {
        let idx = self.next_idx;
        self.next_idx += 1;
        let id = MessageId::numbered(idx);
        self.open = Some(Open {
            id,
            idx,
            role,
            began: now_ms,
            pieces: Vec::new(),
            len: 0,
            len_max: self.kept_max,
        });
        Event::MessageStart(MessageStart { message_id: id, role })
    }

    /// More text of the open message; `None` when none is open.
    pub(super) fn text(&mut self, delta: String, content_index: u32) -> Option<Event> {
        let open = self.open.as_mut()?;
        if let Some(Piece::Text(text)) = open.piece(content_index, delta.len(), || Piece::Text(String::new()))
        {
            text.push_str(&delta);
        }
        Some(Event::TextDelta(TextDelta {
            message_id: open.id,
            delta,
            content_index,
        }))
    }

    /// More thought of it.
    pub(super) fn thought(&mut self, delta: String, content_index: u32) -> Option<Event> {
        let open = self.open.as_mut()?;
        let piece = open.piece(content_index, delta.len(), || Piece::Thinking(String::new()));
        if let Some(Piece::Thinking(text)) = piece {
            text.push_str(&delta);
        }
        Some(Event::ThinkingDelta(ThinkingDelta {
            message_id: open.id,
            delta,
            content_index,
        }))
    }

    /// A part of the open message that has no pieces.
    pub(super) fn part(&mut self, content: Content, content_index: u32) {
        if let Some(open) = &mut self.open {
            let len = serde_json::to_string(&content).map_or(0, |text| text.len());
            open.piece(content_index, len, || Piece::Whole(Box::new(content)));
        }
    }

    /// Whether so much more of the open message is kept.
    pub(super) fn fits(&self, more: usize) -> bool {
        self.open
            .as_ref()
            .is_none_or(|open| open.len == 0 || open.fits(more))
    }

    /// It begins to call a tool.
    pub(super) fn call_started(
        &mut self,
        tool_call_id: String,
        name: String,
        content_index: u32,
    ) -> Option<Event> {
        let open = self.open.as_mut()?;
        open.piece(content_index, tool_call_id.len() + name.len(), || Piece::Call {
            id: tool_call_id.clone(),
            name: name.clone(),
            arguments: String::new(),
        });
        Some(Event::ToolCallStart(ToolCallStart {
            message_id: open.id,
            tool_call_id,
            name,
            content_index,
        }))
    }

    /// More of the call's arguments; `None` also for a call whose start was not seen, since it has no name yet.
    pub(super) fn call_more(&mut self, delta: String, content_index: u32) -> Option<Event> {
        let open = self.open.as_mut()?;
        let message_id = open.id;
        let fits = open.fits(delta.len());
        let (_, piece) = open
            .pieces
            .iter_mut()
            .rfind(|(index, _)| *index == content_index)?;
        let Piece::Call { id, arguments, .. } = piece else {
            return None;
        };
        let tool_call_id = id.clone();
        if fits {
            arguments.push_str(&delta);
            open.len += delta.len();
        }
        Some(Event::ToolCallDelta(ToolCallDelta {
            message_id,
            tool_call_id,
            delta,
            content_index,
        }))
    }

    /// The call is whole.
    pub(super) fn call_ended(
        &mut self,
        id: String,
        name: String,
        input: Json,
        content_index: u32,
    ) -> Option<Event> {
        let open = self.open.as_mut()?;
        let len = input.text().len();
        let fits = open.fits(len);
        let place = open.pieces.iter_mut().rfind(|(index, _)| *index == content_index);
        if let Some((_, Piece::Call { arguments, .. })) = place
            && fits
        {
            // What is whole counts, whatever the deltas were.
            open.len = open.len + len - arguments.len();
            arguments.clear();
            arguments.push_str(input.text());
        }
        Some(Event::ToolCallEnd(ToolCallEnd {
            message_id: open.id,
            tool_call_id: id.clone(),
            content_index,
            tool_call: FinishedCall { id, name, input },
        }))
    }

    /// The open message is whole; `None` when none is open.
    pub(super) fn finish(&mut self, draft: Draft) -> Option<Event> {
        let open = self.open.take()?;
        let client_id = match draft.role {
            Role::User => self.client_id(&draft.parts),
            _ => None,
        };
        Some(Event::MessageEnd(MessageEnd {
            message: Box::new(Message {
                id: open.id,
                idx: open.idx,
                role: draft.role,
                parts: draft.parts,
                created_at: open.began,
                client_id,
                sender: None,
                model: draft.model,
                provider: draft.provider,
                stop_reason: draft.stop_reason,
                usage: draft.usage,
                tool_call_id: draft.tool_call_id,
                tool_name: draft.tool_name,
                is_error: draft.is_error,
                metadata: draft.metadata,
            }),
        }))
    }

    /// The open message is whole, with the parts that its pieces made.
    pub(super) fn finish_as_told(&mut self, draft: Draft) -> Option<Event> {
        let parts = self.open.as_mut()?.take_parts();
        self.finish(Draft { parts, ..draft })
    }

    /// Ends the open message with what of it is there, since its end will not come.
    pub(super) fn cut(&mut self, reason: StopReason) -> Option<Event> {
        let open = self.open.as_mut()?;
        let role = open.role;
        let parts = open.take_parts();
        self.finish(Draft {
            stop_reason: (role == Role::Assistant).then_some(reason),
            metadata: Some(Json::from(&json!({ "incomplete": true }))),
            ..Draft::new(role, parts)
        })
    }

    /// What the sender calls the message that says this.
    fn client_id(&mut self, parts: &[Part]) -> Option<String> {
        let said = parts.iter().find_map(|part| match &part.content {
            Content::Text(text) => Some(text.text.as_str()),
            _ => None,
        })?;
        let at = self.spoken.iter().position(|spoken| spoken.text == said)?;
        Some(self.spoken.remove(at).client_id)
    }
}

impl Open {
    /// The piece at a place, made when it is not there; `None` when no more is kept.
    fn piece(&mut self, content_index: u32, more: usize, new: impl FnOnce() -> Piece) -> Option<&mut Piece> {
        if !self.fits(more) {
            return None;
        }
        // Pieces come in order, nearly always to the last one.
        let at = match self.pieces.iter().rposition(|(index, _)| *index == content_index) {
            Some(at) => at,
            None if self.pieces.len() < PARTIAL_PARTS_MAX => {
                self.pieces.push((content_index, new()));
                self.pieces.len() - 1
            }
            None => return None,
        };
        self.len += more;
        self.pieces.get_mut(at).map(|(_, piece)| piece)
    }

    fn take_parts(&mut self) -> Vec<Part> {
        let pieces = std::mem::take(&mut self.pieces).into_iter();
        let part = |(index, piece): (u32, Piece)| Part {
            id: format!("p-{index}"),
            content: piece.into_content(),
        };
        pieces.map(part).collect()
    }

    fn fits(&self, more: usize) -> bool {
        self.len + more <= self.len_max
    }
}

impl Piece {
    fn into_content(self) -> Content {
        match self {
            Self::Text(text) => Content::Text(Text { text, format: None }),
            Self::Thinking(text) => Content::Thinking(Thinking { text }),
            Self::Whole(content) => *content,
            Self::Call { id, name, arguments } => Content::ToolCall(ToolCall {
                tool_call_id: id,
                name,
                // Cut off in the middle it is no JSON, and nobody should act on half of it.
                input: Json::parse(arguments).ok(),
                status: ToolStatus::Pending,
            }),
        }
    }
}
