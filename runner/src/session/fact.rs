//! What was seen of a session from outside: it stands on the tape as a note beside the commands, since a session knows
//! nothing but its tape.

use std::collections::BTreeSet;

use oqto_protocol::event::{Event, SandboxViolation, ViolationDecision};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::action::Action;
use super::bounds::{EARLY_FACTS_MAX, VIOLATIONS_MAX};
use super::machine::Session;
use super::silence::Silence;
use super::stage::Stage;

/// The first byte of a note with facts. A command's note begins with its length, which is never zero.
const MARK: u8 = 0;

/// The signals that a process is ended by for a system call, for its processor time and for the size of a file.
const SIGSYS: i32 = 31;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

/// What was seen from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The sandbox refused something, ended somebody, or could only watch.
    Violation(SandboxViolation),
    /// The harness works and says nothing.
    Silent(Silence),
    /// The runner is stopping, and its sessions end with it.
    RunnerStops,
    /// What a rule or the clock decided of a request is in the audit log, or cannot be.
    Decided {
        /// The request.
        request_id: String,
        /// Whether it is.
        is_recorded: bool,
    },
    /// The clock was seen to be here, Unix milliseconds, when something was overdue.
    Reached(u64),
}

/// A note that begins like one with facts and is none.
#[derive(Debug, thiserror::Error)]
#[error("a note of facts is malformed")]
pub struct BadFacts(#[source] serde_json::Error);

impl Fact {
    /// The note that says these.
    #[must_use]
    pub fn note(facts: &[Self]) -> Vec<u8> {
        let mut note = vec![MARK];
        // Texts always have a JSON form, and a vector takes every byte.
        let written = serde_json::to_writer(&mut note, facts);
        debug_assert!(written.is_ok());
        note
    }

    /// The facts of a note; `None` when it is a command's.
    #[must_use]
    pub fn parse(note: &[u8]) -> Option<Result<Vec<Self>, BadFacts>> {
        let text = note.strip_prefix(&[MARK])?;
        Some(serde_json::from_slice(text).map_err(BadFacts))
    }
}

/// Which violations were told, so that each is told once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Violations {
    /// Their names, shortened: they stand in every snapshot.
    told: BTreeSet<u64>,
    /// Somebody was ended by seccomp, and that was told.
    seccomp_killed: bool,
    /// That there are more than are told was told.
    full: bool,
}

impl Violations {
    fn name(violation: &SandboxViolation) -> u64 {
        let SandboxViolation {
            layer,
            operation,
            target,
            decision,
        } = violation;
        let target = target.as_deref().unwrap_or_default();
        let texts: [&str; 4] = [layer, operation, &decision.to_string(), target];
        let digest = texts
            .iter()
            .fold(Sha256::new(), |digest, text| {
                digest.chain_update(text).chain_update([0])
            })
            .finalize();
        let mut name = [0; 8];
        name.copy_from_slice(&digest[..8]);
        u64::from_le_bytes(name)
    }
}

impl Session {
    /// Takes what was seen from outside.
    pub(super) fn seen(&mut self, fact: &Fact, out: &mut Vec<Action>) {
        let violation = match fact {
            Fact::Violation(violation) => violation,
            Fact::Silent(silence) => return self.silent(silence, out),
            Fact::RunnerStops => return self.runner_stops(out),
            Fact::Decided {
                request_id,
                is_recorded,
            } => return self.decided(request_id, *is_recorded, out),
            // It comes as a deadline.
            Fact::Reached(_) => return,
        };
        match &mut self.stage {
            // What holds it is told first.
            Stage::Starting(starting) if self.sandbox.is_none() => {
                if starting.early_facts.len() < EARLY_FACTS_MAX {
                    starting.early_facts.push(fact.clone());
                }
            }
            Stage::Down(_) | Stage::Closed => {}
            Stage::Starting(_)
            | Stage::Idle
            | Stage::Streaming(_)
            | Stage::Compacting
            | Stage::Aborting(_)
            | Stage::Stopping(_) => self.violation(violation.clone(), out),
        }
    }

    /// Tells a violation, once.
    pub(super) fn violation(&mut self, violation: SandboxViolation, out: &mut Vec<Action>) {
        let name = Violations::name(&violation);
        if self.violations.told.contains(&name) {
            return;
        }
        if self.violations.told.len() == VIOLATIONS_MAX {
            if !std::mem::replace(&mut self.violations.full, true) {
                let message = format!(
                    "the sandbox was violated in more than {VIOLATIONS_MAX} ways; no more are told in this session"
                );
                self.warn(message, out);
            }
            return;
        }
        self.violations.told.insert(name);
        self.violations.seccomp_killed |=
            violation.layer == "seccomp" && violation.decision == ViolationDecision::Killed;
        self.record(Event::SandboxViolation(violation), out);
    }

    /// Tells that a process was ended by a signal which only the sandbox brings about.
    pub(super) fn ended_by(&mut self, signal: i32, out: &mut Vec<Action>) {
        let (layer, operation) = match signal {
            // Who can read the kernel's records has told it already, with the call's name.
            SIGSYS if self.violations.seccomp_killed => return,
            SIGSYS => ("seccomp", "system call"),
            SIGXCPU => ("limits", "process_cpu_seconds"),
            SIGXFSZ => ("limits", "file_size_mib"),
            _ => return,
        };
        let violation = SandboxViolation {
            layer: layer.to_owned(),
            operation: operation.to_owned(),
            target: None,
            decision: ViolationDecision::Killed,
        };
        self.violation(violation, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_of_facts_is_no_command_and_comes_back() {
        let fact = Fact::Violation(SandboxViolation {
            layer: "mounts".to_owned(),
            operation: "create".to_owned(),
            target: Some("/w/.envrc".to_owned()),
            decision: ViolationDecision::Logged,
        });
        let note = Fact::note(std::slice::from_ref(&fact));
        assert_eq!(Fact::parse(&note).unwrap().unwrap(), [fact]);
        assert!(Fact::parse(b"\x11command").is_none());
        assert!(Fact::parse(b"\0{").unwrap().is_err());
        assert!(oqto_protocol::codec::decode_all::<oqto_protocol::command::CommandEnvelope>(&note).is_err());
    }
}
