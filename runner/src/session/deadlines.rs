//! What happens when something does not happen.

use oqto_protocol::event::{AgentError, Event};
use oqto_protocol::fault::{Fault, FaultCode};

use super::action::Action;
use super::bounds::{ABORT_MS, ANSWER_MS, START_MS};
use super::machine::Session;
use super::replies::Kind;
use super::stage::{Begun, Run, Stage};

impl Session {
    /// The next time at which something is overdue.
    pub(super) fn deadline(&self) -> Option<u64> {
        if matches!(self.stage, Stage::Closed) {
            return None;
        }
        let asked = self.asked.iter().filter_map(|asked| asked.until).min();
        [
            self.stage.deadline(),
            self.replies.deadline(),
            asked,
            self.dialect.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Expires every deadline up to `until`, each at its own time.
    pub(super) fn expire_until(&mut self, until: u64, out: &mut Vec<Action>) {
        while let Some(at) = self.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.expire(at, out);
        }
    }

    /// Expires what is due at `at`. Each branch takes its deadline away or moves it on.
    fn expire(&mut self, at: u64, out: &mut Vec<Action>) {
        if self.dialect.deadline().is_some_and(|due| due <= at) {
            let mut fragments = std::mem::take(&mut self.fragments);
            self.dialect.expire(&mut fragments);
            for fragment in fragments.drain(..) {
                self.apply(fragment, out);
            }
            self.fragments = fragments;
        }
        while let Some(n) = self
            .asked
            .iter()
            .position(|asked| asked.until.is_some_and(|due| due <= at))
        {
            self.asked_too_long(n, out);
        }
        self.expire_answers(at, out);
        if self.stage.deadline().is_some_and(|due| due <= at) {
            self.expire_stage(out);
        }
    }

    fn expire_answers(&mut self, at: u64, out: &mut Vec<Action>) {
        let harness = self.setup.harness.clone();
        while let Some(n) = self
            .replies
            .pending
            .iter()
            .position(|pending| pending.until <= at)
        {
            // An agent that asks waits for an answer itself.
            if !self.asked.is_empty() {
                self.replies.pending[n].until = at + ANSWER_MS;
                continue;
            }
            let pending = self.replies.pending.remove(n);
            let (id, kind) = (pending.id, pending.kind);
            self.dialect.forget(id);
            let message = format!(
                "{harness} did not answer {} within {} s",
                pending.cmd,
                ANSWER_MS / 1000
            );
            self.refuse_pending(&pending, Fault::new(FaultCode::Timeout, message), out);
            match &self.stage {
                Stage::Streaming(Run {
                    begun: Begun::No { prompt, .. },
                }) if *prompt == id => self.stage = Stage::Idle,
                Stage::Compacting if kind == Kind::Compact && self.working.is_none() => {
                    self.stage = Stage::Idle;
                }
                Stage::Starting(_)
                | Stage::Idle
                | Stage::Streaming(_)
                | Stage::Compacting
                | Stage::Aborting(_)
                | Stage::Stopping(_)
                | Stage::Down(_)
                | Stage::Closed => {}
            }
        }
    }

    fn expire_stage(&mut self, out: &mut Vec<Action>) {
        match &mut self.stage {
            Stage::Starting(_) => {
                self.broken(&format!("said nothing within {} s", START_MS / 1000), out);
            }
            // It took the prompt and began nothing: a command of an extension, done by now.
            Stage::Streaming(_) => self.stage = Stage::Idle,
            Stage::Aborting(aborting) => {
                aborting.until = None;
                let error = format!(
                    "{} still works {} s after it was told to stop",
                    self.setup.harness,
                    ABORT_MS / 1000
                );
                let phase = self.working;
                let recoverable = true;
                self.record(
                    Event::AgentError(AgentError {
                        error,
                        recoverable,
                        phase,
                    }),
                    out,
                );
            }
            Stage::Stopping(_) => self.overstayed(out),
            Stage::Down(down) => {
                down.told = true;
                out.push(Action::Start);
            }
            Stage::Idle | Stage::Compacting | Stage::Closed => {}
        }
    }
}
