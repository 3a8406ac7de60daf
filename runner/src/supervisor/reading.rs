//! How far a session's tape was read, where a replay of it would begin, and what its shim knows of both.

use std::collections::VecDeque;

use bytes::Bytes;

/// How much of the tape is read before anything else gets its turn, bytes.
const TURN_LEN: u64 = 1024 * 1024;

/// How far behind the shim may be in knowing what was read, bytes: far below what the tape may be ahead.
const CONSUMED_STEP: u64 = 1024 * 1024;

/// How much of a tape is read before a mark is kept that no event comes with: a session that rests is asked things, and
/// its tape must not grow for ever.
const ALONE_STEP: u64 = 1024 * 1024;

/// How far a tape was read.
#[derive(Debug)]
pub struct Reading {
    at: u64,
    /// How far it may be read.
    until: u64,
    /// How far it is read again: an earlier runner may have done what it asks for up to here.
    replay_end: u64,
    /// Where this turn began.
    turn: u64,
    /// The newest mark that no batch carries yet, and where on the tape it is.
    mark: Option<(u64, Bytes)>,
    /// Marks that were appended: the event they came with, and where on the tape they are.
    marks: VecDeque<(u64, u64)>,
    /// Where the newest mark was that was given away.
    marked: u64,
    /// Where on the tape a replay would begin.
    needed: u64,
    /// What the shim was told: how far the tape was read, and from where on it is needed.
    told: (u64, u64),
}

impl Reading {
    pub(super) fn new(at: u64, until: u64) -> Self {
        Self {
            at,
            until,
            replay_end: until,
            turn: at,
            mark: None,
            marks: VecDeque::new(),
            marked: at,
            needed: 0,
            told: (0, 0),
        }
    }

    /// How far it was read.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// How far the tape may be read now.
    #[must_use]
    pub fn until(&self) -> u64 {
        self.until
    }

    /// The tape has grown.
    pub fn grown(&mut self, len: u64) {
        self.until = self.until.max(len);
    }

    /// The shim is gone, and the tape is as long as its file.
    pub fn cut(&mut self, len: u64) {
        self.until = len;
    }

    /// Whether there is more to read.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.at < self.until
    }

    /// Whether what is read now was read by an earlier runner too, perhaps.
    #[must_use]
    pub fn replays(&self) -> bool {
        self.at < self.replay_end
    }

    /// A turn of reading begins.
    pub fn begin_turn(&mut self) {
        self.turn = self.at;
    }

    /// Whether anything else should have its turn now.
    #[must_use]
    pub fn turn_is_over(&self) -> bool {
        self.at - self.turn >= TURN_LEN
    }

    /// A record that ends here was read.
    pub(super) fn read(&mut self, end: u64) {
        self.at = end;
    }

    /// A replay could begin here.
    pub(super) fn mark(&mut self, mark: Bytes) {
        self.mark = Some((self.at, mark));
    }

    /// The newest mark, for a batch that ends with this event; `None` when an earlier one has it.
    pub(super) fn take_mark(&mut self, last_seq: u64) -> Option<Bytes> {
        let (at, mark) = self.mark.take()?;
        self.marks.push_back((last_seq, at));
        self.marked = at;
        Some(mark)
    }

    /// A mark that is to be kept by itself, since much was read and no event came; and where on the tape it is.
    pub fn lone_mark(&mut self) -> Option<(u64, Bytes)> {
        let (at, _) = self.mark.as_ref()?;
        if self.at.saturating_sub(self.marked) < ALONE_STEP {
            return None;
        }
        self.marked = *at;
        self.mark.take()
    }

    /// A mark that was kept by itself is committed.
    pub fn kept(&mut self, at: u64) {
        self.needed = self.needed.max(at);
    }

    /// How far the tape was read, and below what it is not needed again, which is where a replay would begin whose mark
    /// is kept. `committed` is the last event that is.
    pub fn position(&mut self, committed: u64) -> (u64, u64) {
        while let Some((_, tape)) = self.marks.front().filter(|(seq, _)| *seq <= committed) {
            // A later one that was kept by itself may be known already.
            self.needed = self.needed.max(*tape);
            self.marks.pop_front();
        }
        (self.at, self.needed)
    }

    /// The position, when it is worth telling the shim. Not at every record: it only has to know before it is far
    /// ahead.
    pub fn news(&mut self, committed: u64) -> Option<(u64, u64)> {
        let (at, needed) = self.position(committed);
        let is_news = at - self.told.0 >= CONSUMED_STEP || needed - self.told.1 >= CONSUMED_STEP;
        is_news.then(|| {
            self.told = (at, needed);
            self.told
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_came_with_events_does_not_take_back_what_a_later_one_by_itself_gave_free() {
        let mut reading = Reading::new(0, 10 * ALONE_STEP);
        reading.read(100);
        reading.mark(Bytes::new());
        reading.take_mark(1).expect("a mark");
        reading.read(2 * ALONE_STEP);
        reading.mark(Bytes::new());
        let (at, _) = reading.lone_mark().expect("much was read since");
        reading.kept(at);
        assert_eq!(reading.news(1), Some((2 * ALONE_STEP, 2 * ALONE_STEP)));
    }
}
