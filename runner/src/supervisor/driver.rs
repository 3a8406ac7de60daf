//! The task that drives one session: it reads the tape, lets the core decide, keeps what was decided, and does it.
//!
//! Everything that the core learns comes from the tape, commands included: a command is noted there first and seen
//! when it is read back. So after this process died, reading the same tape again gives the same events under the
//! same numbers, and the shim drops the writes that it has done.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use oqto_protocol::codec::{Wire as _, decode_all};
use oqto_protocol::command::{Command, CommandEnvelope};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::reply::Reply;
use oqto_protocol::session::{SessionInfo, SessionState};
use tokio::sync::{mpsc, watch};

use super::facts::Facts;
use super::farewell::Tape;
use super::handle::Ask;
use super::mind::{Deed, Mind};
use super::writes::Writes;
use crate::bounds::WRITE_LEN_MAX;
use crate::clock;
use crate::event_log::{AppendError, BadBatch, Batch, Health, Pending};
use crate::session::{ExitStatus, Fact, Input};
use crate::shim::tape::ReadError;
use crate::shim::{Client, Hold, Notice, Refusal, TapeReader, Target};

/// How much of the tape is read before anything else gets its turn, bytes.
const TURN_LEN: u64 = 1024 * 1024;

/// How far behind the shim may be in knowing what was read, bytes: far below what the tape may be ahead.
const CONSUMED_STEP: u64 = 1024 * 1024;

/// How many bytes of events are appended at once. More makes commits rarer and the first of them later.
const BATCH_LEN: usize = 128 * 1024;

/// Commands that may be under way in one session: each is kept until it is answered. One that ends the work or the
/// session always finds room: a harness that answers nothing must be stoppable.
const COMMANDS_MAX: usize = 64;

/// How long a write that there was no room for waits before it is tried again, in milliseconds.
const RETRY_MS: u64 = 50;

/// Why a session could not be driven to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum DriveError {
    #[error("cannot read the session's tape")]
    Tape(#[from] ReadError),
    #[error("cannot append to the session's log")]
    Append(#[from] AppendError),
    #[error("cannot make a batch of events")]
    Batch(#[from] BadBatch),
    #[error("a note on the tape is no command")]
    Note(#[source] oqto_protocol::codec::DecodeError),
}

/// One session, while it lives.
pub(super) struct Driver {
    pub(super) mind: Mind,
    /// The shim; `None` when it is gone already and only its tape is left.
    pub(super) shim: Option<Client>,
    pub(super) tape: TapeReader,
    /// How far the tape may be read.
    pub(super) tape_len: u64,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) info: watch::Sender<SessionInfo>,
    pub(super) ended: watch::Sender<bool>,
    /// The shim's directory, which goes with the session's end.
    pub(super) shim_dir: PathBuf,
    /// By which the shim is ended when it does not listen.
    pub(super) hold: Option<Hold>,
    /// What is seen of the session from outside.
    pub(super) facts: Facts,
    /// It has worked since it was looked at from outside.
    pub(super) worked: bool,
    /// Writes that the shim has not confirmed.
    pub(super) writes: Writes,
    /// When those that there was no room for are tried again.
    pub(super) retry_at: Option<u64>,
    /// How far the tape is read again: an earlier runner may have done what it asks for up to here.
    pub(super) replay_end: u64,
    /// The last event that the log accepted, which is not to say that it is committed; 0 for none since the start.
    pub(super) appended: u64,
    /// Marks that were appended: the event they came with, and where on the tape they are.
    pub(super) marks: VecDeque<(u64, u64)>,
    /// Where on the tape a replay would begin.
    pub(super) needed: u64,
    /// What the shim was told: how far the tape was read, and from where on it is needed.
    pub(super) told: (u64, u64),
}

/// What a sender is told whose command cannot be kept.
fn no_room() -> Fault {
    Fault::new(
        FaultCode::Storage,
        "the runner's disk is full, so the command cannot be kept and has no effect; make room and send it again \
         (session.close kills the agent all the same, and is recorded when there is room)",
    )
}

impl Driver {
    /// Drives the session to its end.
    pub(super) async fn run(mut self) {
        match self.drive().await {
            Ok(()) => self.end(Tape::Told).await,
            Err(DriveError::Append(AppendError::Closed(_))) => {
                // The runner is stopping before its sessions are: shim and tape wait for the next one.
                tracing::warn!(session = self.mind.log.id(), "left to the next runner");
            }
            Err(error) => {
                let text = crate::cause::chain(&error);
                tracing::error!(session = self.mind.log.id(), error = %text, "session lost");
                if let Some(born) = self.mind.born.take() {
                    // Nobody may be waiting any more.
                    let _ = born.send(Err(Fault::new(FaultCode::Internal, text.clone())));
                }
                self.mind.ledger.catch_up();
                let _deeds = self.mind.step(&Input::Lost(&text), clock::unix_ms());
                if let Err(error) = self.flush(None).await {
                    tracing::error!(session = self.mind.log.id(), error = %crate::cause::chain(&error), "its end is not told");
                }
                if let Some(shim) = &mut self.shim {
                    shim.kill().await;
                }
                self.end(Tape::SetAside).await;
            }
        }
    }

    async fn drive(&mut self) -> Result<(), DriveError> {
        loop {
            let more = self.read_tape().await?;
            if self.mind.core.state() == SessionState::Closed {
                return Ok(());
            }
            if self.shim.is_none() && !more {
                // What the tape of a dead shim does not tell, nobody knows: its program died with it.
                let now = clock::unix_ms();
                self.mind.ledger.catch_up();
                // There is nobody left to do anything to.
                let _deeds = self.mind.see(&self.facts.look().await, now);
                let _deeds = self.mind.step(&Input::Exited(ExitStatus::Signal(9)), now);
                self.flush(None).await?;
                return Ok(());
            }
            self.wait(more).await?;
        }
    }

    /// Reads some of the tape; whether there is more.
    async fn read_tape(&mut self) -> Result<bool, DriveError> {
        let start = self.tape.offset();
        let (mut mark, mut rested) = (None, false);
        while let Some(record) = self.tape.next(self.tape_len)? {
            let (fed, end) = (self.mind.feed(&record).map_err(DriveError::Note)?, record.end);
            self.worked |= self.mind.core.state() != SessionState::Idle;
            if self.mind.rested {
                self.mind.rested = false;
                rested = true;
                mark = self.mind.mark(end).map(|mark| (end, mark));
            }
            if let Some(id) = fed.done {
                self.writes.done(id);
            }
            self.perform(fed.deeds).await;
            if self.mind.ledger.len() >= BATCH_LEN {
                self.flush(mark.take()).await?;
            }
            if end - start >= TURN_LEN {
                break;
            }
        }
        self.flush(mark).await?;
        self.tell_consumed().await;
        let more = self.tape.offset() < self.tape_len;
        if rested && self.worked && !more && self.tape.offset() >= self.replay_end {
            self.worked = false;
            let facts = self.facts.look().await;
            self.note_facts(facts);
        }
        Ok(more)
    }

    /// Has facts put on the tape, from where they come back to be told.
    fn note_facts(&mut self, facts: Vec<Fact>) {
        for note in self.facts.news(facts) {
            self.writes.push(note.id, Target::Note, note.bytes);
        }
    }

    /// Tells the shim how far the tape was read, and below what it is not needed again: where a replay would begin
    /// whose mark is kept. Not at every record: the shim only has to know before it is far ahead.
    async fn tell_consumed(&mut self) {
        if self
            .marks
            .front()
            .is_some_and(|(seq, _)| *seq <= self.mind.log.last_seq())
        {
            self.needed = self.marks.pop_front().map_or(self.needed, |(_, tape)| tape);
        }
        let read = self.tape.offset();
        let news = read - self.told.0 >= CONSUMED_STEP || self.needed - self.told.1 >= CONSUMED_STEP;
        if news && let Some(shim) = &mut self.shim {
            self.told = (read, self.needed);
            shim.consumed(read, self.needed).await;
        }
    }

    /// Waits for whatever is next: the shim, a command, a deadline.
    async fn wait(&mut self, more: bool) -> Result<(), DriveError> {
        let now = clock::unix_ms();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.writes.retry();
        }
        self.send().await;
        let until = |at: Option<u64>| Duration::from_millis(at.map_or(u64::MAX, |at| at.saturating_sub(now)));
        let deadline = self.mind.core.poll_timeout();
        let retry_at = self.retry_at;
        let Some(shim) = &mut self.shim else { return Ok(()) };
        tokio::select! {
            biased;
            // Before the shim: one whose harness never stops talking always has news, and must still be stoppable.
            Some(ask) = self.asks.recv() => {
                // Who never stops asking must not keep the shim from being heard either.
                let heard = tokio::select! {
                    biased;
                    notice = shim.next() => Some(notice),
                    () = std::future::ready(()) => None,
                };
                self.ask(ask);
                if let Some(notice) = heard {
                    self.notice(notice).await;
                }
            }
            notice = shim.next() => self.notice(notice).await,
            Some(fact) = self.facts.hear() => self.note_facts(vec![fact]),
            () = std::future::ready(()), if more => {}
            () = tokio::time::sleep(until(retry_at)), if retry_at.is_some() => {}
            () = tokio::time::sleep(until(deadline)), if deadline.is_some() => {
                let deeds = self.mind.step(&Input::Deadline, clock::unix_ms());
                self.perform(deeds).await;
                self.flush(None).await?;
            }
        }
        Ok(())
    }

    async fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Grown { len } => self.tape_len = self.tape_len.max(len),
            Notice::Wrote { id } => self.writes.done(id),
            Notice::Refused {
                id,
                why: why @ (Refusal::Busy | Refusal::NoSpace),
            } => match self.writes.refused(id) {
                Some(note) => {
                    self.facts.lost(note.id);
                    self.refuse_unkept(&note.bytes, why).await;
                }
                None => {
                    self.retry_at.get_or_insert(clock::unix_ms() + RETRY_MS);
                }
            },
            Notice::Refused {
                id,
                why: Refusal::Closed,
            } => {
                // The harness is ending: its exit, which follows, answers whoever waits.
                self.writes.done(id);
            }
            Notice::Trouble { text } => {
                tracing::error!(session = self.mind.log.id(), %text, "the tape cannot grow; the harness waits");
            }
            Notice::Recovered => tracing::info!(session = self.mind.log.id(), "the tape grows again"),
            // It stands on the tape, whose length came before it.
            Notice::Exited { .. } => {}
            Notice::Gone => {
                self.shim = None;
                if let Ok(len) = self.tape.file_len() {
                    self.tape_len = len;
                }
            }
        }
    }

    /// A command that cannot be kept has no effect, and who sent it is told so rather than left waiting.
    async fn refuse_unkept(&mut self, note: &[u8], why: Refusal) {
        let Ok(CommandEnvelope { id, command, .. }) = decode_all(note) else {
            return;
        };
        let fault = match why {
            Refusal::NoSpace => no_room(),
            Refusal::Busy | Refusal::Closed => Fault::new(
                FaultCode::Busy,
                "the harness said more than was read yet, so the command has no effect; send it again later",
            ),
        };
        if let (Refusal::NoSpace, Command::SessionClose(_), Some(shim)) = (why, &command, &mut self.shim) {
            shim.kill().await;
        }
        for waiter in self.mind.waiting.remove(&id).unwrap_or_default() {
            // Who asked may be gone.
            let _ = waiter.send(Reply::refused(id, command.name(), fault.clone()));
        }
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::State(reply) => {
                // Who asked may be gone.
                let _ = reply.send(self.mind.core.status());
            }
            Ask::Command(envelope, reply) => {
                let id = envelope.id;
                if let Some(kept) = self.mind.core.kept_reply(id) {
                    let _ = reply.send(kept.clone());
                } else if let Some(waiters) = self.mind.waiting.get_mut(&id) {
                    waiters.push(reply);
                } else {
                    match self.note(&envelope) {
                        Ok(()) => drop(self.mind.waiting.insert(id, vec![reply])),
                        Err(fault) => {
                            let _ = reply.send(Reply::refused(id, envelope.command.name(), fault));
                        }
                    }
                }
            }
        }
    }

    /// Has a command put on the tape, from where it comes back to be carried out.
    fn note(&mut self, envelope: &CommandEnvelope) -> Result<(), Fault> {
        let waiting = self.mind.waiting.len().max(self.writes.len());
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
        self.writes.push(envelope.id.0, Target::Note, bytes);
        Ok(())
    }

    /// Sends the writes whose turn it is, once nothing further on the tape can say that they were done.
    async fn send(&mut self) {
        if self.tape.offset() < self.replay_end {
            return;
        }
        let Some(shim) = &mut self.shim else { return };
        while let Some(write) = self.writes.next() {
            shim.write(write.id, write.to, &write.bytes).await;
        }
    }

    async fn perform(&mut self, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                Deed::Write(id, bytes) => {
                    self.writes.push(id, Target::Stdin, bytes);
                    self.send().await;
                }
                Deed::CloseStdin => {
                    if let Some(shim) = &mut self.shim {
                        shim.close_stdin().await;
                    }
                }
                Deed::Kill => {
                    if let Some(shim) = &mut self.shim {
                        shim.kill().await;
                    }
                }
            }
        }
    }

    /// Appends a batch. While the store cannot be written the session waits here, and whoever asks something of it is
    /// answered instead of waiting along.
    async fn append(&mut self, batch: Batch) -> Result<Pending, DriveError> {
        let Self {
            mind: Mind { core, log, .. },
            asks,
            shim,
            ..
        } = self;
        let mut health = log.health();
        let mut appended = pin!(log.append(batch));
        loop {
            // A moment's wait is no reason to refuse anybody.
            let is_failing = *health.borrow_and_update() != Health::Fine;
            tokio::select! {
                biased;
                pending = &mut appended => return Ok(pending?),
                _ = health.changed() => {}
                Some(ask) = asks.recv(), if is_failing => match ask {
                    Ask::State(reply) => {
                        // Who asked may be gone.
                        let _ = reply.send(core.status());
                    }
                    Ask::Command(envelope, reply) => {
                        let name = envelope.command.name();
                        // What cannot be recorded has no effect; but an agent that is to go goes.
                        if let (Command::SessionClose(_), Some(shim)) = (&envelope.command, &mut *shim) {
                            shim.kill().await;
                        }
                        let _ = reply.send(Reply::refused(envelope.id, name, no_room()));
                    }
                },
            }
        }
    }

    /// Appends what was recorded; whoever waits is answered once it is committed.
    async fn flush(&mut self, mark: Option<(u64, Bytes)>) -> Result<(), DriveError> {
        let (mark_at, mark) = mark.unzip();
        let committed = match self.mind.ledger.take(mark) {
            Some(batch) => {
                let batch = batch?;
                self.marks.extend(mark_at.map(|at| (batch.last_seq(), at)));
                let last_seq = batch.last_seq();
                let pending = self.append(batch).await?;
                self.appended = last_seq;
                Some(pending)
            }
            None => None,
        };
        let mind = &mut self.mind;
        // Also when there was nothing new: a tape that is read again only repeats, and ends in another state.
        if committed.is_some() || self.info.borrow().state != mind.core.state() {
            self.info.send_if_modified(|info| {
                let now = mind.core.info();
                let changed = info.state != now.state || info.message_count != now.message_count;
                if changed {
                    *info = now;
                }
                changed
            });
        }
        let answers: Vec<_> = mind
            .replies
            .drain(..)
            .flat_map(|reply| {
                let waiters = mind.waiting.remove(&reply.id).unwrap_or_default();
                waiters.into_iter().map(move |waiter| (waiter, reply.clone()))
            })
            .collect();
        let outcome = mind
            .outcome
            .take()
            .and_then(|outcome| Some((mind.born.take()?, outcome)));
        if answers.is_empty() && outcome.is_none() {
            return Ok(());
        }
        tokio::spawn(async move {
            if let Some(pending) = committed
                && pending.committed().await.is_err()
            {
                // The log is closed, and with it the runner; an answer now could be a lie.
                return;
            }
            for (waiter, reply) in answers {
                let _ = waiter.send(reply);
            }
            if let Some((born, outcome)) = outcome {
                let _ = born.send(outcome);
            }
        });
        Ok(())
    }
}
