//! What became of the protected paths, looked at when a session has worked and when its program has ended.

use oqto_protocol::event::{SandboxViolation, ViolationDecision};

use super::survey::Survey;
use crate::landmark::Change;
use crate::session::Fact;

/// How many facts one look gives. A session tells fewer than that, and a note of so many paths is still short.
const FACTS_MAX: usize = 256;

/// Looks at everything of a [`Survey`] again, given as [`Survey::watch`] wrote it down. What is no survey gives nothing:
/// only a runner of another version wrote it, and what it watched for is not known.
#[must_use]
pub fn look(watch: &str) -> Vec<Fact> {
    let Ok(survey) = serde_json::from_str::<Survey>(watch) else {
        return Vec::new();
    };
    let changes = survey.changes().into_iter().take(FACTS_MAX);
    let facts = changes.map(|(path, change)| {
        let operation = match change {
            Change::Appeared => "create",
            Change::Replaced => "replace",
        };
        Fact::Violation(SandboxViolation {
            layer: "mounts".to_owned(),
            operation: operation.to_owned(),
            target: Some(path.display().to_string()),
            // No mount could refuse it.
            decision: ViolationDecision::Logged,
        })
    });
    facts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_survey_gives_nothing() {
        assert!(look("").is_empty());
        assert!(look(r#"{"landmarks":[{"path":"/nowhere","stood":"shaken"}],"patterns":[]}"#).is_empty());
    }

    #[test]
    fn a_survey_that_was_written_down_sees_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("here");
        let watch = format!(r#"{{"landmarks":[{{"path":{path:?},"stood":"nothing"}}],"patterns":[]}}"#);
        assert!(look(&watch).is_empty());
        std::fs::write(&path, "").unwrap();
        let facts = look(&watch);
        let Fact::Violation(violation) = &facts[0] else {
            panic!("{facts:?}")
        };
        assert_eq!(
            (violation.operation.as_str(), violation.target.as_deref()),
            ("create", path.to_str())
        );
    }
}
