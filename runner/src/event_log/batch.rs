//! Frames on their way in and out: what is appended at once, and what is read at once.

use std::ops::RangeInclusive;

use bytes::Bytes;
use oqto_protocol::event::splice::{self, Glance};

use crate::bounds::HARNESS_LINE_MAX;

/// The most bytes that are appended at once: what one line of a harness can lead to, and what waited before it. The longest
/// line is the result of a tool, told as that and as a message, and ends a message as long as a line may be with calls
/// whose arguments are twice that.
pub(super) const BATCH_MAX: usize = 6 * HARNESS_LINE_MAX;

/// How much of the world a batch must outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sync {
    /// The death of any process. Enough for a delta: what it is a delta of is still to come.
    Process,
    /// Loss of power. For whatever changes what was agreed: ends, errors, states.
    Power,
}

/// A message that one of a batch's events ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// Its number in the session; greater than any before.
    pub idx: u64,
    /// Its id.
    pub id: String,
    /// The message, encoded.
    pub frame: Bytes,
}

/// Events that are appended at once, all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    pub(super) bytes: Bytes,
    pub(super) sync: Sync,
    pub(super) messages: Vec<MessageRow>,
    pub(super) mark: Option<Bytes>,
}

/// What is wrong with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBatch {
    /// There is no event in it.
    #[error("a batch has no frame")]
    Empty,
    /// Its bytes are not whole frames.
    #[error("the frame at byte {at} of a batch is cut short")]
    Cut {
        /// Where that frame starts.
        at: usize,
    },
    /// It is too big to be kept at once.
    #[error("a batch of {len} bytes is longer than any may be")]
    TooLong {
        /// How long it is.
        len: usize,
    },
    /// Numbers start at 1.
    #[error("there is no event number 0")]
    Zero,
}

impl Batch {
    /// Events from `first_seq` on, one number for each frame in `bytes`.
    ///
    /// # Errors
    /// When the bytes are not one or more whole frames.
    pub fn new(first_seq: u64, bytes: Bytes, sync: Sync) -> Result<Self, BadBatch> {
        if bytes.len() > BATCH_MAX {
            return Err(BadBatch::TooLong { len: bytes.len() });
        }
        if first_seq == 0 {
            return Err(BadBatch::Zero);
        }
        let (mut at, mut count) = (0, 0);
        while at < bytes.len() {
            at = frame_end(&bytes, at).ok_or(BadBatch::Cut { at })?;
            count += 1;
        }
        match count {
            0 => Err(BadBatch::Empty),
            count => {
                let last_seq = first_seq + count - 1;
                Ok(Self {
                    first_seq,
                    last_seq,
                    bytes,
                    sync,
                    messages: Vec::new(),
                    mark: None,
                })
            }
        }
    }

    /// With the messages that its events end.
    #[must_use]
    pub fn with_messages(mut self, messages: Vec<MessageRow>) -> Self {
        self.messages = messages;
        self
    }

    /// With a mark: whatever the writer needs to go on behind this batch after a restart, such as how far it
    /// read. The newest one is given back when the store is opened.
    #[must_use]
    pub fn with_mark(mut self, mark: Bytes) -> Self {
        self.mark = Some(mark);
        self
    }

    /// The number of its first event.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// The number of its last event.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Its frames, one after the other.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What it must outlive.
    #[must_use]
    pub fn sync(&self) -> Sync {
        self.sync
    }

    /// The messages that its events end.
    #[must_use]
    pub fn messages(&self) -> &[MessageRow] {
        &self.messages
    }

    /// Its mark.
    #[must_use]
    pub fn mark(&self) -> Option<&Bytes> {
        self.mark.as_ref()
    }

    /// What it costs in memory while it waits, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let messages = self
            .messages
            .iter()
            .map(|message| message.frame.len() + message.id.len());
        self.bytes.len() + messages.sum::<usize>() + self.mark.as_ref().map_or(0, Bytes::len)
    }
}

/// Events that are read at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The number of the first.
    pub first_seq: u64,
    /// The number of the last.
    pub last_seq: u64,
    /// Their frames.
    pub bytes: Bytes,
}

impl Chunk {
    /// Its events past `after_seq`, as many as fit in `max_bytes` but at least one. None when there is none.
    ///
    /// A frame may stand for several numbers, and `after_seq` be one of them: what is given then begins with that
    /// frame, standing for the rest of them.
    pub(super) fn cut(&self, after_seq: u64, max_bytes: usize) -> Option<Self> {
        let (mut start, mut end, mut last_seq) = (0, 0, self.first_seq.saturating_sub(1));
        while end == 0 || last_seq <= after_seq {
            start = end;
            (end, last_seq) = self.step(end, last_seq)?;
        }
        let first_seq = (after_seq + 1).max(self.first_seq);
        if self.bytes.len() - start <= max_bytes {
            (end, last_seq) = (self.bytes.len(), self.last_seq);
        }
        while let Some((next, seq)) = self.step(end, last_seq)
            && next - start <= max_bytes
        {
            (end, last_seq) = (next, seq);
        }
        let bytes = self.bytes.slice(start..end);
        Some(Self {
            first_seq,
            last_seq,
            bytes: from(first_seq, &bytes).map_or(bytes, Bytes::from),
        })
    }

    /// Where the frame at `at` ends, and the last number that it stands for when `last_seq` was the one before.
    fn step(&self, at: usize, last_seq: u64) -> Option<(usize, u64)> {
        let end = frame_end(&self.bytes, at)?;
        let glance = Glance::of(&self.bytes[at..end]);
        let seq = glance.map_or(0, |glance| glance.seq).max(last_seq + 1);
        (seq <= self.last_seq).then_some((end, seq))
    }

    /// The numbers of its events.
    #[must_use]
    pub fn seqs(&self) -> RangeInclusive<u64> {
        self.first_seq..=self.last_seq
    }
}

/// Chunks that follow one another as one; None when there is none. For a reader that is behind neighbouring deltas are
/// merged: one that has several commits to read, or with these is not at `newest_seq` yet.
pub(super) fn join(chunks: &[Chunk], newest_seq: u64) -> Option<Chunk> {
    let (first, last) = (chunks.first()?, chunks.last()?);
    if let [only] = chunks {
        let bytes = if only.last_seq < newest_seq {
            merged(&only.bytes)
        } else {
            only.bytes.clone()
        };
        return Some(Chunk {
            bytes,
            ..only.clone()
        });
    }
    let mut joined = Vec::with_capacity(chunks.iter().map(|chunk| chunk.bytes.len()).sum());
    for chunk in chunks {
        joined.extend_from_slice(&chunk.bytes);
    }
    Some(Chunk {
        first_seq: first.first_seq,
        last_seq: last.last_seq,
        bytes: merged(&joined),
    })
}

/// Whole frames, neighbouring deltas merged.
pub(super) fn merged(frames: &[u8]) -> Bytes {
    let mut out = Vec::new();
    splice::merge(frames, &mut out);
    // What is on its way to a slow reader is to cost about what it holds.
    if out.len() < out.capacity() / 2 {
        out.shrink_to_fit();
    }
    out.into()
}

/// Whole frames, the first of which is to stand for every number from `first_seq` on; none when it does.
pub(super) fn from(first_seq: u64, frames: &[u8]) -> Option<Vec<u8>> {
    let end = frame_end(frames, 0)?;
    let glance = Glance::of(&frames[..end])?;
    if glance.first_seq == first_seq {
        return None;
    }
    let mut out = Vec::with_capacity(frames.len() + 9);
    glance.append_from(first_seq, &mut out);
    out.extend_from_slice(&frames[end..]);
    Some(out)
}

/// Where the frame that starts at `at` ends, if it is there whole.
fn frame_end(bytes: &[u8], at: usize) -> Option<usize> {
    let (len, body) = bytes.get(at..)?.split_first_chunk()?;
    let len = u32::from_le_bytes(*len) as usize;
    (len <= body.len()).then_some(at + 4 + len)
}

#[cfg(test)]
mod tests {
    use oqto_protocol::event::{Event, Numbered, TextDelta};
    use oqto_protocol::frame::{self, Frame};
    use oqto_protocol::id::MessageId;

    use super::*;

    fn frames(count: u8) -> Bytes {
        (0..count).flat_map(|number| [1, 0, 0, 0, number]).collect()
    }

    #[test]
    fn each_frame_has_one_number() {
        let batch = Batch::new(5, frames(3), Sync::Process).unwrap();
        assert_eq!((batch.first_seq, batch.last_seq()), (5, 7));
    }

    #[test]
    fn what_is_not_whole_frames_is_refused() {
        let new = |bytes: Bytes| Batch::new(1, bytes, Sync::Process).unwrap_err();
        assert_eq!(new(Bytes::new()), BadBatch::Empty);
        assert_eq!(new(frames(2).slice(..9)), BadBatch::Cut { at: 5 });
        assert_eq!(new(Bytes::from_static(&[255; 8])), BadBatch::Cut { at: 0 });
        assert_eq!(Batch::new(0, frames(1), Sync::Power), Err(BadBatch::Zero));
    }

    #[test]
    fn a_reader_at_the_end_gets_every_delta_and_one_behind_gets_neighbours_as_one() {
        let mut bytes = Vec::new();
        for seq in 1..=3 {
            let event = Event::TextDelta(TextDelta {
                message_id: MessageId::numbered(7),
                delta: seq.to_string(),
                content_index: 0,
            });
            let numbered = Numbered {
                epoch: 1,
                seq,
                first_seq: None,
                ts: 5,
                event,
            };
            frame::append(&numbered, &mut bytes).unwrap();
        }
        let chunk = Chunk {
            first_seq: 1,
            last_seq: 3,
            bytes: bytes.into(),
        };
        let at_the_end = join(std::slice::from_ref(&chunk), 3).unwrap();
        assert_eq!(at_the_end, chunk);
        let behind = join(std::slice::from_ref(&chunk), 4).unwrap();
        assert_eq!(behind.seqs(), 1..=3);
        let (one, rest) = Frame::split(&behind.bytes, usize::MAX).unwrap().unwrap();
        let one: Numbered = one.body().unwrap();
        assert_eq!((one.first_seq, one.seq, rest.len()), (Some(1), 3, 0));
    }

    #[test]
    fn a_chunk_is_cut_at_frames() {
        let chunk = Chunk {
            first_seq: 11,
            last_seq: 14,
            bytes: frames(4),
        };
        let cut = |after, max| chunk.cut(after, max).map(|cut| (cut.seqs(), cut.bytes.to_vec()));
        assert_eq!(cut(12, 100), Some((13..=14, frames(4)[10..].to_vec())));
        assert_eq!(cut(0, 10), Some((11..=12, frames(4)[..10].to_vec())));
        assert_eq!(cut(11, 0), Some((12..=12, frames(4)[5..10].to_vec())));
        assert_eq!(cut(14, 100), None);
    }
}
