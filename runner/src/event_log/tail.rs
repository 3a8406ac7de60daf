//! The newest events of all sessions, in memory: who follows closely never waits for the disk.

use std::collections::{HashMap, VecDeque};

use super::batch::Chunk;

/// How much one session may hold, in bytes: what a subscriber can fall behind by before it reads from the disk. Twice what
/// is committed at once, or a single commit would put out what nobody can have read yet.
const SESSION_MAX: usize = 2 * 1024 * 1024;

/// How much all sessions of a store may hold, in bytes.
const TOTAL_MAX: usize = 4 * 1024 * 1024;

/// How many entries of the order may be of chunks that were given up, beside as many as there are chunks.
const ORDER_SLACK: usize = 64;

/// Committed chunks, the oldest given up first.
#[derive(Debug, Default)]
pub(super) struct Tail {
    sessions: HashMap<i64, Recent>,
    /// Whose chunk is the next oldest. What a session gave up already is still named here, and skipped.
    order: VecDeque<(i64, u64)>,
    /// How many chunks there are.
    count: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Recent {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

impl Tail {
    /// Takes what was just committed: the numbers follow the ones before.
    pub(super) fn push(&mut self, session: i64, chunk: Chunk) {
        let len = chunk.bytes.len();
        let recent = self.sessions.entry(session).or_default();
        self.order.push_back((session, chunk.first_seq));
        recent.chunks.push_back(chunk);
        recent.bytes += len;
        self.bytes += len;
        self.count += 1;
        while recent.bytes > SESSION_MAX {
            self.bytes -= recent.give_up();
            self.count -= 1;
        }
        while self.bytes > TOTAL_MAX
            && let Some((session, first_seq)) = self.order.pop_front()
        {
            let Some(recent) = self.sessions.get_mut(&session) else {
                continue;
            };
            if recent
                .chunks
                .front()
                .is_some_and(|oldest| oldest.first_seq == first_seq)
            {
                self.bytes -= recent.give_up();
                self.count -= 1;
            }
        }
        self.forget_given_up();
    }

    /// The chunk with the event after `after_seq`, cut to begin there, and those behind it as far as they fit in
    /// `max_bytes` together. None when it is not here.
    pub(super) fn read(&self, session: i64, after_seq: u64, max_bytes: usize) -> Option<Vec<Chunk>> {
        let chunks = &self.sessions.get(&session)?.chunks;
        let found = chunks.partition_point(|chunk| chunk.last_seq <= after_seq);
        let mut behind = chunks.range(found..);
        let whole = behind.next().filter(|chunk| chunk.first_seq <= after_seq + 1)?;
        let first = whole.cut(after_seq, max_bytes)?;
        let (mut len, is_cut) = (first.bytes.len(), first.last_seq < whole.last_seq);
        let mut read = vec![first];
        for chunk in behind {
            len += chunk.bytes.len();
            if is_cut || len > max_bytes {
                break;
            }
            read.push(chunk.clone());
        }
        Some(read)
    }

    /// Gives everything up: who follows closely has read it, and memory is for what is busy.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets a session that was deleted.
    pub(super) fn remove(&mut self, session: i64) {
        if let Some(recent) = self.sessions.remove(&session) {
            self.bytes -= recent.bytes;
            self.count -= recent.chunks.len();
        }
        self.forget_given_up();
    }

    /// Keeps the order about as short as what it orders, now and then, so that it costs nothing per chunk.
    fn forget_given_up(&mut self) {
        if self.order.len() > 2 * self.count + ORDER_SLACK {
            let Self { sessions, order, .. } = self;
            order.retain(|(session, first_seq)| {
                let oldest = sessions.get(session).and_then(|recent| recent.chunks.front());
                oldest.is_some_and(|oldest| oldest.first_seq <= *first_seq)
            });
        }
    }
}

impl Recent {
    fn give_up(&mut self) -> usize {
        let len = self.chunks.pop_front().map_or(0, |chunk| chunk.bytes.len());
        self.bytes -= len;
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(seq: u64, len: usize) -> Chunk {
        let mut bytes = (len as u32).to_le_bytes().to_vec();
        bytes.resize(4 + len, 0);
        Chunk {
            first_seq: seq,
            last_seq: seq,
            bytes: bytes.into(),
        }
    }

    #[test]
    fn what_is_past_the_bounds_is_given_up_oldest_first() {
        let mut tail = Tail::default();
        for session in 0..20 {
            for seq in 1..=10 {
                tail.push(session, chunk(seq, SESSION_MAX / 4));
            }
        }
        assert!(tail.bytes <= TOTAL_MAX, "{}", tail.bytes);
        assert!(
            tail.order.len() <= 2 * tail.count + ORDER_SLACK,
            "{}",
            tail.order.len()
        );
        assert_eq!(tail.read(0, 9, usize::MAX), None, "the oldest session's are gone");
        assert_eq!(tail.read(19, 9, usize::MAX).unwrap()[0].first_seq, 10);
        assert_eq!(
            tail.read(19, 1, usize::MAX),
            None,
            "a session holds its share only"
        );
    }

    #[test]
    fn a_busy_session_beside_an_idle_one_leaves_no_trace_of_what_it_gave_up() {
        let mut tail = Tail::default();
        tail.push(1, chunk(1, 10));
        for seq in 1..=500 {
            tail.push(2, chunk(seq, SESSION_MAX / 4));
        }
        assert!(tail.order.len() < 100, "{}", tail.order.len());
        assert_eq!(tail.read(1, 0, usize::MAX).unwrap()[0].first_seq, 1);
    }

    #[test]
    fn what_was_cleared_is_left_to_the_disk_and_what_comes_then_is_held_again() {
        let mut tail = Tail::default();
        tail.push(1, chunk(1, 10));
        tail.clear();
        assert_eq!(
            (tail.bytes, tail.count, tail.read(1, 0, usize::MAX)),
            (0, 0, None)
        );
        tail.push(1, chunk(2, 10));
        assert_eq!(tail.read(1, 1, usize::MAX).unwrap()[0].first_seq, 2);
    }

    #[test]
    fn a_gap_is_no_answer() {
        let mut tail = Tail::default();
        tail.push(1, chunk(5, 10));
        assert_eq!(tail.read(1, 3, usize::MAX), None);
        assert_eq!(tail.read(1, 4, usize::MAX).unwrap()[0].first_seq, 5);
        assert_eq!(tail.read(1, 5, usize::MAX), None);
    }

    #[test]
    fn chunks_are_read_together_as_far_as_they_fit() {
        let mut tail = Tail::default();
        for seq in 1..=4 {
            tail.push(1, chunk(seq, 10));
        }
        let read = |after, max| {
            let chunks = tail.read(1, after, max).unwrap();
            chunks.iter().map(|chunk| chunk.first_seq).collect::<Vec<_>>()
        };
        assert_eq!(read(1, 28), [2, 3]);
        assert_eq!(read(1, 0), [2]);
        assert_eq!(read(0, usize::MAX), [1, 2, 3, 4]);
    }

    #[test]
    fn a_deleted_session_leaves_nothing() {
        let mut tail = Tail::default();
        tail.push(1, chunk(1, 10));
        tail.remove(1);
        assert_eq!(
            (tail.bytes, tail.count, tail.read(1, 0, usize::MAX)),
            (0, 0, None)
        );
    }
}
