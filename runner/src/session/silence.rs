//! A harness that works and says nothing: it is told, and then what the runner's configuration says is done.
//!
//! How long it was silent and what its processes did meanwhile is seen from outside and stands on the tape as a
//! [`Fact`](super::Fact), so that reading the tape again tells the same, whatever the configuration says by then.

use oqto_protocol::command::{Abort, Command};
use oqto_protocol::event::Phase;
use oqto_protocol::id::CommandId;
use serde::{Deserialize, Serialize};

use super::action::{Action, WriteId};
use super::machine::Session;
use super::stage::Stage;

/// A silence, as it was seen from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// Since when, as [`Session::silent_since`] said: a harness that spoke meanwhile is not silent.
    pub since: u64,
    /// How long it has lasted, milliseconds.
    pub silent_ms: u64,
    /// How much of one processor its processes used last, percent, where that is known.
    pub cpu_pct: Option<u32>,
    /// What is to be done about it; nothing: it is only told.
    pub act: Option<SilentAct>,
}

/// What is done about a harness that is silent for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SilentAct {
    /// It is told to stop what it works at, as by the command `abort`.
    Abort,
    /// It is killed; what follows is what follows every crash of a harness.
    Restart,
}

impl Session {
    /// Since when a harness that works has said nothing and was told nothing, Unix milliseconds by its tape. `None`
    /// while it does not work, or waits for a human's answer.
    #[must_use]
    pub fn silent_since(&self) -> Option<u64> {
        match self.stage {
            Stage::Streaming(_) | Stage::Compacting | Stage::Aborting(_) if self.asked.is_empty() => {
                Some(self.heard_at)
            }
            // One that starts or stops has a deadline of its own.
            Stage::Streaming(_)
            | Stage::Compacting
            | Stage::Aborting(_)
            | Stage::Starting(_)
            | Stage::Idle
            | Stage::Stopping(_)
            | Stage::Down(_)
            | Stage::Closed => None,
        }
    }

    /// Takes that it is silent: each silence is told once and acted upon once, however many runners saw it.
    pub(super) fn silent(&mut self, silence: &Silence, out: &mut Vec<Action>) {
        let step = (silence.since, silence.act.is_some());
        if self.silent_since() != Some(silence.since) || self.silence_told >= Some(step) {
            return;
        }
        self.silence_told = Some(step);
        let mut message = self.described(silence);
        match silence.act {
            None => self.warn(message, out),
            Some(SilentAct::Restart) => {
                message.push_str(". It is killed, as this runner's silent_act says");
                self.warn(message, out);
                out.push(Action::Kill);
            }
            Some(SilentAct::Abort) => {
                message.push_str(". It is told to stop, as this runner's silent_act says");
                self.warn(message, out);
                let command = Command::Abort(Abort {});
                if let Err(fault) = self.abort(command_id(silence.since), &command, out) {
                    self.warn(
                        format!("{} cannot be told to stop: {}", self.setup.harness, fault.message),
                        out,
                    );
                }
            }
        }
    }

    fn described(&self, silence: &Silence) -> String {
        let mut text = format!(
            "{} has said nothing for {}",
            self.setup.harness,
            spoken(silence.silent_ms)
        );
        if self.working == Some(Phase::ToolRunning) {
            text.push_str(" while a tool runs");
        }
        match silence.cpu_pct {
            None => {}
            Some(0) => text.push_str("; its processes use no processor time"),
            Some(pct) => text.push_str(&format!(
                "; its processes use {pct}% of a processor, so it may well be at work"
            )),
        }
        text
    }
}

/// The command that ends this silence: the same tape gives the same one, and nobody else can have sent it.
fn command_id(since: u64) -> CommandId {
    CommandId(WriteId::silence(since).0)
}

/// A time for people.
fn spoken(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..120 => format!("{s} s"),
        s => format!("{} min", s / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_the_unit_that_fits() {
        assert_eq!(spoken(1_999), "1 s");
        assert_eq!(spoken(119_999), "119 s");
        assert_eq!(spoken(3_600_000), "60 min");
    }
}
