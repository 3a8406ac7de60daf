//! What a store may forget, and in which order. Pure: who drives it brings the time and what the store holds.
//!
//! Only what somebody acknowledged is forgotten, and never a session's newest row, by which its numbers go on. When a
//! store passes three quarters of its bound, deltas of finished messages go first, the oldest first: the messages
//! themselves say the same. When there are none, whole events go. What is older than the bound goes in any case.

use oqto_protocol::event::splice::{Glance, frame_at};

/// The most that goes at once, bytes.
const STEP_LEN_MAX: usize = 2 * 1024 * 1024;

/// How long a store keeps what somebody else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How much a store may hold, bytes, its write-ahead log not counted. Past it nothing is accepted until there is
    /// room; one commit may pass it.
    pub len_max: u64,
    /// How long an acknowledged event is kept, in milliseconds.
    pub age_max_ms: u64,
}

impl Retention {
    /// 4 GiB, some hundred thousand pages of an agent's talk, of which a small disk holds a few; and 30 days, so that
    /// who comes back from a holiday finds what was said.
    pub const DEFAULT: Self = Self {
        len_max: 4 * 1024 * 1024 * 1024,
        age_max_ms: 30 * 24 * 60 * 60 * 1000,
    };

    /// Past this a store gives up what it may before it has to.
    #[must_use]
    pub fn pressure(&self) -> u64 {
        self.len_max / 4 * 3
    }

    /// How much goes at once, bytes: what a commit that comes meanwhile waits for, and little of a small store.
    #[must_use]
    pub fn step(&self) -> usize {
        let step = usize::try_from(self.len_max / 64).unwrap_or(usize::MAX);
        step.min(STEP_LEN_MAX)
    }

    /// What is to go next of a store that holds `len` bytes; `None` when nothing has to or nothing may.
    #[must_use]
    pub fn next(&self, len: u64, now_ms: u64, sessions: &[Standing]) -> Option<Trim> {
        let removable = sessions
            .iter()
            .filter(|session| session.may_go(session.oldest_seq));
        let oldest = removable.min_by_key(|session| session.oldest_ms);
        if let Some(session) = oldest
            && session.oldest_ms.saturating_add(self.age_max_ms) <= now_ms
        {
            return Some(Trim::Remove {
                session: session.session,
                through_ms: now_ms.saturating_sub(self.age_max_ms),
            });
        }
        if len <= self.pressure() {
            return None;
        }
        let thinnable = sessions
            .iter()
            .filter(|session| session.may_go(session.whole_seq));
        match thinnable.min_by_key(|session| session.oldest_ms) {
            Some(session) => Some(Trim::Thin(session.session)),
            None => oldest.map(|session| Trim::Remove {
                session: session.session,
                through_ms: u64::MAX,
            }),
        }
    }
}

/// What there is of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose.
    pub session: i64,
    /// The greatest number that somebody acknowledged; 0 for none.
    pub acked_seq: u64,
    /// The last number of its newest row; 0 when it has none.
    pub newest_seq: u64,
    /// The last number of its oldest row; 0 when it has none.
    pub oldest_seq: u64,
    /// When that row was committed, Unix milliseconds.
    pub oldest_ms: u64,
    /// The last number of its oldest row that still has all its deltas; 0 when there is none.
    pub whole_seq: u64,
}

impl Standing {
    /// Whether a row that ends with this number may go.
    #[must_use]
    pub fn may_go(&self, last_seq: u64) -> bool {
        last_seq > 0 && last_seq <= self.acked_seq && last_seq < self.newest_seq
    }
}

/// What is to go of one session, a little at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// The deltas of finished messages in its oldest rows that still have them.
    Thin(i64),
    /// Its oldest rows.
    Remove {
        /// Whose.
        session: i64,
        /// Those that were committed up to then, Unix milliseconds.
        through_ms: u64,
    },
}

/// Whole frames without the deltas of finished messages; the event after such deltas stands for their numbers too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thinned {
    /// What is left.
    pub frames: Vec<u8>,
    /// The last number that what is left stands for; `None` when nothing is left.
    pub last_seq: Option<u64>,
}

/// Thins the frames of events from `first_seq` on. `is_finished` says of a message whether it stands whole elsewhere.
pub fn thin(frames: &[u8], first_seq: u64, mut is_finished: impl FnMut(&str) -> bool) -> Thinned {
    let mut left = Thinned::default();
    // The first number that nothing kept stands for yet, and the next one.
    let (mut from, mut next) = (first_seq, first_seq);
    let mut at = 0;
    while let Some(frame) = frame_at(frames, at) {
        at += frame.len();
        let glance = Glance::of(frame);
        let last = glance.map_or(next, |glance| glance.seq.max(next));
        next = last + 1;
        let piece = glance.as_ref().and_then(Glance::piece);
        if piece.is_some_and(|piece| is_finished(piece.message_id)) {
            continue;
        }
        match glance {
            Some(glance) if glance.first_seq != from => glance.append_from(from, &mut left.frames),
            _ => left.frames.extend_from_slice(frame),
        }
        left.last_seq = Some(last);
        from = next;
    }
    left
}

#[cfg(test)]
mod tests {
    use oqto_protocol::event::{AgentIdle, Event, Numbered, TextDelta};
    use oqto_protocol::frame;
    use proptest::prelude::*;

    use super::*;
    use crate::event_log::batch::Chunk;

    const RULE: Retention = Retention {
        len_max: 1000,
        age_max_ms: 100,
    };

    fn standing(session: i64) -> Standing {
        Standing {
            session,
            acked_seq: 50,
            newest_seq: 90,
            oldest_seq: 10,
            oldest_ms: 1000,
            whole_seq: 30,
        }
    }

    fn remove(session: i64, through_ms: u64) -> Trim {
        Trim::Remove { session, through_ms }
    }

    #[test]
    fn deltas_go_before_events_and_nothing_goes_without_need() {
        let whole = standing(1);
        let thin = Standing {
            whole_seq: 60,
            ..whole
        };
        let table = [
            ("there is room", 750, 1099, vec![whole], None),
            (
                "under pressure deltas go",
                751,
                1099,
                vec![whole],
                Some(Trim::Thin(1)),
            ),
            ("then events", 751, 1099, vec![thin], Some(remove(1, u64::MAX))),
            (
                "age does not ask for room",
                0,
                1100,
                vec![whole],
                Some(remove(1, 1000)),
            ),
            (
                "the oldest first",
                751,
                1098,
                vec![
                    thin,
                    Standing {
                        session: 2,
                        oldest_ms: 999,
                        ..thin
                    },
                ],
                Some(remove(2, u64::MAX)),
            ),
            (
                "one session's deltas before another's events",
                751,
                1099,
                vec![
                    thin,
                    Standing {
                        session: 2,
                        oldest_ms: 1001,
                        ..whole
                    },
                ],
                Some(Trim::Thin(2)),
            ),
        ];
        for (what, len, now_ms, sessions, then) in table {
            assert_eq!(RULE.next(len, now_ms, &sessions), then, "{what}");
        }
    }

    #[test]
    fn what_nobody_acknowledged_and_the_newest_row_stay_whatever_happens() {
        for kept in [
            Standing {
                acked_seq: 9,
                ..standing(1)
            },
            Standing {
                newest_seq: 10,
                acked_seq: 10,
                whole_seq: 0,
                ..standing(1)
            },
            Standing {
                newest_seq: 0,
                oldest_seq: 0,
                acked_seq: 0,
                whole_seq: 0,
                ..standing(1)
            },
        ] {
            assert_eq!(RULE.next(u64::MAX, u64::MAX, &[kept]), None, "{kept:?}");
        }
    }

    fn frames(first: u64, kinds: &[Option<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (seq, kind) in (first..).zip(kinds) {
            let event = match kind {
                None => Event::AgentIdle(AgentIdle {}),
                Some(of) => Event::TextDelta(TextDelta {
                    message_id: format!("m-{of}").parse().unwrap(),
                    delta: seq.to_string(),
                    content_index: 0,
                }),
            };
            let numbered = Numbered {
                epoch: 1,
                seq,
                first_seq: None,
                ts: seq,
                event,
            };
            frame::append(&numbered, &mut bytes).unwrap();
        }
        bytes
    }

    proptest! {
        #[test]
        fn what_is_left_stands_for_every_number_and_only_finished_deltas_are_gone(
            kinds in prop::collection::vec(prop::option::of(0..3_u8), 1..40),
            first in 1..300_u64,
            after in 0..40_u64,
        ) {
            let bytes = frames(first, &kinds);
            let left = thin(&bytes, first, |id| id != "m-0");
            let expected = (first..).zip(&kinds).filter(|(_, kind)| kind.is_none_or(|of| of == 0));
            let expected: Vec<u64> = expected.map(|(seq, _)| seq).collect();
            prop_assert_eq!(left.last_seq, expected.last().copied());
            let Some(last_seq) = left.last_seq else { return Ok(()) };
            // Whatever a reader has, what it gets goes on right behind.
            let after = (first + after).min(last_seq) - 1;
            let row = Chunk { first_seq: first, last_seq, bytes: left.frames.into() };
            let chunk = row.cut(after, usize::MAX).unwrap();
            let (mut next, mut at, mut seqs) = (after + 1, 0, Vec::new());
            while let Some(frame) = frame_at(&chunk.bytes, at) {
                at += frame.len();
                let glance = Glance::of(frame).unwrap();
                prop_assert_eq!(glance.first_seq, next);
                next = glance.seq + 1;
                seqs.push(glance.seq);
            }
            prop_assert_eq!(next, last_seq + 1);
            let expected: Vec<u64> = expected.into_iter().filter(|seq| *seq > after).collect();
            prop_assert_eq!(seqs, expected);
        }
    }
}
