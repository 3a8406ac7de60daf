//! One command on its way.

use oqto_protocol::id::CommandId;
use oqto_protocol::reply::Reply;

use crate::bounds::SENDS_MAX;

/// What to do when the link was lost before the answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Send the same bytes again on a new link: the id makes a second effect impossible.
    Resend,
    /// Tell the caller; whether the command had its effect is not known.
    GiveUp,
}

/// A command that has no answer yet.
#[derive(Debug)]
pub(crate) struct Flight {
    id: CommandId,
    sends: u8,
}

impl Flight {
    /// A command that is being sent for the first time.
    pub(crate) fn new(id: CommandId) -> Self {
        Self { id, sends: 1 }
    }

    /// The link was lost.
    pub(crate) fn lost(&mut self) -> Lost {
        if self.sends >= SENDS_MAX {
            return Lost::GiveUp;
        }
        self.sends += 1;
        Lost::Resend
    }

    /// Whether `reply` is this command's.
    pub(crate) fn is_answered_by(&self, reply: &Reply) -> bool {
        reply.id == self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_sent_twice_and_no_more() {
        let mut flight = Flight::new(CommandId([1; 16]));
        assert_eq!(flight.lost(), Lost::Resend);
        assert_eq!(flight.lost(), Lost::GiveUp);
        assert_eq!(flight.lost(), Lost::GiveUp);
    }

    #[test]
    fn only_the_reply_with_its_own_id_answers_a_command() {
        let flight = Flight::new(CommandId([1; 16]));
        assert!(flight.is_answered_by(&Reply::done(CommandId([1; 16]), "abort", None)));
        assert!(!flight.is_answered_by(&Reply::done(CommandId([2; 16]), "abort", None)));
    }
}
