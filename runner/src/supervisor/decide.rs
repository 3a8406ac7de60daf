//! How what a rule or the clock decides of an agent's requests comes to be on record before it is obeyed.

use oqto_protocol::event::ResolvedBy;
use oqto_protocol::id::{CommandId, SessionId};

use super::driver::Driver;
use super::mind::decision_id;
use crate::audit::record::{PERMISSION, digest_of};
use crate::audit::{Entry, Outcome};
use crate::session::Decision;

/// How much of a rule and of each target stands in a record, in characters; the digest of all of it stands beside.
const SHOWN_MAX: usize = 100;

/// How many targets stand there.
const TARGETS_SHOWN_MAX: usize = 3;

impl Driver {
    /// Records what was decided, and has it put on the tape. Waits for the disk, as whoever sends a command does; the
    /// audit log waits for no session.
    pub(super) async fn decide(&mut self) {
        while let Some(decision) = self.mind.next_decision() {
            // Without a house the runner is stopping: the next one finds the request as it stands.
            let Some(house) = self.house.upgrade() else { return };
            let recorded = house.audit.record(entry(&self.record.id, &decision)).await;
            if let Err(error) = &recorded {
                tracing::error!(session = self.log.id(), %error, "what was decided of a request is not recorded");
            }
            self.mind.decided(decision.request_id, recorded.is_ok());
        }
    }
}

/// What is recorded. The same decision has the same id, also where a runner died before it could be obeyed and the next
/// one records it again.
fn entry(session: &SessionId, decision: &Decision) -> Entry {
    let outcome = if decision.allow {
        Outcome::Allowed
    } else {
        Outcome::Refused
    };
    let mut entry = Entry::new(PERMISSION, outcome);
    entry.session = Some(session.clone());
    entry.command = Some(CommandId(decision_id(&decision.request_id)));
    entry.reason = Some(match decision.by {
        ResolvedBy::Timeout => "timeout".to_owned(),
        _ => "rule".to_owned(),
    });
    entry.arguments = decision
        .tool
        .as_ref()
        .and_then(|tool| serde_json::to_vec(tool).ok())
        .map(|tool| digest_of(&[&tool]));
    entry.detail = Some(detail(decision));
    entry
}

/// What a human is told: the request, the tool, the rule, what it was about.
fn detail(decision: &Decision) -> String {
    let mut text = decision.request_id.clone();
    if let Some(tool) = &decision.tool {
        text += &format!(" {}", shown(&tool.name));
        if let Some(kind) = &tool.kind {
            text += &format!(" ({})", shown(kind));
        }
    }
    if let Some(rule) = &decision.rule {
        text += &format!(", rule {}", shown(rule));
    }
    if let Some(tool) = &decision.tool {
        for target in tool.targets.iter().take(TARGETS_SHOWN_MAX) {
            text += &format!(", \"{}\"", shown(target));
        }
        let more = tool.targets.len().saturating_sub(TARGETS_SHOWN_MAX);
        if more > 0 {
            text += &format!(", and {more} more");
        }
    }
    text
}

/// A text of an agent, without what a terminal or a reader could be misled by.
fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use oqto_protocol::event::PermissionTool;

    use super::*;

    #[test]
    fn a_record_names_request_tool_rule_and_targets_and_nothing_that_a_terminal_obeys() {
        let decision = Decision {
            request_id: "5@17".to_owned(),
            tool: Some(PermissionTool {
                tool_call_id: None,
                name: "Bash".to_owned(),
                kind: Some("execute".to_owned()),
                targets: vec![
                    "ls \u{1b}[2J\n".to_owned(),
                    "x".repeat(300),
                    String::new(),
                    String::new(),
                ],
                input: None,
            }),
            allow: true,
            by: ResolvedBy::Rule,
            rule: Some("execute:ls *".to_owned()),
        };
        let entry = entry(&"s".parse().unwrap(), &decision);
        let detail = entry.detail.unwrap();
        assert!(
            detail.starts_with("5@17 Bash (execute), rule execute:ls *, \"ls \\u{1b}[2J\\n\", \"xxx"),
            "{detail}"
        );
        assert!(detail.ends_with("x…\", \"\", and 1 more"), "{detail}");
        assert_eq!(entry.command, Some(CommandId(decision_id("5@17"))));
        assert!(entry.arguments.is_some());
    }
}
