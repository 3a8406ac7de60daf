//! The event log of one workspace, as `oqto_runner::event_log` keeps it, over a disk that is not there: what is
//! accepted waits in a bounded queue, one writer commits all that waits at once, and what no sync reached goes with the
//! host's power.

use std::collections::VecDeque;

use bytes::Bytes;
use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::splice;
use oqto_runner::event_log::{Batch, MessageRow, Resume, Sync, resume};

use crate::dice::Dice;

/// How the world wrongs a store, to see that it is noticed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flaws {
    pub(crate) forgets_epoch: bool,
    pub(crate) tears_commits: bool,
    pub(crate) skips_sync: bool,
    pub(crate) drops_when_failing: bool,
}

/// An event as stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) epoch: u32,
    pub(crate) frame: Bytes,
}

/// What the file has of a session.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Event `n` is at `n - 1`.
    pub(crate) events: Vec<Stored>,
    pub(crate) messages: Vec<MessageRow>,
    /// Each epoch with the last number before it.
    pub(crate) epochs: Vec<(u32, u64)>,
    /// Each mark with the last event of its batch.
    marks: Vec<(u64, Bytes)>,
}

impl Kept {
    pub(crate) fn last_seq(&self) -> u64 {
        self.events.len() as u64
    }

    pub(crate) fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epochs.last().map_or(1, |(epoch, _)| *epoch),
            seq: self.last_seq(),
        }
    }

    /// The number that the next message gets.
    pub(crate) fn next_idx(&self) -> u64 {
        self.messages.last().map_or(0, |message| message.idx + 1)
    }

    pub(crate) fn mark(&self) -> Option<&Bytes> {
        self.marks.last().map(|(_, mark)| mark)
    }

    /// Gives up the deltas at its end: what followed them may be lost, and some reader may have them as one.
    fn settle(&mut self) {
        let frames: Vec<u8> = self
            .events
            .iter()
            .flat_map(|stored| stored.frame.to_vec())
            .collect();
        if let Some((_, seq)) = splice::settled(&frames, 1) {
            self.events.truncate(seq as usize);
        }
    }

    /// Where a reader goes on that saw `cursor` last.
    pub(crate) fn resume(&self, cursor: Cursor) -> Resume {
        let epochs: Vec<_> = self
            .epochs
            .iter()
            .map(|(epoch, after)| (u64::from(*epoch), *after))
            .collect();
        resume(&epochs, self.last_seq(), u64::from(cursor.epoch), cursor.seq)
    }
}

/// How long each session was before a commit, so that it can be undone with the host's power.
#[derive(Debug)]
struct Undo {
    session: usize,
    events: usize,
    messages: usize,
    marks: usize,
}

/// What is accepted and not committed.
#[derive(Debug)]
struct Job {
    session: usize,
    batch: Batch,
    weight: usize,
}

/// The file, and the queue of the process that has it open.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) sessions: Vec<Kept>,
    /// Commits that no sync reached, the oldest first.
    unsynced: Vec<Vec<Undo>>,
    last_boot: u32,
    clean: bool,
    queue: VecDeque<Job>,
    queued: usize,
    queue_max: usize,
    /// What was accepted: the last number and the last message's.
    accepted: Vec<(u64, Option<u64>)>,
    pub(crate) is_failing: bool,
    pub(crate) flaws: Flaws,
}

/// Why a batch was not accepted.
#[derive(Debug)]
pub(crate) enum Unaccepted {
    /// There is no room now.
    Full(Batch),
    /// It does not go on where the last one ended.
    Wrong(String),
}

impl Store {
    pub(crate) fn new(sessions: usize, queue_max: usize, flaws: Flaws) -> Self {
        let kept = || Kept {
            epochs: vec![(1, 0)],
            ..Kept::default()
        };
        Self {
            sessions: (0..sessions).map(|_| kept()).collect(),
            unsynced: Vec::new(),
            last_boot: 0,
            clean: true,
            queue: VecDeque::new(),
            queued: 0,
            queue_max,
            accepted: vec![(0, None); sessions],
            is_failing: false,
            flaws,
        }
    }

    /// A runner opens it. After an unclean boot every session goes on in its next epoch.
    pub(crate) fn open(&mut self, boot: u32) {
        if !self.clean && self.last_boot != boot && !self.flaws.forgets_epoch {
            for kept in &mut self.sessions {
                kept.settle();
                let next = kept.cursor().epoch + 1;
                kept.epochs.push((next, kept.last_seq()));
            }
            self.unsynced.clear();
        }
        (self.last_boot, self.clean, self.is_failing) = (boot, false, false);
        self.queue.clear();
        self.queued = 0;
        let known = |kept: &Kept| (kept.last_seq(), kept.messages.last().map(|message| message.idx));
        self.accepted = self.sessions.iter().map(known).collect();
    }

    /// Takes a batch into the queue.
    pub(crate) fn accept(&mut self, session: usize, batch: Batch) -> Result<(), Unaccepted> {
        let weight = batch.weight() + 256;
        if self.queued > 0 && self.queued + weight > self.queue_max {
            return Err(Unaccepted::Full(batch));
        }
        let (last_seq, last_idx) = &mut self.accepted[session];
        if batch.first_seq() != *last_seq + 1 {
            let first = batch.first_seq();
            return Err(Unaccepted::Wrong(format!(
                "event {first} does not follow event {last_seq}"
            )));
        }
        for message in batch.messages() {
            if last_idx.is_some_and(|last| message.idx <= last) {
                return Err(Unaccepted::Wrong(format!(
                    "message {} was numbered before",
                    message.idx
                )));
            }
            *last_idx = Some(message.idx);
        }
        *last_seq = batch.last_seq();
        self.queued += weight;
        self.queue.push_back(Job {
            session,
            batch,
            weight,
        });
        Ok(())
    }

    /// Whether something waits to be committed.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Commits what waits, or fails as a whole; the sessions that have something new.
    pub(crate) fn commit(&mut self, fails: bool, dice: &mut Dice) -> Vec<usize> {
        self.is_failing = fails;
        if fails {
            if self.flaws.drops_when_failing {
                self.queue.pop_back();
            }
            return Vec::new();
        }
        let taken = 1 + dice.index(self.queue.len());
        let group: Vec<Job> = self.queue.drain(..taken).collect();
        let is_synced = group.iter().any(|job| job.batch.sync() == Sync::Power);
        let (mut undo, mut told) = (Vec::new(), Vec::new());
        for Job {
            session,
            batch,
            weight,
        } in group
        {
            self.queued -= weight;
            let kept = &mut self.sessions[session];
            undo.push(Undo {
                session,
                events: kept.events.len(),
                messages: kept.messages.len(),
                marks: kept.marks.len(),
            });
            let epoch = kept.cursor().epoch;
            let mut rest = batch.bytes().clone();
            while let Some(len) = rest
                .first_chunk()
                .map(|len| 4 + u32::from_le_bytes(*len) as usize)
            {
                let frame = rest.split_to(len);
                kept.events.push(Stored { epoch, frame });
            }
            if !(self.flaws.tears_commits && dice.percent(5)) {
                kept.messages.extend(batch.messages().iter().cloned());
            }
            if let Some(mark) = batch.mark() {
                kept.marks.push((batch.last_seq(), mark.clone()));
            }
            told.push(session);
        }
        self.unsynced.push(undo);
        if is_synced && !self.flaws.skips_sync {
            self.unsynced.clear();
        }
        told
    }

    /// The host lost power: of what no sync reached some commits are gone, the newest first.
    pub(crate) fn lose_power(&mut self, dice: &mut Dice) {
        let lost = dice.index(self.unsynced.len() + 1);
        for _ in 0..lost {
            let Some(undo) = self.unsynced.pop() else {
                break;
            };
            for Undo {
                session,
                events,
                messages,
                marks,
            } in undo.into_iter().rev()
            {
                let kept = &mut self.sessions[session];
                kept.events.truncate(events);
                kept.messages.truncate(messages);
                kept.marks.truncate(marks);
            }
        }
        self.queue.clear();
        self.queued = 0;
    }
}
