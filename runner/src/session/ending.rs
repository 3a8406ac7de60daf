//! How a session ends, or its harness alone: when told, when the harness dies, when its sandbox cannot be made.

use oqto_protocol::event::{AgentError, DoneReason, Event, ResolvedBy, SessionClosed, StreamDone};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::message::StopReason;
use oqto_protocol::reply::Reply;

use super::action::Action;
use super::bounds::{KILLS_MAX, STDERR_LEN_MAX, STOP_MS};
use super::input::ExitStatus;
use super::machine::Session;
use super::stage::{Stage, Stopping, Why};
use crate::harness::excerpt;

impl Session {
    /// Ends the session in good order: the harness's input is closed, and it has a moment to go.
    pub(super) fn stop(&mut self, out: &mut Vec<Action>) {
        let closing = Fault::new(FaultCode::Closing, "the session is being closed");
        self.stop_for(Why::Asked, &closing, out);
    }

    /// Closes a session that was being ended for another reason.
    pub(super) fn closes_after_all(&mut self, out: &mut Vec<Action>) {
        let Stage::Stopping(stopping) = &mut self.stage else {
            return;
        };
        match stopping.why {
            Why::Restart(id) => {
                stopping.why = Why::Asked;
                let closing = Fault::new(FaultCode::Closing, "the session is being closed");
                self.reply(Reply::refused(id, "session.restart", closing), out);
            }
            Why::RunnerStops => stopping.why = Why::Asked,
            Why::Broken(_) | Why::Unconfined(_) if self.known.own_session.is_some() => {
                stopping.why = Why::Asked;
            }
            Why::Asked | Why::Broken(_) | Why::Unconfined(_) => {}
        }
    }

    /// The harness cannot be listened to any longer.
    pub(super) fn broken(&mut self, what: &str, out: &mut Vec<Action>) {
        let error = format!("{}: {what}", self.setup.harness);
        self.fails(error.clone(), out);
        self.refuse_waiting(&Fault::new(FaultCode::Harness, error.clone()), out);
        out.push(Action::Kill);
        self.stage = Stage::Stopping(Stopping {
            why: Why::Broken(error),
            kill_at: self.now + STOP_MS,
            kills: 1,
        });
    }

    /// A layer of the sandbox could not be made: nothing was started, and nothing will be.
    pub(super) fn unconfined(&mut self, layer: &str, error: &str, out: &mut Vec<Action>) {
        if matches!(self.stage, Stage::Down(_) | Stage::Closed) {
            return;
        }
        if self.sandbox.is_some() {
            // The sandbox stands, and only what was to run in it is missing.
            self.broken(&format!("it cannot be started: {error}"), out);
            return;
        }
        let error = format!("the sandbox's layer {layer} cannot be made: {error}");
        self.fails(error.clone(), out);
        let fault = Fault::new(FaultCode::Policy, error.clone());
        if self.again.is_some() {
            self.refuse_restart(fault.clone(), out);
            self.refuse_waiting(&fault, out);
            out.push(Action::Kill);
            self.stage = Stage::Stopping(Stopping {
                why: Why::Unconfined(error),
                kill_at: self.now + STOP_MS,
                kills: 1,
            });
            return;
        }
        self.refuse_create(fault.clone(), out);
        self.refuse_waiting(&fault, out);
        out.push(Action::Kill);
        self.close(error, out);
    }

    /// The harness's process has ended.
    pub(super) fn exited(&mut self, status: ExitStatus, out: &mut Vec<Action>) {
        let harness = self.setup.harness.clone();
        if self.sandbox.is_some() && !matches!(self.stage, Stage::Closed) {
            self.ended_by(status.signal(), out);
        }
        match &self.stage {
            Stage::Down(_) | Stage::Closed => {}
            Stage::Stopping(Stopping {
                why: Why::Asked,
                kills,
                ..
            }) => {
                let killed = if *kills > 0 {
                    ", killed since it did not go"
                } else {
                    ""
                };
                let reason = format!("closed on request; {harness} {status}{killed}");
                self.interrupted(StopReason::Aborted, DoneReason::Aborted, out);
                self.close(reason, out);
            }
            Stage::Stopping(Stopping {
                why: Why::Broken(reason),
                ..
            }) => {
                let reason = reason.clone();
                if self.can_return() {
                    return self.fell(&reason, out);
                }
                self.interrupted(StopReason::Error, DoneReason::Error, out);
                self.close(reason, out);
            }
            Stage::Stopping(Stopping {
                why: Why::Unconfined(reason),
                ..
            }) => {
                let reason = reason.clone();
                self.lies_down(StopReason::Error, DoneReason::Error, &reason, out);
            }
            Stage::Stopping(Stopping {
                why: Why::Restart(id),
                ..
            }) => self.restarting(*id, out),
            Stage::Stopping(Stopping {
                why: Why::RunnerStops,
                ..
            }) => self.lies_down(
                StopReason::Aborted,
                DoneReason::Aborted,
                "the runner was stopped",
                out,
            ),
            Stage::Starting(_)
            | Stage::Idle
            | Stage::Streaming(_)
            | Stage::Compacting
            | Stage::Aborting(_) => {
                let reason = self.died(status);
                let fault = Fault::new(FaultCode::Harness, reason.clone());
                self.cut_message(StopReason::Error, out);
                self.fails(reason.clone(), out);
                self.refuse_waiting(&fault, out);
                if self.can_return() {
                    return self.fell(&reason, out);
                }
                self.interrupted(StopReason::Error, DoneReason::Error, out);
                self.refuse_create(fault, out);
                self.close(reason, out);
            }
        }
    }

    /// What the harness did, and does, will never be known.
    pub(super) fn lost(&mut self, why: &str, out: &mut Vec<Action>) {
        if matches!(self.stage, Stage::Closed) {
            return;
        }
        self.cut_message(StopReason::Error, out);
        self.fails(why.to_owned(), out);
        if self.can_return() {
            return self.lies_down(StopReason::Error, DoneReason::Error, why, out);
        }
        self.interrupted(StopReason::Error, DoneReason::Error, out);
        self.close(why.to_owned(), out);
    }

    /// It is time to kill what does not go; or that was done often enough, and the session is over it or lies down.
    pub(super) fn overstayed(&mut self, out: &mut Vec<Action>) {
        let Stage::Stopping(stopping) = &mut self.stage else {
            return;
        };
        if stopping.kills < KILLS_MAX {
            stopping.kills += 1;
            stopping.kill_at = self.now + STOP_MS;
            out.push(Action::Kill);
            return;
        }
        let why = stopping.why.clone();
        let reason = format!("{} did not end when it was killed", self.setup.harness);
        if why != Why::Asked && self.can_return() {
            // It hangs in the kernel and does nothing there, to its own session neither.
            self.failed(reason.clone(), out);
            if let Why::Restart(id) = why {
                let fault = Fault::new(FaultCode::Harness, reason.clone());
                self.reply(Reply::refused(id, "session.restart", fault), out);
            }
            return self.lies_down(StopReason::Error, DoneReason::Error, &reason, out);
        }
        self.interrupted(StopReason::Error, DoneReason::Error, out);
        self.close(reason, out);
    }

    /// Why a harness that nobody told to end has ended.
    fn died(&self, status: ExitStatus) -> String {
        let mut reason = format!("{} {status}", self.setup.harness);
        if self.sandbox.is_none() {
            reason.push_str(" before its sandbox was reported");
        }
        let said = excerpt(self.stderr.trim_ascii(), STDERR_LEN_MAX);
        if !said.is_empty() {
            reason.push_str(": ");
            reason.push_str(&said);
        }
        reason
    }

    /// An error that ends the harness.
    fn fails(&mut self, error: String, out: &mut Vec<Action>) {
        let (phase, recoverable) = (self.working, self.can_return());
        self.record(
            Event::AgentError(AgentError {
                error,
                recoverable,
                phase,
            }),
            out,
        );
    }

    /// Ends what the harness left open.
    pub(super) fn interrupted(&mut self, message: StopReason, run: DoneReason, out: &mut Vec<Action>) {
        self.cut_message(message, out);
        self.resolve_all(ResolvedBy::Agent, out);
        if self.working.take().is_some() {
            self.record(Event::StreamDone(StreamDone { reason: run }), out);
        }
    }

    pub(super) fn close(&mut self, reason: String, out: &mut Vec<Action>) {
        let fault = Fault::new(FaultCode::Harness, reason.clone());
        self.refuse_create(fault.clone(), out);
        self.refuse_restart(fault.clone(), out);
        self.refuse_waiting(&fault, out);
        let reason = Some(reason);
        self.record(Event::SessionClosed(SessionClosed { reason }), out);
        self.stage = Stage::Closed;
    }
}
