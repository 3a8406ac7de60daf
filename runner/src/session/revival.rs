//! How a session comes back whose harness is gone: started again with the harness's own session, later and later, and
//! not for ever; or dormant, until somebody says so.
//!
//! Nothing that the harness was told is told again: a command has its effect once.

use oqto_protocol::event::{
    AgentError, AgentIdle, AgentWorking, DoneReason, Event, Phase, Recovered, SessionDormant,
};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::message::StopReason;
use oqto_protocol::reply::{Accepted, Reply, ReplyData};
use oqto_protocol::session::Capability;

use super::action::Action;
use super::bounds::{RESTART_MS, RESTARTS_MAX, RESTARTS_MS, START_MS, STOP_MS};
use super::input::{ExitStatus, NotStarted};
use super::machine::Session;
use super::stage::{Again, Down, Stage, Starting, Stopping, Why};
use crate::harness::{Dialect, Lines};

/// The name of the command that starts a harness again.
const RESTART: &str = "session.restart";

/// With what a harness is started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Its own session.
    pub own_session: Option<String>,
    /// Whose model it used.
    pub provider: Option<String>,
    /// The model that it used.
    pub model: Option<String>,
    /// The command that asked for it; none where it comes back by itself.
    pub asked_by: Option<CommandId>,
}

impl Session {
    /// With what its harness is started again.
    #[must_use]
    pub fn continuation(&self) -> Continuation {
        Continuation {
            own_session: self.known.own_session.clone(),
            provider: self
                .known
                .provider
                .clone()
                .or_else(|| self.setup.provider.clone()),
            model: self.known.model.clone().or_else(|| self.setup.model.clone()),
            asked_by: match &self.stage {
                Stage::Down(down) => down.again.command,
                _ => None,
            },
        }
    }

    /// By which session of its own its harness could go on; `None` when it cannot, or the session has ended.
    #[must_use]
    pub fn own_session(&self) -> Option<&str> {
        let ended = matches!(self.stage, Stage::Closed);
        self.known
            .own_session
            .as_deref()
            .filter(|_| !ended && self.can_return())
    }

    /// Its harness said once by which session of its own it would go on.
    pub fn remember(&mut self, own_session: Option<String>) {
        self.known.own_session = own_session;
    }

    /// Whether nothing of it runs and it may be started again.
    #[must_use]
    pub fn is_down(&self) -> bool {
        matches!(self.stage, Stage::Down(_))
    }

    /// Whether its harness, gone, could go on where it was.
    pub(super) fn can_return(&self) -> bool {
        self.known.own_session.is_some() && self.can(Capability::Resume)
    }

    /// A harness that was down was started: its tape begins.
    pub(super) fn begun(&mut self) {
        if let Stage::Down(down) = &mut self.stage {
            self.again = Some(std::mem::take(&mut down.again));
            self.stage = Stage::Starting(Starting::until(self.now + START_MS));
        }
    }

    /// A harness that was started again takes commands.
    pub(super) fn returned(&mut self, out: &mut Vec<Action>) {
        let Some(Again { how, lost, command }) = self.again.take() else {
            return;
        };
        let cursor = self.cursor;
        let sandbox = self.sandbox.clone();
        self.record(Event::Recovered(Recovered { how, lost, sandbox }), out);
        // One that says itself what it is has said so already.
        if !self.setup.harness.says_capabilities() {
            self.is_of_version(self.setup.edition.version.clone(), out);
        }
        self.record(Event::AgentIdle(AgentIdle {}), out);
        if let Some(id) = command {
            let data = ReplyData::Accepted(Accepted { cursor });
            self.reply(Reply::done(id, RESTART, Some(data)), out);
        }
    }

    /// The harness has died, which was told: it is started again, unless it did so too often.
    pub(super) fn fell(&mut self, reason: &str, out: &mut Vec<Action>) {
        let again = self.fall(StopReason::Error, DoneReason::Error, out);
        let now = self.now;
        self.falls.retain(|at| now.saturating_sub(*at) < RESTARTS_MS);
        self.falls.push(now);
        match RESTART_MS.get(self.falls.len() - 1) {
            Some(wait_ms) => {
                let how = format!("{} was started again with its own session", self.setup.harness);
                self.rise_at(now + wait_ms, reason, Again { how, ..again }, out);
            }
            None => {
                let minutes = RESTARTS_MS / 60_000;
                let why =
                    format!("{reason}; it was started again {RESTARTS_MAX} times within {minutes} minutes");
                self.sleep(&why, again, out);
            }
        }
    }

    /// The harness has ended since it is to be started again.
    pub(super) fn restarting(&mut self, id: CommandId, out: &mut Vec<Action>) {
        let again = self.fall(StopReason::Aborted, DoneReason::Aborted, out);
        let how = format!("{} was started again on request", self.setup.harness);
        let command = Some(id);
        self.rise_at(
            self.now,
            "it is being started again",
            Again {
                how,
                command,
                ..again
            },
            out,
        );
    }

    /// The harness has ended, or never began, and stays so until somebody says otherwise.
    pub(super) fn lies_down(&mut self, stop: StopReason, done: DoneReason, why: &str, out: &mut Vec<Action>) {
        let again = self.fall(stop, done, out);
        self.sleep(why, again, out);
    }

    /// The processes were gone when a runner came.
    pub(super) fn left(&mut self, why: &str, out: &mut Vec<Action>) {
        match &self.stage {
            Stage::Down(Down {
                start_at: Some(_), ..
            }) => self.lies_down(StopReason::Error, DoneReason::Error, why, out),
            Stage::Down(_) | Stage::Closed => {}
            Stage::Stopping(Stopping { why: Why::Asked, .. }) => self.exited(ExitStatus::Signal(9), out),
            Stage::Starting(_)
            | Stage::Idle
            | Stage::Streaming(_)
            | Stage::Compacting
            | Stage::Aborting(_)
            | Stage::Stopping(_) => {
                if self.can_return() {
                    self.cut_message(StopReason::Error, out);
                    self.failed(why.to_owned(), out);
                    self.lies_down(StopReason::Error, DoneReason::Error, why, out);
                } else {
                    self.exited(ExitStatus::Signal(9), out);
                }
            }
        }
    }

    /// The harness that was to be started again was not.
    pub(super) fn not_started(&mut self, why: &NotStarted, out: &mut Vec<Action>) {
        let Stage::Down(Down {
            start_at: Some(_), ..
        }) = &self.stage
        else {
            return;
        };
        match why {
            NotStarted::Failed(why) => {
                self.failed(why.clone(), out);
                self.fell(why, out);
            }
            NotStarted::Refused(fault) => {
                self.failed(fault.message.clone(), out);
                self.refuse_restart(fault.clone(), out);
                self.lies_down(StopReason::Error, DoneReason::Error, &fault.message, out);
            }
        }
    }

    /// The runner is stopping: a session that can return lies down for it, any other ends.
    pub(super) fn runner_stops(&mut self, out: &mut Vec<Action>) {
        const WHY: &str = "the runner is stopping";
        let closing = Fault::new(FaultCode::Closing, WHY);
        match &mut self.stage {
            Stage::Down(Down {
                start_at: Some(_), ..
            }) => {
                self.refuse_restart(closing, out);
                self.lies_down(StopReason::Aborted, DoneReason::Aborted, WHY, out);
            }
            Stage::Stopping(stopping) => {
                if let Why::Restart(id) = stopping.why {
                    stopping.why = Why::RunnerStops;
                    self.reply(Reply::refused(id, RESTART, closing), out);
                }
            }
            Stage::Down(_) | Stage::Closed => {}
            Stage::Starting(_)
            | Stage::Idle
            | Stage::Streaming(_)
            | Stage::Compacting
            | Stage::Aborting(_) => {
                let why = if self.can_return() {
                    Why::RunnerStops
                } else {
                    Why::Asked
                };
                self.stop_for(why, &closing, out);
            }
        }
    }

    /// Somebody asked for the harness to be started again.
    pub(super) fn restart_asked(&mut self, id: CommandId, out: &mut Vec<Action>) {
        let harness = self.setup.harness.clone();
        let resumes = self.can(Capability::Resume);
        let refused = match &mut self.stage {
            Stage::Down(down) if down.again.command.is_some() => {
                Fault::new(FaultCode::Busy, "the session is being started again already")
            }
            Stage::Down(down) => {
                down.again.command = Some(id);
                self.falls.clear();
                if down.start_at.is_none() {
                    down.start_at = Some(self.now);
                    down.again.how = format!("{harness} was started again on request");
                    self.tell_rising(out);
                }
                return;
            }
            Stage::Stopping(_) | Stage::Closed => {
                let message = format!("no {RESTART} while the session is {}", self.stage.state());
                Fault::new(FaultCode::WrongState, message)
            }
            _ if !resumes => {
                let message = format!("{harness} does not have the capability {}", Capability::Resume);
                Fault::new(FaultCode::Unsupported, message)
            }
            _ if self.known.own_session.is_none() => {
                let message =
                    format!("{harness} has not said yet by which session of its own it would go on");
                Fault::new(FaultCode::WrongState, message)
            }
            Stage::Starting(_)
            | Stage::Idle
            | Stage::Streaming(_)
            | Stage::Compacting
            | Stage::Aborting(_) => {
                self.falls.clear();
                let closing = Fault::new(FaultCode::Closing, "the session's harness is being started again");
                return self.stop_for(Why::Restart(id), &closing, out);
            }
        };
        self.reply(Reply::refused(id, RESTART, refused), out);
    }

    /// Whether a command to start again waits until that is done.
    pub(super) fn waits_for_return(&self, id: CommandId) -> bool {
        let again = match &self.stage {
            Stage::Stopping(stopping) if stopping.why == Why::Restart(id) => return true,
            Stage::Down(down) => Some(&down.again),
            _ => self.again.as_ref(),
        };
        again.is_some_and(|again| again.command == Some(id))
    }

    /// Refuses whoever asked for a start that comes to nothing.
    pub(super) fn refuse_restart(&mut self, fault: Fault, out: &mut Vec<Action>) {
        let again = match &mut self.stage {
            Stage::Down(down) => Some(&mut down.again),
            _ => self.again.as_mut(),
        };
        if let Some(id) = again.and_then(|again| again.command.take()) {
            self.reply(Reply::refused(id, RESTART, fault), out);
        }
    }

    /// Ends the harness in good order, for this reason.
    pub(super) fn stop_for(&mut self, why: Why, waiting: &Fault, out: &mut Vec<Action>) {
        out.push(Action::CloseStdin);
        self.refuse_waiting(waiting, out);
        self.refuse_restart(waiting.clone(), out);
        self.stage = Stage::Stopping(Stopping {
            why,
            kill_at: self.now + STOP_MS,
            kills: 0,
        });
    }

    /// An error that the session survives.
    pub(super) fn failed(&mut self, error: String, out: &mut Vec<Action>) {
        let (phase, recoverable) = (self.working, true);
        self.record(
            Event::AgentError(AgentError {
                error,
                recoverable,
                phase,
            }),
            out,
        );
    }

    /// Ends all that the harness left open, and forgets what only it knew. What is to be told when it runs again.
    fn fall(&mut self, message: StopReason, run: DoneReason, out: &mut Vec<Action>) -> Again {
        let was_working = match &self.stage {
            Stage::Streaming(_) | Stage::Compacting | Stage::Aborting(_) => true,
            _ => self.working.is_some(),
        };
        let before = match &mut self.stage {
            Stage::Down(down) => Some(std::mem::take(&mut down.again)),
            _ => self.again.take(),
        };
        let mut again = before.unwrap_or_default();
        if was_working {
            again.lost = Some(format!(
                "what {} had not finished of the turn that was under way; nothing of it is told again",
                self.setup.harness
            ));
        }
        self.interrupted(message, run, out);
        let gone = format!("{} ended before it was done with this", self.setup.harness);
        self.refuse_waiting(&Fault::new(FaultCode::Harness, gone), out);
        self.transcript.unspeak();
        self.dialect = Dialect::new(self.setup.harness.tongue());
        self.lines = Lines::default();
        self.sandbox = None;
        self.stderr.clear();
        again
    }

    /// Has the harness started again at a time.
    fn rise_at(&mut self, at: u64, why: &str, again: Again, out: &mut Vec<Action>) {
        self.stage = Stage::Down(Down {
            start_at: Some(at),
            told: false,
            why: why.to_owned(),
            again,
        });
        self.tell_rising(out);
    }

    /// Says that the harness is about to be started. What a runner's successor must know of it is kept with this.
    fn tell_rising(&mut self, out: &mut Vec<Action>) {
        let phase = Phase::Initializing;
        self.record(Event::AgentWorking(AgentWorking { phase, detail: None }), out);
    }

    /// Nothing of it runs until somebody says so.
    fn sleep(&mut self, why: &str, again: Again, out: &mut Vec<Action>) {
        let reason = why.to_owned();
        self.record(
            Event::SessionDormant(SessionDormant {
                reason: reason.clone(),
            }),
            out,
        );
        if let Some(id) = again.command {
            self.reply(
                Reply::refused(id, RESTART, Fault::new(FaultCode::Harness, reason.clone())),
                out,
            );
        }
        self.stage = Stage::Down(Down {
            start_at: None,
            told: false,
            why: reason,
            again: Again {
                command: None,
                ..again
            },
        });
    }
}
