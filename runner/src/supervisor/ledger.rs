//! What a session's core decided and the log has yet to be told: events numbered and encoded, ready to be one batch.

use bytes::Bytes;
use oqto_protocol::codec::Wire as _;
use oqto_protocol::event::{Event, Notify, NotifyLevel, Numbered};
use oqto_protocol::frame;

use crate::event_log::{BadBatch, Batch, MessageRow, Sync};

/// Events that are not appended yet.
#[derive(Debug)]
pub(super) struct Ledger {
    epoch: u32,
    /// The number of the last event, in the log or here.
    seq: u64,
    /// The last number that the log had before: up to it a replayed tape only repeats.
    known: u64,
    first: u64,
    frames: Vec<u8>,
    messages: Vec<MessageRow>,
    sync: Sync,
}

impl Ledger {
    /// Goes on behind event `seq`; what comes up to `known` is in the log already and is not appended again.
    pub(super) fn new(epoch: u32, seq: u64, known: u64) -> Self {
        Self {
            epoch,
            seq,
            known,
            first: 0,
            frames: Vec::new(),
            messages: Vec::new(),
            sync: Sync::Process,
        }
    }

    /// The tape says no more, and the log may know more than it: what follows is numbered behind both. The last
    /// number.
    pub(super) fn catch_up(&mut self) -> u64 {
        self.seq = self.seq.max(self.known);
        self.seq
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// The number of the last event that waits; `None` when none does.
    pub(super) fn waits_up_to(&self) -> Option<u64> {
        (!self.frames.is_empty()).then_some(self.seq)
    }

    /// Gives the event its number.
    pub(super) fn record(&mut self, ts: u64, event: Event) {
        self.seq += 1;
        if self.seq <= self.known {
            return;
        }
        if self.frames.is_empty() {
            self.first = self.seq;
        }
        if must_survive_power_loss(&event) {
            self.sync = Sync::Power;
        }
        if let Event::MessageEnd(end) = &event {
            let mut frame = Vec::new();
            end.message.encode(&mut frame);
            let id = end.message.id.to_string();
            self.messages.push(MessageRow {
                idx: end.message.idx,
                id,
                frame: Bytes::from(frame),
            });
        }
        let numbered = Numbered {
            epoch: self.epoch,
            seq: self.seq,
            first_seq: None,
            ts,
            event,
        };
        if let Err(error) = frame::append(&numbered, &mut self.frames) {
            // No line of a harness is long enough for this; should it happen, the number must not be missing.
            let message = format!(
                "an event of kind {} was too long to be kept: {error}",
                numbered.event.name()
            );
            let event = Event::Notify(Notify {
                level: NotifyLevel::Error,
                message,
            });
            let said = frame::append(&Numbered { event, ..numbered }, &mut self.frames);
            debug_assert!(said.is_ok(), "a short text fits into a frame");
        }
    }

    /// What waits, as one batch with a mark; `None` when nothing does.
    pub(super) fn take(&mut self, mark: Option<Bytes>) -> Option<Result<Batch, BadBatch>> {
        if self.frames.is_empty() {
            return None;
        }
        let capacity = self.frames.len();
        let frames = std::mem::replace(&mut self.frames, Vec::with_capacity(capacity.min(64 * 1024)));
        let sync = match std::mem::replace(&mut self.sync, Sync::Process) {
            // The tape below a mark is given back: a mark that power could take would leave nothing to begin at.
            _ if mark.is_some() => Sync::Power,
            sync => sync,
        };
        let messages = std::mem::take(&mut self.messages);
        let batch = Batch::new(self.first, Bytes::from(frames), sync).map(|batch| {
            let batch = batch.with_messages(messages);
            match mark {
                Some(mark) => batch.with_mark(mark),
                None => batch,
            }
        });
        Some(batch)
    }
}

/// Whether somebody may act on this event as if it could never be taken back. Pieces of what is still to come need
/// only outlive every process: if the host loses power, the agent that was saying them is gone too.
fn must_survive_power_loss(event: &Event) -> bool {
    !matches!(
        event,
        Event::TextDelta(_)
            | Event::ThinkingDelta(_)
            | Event::ToolCallStart(_)
            | Event::ToolCallDelta(_)
            | Event::ToolProgress(_)
            | Event::MessageStart(_)
            | Event::AgentWorking(_)
            | Event::Status(_)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use oqto_protocol::event::AgentIdle;

    use super::*;

    /// One of each kind at least, as JSON.
    const EVENTS: &str = include_str!("../../../protocol/tests/golden/v1/event.txt");

    #[test]
    fn only_pieces_of_what_is_still_to_come_may_be_lost_with_the_hosts_power() {
        let (mut kept, mut lost) = (BTreeSet::new(), BTreeSet::new());
        for line in EVENTS.lines().filter(|line| line.starts_with('{')) {
            let event: Event = serde_json::from_str(line).unwrap();
            let name = event.name();
            let mut ledger = Ledger::new(1, 0, 0);
            ledger.record(1, event);
            match ledger.sync {
                Sync::Power => kept.insert(name.to_owned()),
                Sync::Process => lost.insert(name.to_owned()),
            };
        }
        let pieces = [
            "agent.working",
            "status",
            "stream.message_start",
            "stream.text_delta",
            "stream.thinking_delta",
            "stream.tool_call_delta",
            "stream.tool_call_start",
            "tool.progress",
        ];
        assert_eq!(lost, pieces.map(str::to_owned).into());
        kept.retain(|name| !name.starts_with("x-"));
        let all: BTreeSet<_> = Event::NAMES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(kept, &all - &lost);
        // One that must not be lost takes along what is kept with it.
        let mut ledger = Ledger::new(1, 0, 0);
        ledger.record(1, Event::AgentIdle(AgentIdle {}));
        ledger.record(
            1,
            serde_json::from_str(r#"{"event":"status","key":"k"}"#).unwrap(),
        );
        assert_eq!(ledger.sync, Sync::Power);
    }

    #[test]
    fn behind_a_tape_that_is_shorter_than_the_log_comes_a_new_number() {
        let mut ledger = Ledger::new(1, 2, 7);
        ledger.record(1, Event::AgentIdle(AgentIdle {}));
        ledger.catch_up();
        ledger.record(2, Event::AgentIdle(AgentIdle {}));
        assert_eq!(ledger.take(None).unwrap().unwrap().last_seq(), 8);
    }

    #[test]
    fn a_replay_appends_only_what_the_log_lacks() {
        let mut ledger = Ledger::new(1, 0, 2);
        for ts in 0..2 {
            ledger.record(ts, Event::AgentIdle(AgentIdle {}));
        }
        assert!(ledger.take(None).is_none());
        ledger.record(3, Event::AgentIdle(AgentIdle {}));
        let batch = ledger.take(None).unwrap().unwrap();
        assert_eq!(batch.last_seq(), 3);
    }
}
