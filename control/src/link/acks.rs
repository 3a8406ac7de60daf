//! What may be acknowledged: only what is on a disk of ours.

use oqto_protocol::cursor::Cursor;
use oqto_protocol::stream::Ack;

use crate::history::Kept;

/// The acknowledgements of one subscription: cumulative, never back, never for what could still be lost.
#[derive(Debug, Default)]
pub struct Acks {
    due: u64,
    sent: u64,
}

impl Acks {
    /// The store has kept events. `current` is the epoch of the stream: numbers of another one say nothing here.
    pub fn kept(&mut self, kept: Kept, current: u32) {
        match kept {
            Kept::Durable(Cursor { epoch, seq }) if epoch == current => self.due = self.due.max(seq),
            Kept::Durable(_) | Kept::Volatile => {}
        }
    }

    /// The acknowledgement that is to be sent now, if any: one for all that was kept since the last.
    pub fn take(&mut self) -> Option<Ack> {
        (self.due > self.sent).then(|| {
            self.sent = self.due;
            Ack { seq: self.due }
        })
    }

    /// The subscription was made again and goes on behind `from_seq`: what the old one was told last may not have been
    /// heard, and what lies further on was lost with the host's power. Its numbers mean other events by now, so they are
    /// not acknowledged, also before the reset that says so is read.
    pub fn again(&mut self, from_seq: u64) {
        self.due = from_seq.min(self.due);
        self.sent = 0;
    }

    /// The stream was reset: its numbers go on from an earlier one.
    pub fn reset(&mut self, seq: u64) {
        self.due = seq.min(self.due);
        self.sent = seq.min(self.sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(epoch: u32, seq: u64) -> Kept {
        Kept::Durable(Cursor { epoch, seq })
    }

    #[test]
    fn only_what_is_durable_and_new_is_acknowledged_once() {
        let table: [(&[Kept], Option<u64>); 6] = [
            (&[], None),
            (&[Kept::Volatile], None),
            (&[durable(1, 3)], Some(3)),
            (&[durable(1, 3), durable(1, 9), durable(1, 5)], Some(9)),
            (&[durable(2, 9)], None),
            (&[durable(1, 4), Kept::Volatile], Some(4)),
        ];
        for (kept, ack) in table {
            let mut acks = Acks::default();
            kept.iter().for_each(|kept| acks.kept(*kept, 1));
            assert_eq!(acks.take(), ack.map(|seq| Ack { seq }), "after {kept:?}");
            assert_eq!(acks.take(), None, "an acknowledgement is not repeated");
        }
    }

    #[test]
    fn what_an_old_link_may_not_have_carried_is_acknowledged_again() {
        let mut acks = Acks::default();
        acks.kept(durable(1, 9), 1);
        assert_eq!(acks.take(), Some(Ack { seq: 9 }));
        acks.again(9);
        assert_eq!(acks.take(), Some(Ack { seq: 9 }));
        assert_eq!(acks.take(), None);
    }

    #[test]
    fn what_the_other_side_has_lost_is_not_acknowledged_on_the_next_link() {
        let mut acks = Acks::default();
        acks.kept(durable(1, 9), 1);
        acks.again(4);
        assert_eq!(acks.take(), Some(Ack { seq: 4 }));
        // Its store was at it when the link came back.
        acks.kept(durable(1, 9), 2);
        assert_eq!(acks.take(), None);
    }

    #[test]
    fn after_a_reset_lower_numbers_are_acknowledged_again() {
        let mut acks = Acks::default();
        acks.kept(durable(1, 9), 1);
        assert_eq!(acks.take(), Some(Ack { seq: 9 }));
        acks.reset(4);
        acks.kept(durable(2, 6), 2);
        assert_eq!(acks.take(), Some(Ack { seq: 6 }));
    }
}
