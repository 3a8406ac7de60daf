//! The task that drives one session: it reads the tape, lets the core decide, keeps what was decided, and does it.
//!
//! Everything that the core learns comes from the tape, commands included: a command is noted there first and seen
//! when it is read back. So after this process died, reading the same tape again gives the same events under the
//! same numbers, and the shim drops the writes that it has done.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use oqto_protocol::codec::DecodeError;
use oqto_protocol::command::Command;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::reply::Reply;
use oqto_protocol::secret::Secret;
use oqto_protocol::session::{SessionInfo, SessionState};
use tokio::sync::{mpsc, oneshot, watch};

use super::begin::{Body, Lives};
use super::facts::Facts;
use super::farewell::Tape;
use super::fleet::Supervisor;
use super::handle::Ask;
use super::mind::{Deed, Mind};
use super::patience::Patience;
use super::record::SessionRecord;
use super::revive::missing_variables;
use crate::clock;
use crate::event_log::{AppendError, BadBatch, SessionLog};
use crate::session::Fact;
use crate::shim::tape::ReadError;
use crate::shim::{Client, Hold, Notice, Refusal, TapeReader, WriteId};

/// How many commands to start again may have brought variables that were not used yet: all but one of them are refused.
const RESTART_ENVS_MAX: usize = 4;

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
    Note(#[source] DecodeError),
}

/// One session, while it lives. What is decided, its mind decides.
pub(super) struct Driver {
    pub(super) mind: Mind<oneshot::Sender<Reply>>,
    pub(super) log: Arc<SessionLog>,
    /// Who has the harness started again.
    pub(super) house: Weak<Supervisor>,
    pub(super) record: SessionRecord,
    /// The session's directory.
    pub(super) dir: PathBuf,
    /// The values of its variables, where they are known: they may be secrets, and stand nowhere else.
    pub(super) env: Option<BTreeMap<String, Secret>>,
    /// What commands to start again brought of them, for when one is carried out; at most [`RESTART_ENVS_MAX`].
    pub(super) restart_envs: Vec<(CommandId, BTreeMap<String, Secret>)>,
    /// The shim; `None` when it is gone already and only its tape is left, or nothing of the session runs.
    pub(super) shim: Option<Client>,
    /// The tape; `None` when nothing of the session runs.
    pub(super) tape: Option<TapeReader>,
    pub(super) asks: mpsc::Receiver<Ask>,
    /// Told once: whether the session came to be.
    pub(super) born: Option<oneshot::Sender<Result<(), Fault>>>,
    pub(super) info: watch::Sender<SessionInfo>,
    pub(super) ended: watch::Sender<bool>,
    /// The shim's directory, which goes when the harness has ended.
    pub(super) shim_dir: watch::Sender<Option<PathBuf>>,
    /// By which the shim is ended when it does not listen.
    pub(super) hold: Option<Hold>,
    /// How much longer the shim is waited for.
    pub(super) patience: Patience,
    /// What is seen of the session from outside.
    pub(super) facts: Facts,
    /// The last event that the log accepted, which is not to say that it is committed; 0 for none since the start.
    pub(super) appended: u64,
    /// A mark that is being kept by itself: where on which start's tape it is, and who says that it is committed.
    pub(super) lone_mark: Option<(u64, u64, oneshot::Receiver<()>)>,
    /// Nothing of the session ran when this runner came.
    pub(super) was_gone: bool,
    /// The harness is to be started again.
    pub(super) start_due: bool,
    /// The runner is stopping: a session that is dormant is left to the next one.
    pub(super) leaving: bool,
    pub(super) lives: Lives,
}

/// How the driving of a session ended.
enum Over {
    /// The session has ended.
    Closed,
    /// Nothing of it runs, and it is unloaded or the runner is stopping.
    Dormant,
}

impl Driver {
    /// Drives the session to its end, or for as long as there is a runner.
    pub(super) async fn run(mut self) {
        loop {
            match self.drive().await {
                Ok(Over::Closed) => return self.end(Tape::Told).await,
                Ok(Over::Dormant) => return,
                Err(DriveError::Append(AppendError::Closed(_))) => {
                    // The runner is stopping before its sessions are: shim and tape wait for the next one.
                    tracing::warn!(session = self.log.id(), "left to the next runner");
                    return;
                }
                Err(DriveError::Append(AppendError::Deleted)) => {
                    // It is being forgotten while its events cannot be kept.
                    if let Some(shim) = &mut self.shim {
                        shim.kill().await;
                    }
                    return self.end(Tape::Told).await;
                }
                Err(error) => {
                    self.lose(&error).await;
                    if !self.mind.is_down() {
                        return self.end(Tape::SetAside).await;
                    }
                    if self.part(Tape::SetAside).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// The session cannot be driven on: that is told, and nothing of it runs any more.
    async fn lose(&mut self, error: &DriveError) {
        let text = crate::cause::chain(error);
        tracing::error!(session = self.log.id(), error = %text, "session lost");
        if let Some(born) = self.born.take() {
            // Nobody may be waiting any more.
            let _ = born.send(Err(Fault::new(FaultCode::Internal, text.clone())));
        }
        self.mind.lost(&text, clock::unix_ms());
        if let Err(error) = self.flush().await {
            tracing::error!(session = self.log.id(), error = %crate::cause::chain(&error), "its end is not told");
        }
        if let Some(shim) = &mut self.shim {
            shim.kill().await;
        }
    }

    /// Takes up what there is of a start of the harness.
    pub(super) fn take_up(&mut self, body: Body, house: &Supervisor) {
        self.facts = house.facts(&self.record, body.shim_pid());
        let Body {
            shim,
            tape,
            dir,
            hold,
        } = body;
        self.shim = shim;
        self.tape = Some(tape);
        self.shim_dir.send_replace(Some(dir));
        self.hold = hold;
        self.patience.heard();
    }

    async fn drive(&mut self) -> Result<Over, DriveError> {
        loop {
            let more = self.read_tape().await?;
            let moved = self.record.keep_own_session(self.mind.own_session(), &self.dir);
            self.start_due &= self.mind.is_down();
            self.lives.is(!matches!(
                self.mind.state(),
                SessionState::Dormant | SessionState::Closed
            ));
            if moved {
                self.claim();
            }
            if self.mind.state() == SessionState::Closed {
                return Ok(Over::Closed);
            }
            if self.was_gone && !more {
                self.was_gone = false;
                self.find_gone().await?;
            } else if self.mind.is_down() {
                if let Some(over) = self.lie_down().await? {
                    return Ok(over);
                }
            } else if self.shim.is_none() && !more {
                let facts = self.facts.look().await;
                self.mind.orphaned(&facts, clock::unix_ms());
                self.flush().await?;
            } else {
                self.wait(more).await?;
            }
        }
    }

    /// Nothing of the session ran when this runner came. Where it was the end of the host's boot, nobody is to be
    /// surprised by what starts by itself; where its end is on the tape, it is as if this runner had been there.
    async fn find_gone(&mut self) -> Result<(), DriveError> {
        let now_boot = crate::sys::boot_id().unwrap_or_default();
        let why = if self.mind.boot_id() != now_boot && !self.mind.boot_id().is_empty() {
            "the host was started again"
        } else if self.mind.is_down() {
            return Ok(());
        } else {
            "its processes were gone when the runner came"
        };
        let facts = self.facts.look().await;
        self.mind.left(&facts, why, clock::unix_ms());
        self.flush().await
    }

    /// Parts with the harness that has ended, and has it started again when that is due; until then it waits. How it is
    /// over, if it is.
    async fn lie_down(&mut self) -> Result<Option<Over>, DriveError> {
        if self.tape.is_some() {
            self.part(Tape::Told).await?;
        }
        if self.leaving {
            self.mind.runner_stops([0; 16], clock::unix_ms());
            self.flush().await?;
            self.committed().await?;
            if let Err(error) = self.keep_unloaded() {
                tracing::warn!(session = self.log.id(), error = %crate::cause::chain(&error), "the next runner has to look");
            }
            return Ok(Some(Over::Dormant));
        }
        if self.start_due {
            self.start_again().await?;
        } else if self.may_unload() {
            return Ok(self.doze().await?.then_some(Over::Dormant));
        } else {
            self.wait(false).await?;
        }
        Ok(None)
    }

    /// Reads some of the tape; whether there is more.
    async fn read_tape(&mut self) -> Result<bool, DriveError> {
        self.mind.reading().begin_turn();
        while let Some(tape) = &mut self.tape
            && let Some(record) = tape.next(self.mind.reading().until())?
        {
            let deeds = self.mind.feed(&record).map_err(DriveError::Note)?;
            self.perform(deeds).await;
            if self.mind.is_full() {
                self.flush().await?;
            }
            if self.mind.reading().turn_is_over() {
                break;
            }
        }
        self.flush().await?;
        self.decide().await;
        self.keep_lone_mark().await?;
        self.tell_consumed().await;
        if self.mind.wants_look() {
            let facts = self.facts.look().await;
            self.note_facts(facts);
        }
        Ok(self.mind.reading().has_more())
    }

    /// Has facts put on the tape, from where they come back to be told.
    fn note_facts(&mut self, facts: Vec<Fact>) {
        for note in self.facts.news(facts) {
            self.mind.note(note.id, note.bytes);
        }
    }

    async fn tell_consumed(&mut self) {
        if let Some(shim) = &mut self.shim
            && let Some((read, needed)) = self.mind.reading().news(self.log.last_seq())
        {
            shim.consumed(read, needed).await;
        }
    }

    /// Waits for whatever is next: the shim, a command, a deadline.
    async fn wait(&mut self, more: bool) -> Result<(), DriveError> {
        self.send().await;
        let wake_at = self.mind.wake_at();
        let wait_ms = wake_at.map_or(u64::MAX, |at| at.saturating_sub(clock::unix_ms()));
        self.facts.watchdog.observe(self.mind.silent_since(), !more);
        let awaits_answer = self.mind.awaits_answer();
        let Some(shim) = &mut self.shim else {
            return self.wait_alone(wake_at, wait_ms).await;
        };
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
            () = self.patience.end(), if awaits_answer => self.end_hung().await,
            fact = self.facts.hear() => self.note_facts(vec![fact]),
            () = std::future::ready(()), if more => {}
            () = tokio::time::sleep(Duration::from_millis(wait_ms)), if wake_at.is_some() => {
                let deeds = self.mind.expire(clock::unix_ms());
                self.perform(deeds).await;
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// As [`Driver::wait`], where there is no shim: for a command or a deadline, unless there is a tape to be read.
    async fn wait_alone(&mut self, wake_at: Option<u64>, wait_ms: u64) -> Result<(), DriveError> {
        tokio::select! {
            biased;
            () = std::future::ready(()), if self.tape.is_some() => {}
            Some(ask) = self.asks.recv() => {
                self.ask(ask);
                self.flush().await?;
            }
            () = tokio::time::sleep(Duration::from_millis(wait_ms)), if wake_at.is_some() => {
                let deeds = self.mind.expire(clock::unix_ms());
                self.perform(deeds).await;
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Ends a shim that does not answer, and with it what it runs: that is told like any other death.
    async fn end_hung(&mut self) {
        let session = self.log.id();
        tracing::error!(session, "killing a shim that does not answer");
        let ended = match &self.hold {
            Some(hold) => hold.kill().await,
            None => Ok(false),
        };
        match ended {
            Ok(true) => {}
            Ok(false) => tracing::error!(session, "the shim does not die; it hangs in the kernel"),
            Err(error) => tracing::error!(session, %error, "the shim cannot be ended"),
        }
    }

    async fn notice(&mut self, notice: Notice) {
        self.patience.heard();
        match notice {
            Notice::Grown { len } => self.mind.reading().grown(len),
            Notice::Wrote { id } => self.mind.wrote(id),
            Notice::Refused { id, why } => self.refused(id, why).await,
            Notice::Trouble { text } => {
                tracing::error!(session = self.log.id(), %text, "the tape cannot grow; the harness waits");
            }
            Notice::Recovered => tracing::info!(session = self.log.id(), "the tape grows again"),
            // It stands on the tape, whose length came before it.
            Notice::Exited { .. } => {}
            Notice::Gone => {
                self.shim = None;
                if let Some(Ok(len)) = self.tape.as_ref().map(TapeReader::file_len) {
                    self.mind.reading().cut(len);
                }
            }
        }
    }

    /// Who sent a command that has no effect is told so rather than left waiting.
    async fn refused(&mut self, id: WriteId, why: Refusal) {
        let Some(unkept) = self.mind.refused(id, why, clock::unix_ms()) else {
            return;
        };
        self.facts.lost(unkept.id);
        if let (true, Some(shim)) = (unkept.kill, &mut self.shim) {
            shim.kill().await;
        }
        for (waiter, reply) in unkept.answers {
            // Who asked may be gone.
            let _ = waiter.send(reply);
        }
    }

    pub(super) fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::State(reply) => {
                // Who asked may be gone.
                let _ = reply.send(self.mind.status());
            }
            Ask::Command(mut envelope, waiter) => {
                if let Command::SessionRestart(restart) = &mut envelope.command {
                    // Before it stands anywhere.
                    let env = std::mem::take(&mut restart.env);
                    if let Err(fault) = self.may_restart(envelope.id, env) {
                        let _ = waiter.send(Reply::refused(envelope.id, envelope.command.name(), fault));
                        return;
                    }
                }
                let now = clock::unix_ms();
                if let Some((waiter, reply)) = self.mind.ask(&envelope, waiter, now) {
                    let _ = waiter.send(reply);
                }
            }
            Ask::Stop(id) => {
                self.leaving = true;
                self.mind.runner_stops(id, clock::unix_ms());
            }
        }
    }

    /// Whether the session may be started again now, with these variables; none are those that it has. What lives is
    /// not ended for a start that cannot be.
    fn may_restart(&mut self, id: CommandId, env: BTreeMap<String, Secret>) -> Result<(), Fault> {
        if self.mind.own_session().is_some() {
            let brought = Some(&env).filter(|env| !env.is_empty());
            missing_variables(&self.record, brought.or(self.env.as_ref()))
                .map_err(|error| Fault::new(FaultCode::Invalid, error.to_string()))?;
        }
        let house = self.house.upgrade();
        let house = house.ok_or_else(|| Fault::new(FaultCode::Closing, "the runner is stopping"))?;
        if self.mind.is_down() {
            if !self.lives.enter(house.sessions_max()) {
                return Err(house.full());
            }
            if let Some(claim) = self.own_claim() {
                let taken = self.lives.take(claim);
                taken.map_err(|held| house.held(&held, Some(&self.record.workspace)))?;
            }
        }
        if !env.is_empty() {
            if self.restart_envs.len() == RESTART_ENVS_MAX {
                self.restart_envs.remove(0);
            }
            self.restart_envs.push((id, env));
        }
        Ok(())
    }

    /// Sends the writes whose turn it is.
    async fn send(&mut self) {
        let Some(shim) = &mut self.shim else { return };
        while let Some(write) = self.mind.next_write(clock::unix_ms()) {
            let is_taken = tokio::select! {
                biased;
                () = shim.write(write.id, write.to, &write.bytes) => true,
                () = self.patience.end() => false,
            };
            if !is_taken {
                return self.end_hung().await;
            }
        }
    }

    async fn perform(&mut self, deeds: Vec<Deed>) {
        for deed in deeds {
            match (deed, &mut self.shim) {
                (Deed::Send, _) => self.send().await,
                (Deed::CloseStdin, Some(shim)) => shim.close_stdin().await,
                (Deed::Kill, Some(shim)) => shim.kill().await,
                (Deed::Start, _) => self.start_due = true,
                (Deed::CloseStdin | Deed::Kill, None) => {}
            }
        }
    }
}
