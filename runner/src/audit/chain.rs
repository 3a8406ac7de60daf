//! Whether records are the ones that were written, all of them, in their order. Pure; it remembers one hash.

use oqto_protocol::id::Digest;

use super::record::{CHECKPOINT, Line, NO_HASH, REMOVED};
use super::seal::{Head, PublicKey, is_signed_checkpoint};

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Its bytes are not those that its hash is of.
    #[error("record {seq} was changed")]
    Changed {
        /// Which.
        seq: u64,
    },
    /// They are nowhere.
    #[error("records {first} to {last} are missing")]
    Missing {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// It is there, in another place.
    #[error("record {seq} is out of order: it stands after record {after}")]
    OutOfOrder {
        /// Which.
        seq: u64,
        /// What stands where it should.
        after: u64,
    },
    /// It stands there already.
    #[error("record {seq} stands once more after record {after}")]
    Repeated {
        /// Which.
        seq: u64,
        /// After which.
        after: u64,
    },
    /// It is in itself right, and does not follow the one before.
    #[error("record {seq} does not follow the record before it: one of the two was replaced")]
    Replaced {
        /// Which.
        seq: u64,
    },
    /// A checkpoint that the runner's key did not sign.
    #[error("record {seq} says that the runner signed it, and the runner's key did not")]
    Forged {
        /// Which.
        seq: u64,
    },
    /// It is not the one that the head names.
    #[error(
        "record {seq} is not the one that the runner signed as its newest: it or one before it was replaced"
    )]
    NotSigned {
        /// Which.
        seq: u64,
    },
    /// It is not the one that somebody kept elsewhere.
    #[error(
        "record {seq} is not the one that was kept elsewhere: it or one before it was replaced, by somebody who has the \
         runner's key"
    )]
    NotExpected {
        /// Which.
        seq: u64,
    },
    /// It ends before a record that somebody kept elsewhere.
    #[error(
        "the log ends with record {last}, and record {expected} was kept elsewhere: it was cut short or written anew"
    )]
    EndsBefore {
        /// The last that is there.
        last: u64,
        /// The one that was kept.
        expected: u64,
    },
    /// It ends too early.
    #[error("the log is cut short: it ends with record {last}, the runner signed {signed}")]
    CutShort {
        /// The last that is there.
        last: u64,
        /// The last that was acknowledged.
        signed: u64,
    },
}

/// A record as somebody knows it who keeps that elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
}

/// What was found where nothing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// The last record; before any, that before the first.
    pub last: u64,
    /// Its hash.
    pub hash: Digest,
    /// Checkpoints whose signature was verified.
    pub checkpoints: u64,
    /// Records after the newest that the runner signed: those that it was about to acknowledge, or whose signature a
    /// loss of power took. Nothing but the chain speaks for them.
    pub unsigned: u64,
    /// The last record of those that the runner says it removed; 0 where it says nothing.
    pub removed: u64,
}

/// Takes records one after the other.
#[derive(Debug)]
pub struct Verifier<'a> {
    key: Option<&'a PublicKey>,
    head: Option<&'a Head>,
    anchors: &'a [Anchor],
    removed: u64,
    /// The number that comes next.
    next: u64,
    /// The hash of the last one; none while nothing is known of it.
    last: Option<Digest>,
    checkpoints: u64,
    /// A record with a greater number stands where `next` should: until `next` is met it is missing.
    instead: Option<u64>,
}

impl<'a> Verifier<'a> {
    /// Begins with record `from`. What was before it is believed, unless it is the first of all.
    #[must_use]
    pub fn new(from: u64, anchors: &'a [Anchor], head: Option<&'a Head>, key: Option<&'a PublicKey>) -> Self {
        Self {
            key,
            head,
            anchors,
            removed: 0,
            next: from,
            last: (from == 1).then_some(NO_HASH),
            checkpoints: 0,
            instead: None,
        }
    }

    /// Whether something is missing, or out of order: the rest decides which.
    #[must_use]
    pub fn looks_for_one(&self) -> bool {
        self.instead.is_some()
    }

    /// Takes the next line, without its end.
    ///
    /// # Errors
    /// What is wrong with it. Nothing that comes after it means anything.
    pub fn line(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        let seq = self.next;
        let line = match (Line::read(bytes), self.instead) {
            (Some(line), None) => line,
            (Some(line), Some(after)) if line.seq == seq => return Err(Wrong::OutOfOrder { seq, after }),
            // Whatever else is wrong here, the first wrong thing is that one is not where it should be.
            (_, Some(_)) => return Ok(()),
            (None, None) => return Err(Wrong::Changed { seq }),
        };
        if line.seq > seq {
            self.instead = Some(line.seq);
            return Ok(());
        }
        if line.seq < seq {
            return Err(Wrong::Repeated {
                seq: line.seq,
                after: seq - 1,
            });
        }
        if self.last.is_some_and(|last| !line.follows(&last)) {
            return Err(Wrong::Replaced { seq });
        }
        if line.says(CHECKPOINT)
            && let Some(key) = self.key
        {
            if !line
                .record()
                .is_some_and(|record| is_signed_checkpoint(&record, key))
            {
                return Err(Wrong::Forged { seq });
            }
            self.checkpoints += 1;
        }
        if self
            .head
            .is_some_and(|head| head.seq == seq && head.hash != line.hash)
        {
            return Err(Wrong::NotSigned { seq });
        }
        let is_other = |anchor: &Anchor| anchor.seq == seq && anchor.hash != line.hash;
        if self.anchors.iter().any(is_other) {
            return Err(Wrong::NotExpected { seq });
        }
        // What stands behind the head anybody may have written.
        if self.head.is_none_or(|head| seq <= head.seq) && line.says(REMOVED) {
            let removed = line.record().and_then(|record| record.count);
            self.removed = self.removed.max(removed.unwrap_or(0));
        }
        self.next += 1;
        self.last = Some(line.hash);
        Ok(())
    }

    /// No more lines come.
    ///
    /// # Errors
    /// When more should have come.
    pub fn finish(self) -> Result<Whole, Wrong> {
        let last = self.next - 1;
        if let Some(instead) = self.instead {
            return Err(Wrong::Missing {
                first: self.next,
                last: instead - 1,
            });
        }
        let signed = self.head.map_or(last, |head| head.seq);
        if last < signed {
            return Err(Wrong::CutShort { last, signed });
        }
        if let Some(anchor) = self.anchors.iter().find(|anchor| anchor.seq > last) {
            return Err(Wrong::EndsBefore {
                last,
                expected: anchor.seq,
            });
        }
        Ok(Whole {
            last,
            hash: self.last.unwrap_or(NO_HASH),
            checkpoints: self.checkpoints,
            unsigned: last - signed,
            removed: self.removed,
        })
    }
}
