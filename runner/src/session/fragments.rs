//! What the harness says, made into events.

use oqto_protocol::codec::Json;
use oqto_protocol::event::{
    AgentError, CompactEnd, CompactReason, CompactStart, DoneReason, Event, Notify, NotifyLevel, Phase,
    ResolvedBy, StreamDone,
};
use oqto_protocol::fault::Fault;
use oqto_protocol::id::CommandId;
use oqto_protocol::message::{Role, StopReason};
use oqto_protocol::reply::ReplyData;
use oqto_protocol::session::Capability;

use serde_json::json;

use super::action::Action;
use super::bounds::{BEGIN_MS, STRAY_LEN_MAX};
use super::machine::Session;
use super::replies::Kind;
use super::stage::{Begun, Run, Stage};
use super::strays::Stray;
use crate::harness::{Draft, Fragment, Outcome, excerpt};

impl Session {
    /// Takes one piece of meaning.
    pub(super) fn apply(&mut self, fragment: Fragment, out: &mut Vec<Action>) {
        let event = match fragment {
            Fragment::Text { delta, content_index } => {
                self.open_for(delta.len(), out);
                self.transcript.text(delta, content_index)
            }
            Fragment::Thought { delta, content_index } => {
                self.open_for(delta.len(), out);
                self.transcript.thought(delta, content_index)
            }
            Fragment::Part {
                content,
                content_index,
            } => {
                self.open(Role::Assistant, out);
                self.transcript.part(*content, content_index);
                None
            }
            Fragment::CallStarted {
                tool_call_id,
                name,
                content_index,
            } => {
                self.open(Role::Assistant, out);
                self.transcript.call_started(tool_call_id, name, content_index)
            }
            Fragment::CallMore { delta, content_index } => self.transcript.call_more(delta, content_index),
            Fragment::CallEnded {
                tool_call_id,
                name,
                input,
                content_index,
            } => {
                self.open(Role::Assistant, out);
                self.transcript
                    .call_ended(tool_call_id, name, input, content_index)
            }
            Fragment::Started(role) => {
                // One message at a time: what was begun and never ended is ended now.
                self.cut_message(StopReason::Error, out);
                Some(self.transcript.start(role, self.now))
            }
            Fragment::Finished(draft) => {
                self.open(draft.role, out);
                self.transcript.finish(*draft)
            }
            Fragment::FinishedAsTold(draft) => self.transcript.finish_as_told(*draft),
            Fragment::Event(event) => Some(event),
            rare => return self.apply_rare(rare, out),
        };
        if let Some(event) = event {
            self.record(event, out);
        }
    }

    /// What comes once a run or less.
    fn apply_rare(&mut self, fragment: Fragment, out: &mut Vec<Action>) {
        match fragment {
            Fragment::Ready => self.ready(out),
            Fragment::State(mut state) => {
                let says_capabilities = state.capabilities.is_some();
                if let Some(said) = &mut state.capabilities
                    && !self.setup.harness.asks()
                {
                    said.retain(|capability| *capability != Capability::Permission);
                }
                let version = state.version.take();
                self.known.merge(*state);
                self.is_of_version(version, out);
                if says_capabilities {
                    self.tell_created(out);
                }
            }
            Fragment::Write(bytes) => self.write_own(bytes, out),
            Fragment::Unable(why) => self.broken(&why, out),
            Fragment::Began(phase) => self.began(phase, out),
            Fragment::Phase(phase) => {
                // Hints say at what it works, never that it works.
                if self.working.is_some() {
                    self.work(phase, out);
                }
            }
            Fragment::Asks(request) => self.asks(request, out),
            Fragment::AsksNoMore(own) => self.asks_no_more(&own, out),
            Fragment::Compacts(reason) => self.compacts(reason, out),
            Fragment::Compacted(end) => self.compacted(*end, out),
            Fragment::Ended(outcome) => self.ended(outcome, out),
            Fragment::Answer { id, answer } => self.answered(id, answer, out),
            Fragment::Stray => self.stray("", out),
            Fragment::EndedBy { signal } => self.ended_by(signal, out),
            Fragment::Text { .. }
            | Fragment::Thought { .. }
            | Fragment::Part { .. }
            | Fragment::CallStarted { .. }
            | Fragment::CallMore { .. }
            | Fragment::CallEnded { .. }
            | Fragment::Started(_)
            | Fragment::Finished(_)
            | Fragment::FinishedAsTold(_)
            | Fragment::Event(_) => {}
        }
    }

    /// Begins the message that something belongs to, when its start was not seen.
    fn open(&mut self, role: Role, out: &mut Vec<Action>) {
        if !self.transcript.is_open() {
            let start = self.transcript.start(role, self.now);
            self.record(start, out);
        }
    }

    /// As [`Self::open`], for so much more of a message. Of one that is not repeated at its end nothing may be lost, so that
    /// what is longer than is kept becomes several.
    fn open_for(&mut self, len: usize, out: &mut Vec<Action>) {
        if !self.dialect.repeats_messages() && !self.transcript.fits(len) {
            let draft = Draft {
                metadata: Some(Json::from(&json!({ "continues": true }))),
                ..Draft::new(Role::Assistant, Vec::new())
            };
            if let Some(end) = self.transcript.finish_as_told(draft) {
                self.record(end, out);
            }
        }
        self.open(Role::Assistant, out);
    }

    /// Ends a message whose end will not come.
    pub(super) fn cut_message(&mut self, reason: StopReason, out: &mut Vec<Action>) {
        if let Some(end) = self.transcript.cut(reason) {
            self.record(end, out);
        }
    }

    /// The harness takes commands: it is told what waited for that.
    fn ready(&mut self, out: &mut Vec<Action>) {
        if let Stage::Starting(starting) = &mut self.stage {
            let waiting = std::mem::take(&mut starting.waiting);
            self.stage = Stage::Idle;
            self.returned(out);
            for envelope in waiting {
                self.command(&envelope, out);
            }
        }
    }

    fn began(&mut self, phase: Phase, out: &mut Vec<Action>) {
        self.ready(out);
        match &mut self.stage {
            Stage::Idle | Stage::Compacting => self.stage = Stage::Streaming(Run { begun: Begun::Yes }),
            Stage::Streaming(run) => run.begun = Begun::Yes,
            Stage::Aborting(aborting) => aborting.begun = Begun::Yes,
            // A harness that is being ended may still begin what it was told before.
            Stage::Starting(_) | Stage::Stopping(_) | Stage::Down(_) | Stage::Closed => {}
        }
        self.work(phase, out);
    }

    fn ended(&mut self, outcome: Outcome, out: &mut Vec<Action>) {
        let told_to = matches!(self.stage, Stage::Aborting(_) | Stage::Stopping(_));
        let reason = match outcome {
            Outcome::Done => DoneReason::Stop,
            Outcome::Length => DoneReason::Length,
            Outcome::Aborted => DoneReason::Aborted,
            // Harnesses call it an error when they are stopped in a tool or between two turns.
            Outcome::Failed { .. } if told_to => DoneReason::Aborted,
            Outcome::Failed { error } => {
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
                DoneReason::Error
            }
        };
        self.cut_message(StopReason::Error, out);
        self.resolve_all(ResolvedBy::Agent, out);
        if self.working.is_some() {
            self.record(Event::StreamDone(StreamDone { reason }), out);
        }
        self.rest(out);
        match self.stage {
            Stage::Streaming(_) | Stage::Aborting(_) | Stage::Compacting => self.stage = Stage::Idle,
            Stage::Starting(_) | Stage::Idle | Stage::Stopping(_) | Stage::Down(_) | Stage::Closed => {}
        }
    }

    fn compacts(&mut self, reason: CompactReason, out: &mut Vec<Action>) {
        self.record(Event::CompactStart(CompactStart { reason }), out);
        if let Stage::Idle = self.stage {
            self.stage = Stage::Compacting;
        }
        self.work(Phase::Compacting, out);
        if let Some(pending) = self.replies.take_kind(Kind::Compact) {
            self.accept(&pending, None, out);
        }
    }

    fn compacted(&mut self, end: CompactEnd, out: &mut Vec<Action>) {
        self.record(Event::CompactEnd(end), out);
        if let Stage::Compacting = self.stage {
            self.stage = Stage::Idle;
            self.rest(out);
        }
    }

    fn answered(&mut self, id: CommandId, answer: Result<Option<ReplyData>, Fault>, out: &mut Vec<Action>) {
        let refused = answer.is_err();
        let pending = self.replies.take(id);
        let kind = pending.as_ref().map(|pending| pending.kind);
        if let Some(pending) = pending {
            match answer {
                Ok(data) => self.accept(&pending, data, out),
                Err(fault) => self.refuse_pending(&pending, fault, out),
            }
        }
        if kind == Some(Kind::Move) && !refused {
            let bytes = self.dialect.look_again();
            self.write_own(bytes, out);
        }
        match &mut self.stage {
            Stage::Streaming(Run {
                begun: Begun::No { prompt, until },
            }) if *prompt == id => {
                if refused {
                    self.stage = Stage::Idle;
                } else {
                    *until = Some(self.now + BEGIN_MS);
                }
            }
            // Nothing had begun, so nothing ends: the answer itself says that it is over.
            Stage::Aborting(aborting) if aborting.begun != Begun::Yes => {
                if aborting.command == id || refused {
                    self.stage = Stage::Idle;
                }
            }
            Stage::Compacting if kind == Some(Kind::Compact) && self.working.is_none() => {
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

    /// What a line that is none of the dialect looks like.
    pub(super) fn shown(line: &[u8]) -> String {
        excerpt(line, STRAY_LEN_MAX)
    }

    /// The harness printed what is none of its dialect.
    pub(super) fn stray(&mut self, shown: &str, out: &mut Vec<Action>) {
        let harness = self.setup.harness.clone();
        let event = match self.strays.count(self.now) {
            Stray::Shown => Event::Notify(Notify {
                level: NotifyLevel::Warning,
                message: format!("{harness} printed a line that is not of its protocol: {shown}"),
            }),
            Stray::Last if matches!(self.stage, Stage::Starting(_)) => {
                self.broken(
                    &format!("it does not speak its protocol; it printed: {shown}"),
                    out,
                );
                return;
            }
            Stray::Last => Event::AgentError(AgentError {
                error: format!(
                    "{harness} keeps printing lines that are not of its protocol; they are dropped"
                ),
                recoverable: true,
                phase: self.working,
            }),
            Stray::Dropped => return,
        };
        self.record(event, out);
    }
}
