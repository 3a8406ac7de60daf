//! Writes that the shim has not confirmed, in the order in which they are to happen.
//!
//! What goes to the harness goes one after the other: a write that there was no room for would else be overtaken. While
//! a tape is read again nothing is sent at all, since what stands on it further on was done already, however long ago.

use std::collections::VecDeque;

use crate::shim::{Target, WriteId};

/// Writes that the shim has not confirmed.
#[derive(Debug, Default)]
pub(super) struct Writes {
    waiting: VecDeque<Write>,
}

/// One write.
#[derive(Debug)]
pub struct Write {
    /// Its name for ever.
    pub id: WriteId,
    /// Where it goes.
    pub to: Target,
    /// What.
    pub bytes: Vec<u8>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Sent,
    /// There was no room for it; it waits a little.
    Refused,
    /// The tape takes no more; it waits for the next one.
    Kept,
}

impl Writes {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, id: WriteId, to: Target, bytes: Vec<u8>) {
        self.waiting.push_back(Write {
            id,
            to,
            bytes,
            stage: Stage::Waiting,
        });
    }

    /// Whether the shim was sent one that it has not answered.
    pub(super) fn awaits_answer(&self) -> bool {
        self.waiting.iter().any(|write| write.stage == Stage::Sent)
    }

    /// The next write to be sent, which then counts as sent.
    pub(super) fn next(&mut self) -> Option<&Write> {
        let mut first_to_harness = true;
        let next = self.waiting.iter_mut().find(|write| {
            let its_turn = match write.to {
                Target::Note => true,
                Target::Stdin => std::mem::take(&mut first_to_harness),
            };
            its_turn && write.stage == Stage::Waiting
        })?;
        next.stage = Stage::Sent;
        Some(next)
    }

    /// The write stands on the tape, or never will.
    pub(super) fn done(&mut self, id: WriteId) {
        self.waiting.retain(|write| write.id != id);
    }

    /// There was no room for it. A note is given back, since who sent the command can be told; what is meant for the
    /// harness waits.
    pub(super) fn refused(&mut self, id: WriteId) -> Option<Write> {
        let at = self.waiting.iter().position(|write| write.id == id)?;
        match self.waiting[at].to {
            Target::Note => self.waiting.remove(at),
            Target::Stdin => {
                self.waiting[at].stage = Stage::Refused;
                None
            }
        }
    }

    /// The tape takes no more: the harness is ending. What was meant for it is given up; a note waits for the next tape.
    pub(super) fn closed(&mut self, id: WriteId) {
        self.waiting
            .retain(|write| write.id != id || write.to == Target::Note);
        for write in self.waiting.iter_mut().filter(|write| write.id == id) {
            write.stage = Stage::Kept;
        }
    }

    /// Another tape begins, after the last one was read to its end. What was meant for the harness before is given up;
    /// a note that did not stand there has its turn again.
    pub(super) fn next_tape(&mut self) {
        self.waiting.retain(|write| write.to == Target::Note);
        for write in &mut self.waiting {
            write.stage = Stage::Waiting;
        }
    }

    /// Takes out all notes.
    pub(super) fn take_notes(&mut self) -> Vec<Write> {
        let (notes, others): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|write| write.to == Target::Note);
        self.waiting = others;
        notes.into()
    }

    /// There was no room for it, and it waits all the same.
    pub(super) fn put_back(&mut self, write: Write) {
        let stage = Stage::Refused;
        self.waiting.push_back(Write { stage, ..write });
    }

    /// Those that there was no room for have their turn again.
    pub(super) fn retry(&mut self) {
        for write in &mut self.waiting {
            if write.stage == Stage::Refused {
                write.stage = Stage::Waiting;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(writes: &mut Writes) -> Vec<u8> {
        std::iter::from_fn(|| writes.next().map(|write| write.id[0])).collect()
    }

    #[test]
    fn what_had_no_room_is_not_overtaken_on_its_way_to_the_harness() {
        let mut writes = Writes::default();
        for (id, to) in [(1, Target::Stdin), (2, Target::Stdin), (3, Target::Note)] {
            writes.push([id; 16], to, Vec::new());
        }
        assert_eq!(sent(&mut writes), [1, 3]);
        assert!(writes.refused([1; 16]).is_none());
        assert!(sent(&mut writes).is_empty());
        writes.retry();
        assert_eq!(sent(&mut writes), [1]);
        writes.done([1; 16]);
        assert_eq!(sent(&mut writes), [2]);
    }

    #[test]
    fn a_command_that_finds_no_room_is_given_back() {
        let mut writes = Writes::default();
        writes.push([1; 16], Target::Note, vec![7]);
        assert_eq!(sent(&mut writes), [1]);
        assert_eq!(writes.refused([1; 16]).map(|note| note.bytes), Some(vec![7]));
        writes.retry();
        assert!(sent(&mut writes).is_empty());
    }

    #[test]
    fn what_stands_on_the_tape_is_not_sent() {
        let mut writes = Writes::default();
        writes.push([1; 16], Target::Stdin, Vec::new());
        writes.push([2; 16], Target::Stdin, Vec::new());
        writes.done([1; 16]);
        assert_eq!(sent(&mut writes), [2]);
    }
}
