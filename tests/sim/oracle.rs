//! What must hold, whatever dies. It looks at each step and knows nothing of why.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use oqto_protocol::event::{Event, Numbered};
use oqto_protocol::frame::Frame;
use oqto_protocol::id::CommandId;

use crate::store::{Store, Stored};

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// What stands under each number of a session: its epoch and its frame.
    told: BTreeMap<(usize, u32, u64), Bytes>,
    /// How far each session's log was looked at, in which epoch.
    looked: BTreeMap<usize, (u32, u64)>,
    effects: BTreeMap<CommandId, u32>,
    /// Commands that had their effect before power was lost.
    before: BTreeSet<CommandId>,
    without_effect: BTreeSet<CommandId>,
    done: BTreeSet<CommandId>,
    /// The last number that somebody may act on as if it could never be taken back.
    sent: BTreeMap<usize, u64>,
    closed: BTreeMap<usize, (u32, u64)>,
    pub(crate) wrong: Option<String>,
}

impl Oracle {
    pub(crate) fn accuse(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// Looks at what the log has that it had not.
    pub(crate) fn look_at_log(&mut self, store: &Store) {
        for (session, kept) in store.sessions.iter().enumerate() {
            let now = kept.cursor();
            let (epoch, seen) = *self.looked.get(&session).unwrap_or(&(1, 0));
            if now.epoch == epoch && now.seq < seen {
                self.accuse(format!(
                    "session {session}: event {seen} of epoch {epoch} was forgotten without a new epoch"
                ));
            }
            let from = if now.epoch == epoch { seen } else { 0 };
            for (at, stored) in kept.events.iter().enumerate().skip(from as usize) {
                let seq = at as u64 + 1;
                let numbered = read(&stored.frame);
                if numbered.seq != seq || numbered.epoch != stored.epoch {
                    let (epoch, said) = (numbered.epoch, numbered.seq);
                    self.accuse(format!(
                        "session {session}: event {seq} of epoch {} says {epoch}/{said}",
                        stored.epoch
                    ));
                }
                let key = (session, stored.epoch, seq);
                let before = self.told.entry(key).or_insert_with(|| stored.frame.clone());
                if *before != stored.frame {
                    let (before, now) = (read(before).event, numbered.event.clone());
                    self.accuse(format!(
                        "session {session}: {}/{seq} was {before:?} and is {now:?}",
                        stored.epoch
                    ));
                }
                if let Some((epoch, closed)) = self.closed.get(&session)
                    && (*epoch, *closed) < (stored.epoch, seq)
                    && kept
                        .events
                        .get(*closed as usize - 1)
                        .is_some_and(|at| at.epoch == *epoch)
                {
                    self.accuse(format!("session {session}: event {seq} comes behind its end"));
                }
                if matches!(numbered.event, Event::SessionClosed(_)) {
                    self.closed.insert(session, (stored.epoch, seq));
                }
            }
            self.looked.insert(session, (now.epoch, now.seq));
        }
    }

    /// A runner has put events up to this one on a link.
    pub(crate) fn sent(&mut self, session: usize, seq: u64) {
        let sent = self.sent.entry(session).or_default();
        *sent = (*sent).max(seq);
    }

    /// The host lost power; `before` is what the log had.
    pub(crate) fn look_at_power_loss(&mut self, before: &[Vec<Stored>], store: &Store) {
        // What a tape knew of commands may be gone with its end, and the harness with what it did.
        self.before.extend(std::mem::take(&mut self.effects).into_keys());
        for (session, sent) in std::mem::take(&mut self.sent) {
            let left = store.sessions[session].last_seq();
            for stored in before[session].iter().take(sent as usize).skip(left as usize) {
                let numbered = read(&stored.frame);
                if must_outlive_power(&numbered.event) {
                    let (seq, event) = (numbered.seq, numbered.event);
                    self.accuse(format!(
                        "session {session}: event {seq} was sent, and power took it: {event:?}"
                    ));
                }
            }
        }
    }

    /// A tape read again tells an event.
    pub(crate) fn told_again(&mut self, session: usize, store: &Store, numbered: &Numbered) {
        let at = numbered.seq as usize - 1;
        let Some(stored) = store.sessions[session].events.get(at) else {
            return;
        };
        let before = read(&stored.frame);
        if (before.ts, &before.event) != (numbered.ts, &numbered.event) {
            self.accuse(format!(
                "session {session}: read again, its tape tells {} {:?} as event {}, where the log has {} {:?}",
                numbered.ts, numbered.event, numbered.seq, before.ts, before.event
            ));
        }
    }

    /// A control is handed an event.
    pub(crate) fn handed_out(&mut self, session: usize, numbered: &Numbered) {
        if matches!(numbered.event, Event::StreamReset(_)) {
            return;
        }
        let key = (session, numbered.epoch, numbered.seq);
        match self.told.get(&key) {
            None => {
                let (_, epoch, seq) = key;
                self.accuse(format!(
                    "session {session}: event {epoch}/{seq} was handed out and never committed"
                ));
            }
            Some(frame) if numbered.first_seq.is_none() && read(frame) != *numbered => {
                self.accuse(format!(
                    "session {session}: another event was handed out as {}",
                    numbered.seq
                ));
            }
            Some(_) => {}
        }
    }

    /// A harness carried out a command.
    pub(crate) fn effect(&mut self, command: CommandId) {
        let count = self.effects.entry(command).or_default();
        *count += 1;
        if *count > 1 {
            self.accuse(format!(
                "command {command} had {} effects",
                self.effects[&command]
            ));
        }
    }

    /// A sender was told that its prompt was done, or that it had no effect.
    pub(crate) fn answered(&mut self, command: CommandId, success: bool, message: &str) {
        if success {
            self.done.insert(command);
            if !self.effects.contains_key(&command) && !self.before.contains(&command) {
                self.accuse(format!("command {command} was said to be done and had no effect"));
            }
        } else if message.contains("no effect") {
            self.without_effect.insert(command);
        }
    }

    /// At the end of everything.
    pub(crate) fn look_at_commands(&mut self) {
        let wrong = self
            .without_effect
            .iter()
            .find(|id| self.effects.contains_key(id))
            .copied();
        if let Some(id) = wrong {
            self.accuse(format!(
                "command {id} had an effect, and its sender was told that it had none"
            ));
        }
    }
}

/// The event in a frame of the log.
pub(crate) fn read(frame: &[u8]) -> Numbered {
    let split = Frame::split(frame, usize::MAX).ok().flatten();
    split
        .and_then(|(frame, _)| frame.body().ok())
        .expect("the log holds whole frames of events")
}

/// What must not be taken back once somebody was told, said apart from the rule of `supervisor::ledger`.
fn must_outlive_power(event: &Event) -> bool {
    matches!(
        event,
        Event::SessionCreated(_)
            | Event::SessionClosed(_)
            | Event::AgentIdle(_)
            | Event::AgentError(_)
            | Event::MessageEnd(_)
            | Event::StreamDone(_)
            | Event::ToolEnd(_)
            | Event::ToolStart(_)
    )
}
