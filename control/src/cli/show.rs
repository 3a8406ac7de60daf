//! `show`: how one session stands, and what its agent can do.

use std::fmt::Write as _;

use oqto_protocol::session::{Capability, SessionStatus};
use serde_json::json;

use super::args::{self, GlobalOptions};
use super::clean::one_line;
use super::error::CliError;
use super::note::{LINE_WIDTH_MAX, Style};
use super::output::{Output, has_colour};
use super::target;
use crate::Control;

/// Shows how a session stands.
pub(super) async fn show(
    control: &Control,
    options: &GlobalOptions,
    args: &args::Which,
    output: &mut Output,
) -> Result<(), CliError> {
    let runner = target::runner(control, options).await?;
    let session = target::session(&runner, &args.session).await?;
    let status = session.state().await.map_err(|source| CliError::Command {
        action: "ask how the session stands",
        source: Box::new(source),
    })?;
    if options.json {
        return output.json(&json!({"session_id": session.id(), "status": status}));
    }
    output.text(&page(&status, has_colour()))
}

/// What is not known has no line; what the agent cannot do is there too, dimmed where there are colours.
fn page(status: &SessionStatus, colour: bool) -> String {
    let info = &status.info;
    let model = info.model.as_ref().map(|model| match &status.provider {
        Some(provider) => format!("{provider}/{model}"),
        None => model.clone(),
    });
    let rows = [
        ("session", Some(info.session_id.to_string())),
        ("title", info.title.clone()),
        ("state", Some(info.state.to_string())),
        ("harness", Some(info.harness.clone())),
        ("model", model),
        ("thinking", status.thinking_level.clone()),
        ("policy", Some(info.policy.clone())),
        ("workspace", Some(info.cwd.clone())),
        ("messages", Some(info.message_count.to_string())),
        ("asks", status.pending_request.clone()),
    ];
    let mut page = String::new();
    let mut row = |name: &str, value: &str| {
        // A string takes every character.
        writeln!(page, "{name:<10} {value}").ok();
    };
    for (name, value) in rows {
        if let Some(value) = value {
            row(name, &one_line(&value, LINE_WIDTH_MAX));
        }
    }
    let words = |can: bool| {
        let all = Capability::ALL.iter();
        let those = all.filter(|capability| status.capabilities.contains(capability) == can);
        those.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let can = words(true);
    if !can.is_empty() {
        row("can", &can);
    }
    let cannot = words(false);
    if !cannot.is_empty() {
        let text = format!("{:<10} {cannot}", "cannot");
        let text = match colour {
            true => format!("{}{text}\u{1b}[0m\n", Style::Dim.code()),
            false => format!("{text}\n"),
        };
        page.push_str(&text);
    }
    page
}

#[cfg(test)]
mod tests {
    use oqto_protocol::cursor::Cursor;
    use oqto_protocol::session::{SessionInfo, SessionState};

    use super::*;

    #[test]
    fn what_an_agent_can_do_is_told_apart_from_what_it_cannot() {
        let mut status = SessionStatus {
            info: SessionInfo {
                session_id: "s-1".parse().unwrap(),
                state: SessionState::Idle,
                harness: "exec".to_owned(),
                cwd: "/w\u{1b}[2J".to_owned(),
                policy: "workspace".to_owned(),
                title: None,
                created_at: 0,
                cursor: Cursor::default(),
                message_count: 2,
                model: Some("m".to_owned()),
                labels: std::collections::BTreeMap::default(),
            },
            capabilities: vec![Capability::Abort],
            thinking_level: None,
            provider: Some("p".to_owned()),
            pending_request: None,
            sandbox: None,
            harness_state: None,
        };
        let text = page(&status, false);
        assert!(text.contains("model      p/m\n"), "{text}");
        assert!(text.contains("can        abort\n"), "{text}");
        assert!(text.contains("cannot     steer, follow_up, "), "{text}");
        assert!(!text.contains("title") && !text.contains('\u{1b}'), "{text}");
        assert!(page(&status, true).contains("\u{1b}[2mcannot"));
        status.capabilities.clear();
        assert!(!page(&status, false).contains("can "), "{text}");
    }
}
