//! What decides in a session's driver: it feeds the tape's records to the core, and holds what the core decided until
//! the driver has done it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use oqto_protocol::codec::{DecodeError, decode_all};
use oqto_protocol::command::CommandEnvelope;
use oqto_protocol::event::Event;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::reply::Reply;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::ledger::Ledger;
use crate::event_log::SessionLog;
use crate::session::{Action, ExitStatus, Fact, Input, Report, Session, Snapshot};
use crate::shim::{Exit, Kind, Record, WriteId};

/// Where a replay begins, kept with the events that came before it.
#[derive(Serialize, Deserialize)]
pub(super) struct Mark {
    /// How far the tape was read.
    pub(super) tape: u64,
    /// The number of the last event before.
    pub(super) seq: u64,
    /// The core as it was then.
    pub(super) snapshot: Snapshot,
}

/// What decides, and what it has decided.
pub(super) struct Mind {
    pub(super) core: Session,
    pub(super) ledger: Ledger,
    pub(super) log: SessionLog,
    /// Who waits for which command's reply.
    pub(super) waiting: HashMap<CommandId, Vec<oneshot::Sender<Reply>>>,
    /// Told once: whether the session came to be.
    pub(super) born: Option<oneshot::Sender<Result<(), Fault>>>,
    pub(super) actions: Vec<Action>,
    pub(super) replies: Vec<Reply>,
    pub(super) outcome: Option<Result<(), Fault>>,
    pub(super) last_error: Option<String>,
    /// Why the session ended, for who asks it later.
    pub(super) reason: Arc<OnceLock<String>>,
    pub(super) rested: bool,
}

/// What the driver is to do to the shim.
pub(super) enum Deed {
    Write(WriteId, Vec<u8>),
    CloseStdin,
    Kill,
}

/// What a record of the tape leads to.
pub(super) struct Fed {
    pub(super) deeds: Vec<Deed>,
    /// The write that it shows to be done.
    pub(super) done: Option<WriteId>,
}

impl Mind {
    /// Gives one record of the tape to the core.
    pub(super) fn feed(&mut self, record: &Record<'_>) -> Result<Fed, DecodeError> {
        let (payload, now) = (record.payload, record.unix_ms);
        let mut done = None;
        let deeds = match record.kind {
            Kind::Out => self.step(&Input::Out(payload), now),
            Kind::Err => self.step(&Input::Err(payload), now),
            Kind::Note => match Fact::parse(payload) {
                None => {
                    let envelope: CommandEnvelope = decode_all(payload)?;
                    done = Some(envelope.id.0);
                    self.step(&Input::Command(&envelope), now)
                }
                Some(Ok(facts)) => self.see(&facts, now),
                // Of a newer runner, perhaps. The session goes on without.
                Some(Err(error)) => {
                    tracing::error!(session = self.log.id(), error = %crate::cause::chain(&error), "facts are left out");
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
                done = record.input().map(|(id, _)| id);
                Vec::new()
            }
            // Who began the tape.
            Kind::Start => Vec::new(),
        };
        Ok(Fed { deeds, done })
    }

    /// Gives what was seen from outside to the core.
    pub(super) fn see(&mut self, facts: &[Fact], now: u64) -> Vec<Deed> {
        let steps = facts.iter().flat_map(|fact| self.step(&Input::Seen(fact), now));
        steps.collect()
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
                    tracing::error!(session = self.log.id(), error = %crate::cause::chain(&error), "a report cannot be used");
                    deeds.push(Deed::Kill);
                }
            }
        }
        deeds
    }

    /// One step of the core: events go to the ledger at once, deeds are left to the driver.
    pub(super) fn step(&mut self, input: &Input<'_>, now: u64) -> Vec<Deed> {
        let mut actions = std::mem::take(&mut self.actions);
        self.core.step(input, now, &mut actions);
        let mut deeds = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Record { at, event } => {
                    self.watch_life(&event);
                    self.ledger.record(at, event);
                }
                Action::Write { id, bytes } => deeds.push(Deed::Write(id.0, bytes)),
                Action::CloseStdin => deeds.push(Deed::CloseStdin),
                Action::Kill => deeds.push(Deed::Kill),
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

    /// Where a replay may begin, if it may begin here.
    pub(super) fn mark(&self, tape: u64) -> Option<Bytes> {
        let snapshot = self.core.snapshot()?;
        let mark = Mark {
            tape,
            seq: self.core.cursor().seq,
            snapshot,
        };
        serde_json::to_vec(&mark).ok().map(Bytes::from)
    }
}
