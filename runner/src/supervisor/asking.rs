//! How a session's mind takes commands: each goes onto the tape first, and is carried out when it is read back.

use oqto_protocol::codec::{Wire as _, decode_all};
use oqto_protocol::command::{Command, CommandEnvelope};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::reply::Reply;
use oqto_protocol::session::SessionState;

use super::mind::{Mind, decision_id};
use crate::bounds::WRITE_LEN_MAX;
use crate::shim::{Refusal, Target, WriteId};

/// Commands that may be under way in one session: each is kept until it is answered. One that ends the work or the
/// session always finds room: a harness that answers nothing must be stoppable.
const COMMANDS_MAX: usize = 64;

/// How long a write that there was no room for waits before it is tried again, in milliseconds.
const RETRY_MS: u64 = 50;

/// A note that was not kept.
#[derive(Debug)]
pub struct Unkept<W> {
    /// The note.
    pub id: WriteId,
    /// Who is told so.
    pub answers: Vec<(W, Reply)>,
    /// The agent is to go all the same.
    pub kill: bool,
}

/// What a sender is told whose command cannot be kept for want of room, and why there is none.
fn no_room(envelope: &CommandEnvelope, why: &str) -> Reply {
    let fault = Fault::new(
        FaultCode::Storage,
        format!(
            "{why}, so the command cannot be kept and has no effect; make room and send it again (session.close kills \
             the agent all the same, and is recorded when there is room)"
        ),
    );
    Reply::refused(envelope.id, envelope.command.name(), fault)
}

impl<W> Mind<W> {
    /// Takes a command of somebody who waits for its reply; the answer when there is one at once. One that a session
    /// without a tape can be told is told at once; any other waits for the tape.
    pub fn ask(&mut self, envelope: &CommandEnvelope, who: W, now: u64) -> Option<(W, Reply)> {
        let id = envelope.id;
        if let Some(kept) = self.core.kept_reply(id) {
            return Some((who, kept.clone()));
        }
        if let Some(waiters) = self.waiting.get_mut(&id) {
            waiters.push(who);
            return None;
        }
        let needs_none = matches!(
            envelope.command,
            Command::SessionClose(_) | Command::SessionRestart(_)
        );
        if self.state() == SessionState::Dormant || (self.is_down() && needs_none) {
            self.waiting.insert(id, vec![who]);
            self.tell_command(envelope, now);
            return None;
        }
        match self.note_command(envelope) {
            Ok(()) => {
                self.waiting.insert(id, vec![who]);
                None
            }
            Err(fault) => Some((who, Reply::refused(id, envelope.command.name(), fault))),
        }
    }

    /// Takes a command while the log takes nothing. One that is on its way already is answered in its turn; any other
    /// has no effect, and its sender is told so at once rather than left waiting.
    pub fn ask_while_full(&mut self, envelope: &CommandEnvelope, why: &str, who: W) -> Option<(W, Reply)> {
        let id = envelope.id;
        if let Some(kept) = self.core.kept_reply(id) {
            return Some((who, kept.clone()));
        }
        if let Some(waiters) = self.waiting.get_mut(&id) {
            waiters.push(who);
            return None;
        }
        // A runner before may have taken it.
        if self.core.owes_reply(id) {
            self.waiting.insert(id, vec![who]);
            return None;
        }
        // Or have put it on the tape, further on than was read.
        let reply = match self.reading().replays() {
            true => read_again(envelope, why),
            false => no_room(envelope, why),
        };
        Some((who, reply))
    }

    /// Has a command put on the tape, from where it comes back to be carried out.
    fn note_command(&mut self, envelope: &CommandEnvelope) -> Result<(), Fault> {
        let waiting = self.waiting.len().max(self.writes.len());
        let room = match envelope.command {
            Command::Abort(_) | Command::SessionClose(_) => 2 * COMMANDS_MAX,
            _ => COMMANDS_MAX,
        };
        if waiting >= room {
            let message = format!("{waiting} commands wait in this session already");
            return Err(Fault::new(FaultCode::Busy, message));
        }
        let mut bytes = Vec::new();
        envelope.encode(&mut bytes);
        if bytes.len() > WRITE_LEN_MAX {
            let message = format!(
                "a {} of {} bytes is longer than the {WRITE_LEN_MAX} that a session takes at once",
                envelope.command.name(),
                bytes.len()
            );
            return Err(Fault::new(FaultCode::Limit, message));
        }
        self.note(envelope.id.0, bytes);
        Ok(())
    }

    /// Refuses the commands that wait for a tape, when there will be none until somebody says so.
    pub(super) fn refuse_queued(&mut self) {
        if self.state() != SessionState::Dormant {
            return;
        }
        for note in self.writes.take_notes() {
            // A note of what was seen from outside has nobody who waits.
            if let Ok(envelope) = decode_all::<CommandEnvelope>(&note.bytes) {
                let fault = Fault::new(
                    FaultCode::WrongState,
                    "the session became dormant, so the command has no effect; session.restart starts it again",
                );
                let reply = Reply::refused(envelope.id, envelope.command.name(), fault);
                self.replies.push(reply);
            }
        }
    }

    /// Has a note put on the tape.
    pub fn note(&mut self, id: WriteId, bytes: Vec<u8>) {
        self.writes.push(id, Target::Note, bytes);
    }

    /// Whether a note says what was decided of a request of the agent.
    fn decides(&self, id: WriteId) -> bool {
        self.deciding
            .iter()
            .any(|request_id| decision_id(request_id) == id)
    }

    /// The shim has done a write.
    pub fn wrote(&mut self, id: WriteId) {
        self.writes.done(id);
    }

    /// The shim has not done a write. What is meant for the harness is tried again; a note is given up, since who sent
    /// the command can be told: it has no effect.
    pub fn refused(&mut self, id: WriteId, why: Refusal, now: u64) -> Option<Unkept<W>> {
        if why == Refusal::Closed {
            // The harness is ending: whoever waits is told when it is known whether it is started again. That something
            // is overdue is of no interest any more.
            match self.tick == Some(id) || self.decides(id) {
                true => self.writes.done(id),
                false => self.writes.closed(id),
            }
            return None;
        }
        let Some(note) = self.writes.refused(id) else {
            self.retry_at.get_or_insert(now + RETRY_MS);
            return None;
        };
        let is_full = why == Refusal::NoSpace;
        let mut unkept = Unkept {
            id,
            answers: Vec::new(),
            kill: false,
        };
        if self.decides(id) {
            self.writes.put_back(note);
            self.retry_at.get_or_insert(now + RETRY_MS);
            return Some(unkept);
        }
        if self.tick == Some(id) {
            // That it did not go in time cannot be kept now; that it goes need not wait for that.
            unkept.kill = is_full && self.state() == SessionState::Stopping;
            self.writes.put_back(note);
            self.retry_at.get_or_insert(now + RETRY_MS);
            return Some(unkept);
        }
        if let Ok(envelope) = decode_all::<CommandEnvelope>(&note.bytes) {
            unkept.kill = is_full && matches!(envelope.command, Command::SessionClose(_));
            let reply = if is_full {
                no_room(&envelope, "the runner's disk is full")
            } else {
                too_far_ahead(&envelope)
            };
            let waiters = self.waiting.remove(&envelope.id).unwrap_or_default();
            unkept
                .answers
                .extend(waiters.into_iter().map(|who| (who, reply.clone())));
        }
        Some(unkept)
    }
}

fn too_far_ahead(envelope: &CommandEnvelope) -> Reply {
    let fault = Fault::new(
        FaultCode::Busy,
        "the harness said more than was read yet, so the command has no effect; send it again later",
    );
    Reply::refused(envelope.id, envelope.command.name(), fault)
}

fn read_again(envelope: &CommandEnvelope, why: &str) -> Reply {
    let fault = Fault::new(
        FaultCode::Storage,
        format!(
            "{why}, and whether the runner before took the command is not known yet; make room and send it again under \
             the same id"
        ),
    );
    Reply::refused(envelope.id, envelope.command.name(), fault)
}
