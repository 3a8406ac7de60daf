//! What a driver learns of its session from outside, on its way to the tape: each once, and not without end.

use std::collections::HashSet;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::health::Watchdog;
use crate::sandbox;
use crate::session::Fact;
use crate::shim::WriteId;

/// How many different facts one runner notes on a tape: twice what a session tells, so that it can say that there are
/// more, and an agent that makes them by the thousand fills no disk.
const NOTED_MAX: usize = 256;

/// What a driver learns of its session from outside.
pub(super) struct Facts {
    watch: Option<Arc<str>>,
    heard: mpsc::Receiver<Fact>,
    pub(super) watchdog: Watchdog,
    noted: HashSet<WriteId>,
    /// The note of a silence that waits to be on the tape.
    silence: Option<WriteId>,
}

/// A note that is to stand on the tape.
pub(super) struct Note {
    pub(super) id: WriteId,
    pub(super) bytes: Vec<u8>,
}

impl Facts {
    pub(super) fn new(watch: Option<&str>, heard: mpsc::Receiver<Fact>, watchdog: Watchdog) -> Self {
        Self {
            watch: watch.map(Arc::from),
            heard,
            watchdog,
            noted: HashSet::new(),
            silence: None,
        }
    }

    /// What somebody saw who watches the kernel, or that the harness is silent.
    pub(super) async fn hear(&mut self) -> Fact {
        tokio::select! {
            Some(fact) = self.heard.recv() => fact,
            fact = self.watchdog.bark() => fact,
        }
    }

    /// Looks at what is watched.
    pub(super) async fn look(&self) -> Vec<Fact> {
        let Some(watch) = self.watch.clone() else {
            return Vec::new();
        };
        // The workspace may be large, or lie on a file system that takes its time. A look that panics has seen nothing.
        let looked = tokio::task::spawn_blocking(move || sandbox::look(&watch));
        looked.await.unwrap_or_default()
    }

    /// The notes of what this runner has not noted yet.
    pub(super) fn news(&mut self, facts: Vec<Fact>) -> Vec<Note> {
        let mut notes = Vec::new();
        for fact in facts {
            // A silence is told once by who saw it; how often there can be one, its length bounds.
            let is_silence = matches!(fact, Fact::Silent(_));
            let bytes = Fact::note(&[fact]);
            let id = name(&bytes);
            if is_silence {
                self.silence = Some(id);
                notes.push(Note { id, bytes });
            } else if self.noted.len() < NOTED_MAX && self.noted.insert(id) {
                notes.push(Note { id, bytes });
            }
        }
        notes
    }

    /// It is not on the tape after all; seen again, it is noted again.
    pub(super) fn lost(&mut self, id: WriteId) {
        self.noted.remove(&id);
        if self.silence == Some(id) {
            self.watchdog.lost();
        }
    }
}

/// The same fact has the same name, so that a shim leaves out what a runner before has noted.
fn name(note: &[u8]) -> WriteId {
    let digest = Sha256::new().chain_update("fact").chain_update(note).finalize();
    let mut name = [0; 16];
    name.copy_from_slice(&digest[..16]);
    name
}

#[cfg(test)]
mod tests {
    use oqto_protocol::event::{SandboxViolation, ViolationDecision};

    use std::time::Duration;

    use super::super::settings::HealthSettings;
    use super::*;

    fn fact(n: usize) -> Fact {
        Fact::Violation(SandboxViolation {
            layer: "mounts".to_owned(),
            operation: "create".to_owned(),
            target: Some(n.to_string()),
            decision: ViolationDecision::Logged,
        })
    }

    #[test]
    fn a_fact_is_noted_once_unless_it_was_lost_and_a_flood_is_cut() {
        let health = HealthSettings {
            heartbeat: Duration::from_secs(10),
            silent_warn: None,
            silent_act: None,
        };
        let session = "s".parse().unwrap();
        let watchdog = Watchdog::new(health, Arc::default(), session);
        let mut facts = Facts::new(None, mpsc::channel(1).1, watchdog);
        let first = facts.news(vec![fact(0), fact(0)]);
        assert_eq!(first.len(), 1);
        assert!(facts.news(vec![fact(0)]).is_empty());
        facts.lost(first[0].id);
        assert_eq!(facts.news(vec![fact(0)])[0].id, first[0].id);
        let flood = facts.news((0..10_000).map(fact).collect());
        assert_eq!(flood.len(), NOTED_MAX - 1);
    }
}
