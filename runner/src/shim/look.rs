//! What became of the landmarks that a session was given, as facts for its tape.

use oqto_protocol::event::{SandboxViolation, ViolationDecision};

use crate::landmark::{Change, Landmark};
use crate::session::Fact;

/// How many facts one look gives. A session tells fewer than that, and a note of so many paths is still short.
const FACTS_MAX: usize = 256;

/// Looks at each landmark again.
#[must_use]
pub fn look(landmarks: &[Landmark]) -> Vec<Fact> {
    let changed = landmarks
        .iter()
        .filter_map(|landmark| Some(fact(landmark, landmark.change()?)));
    changed.take(FACTS_MAX).collect()
}

fn fact(landmark: &Landmark, change: Change) -> Fact {
    let operation = match change {
        Change::Appeared => "create",
        Change::Replaced => "replace",
    };
    Fact::Violation(SandboxViolation {
        layer: "mounts".to_owned(),
        operation: operation.to_owned(),
        target: Some(landmark.path.display().to_string()),
        // No mount could refuse it.
        decision: ViolationDecision::Logged,
    })
}
