//! The order of a session's events.

use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::{Envelope, Event, Numbered};

/// Events that are not the next ones. The runner's fault, or a lost frame: never passed over in silence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Events are missing.
    #[error("events {from} to {to} are missing")]
    Gap {
        /// The first missing.
        from: u64,
        /// The last missing.
        to: u64,
    },
    /// A merged event begins with what was seen and goes on with what was not.
    #[error("event {first} to {last} overlaps what was seen up to {seen}")]
    Overlap {
        /// Its first number.
        first: u64,
        /// Its last number.
        last: u64,
        /// The newest that was seen.
        seen: u64,
    },
    /// A merged event ends before it begins.
    #[error("event {first} to {last} ends before it begins")]
    Backward {
        /// Its first number.
        first: u64,
        /// Its last number.
        last: u64,
    },
    /// An event of a telling that is over.
    #[error("an event of epoch {epoch} comes in epoch {current}")]
    Epoch {
        /// The event's.
        epoch: u32,
        /// The reader's.
        current: u32,
    },
}

/// What to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Hand it on.
    New,
    /// It was handed on before: drop it.
    Repeat,
}

/// Where a reader stands; each event moves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    cursor: Cursor,
}

impl Order {
    /// A reader that has everything up to `cursor`.
    pub fn after(cursor: Cursor) -> Self {
        Self { cursor }
    }

    /// The last event that was admitted.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Judges the next event of the stream.
    pub fn admit(&mut self, event: &Numbered) -> Result<Admitted, OrderError> {
        if let Event::StreamReset(reset) = &event.event {
            return Ok(self.reset(Cursor {
                epoch: reset.epoch,
                seq: reset.seq,
            }));
        }
        let (first, last) = (event.first_seq.unwrap_or(event.seq), event.seq);
        if first > last {
            return Err(OrderError::Backward { first, last });
        }
        if event.epoch < self.cursor.epoch {
            return Err(OrderError::Epoch {
                epoch: event.epoch,
                current: self.cursor.epoch,
            });
        }
        // Numbers go on through epochs: a newer epoch begins where the kept part of the older one ended.
        let (seen, next) = (self.cursor.seq, self.cursor.seq.saturating_add(1));
        if last <= seen {
            return Ok(Admitted::Repeat);
        }
        if first > next {
            return Err(OrderError::Gap {
                from: next,
                to: first - 1,
            });
        }
        if first < next {
            return Err(OrderError::Overlap { first, last, seen });
        }
        self.cursor = Cursor {
            epoch: event.epoch,
            seq: last,
        };
        Ok(Admitted::New)
    }

    /// A reset is about a newer epoch, or it was seen before.
    fn reset(&mut self, to: Cursor) -> Admitted {
        if to.epoch <= self.cursor.epoch {
            return Admitted::Repeat;
        }
        self.cursor = to;
        Admitted::New
    }
}

/// Where a reader stands who has `event`; `None` for one that has no number.
pub fn cursor_of(event: &Envelope) -> Option<Cursor> {
    match &event.event {
        Event::StreamReset(reset) => Some(Cursor {
            epoch: reset.epoch,
            seq: reset.seq,
        }),
        _ => event.seq.map(|seq| Cursor {
            epoch: event.epoch,
            seq,
        }),
    }
}

#[cfg(test)]
mod tests {
    use oqto_protocol::event::{AgentIdle, StreamReset};

    use super::*;

    fn event(epoch: u32, first: u64, last: u64) -> Numbered {
        Numbered {
            epoch,
            seq: last,
            first_seq: (first != last).then_some(first),
            ts: 0,
            event: Event::AgentIdle(AgentIdle {}),
        }
    }

    fn reset(epoch: u32, seq: u64) -> Numbered {
        let event = Event::StreamReset(StreamReset { epoch, seq });
        Numbered {
            epoch,
            seq,
            first_seq: None,
            ts: 0,
            event,
        }
    }

    #[test]
    fn each_event_is_new_a_repeat_or_named_as_out_of_order() {
        let new = Ok(Admitted::New);
        let repeat = Ok(Admitted::Repeat);
        let gap = |from, to| Err(OrderError::Gap { from, to });
        let table = [
            // (where the reader stands, the event, the verdict, where it stands then)
            ((1, 0), event(1, 1, 1), new.clone(), (1, 1)),
            ((1, 4), event(1, 5, 5), new.clone(), (1, 5)),
            ((1, 4), event(1, 5, 9), new.clone(), (1, 9)),
            ((1, 4), event(1, 4, 4), repeat.clone(), (1, 4)),
            ((1, 4), event(1, 1, 4), repeat.clone(), (1, 4)),
            ((1, 4), event(1, 6, 6), gap(5, 5), (1, 4)),
            ((1, 4), event(1, 9, 12), gap(5, 8), (1, 4)),
            (
                (1, 4),
                event(1, 3, 6),
                Err(OrderError::Overlap {
                    first: 3,
                    last: 6,
                    seen: 4,
                }),
                (1, 4),
            ),
            (
                (1, 4),
                event(1, 9, 6),
                Err(OrderError::Backward { first: 9, last: 6 }),
                (1, 4),
            ),
            (
                (2, 4),
                event(1, 5, 5),
                Err(OrderError::Epoch { epoch: 1, current: 2 }),
                (2, 4),
            ),
            ((1, 4), event(2, 5, 5), new.clone(), (2, 5)),
            ((1, 4), event(2, 7, 7), gap(5, 6), (1, 4)),
            ((1, 9), reset(2, 4), new.clone(), (2, 4)),
            ((2, 9), reset(2, 4), repeat, (2, 9)),
            (
                (1, u64::MAX),
                event(1, u64::MAX, u64::MAX),
                Ok(Admitted::Repeat),
                (1, u64::MAX),
            ),
        ];
        for ((epoch, seq), event, verdict, then) in table {
            let mut order = Order::after(Cursor { epoch, seq });
            assert_eq!(order.admit(&event), verdict, "at {epoch}/{seq}: {event:?}");
            assert_eq!(
                order.cursor(),
                Cursor {
                    epoch: then.0,
                    seq: then.1
                },
                "after {event:?}"
            );
        }
    }

    #[test]
    fn after_a_reset_the_stream_goes_on_behind_what_may_be_kept() {
        let mut order = Order::after(Cursor { epoch: 1, seq: 9 });
        assert_eq!(order.admit(&reset(2, 4)), Ok(Admitted::New));
        assert_eq!(order.admit(&event(2, 5, 5)), Ok(Admitted::New));
        assert_eq!(order.cursor(), Cursor { epoch: 2, seq: 5 });
    }
}
