//! What decides in a session's driver: what a record of the tape leads to, what is appended to the log and when, who
//! is answered, which write is sent, and how much of the tape is still needed.
//!
//! Pure: no I/O, no clock, no task. The driver reads the tape, waits and writes, and obeys; a simulation does the same
//! with a tape, a log and a shim that are not there.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use oqto_protocol::codec::{DecodeError, decode_all};
use oqto_protocol::command::CommandEnvelope;
use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::Event;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::policy::SandboxReport;
use oqto_protocol::reply::Reply;
use oqto_protocol::session::{SessionInfo, SessionState, SessionStatus};
use sha2::{Digest as _, Sha256};

use super::ledger::Ledger;
use super::origin::{Mark, Origin};
use super::reading::Reading;
use super::writes::{Write, Writes};
use crate::event_log::{BadBatch, Batch};
use crate::harness::{Edition, Harness};
use crate::policy::Permissions;
use crate::session::{Action, Continuation, Decision, ExitStatus, Fact, Input, NotStarted, Report, Session};
use crate::shim::tape::Start;
use crate::shim::{Exit, Kind, Record, Target, WriteId};

/// From how many bytes on events are appended. What one record of the tape holds comes on top; both together are to fit
/// in what a subscriber reads at once, or every row is read twice.
const BATCH_LEN: usize = 64 * 1024;

/// What the driver is to do to the shim, at once and in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Send the writes whose turn it is.
    Send,
    /// Close the program's input.
    CloseStdin,
    /// Kill the program.
    Kill,
    /// Start the harness again, once all that was said before is committed.
    Start,
}

/// What is to be appended, and who is told what once it is committed.
#[derive(Debug)]
pub struct Said<W> {
    /// What is to be appended.
    pub batch: Option<Batch>,
    /// Who is answered what.
    pub answers: Vec<(W, Reply)>,
    /// Whether the session came to be, said once.
    pub outcome: Option<Result<(), Fault>>,
}

/// What decides, and what it has decided. `W` is who waits for a command's reply.
#[derive(Debug)]
pub struct Mind<W> {
    pub(super) core: Session,
    generation: u64,
    boot_id: String,
    /// The number that the next message had in the log when this began.
    next_idx: u64,
    pub(super) waiting: HashMap<CommandId, Vec<W>>,
    /// Writes that the shim has not confirmed.
    pub(super) writes: Writes,
    /// When those that there was no room for are tried again.
    pub(super) retry_at: Option<u64>,
    /// The note that something is overdue, on its way to the tape and back.
    pub(super) tick: Option<WriteId>,
    /// The requests of the agent of which a decision is on its way to the audit log, the tape and back.
    pub(super) deciding: HashSet<String>,
    reading: Reading,
    ledger: Ledger,
    actions: Vec<Action>,
    pub(super) replies: Vec<Reply>,
    outcome: Option<Result<(), Fault>>,
    last_error: Option<String>,
    /// Why the session ended, for who asks it later.
    reason: Arc<OnceLock<String>>,
    rested: bool,
    /// It has worked since it was looked at from outside.
    worked: bool,
    /// It has come to rest since then.
    calmed: bool,
}

impl<W> Mind<W> {
    /// Goes on from `origin` with a tape that is `tape_len` long, behind what the log has: its last event, and how many
    /// messages.
    #[must_use]
    pub fn new(origin: Origin, tape_len: u64, log: Cursor, next_idx: u64) -> Self {
        let Origin {
            core,
            seq,
            generation,
            tape,
            boot_id,
            actions,
        } = origin;
        let mut mind = Self {
            core,
            generation,
            boot_id,
            next_idx,
            waiting: HashMap::new(),
            writes: Writes::default(),
            retry_at: None,
            tick: None,
            deciding: HashSet::new(),
            reading: Reading::new(tape, tape_len),
            ledger: Ledger::new(log.epoch, seq, log.seq),
            actions: Vec::new(),
            replies: Vec::new(),
            outcome: None,
            last_error: None,
            reason: Arc::default(),
            rested: false,
            worked: false,
            calmed: false,
        };
        // It is sent in its turn, when the tape has been read: only a harness that lives is asked anything.
        let _sends = mind.obey(actions);
        mind
    }

    /// The harness was started again: its tape is this long already.
    pub fn begin_tape(&mut self, tape_len: u64) {
        self.generation += 1;
        self.reading = Reading::new(0, tape_len);
        self.writes.next_tape();
        self.deciding.clear();
        self.retry_at = None;
        self.tick = None;
    }

    /// Which start of the harness this is, from 0.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The boot of the host in which the last tape began; empty where none was read.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Whether nothing of the session runs, and it may be started again.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.core.is_down()
    }

    /// With what the harness is started again.
    #[must_use]
    pub fn continuation(&self) -> Continuation {
        self.core.continuation()
    }

    /// By which session of its own the harness could go on; `None` when it cannot, or the session has ended.
    #[must_use]
    pub fn own_session(&self) -> Option<&str> {
        self.core.own_session()
    }

    /// What is to hold the harness when it is started again, how it is defined and which edition that is, and who answers it
    /// then.
    pub fn prepared(
        &mut self,
        harness: Harness,
        sandbox: SandboxReport,
        edition: Edition,
        permissions: Permissions,
    ) {
        self.core.prepared(harness, sandbox, edition, permissions);
    }

    /// What a list says of the session.
    #[must_use]
    pub fn info(&self) -> SessionInfo {
        self.core.info()
    }

    /// How the session stands, in full.
    #[must_use]
    pub fn status(&self) -> SessionStatus {
        self.core.status()
    }

    /// Where the session is.
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.core.state()
    }

    /// Since when the harness works and says nothing; see [`Session::silent_since`].
    #[must_use]
    pub fn silent_since(&self) -> Option<u64> {
        self.core.silent_since()
    }

    /// Why the session ended, once it has.
    #[must_use]
    pub fn reason(&self) -> Arc<OnceLock<String>> {
        self.reason.clone()
    }

    /// How far the tape was read.
    pub fn reading(&mut self) -> &mut Reading {
        &mut self.reading
    }

    /// Takes one record of the tape.
    ///
    /// # Errors
    /// When a note on it is none of ours.
    pub fn feed(&mut self, record: &Record<'_>) -> Result<Vec<Deed>, DecodeError> {
        let deeds = self.take_record(record)?;
        self.reading.read(record.end);
        self.worked |= self.state() != SessionState::Idle;
        self.mark_rest();
        self.refuse_queued();
        Ok(deeds)
    }

    /// Notes that a replay could begin here, if it could.
    fn mark_rest(&mut self) {
        if !std::mem::take(&mut self.rested) {
            return;
        }
        let Some(core) = self.core.snapshot() else { return };
        self.calmed |= self.state() == SessionState::Idle;
        let mark = Mark {
            generation: self.generation,
            tape: self.reading.at(),
            boot_id: self.boot_id.clone(),
            core,
        };
        if let Ok(mark) = serde_json::to_vec(&mark) {
            self.reading.mark(mark.into());
        }
    }

    fn take_record(&mut self, record: &Record<'_>) -> Result<Vec<Deed>, DecodeError> {
        let (payload, now) = (record.payload, record.unix_ms);
        Ok(match record.kind {
            Kind::Out => self.step(&Input::Out(payload), now),
            Kind::Err => self.step(&Input::Err(payload), now),
            Kind::Note => match Fact::parse(payload) {
                None => {
                    let envelope: CommandEnvelope = decode_all(payload)?;
                    self.writes.done(envelope.id.0);
                    self.step(&Input::Command(&envelope), now)
                }
                Some(Ok(facts)) => self.see(&facts, now),
                // Of a newer runner, perhaps. The session goes on without.
                Some(Err(error)) => {
                    tracing::error!(session = %self.info().session_id, error = %crate::cause::chain(&error), "facts are left out");
                    Vec::new()
                }
            },
            Kind::Report => self.report(payload, now),
            Kind::Exit => {
                let status = match record.exit() {
                    Some(Exit::Code(code)) => ExitStatus::Code(code),
                    Some(Exit::Signal(signal)) => ExitStatus::Signal(signal),
                    None => ExitStatus::Signal(9),
                };
                self.step(&Input::Exited(status), now)
            }
            // Nothing new, but that it was done.
            Kind::In => {
                if let Some((id, _)) = record.input() {
                    self.writes.done(id);
                }
                Vec::new()
            }
            Kind::Start => {
                // One that says nothing of itself is as good as any other: only its boot is asked for.
                if let Ok(Start { boot_id, .. }) = serde_json::from_slice(payload) {
                    self.boot_id = boot_id;
                }
                self.step(&Input::Begun, now)
            }
        })
    }

    /// Gives what was seen from outside to the core.
    fn see(&mut self, facts: &[Fact], now: u64) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for fact in facts {
            deeds.extend(match fact {
                Fact::Reached(at) => {
                    self.tick = None;
                    self.step(&Input::Deadline, *at)
                }
                Fact::Decided { request_id, .. } => {
                    self.deciding.remove(request_id);
                    self.step(&Input::Seen(fact), now)
                }
                _ => self.step(&Input::Seen(fact), now),
            });
        }
        deeds
    }

    /// Gives what the sandbox's last stage reported to the core.
    fn report(&mut self, payload: &[u8], now: u64) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for line in payload
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            match Report::parse(line) {
                Ok(report) => deeds.extend(self.step(&Input::Report(&report), now)),
                Err(error) => {
                    tracing::error!(session = %self.info().session_id, error = %crate::cause::chain(&error), "a report cannot be used");
                    deeds.push(Deed::Kill);
                }
            }
        }
        deeds
    }

    /// One step of the core: events go to the ledger and writes to their queue at once, deeds are left to the driver.
    fn step(&mut self, input: &Input<'_>, now: u64) -> Vec<Deed> {
        let mut actions = std::mem::take(&mut self.actions);
        self.core.step(input, now, &mut actions);
        self.obey(actions)
    }

    fn obey(&mut self, mut actions: Vec<Action>) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Record { at, event } => {
                    self.watch_life(&event);
                    self.ledger.record(at, event);
                }
                Action::Write { id, bytes } => {
                    self.writes.push(id.0, Target::Stdin, bytes);
                    deeds.push(Deed::Send);
                }
                Action::CloseStdin => deeds.push(Deed::CloseStdin),
                Action::Kill => deeds.push(Deed::Kill),
                Action::Start => deeds.push(Deed::Start),
                Action::Reply(reply) => self.replies.push(reply),
                // The house answers it from the log before it comes to the tape.
                Action::Messages { id, .. } => {
                    let fault = Fault::new(FaultCode::Internal, "messages are read from the log");
                    self.replies.push(Reply::refused(id, "get_messages", fault));
                }
                Action::Rest => self.rested = true,
            }
        }
        self.actions = actions;
        deeds
    }

    /// Remembers whether the session came to be, and why it ended.
    fn watch_life(&mut self, event: &Event) {
        match event {
            Event::SessionCreated(_) => self.outcome = Some(Ok(())),
            Event::AgentError(error) => self.last_error = Some(error.error.clone()),
            // It went on: whatever ends it later is another reason.
            Event::AgentIdle(_) | Event::Recovered(_) => self.last_error = None,
            Event::SessionClosed(closed) => {
                let why = self
                    .last_error
                    .take()
                    .or_else(|| closed.reason.clone())
                    .unwrap_or_default();
                if self.outcome.is_none() {
                    self.outcome = Some(Err(Fault::new(FaultCode::Policy, why.clone())));
                }
                // It ends once.
                let _ = self.reason.set(why);
            }
            _ => {}
        }
    }

    /// The shim is gone and its tape is read: what it does not tell, nobody knows, for its program died with it, and
    /// nobody is left to do anything to. `facts` are what is seen from outside.
    pub fn orphaned(&mut self, facts: &[Fact], now: u64) {
        self.catch_up();
        let _deeds = self.see(facts, now);
        self.tell(&Input::Exited(ExitStatus::Signal(9)), now);
    }

    /// As [`Mind::orphaned`], for a shim that was gone before a runner came, for this reason: nobody was there to start
    /// the harness again then, and nobody asked for it now.
    pub fn left(&mut self, facts: &[Fact], why: &str, now: u64) {
        if !self.is_down() {
            self.catch_up();
            let _deeds = self.see(facts, now);
        }
        self.tell(&Input::Left(why), now);
    }

    /// The tape cannot be read any further.
    pub fn lost(&mut self, why: &str, now: u64) {
        self.catch_up();
        self.tell(&Input::Lost(why), now);
    }

    /// The harness that was to be started again was not.
    pub fn not_started(&mut self, why: &NotStarted, now: u64) {
        self.tell(&Input::NotStarted(why), now);
    }

    /// The runner is stopping: what runs is told so by way of the tape, what does not is told at once.
    pub fn runner_stops(&mut self, id: WriteId, now: u64) {
        if self.is_down() {
            self.tell(&Input::Seen(&Fact::RunnerStops), now);
        } else {
            self.note(id, Fact::note(&[Fact::RunnerStops]));
        }
    }

    /// Tells the core what is on no tape. Nothing of the harness runs then, so that nothing is left to do to it.
    fn tell(&mut self, input: &Input<'_>, now: u64) {
        let _deeds = self.step(input, now);
        self.mark_rest();
        self.refuse_queued();
    }

    /// Tells the core a command of a session of which nothing runs. What it leads to is kept in one commit with what it
    /// makes of the session.
    pub(super) fn tell_command(&mut self, envelope: &CommandEnvelope, now: u64) {
        self.tell(&Input::Command(envelope), now);
    }

    /// The tape says no more, and the log may know more than it.
    fn catch_up(&mut self) {
        let seq = self.ledger.catch_up();
        self.core.catch_up(seq, self.next_idx);
    }

    /// When [`Mind::expire`] or [`Mind::next_write`] is to be called, once the tape is read to its end.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        let is_told = self.tick.is_some() && !self.is_down();
        let deadline = self.core.poll_timeout().filter(|_| !is_told);
        deadline.into_iter().chain(self.retry_at).min()
    }

    /// The clock is at `now`. When something is overdue, that goes onto the tape and happens when it is read back, for
    /// the same reason as a command: what is read again must not depend on when the clock was looked at. Without a tape
    /// it happens at once.
    pub fn expire(&mut self, now: u64) -> Vec<Deed> {
        if self.core.poll_timeout().is_none_or(|at| at > now) {
            return Vec::new();
        }
        if self.is_down() {
            let deeds = self.step(&Input::Deadline, now);
            self.mark_rest();
            return deeds;
        }
        if self.tick.is_none() {
            let tick = tick_id(now, self.reading.at());
            self.tick = Some(tick);
            self.note(tick, Fact::note(&[Fact::Reached(now)]));
        }
        Vec::new()
    }

    /// What a rule or the clock has decided and is to be recorded before anything comes of it; each once. None while
    /// something further on the tape may say that it was.
    pub fn next_decision(&mut self) -> Option<Decision> {
        if self.reading.replays() {
            return None;
        }
        let mut waiting = self.core.decisions().iter();
        let next = waiting.find(|decision| !self.deciding.contains(&decision.request_id))?;
        self.deciding.insert(next.request_id.clone());
        Some(next.clone())
    }

    /// A decision is recorded, or cannot be: it goes onto the tape, and is obeyed when it is read back.
    pub fn decided(&mut self, request_id: String, is_recorded: bool) {
        let id = decision_id(&request_id);
        let fact = Fact::Decided {
            request_id,
            is_recorded,
        };
        self.note(id, Fact::note(&[fact]));
    }

    /// The next write that is to be sent, which then counts as sent; none while something further on the tape may say
    /// that it was done.
    pub fn next_write(&mut self, now: u64) -> Option<&Write> {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.writes.retry();
        }
        if self.reading.replays() {
            return None;
        }
        self.writes.next()
    }

    /// Whether the shim was sent something that it has not answered.
    #[must_use]
    pub(super) fn awaits_answer(&self) -> bool {
        self.writes.awaits_answer()
    }

    /// Whether so much waits for the log that it is to be appended before more is read.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ledger.len() >= BATCH_LEN
    }

    /// What was said since the last time.
    ///
    /// # Errors
    /// When what waits cannot be a batch.
    pub fn take(&mut self) -> Result<Said<W>, BadBatch> {
        let batch = match self.ledger.waits_up_to() {
            Some(last_seq) => {
                let mark = self.reading.take_mark(last_seq);
                self.ledger.take(mark).transpose()?
            }
            None => None,
        };
        let mut answers = Vec::new();
        for reply in self.replies.drain(..) {
            let waiters = self.waiting.remove(&reply.id).unwrap_or_default();
            answers.extend(waiters.into_iter().map(|waiter| (waiter, reply.clone())));
        }
        let outcome = self.outcome.take();
        Ok(Said {
            batch,
            answers,
            outcome,
        })
    }

    /// Whether the session should be looked at from outside: it has worked, and rests now. Says so once.
    pub fn wants_look(&mut self) -> bool {
        let calmed = std::mem::take(&mut self.calmed);
        let now = calmed && self.worked && !self.reading.has_more() && !self.reading.replays();
        self.worked &= !now;
        now
    }
}

/// Names what was decided of a request: once for ever, since no two requests of a session have the same name.
pub(super) fn decision_id(request_id: &str) -> WriteId {
    let digest = Sha256::new()
        .chain_update("decided")
        .chain_update(request_id)
        .finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

/// Names the note that something was overdue at `now`, made when the tape was read so far.
fn tick_id(now: u64, tape: u64) -> WriteId {
    let digest = Sha256::new()
        .chain_update("reached")
        .chain_update(now.to_le_bytes())
        .chain_update(tape.to_le_bytes())
        .finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}
