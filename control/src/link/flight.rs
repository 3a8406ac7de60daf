//! One command on its way.

use std::time::Instant;

use oqto_protocol::id::CommandId;
use oqto_protocol::reply::Reply;

use crate::bounds::SENDS_MAX;

/// What to do when the link was lost before the answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Send the same bytes again on a new link: the id makes a second effect impossible.
    Resend,
    /// Tell the caller; whether the command had its effect is not known.
    GiveUp,
}

/// A command that has no answer yet.
#[derive(Debug)]
pub struct Flight {
    id: CommandId,
    until: Instant,
    sends: u8,
}

impl Flight {
    /// A command that nobody has sent yet and that is given up at `until`.
    pub fn new(id: CommandId, until: Instant) -> Self {
        Self { id, until, sends: 0 }
    }

    /// Until when an answer is of use.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// It is being sent.
    pub fn sent(&mut self) {
        self.sends = self.sends.saturating_add(1);
    }

    /// The link was lost.
    pub fn lost(&self, now: Instant) -> Lost {
        if self.sends < SENDS_MAX && now < self.until {
            Lost::Resend
        } else {
            Lost::GiveUp
        }
    }

    /// Whether `reply` is this command's.
    pub fn is_answered_by(&self, reply: &Reply) -> bool {
        reply.id == self.id
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_command_is_sent_until_its_time_or_its_sends_are_used_up() {
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        let mut flight = Flight::new(CommandId([1; 16]), until);
        for _ in 1..SENDS_MAX {
            flight.sent();
            assert_eq!(flight.lost(now), Lost::Resend);
            assert_eq!(flight.lost(until), Lost::GiveUp);
        }
        flight.sent();
        assert_eq!(flight.lost(now), Lost::GiveUp);
    }

    #[test]
    fn only_the_reply_with_its_own_id_answers_a_command() {
        let flight = Flight::new(CommandId([1; 16]), Instant::now());
        assert!(flight.is_answered_by(&Reply::done(CommandId([1; 16]), "abort", None)));
        assert!(!flight.is_answered_by(&Reply::done(CommandId([2; 16]), "abort", None)));
    }
}
