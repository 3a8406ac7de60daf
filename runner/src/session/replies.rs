//! Commands that wait for their answer, and the answers of those that do not.

use std::collections::VecDeque;

use oqto_protocol::codec::Wire;
use oqto_protocol::cursor::Cursor;
use oqto_protocol::id::CommandId;
use oqto_protocol::reply::Reply;

use super::bounds::{REPLIES_LEN_MAX, REPLIES_MAX};

/// A command that waits for the harness's answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pending {
    /// Which.
    pub(super) id: CommandId,
    /// Its name.
    pub(super) cmd: &'static str,
    /// What waits with it.
    pub(super) kind: Kind,
    /// The newest event before its effects.
    pub(super) cursor: Cursor,
    /// When the harness should have answered.
    pub(super) until: u64,
}

/// What its answer means to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something was said: a run begins, or goes on with it.
    Talk,
    /// The context is being shortened.
    Compact,
    /// The harness goes to another conversation: what it says of itself is asked for again.
    Move,
    /// Nothing.
    Other,
}

/// Commands that wait, and replies that are kept.
#[derive(Debug, Default)]
pub(super) struct Replies {
    pub(super) pending: Vec<Pending>,
    kept: VecDeque<(Reply, usize)>,
    kept_len: usize,
}

impl Replies {
    /// The replies that are kept, oldest first.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Reply> {
        self.kept.iter().map(|(reply, _)| reply)
    }

    /// The reply that a command got.
    pub(super) fn given(&self, id: CommandId) -> Option<&Reply> {
        self.kept().find(|reply| reply.id == id)
    }

    /// Whether a command waits.
    pub(super) fn waits(&self, id: CommandId) -> bool {
        self.pending.iter().any(|pending| pending.id == id)
    }

    /// Takes a command that waits out.
    pub(super) fn take(&mut self, id: CommandId) -> Option<Pending> {
        let at = self.pending.iter().position(|pending| pending.id == id)?;
        Some(self.pending.remove(at))
    }

    /// Takes the first command of a kind out.
    pub(super) fn take_kind(&mut self, kind: Kind) -> Option<Pending> {
        let at = self.pending.iter().position(|pending| pending.kind == kind)?;
        Some(self.pending.remove(at))
    }

    /// When the first answer is overdue.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.pending.iter().map(|pending| pending.until).min()
    }

    /// Keeps a reply, and forgets the oldest past the bounds.
    pub(super) fn keep(&mut self, reply: Reply) {
        let mut bytes = Vec::new();
        reply.encode(&mut bytes);
        self.kept_len += bytes.len();
        self.kept.push_back((reply, bytes.len()));
        while self.kept.len() > REPLIES_MAX || (self.kept_len > REPLIES_LEN_MAX && self.kept.len() > 1) {
            if let Some((_, len)) = self.kept.pop_front() {
                self.kept_len -= len;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use oqto_protocol::codec::Json;
    use oqto_protocol::reply::{HarnessAnswer, ReplyData};

    use super::*;

    fn reply(n: u16, answer_len: usize) -> Reply {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_le_bytes());
        let answer = Json::parse(format!("\"{}\"", "x".repeat(answer_len))).expect("a text");
        Reply::done(
            CommandId(id),
            "get_commands",
            Some(ReplyData::HarnessAnswer(HarnessAnswer { answer })),
        )
    }

    #[test]
    fn kept_replies_are_bounded_in_number_and_length() {
        let mut replies = Replies::default();
        (0..1000).for_each(|n| replies.keep(reply(n, 1)));
        assert_eq!(replies.kept().count(), REPLIES_MAX);
        assert!(replies.given(reply(999, 1).id).is_some());
        assert!(replies.given(reply(0, 1).id).is_none());
        (0..20).for_each(|n| replies.keep(reply(n, 100 * 1024)));
        assert!(replies.kept().count() <= 10, "{}", replies.kept().count());
    }
}
