//! Replies: each command gets one, and it is kept for the same command again.

use oqto_protocol::command::Command;
use oqto_protocol::fault::Fault;
use oqto_protocol::id::CommandId;
use oqto_protocol::reply::{Accepted, Created, Reply, ReplyData};

use super::action::Action;
use super::machine::Session;
use super::replies::Pending;
use super::stage::Stage;

impl Session {
    /// The session is made.
    pub(super) fn made(&mut self, out: &mut Vec<Action>) {
        if let Some(id) = self.create.take() {
            let session = self.info();
            let data = ReplyData::Created(Created { session });
            self.reply(Reply::done(id, "session.create", Some(data)), out);
        }
    }

    /// The session is not made.
    pub(super) fn refuse_create(&mut self, fault: Fault, out: &mut Vec<Action>) {
        if let Some(id) = self.create.take() {
            self.reply(Reply::refused(id, "session.create", fault), out);
        }
    }

    /// Refuses every command that waits, for the harness or for its answer.
    pub(super) fn refuse_waiting(&mut self, fault: &Fault, out: &mut Vec<Action>) {
        if let Stage::Starting(starting) = &mut self.stage {
            for envelope in std::mem::take(&mut starting.waiting) {
                let refused = Reply::refused(envelope.id, envelope.command.name(), fault.clone());
                self.reply(refused, out);
            }
        }
        for pending in std::mem::take(&mut self.replies.pending) {
            self.refuse_pending(&pending, fault.clone(), out);
        }
    }

    /// A command was done; without data of its own it is told where its events follow.
    pub(super) fn accept(&mut self, pending: &Pending, data: Option<ReplyData>, out: &mut Vec<Action>) {
        let Pending { id, cmd, cursor, .. } = *pending;
        let data = data.unwrap_or(ReplyData::Accepted(Accepted { cursor }));
        self.reply(Reply::done(id, cmd, Some(data)), out);
    }

    pub(super) fn refuse_pending(&mut self, pending: &Pending, fault: Fault, out: &mut Vec<Action>) {
        self.reply(Reply::refused(pending.id, pending.cmd, fault), out);
    }

    /// A command has nothing to do.
    pub(super) fn accept_now(
        &mut self,
        id: CommandId,
        command: &Command,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        let cursor = self.cursor;
        let data = ReplyData::Accepted(Accepted { cursor });
        self.reply(Reply::done(id, command.name(), Some(data)), out);
        Ok(())
    }

    pub(super) fn reply(&mut self, reply: Reply, out: &mut Vec<Action>) {
        self.replies.keep(reply.clone());
        out.push(Action::Reply(reply));
    }
}
