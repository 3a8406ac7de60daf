//! One line for what happens beside the talk.

use std::fmt::Write as _;

use oqto_protocol::event::{Event, InputRequest, PermissionRequest};
use oqto_protocol::policy::LayerState;

use super::ask;
use super::clean::{clean, one_line};

/// How wide a line may be, characters.
pub(super) const LINE_WIDTH_MAX: usize = 100;

/// How a piece of text looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Dim,
    Bold,
    Red,
    Yellow,
}

impl Style {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "\x1b[2m",
            Self::Bold => "\x1b[1m",
            Self::Red => "\x1b[31m",
            Self::Yellow => "\x1b[33m",
        }
    }
}

/// The line that an event is worth, and how it looks; `None` for one that a human need not see.
pub(super) fn note(event: &Event) -> Option<(Style, String)> {
    let line = |text: String| one_line(&text, LINE_WIDTH_MAX);
    Some(match event {
        Event::SessionCreated(created) => {
            let absent: Vec<_> = created
                .sandbox
                .layers
                .iter()
                .filter(|layer| layer.state != LayerState::Enforced)
                .map(|layer| format!("{} {}", layer.layer, layer.state))
                .collect();
            let absent = if absent.is_empty() {
                String::new()
            } else {
                format!(" · {}", absent.join(", "))
            };
            let sandbox = &created.sandbox;
            let version = created.version.as_ref().map(|version| format!(" {version}"));
            let text = format!(
                "{}{} · policy {} · network {}{absent}",
                created.harness,
                version.unwrap_or_default(),
                sandbox.policy,
                sandbox.network
            );
            (Style::Dim, line(text))
        }
        Event::SessionClosed(closed) => {
            let reason = closed
                .reason
                .as_ref()
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default();
            (Style::Dim, line(format!("session ended{reason}")))
        }
        Event::Recovered(recovered) => {
            let lost = recovered
                .lost
                .as_ref()
                .map(|lost| format!("; lost: {lost}"))
                .unwrap_or_default();
            (Style::Yellow, line(format!("recovered: {}{lost}", recovered.how)))
        }
        Event::SessionDormant(dormant) => {
            let text = format!("session sleeps, oqtoctl restart wakes it: {}", dormant.reason);
            (Style::Yellow, line(text))
        }
        Event::AgentError(error) => (Style::Red, format!("✗ {}", clean(error.error.trim_end()))),
        Event::InputNeeded(needed) => (Style::Yellow, question(&needed.request)),
        Event::InputResolved(resolved) => (Style::Dim, line(format!("→ {}", ask::outcome(resolved)))),
        Event::RetryStart(retry) => {
            let text = format!(
                "↻ attempt {} of {}: {}",
                retry.attempt, retry.max_attempts, retry.error
            );
            (Style::Yellow, line(text))
        }
        Event::RetryEnd(retry) if !retry.success => {
            let error = retry.final_error.as_deref().unwrap_or("it failed each time");
            (Style::Red, line(format!("✗ no more attempts: {error}")))
        }
        Event::CompactEnd(compact) if compact.success => (Style::Dim, "context shortened".to_owned()),
        Event::CompactEnd(compact) => {
            let error = compact.error.as_deref().unwrap_or("no reason given");
            (Style::Red, line(format!("✗ context not shortened: {error}")))
        }
        Event::ModelChanged(model) => (
            Style::Dim,
            line(format!("model {}/{}", model.provider, model.model_id)),
        ),
        Event::ThinkingLevelChanged(thinking) => (Style::Dim, line(format!("thinking {}", thinking.level))),
        Event::Notify(notify) => (
            Style::Yellow,
            line(format!("{}: {}", notify.level, notify.message)),
        ),
        Event::SandboxViolation(violation) => {
            let target = violation.target.as_deref().unwrap_or_default();
            let text = format!(
                "⛔ sandbox {} {} {target} ({})",
                violation.decision, violation.operation, violation.layer
            );
            (Style::Yellow, line(text))
        }
        Event::SandboxLimit(limit) => {
            let text = format!(
                "⛔ sandbox limit: {} {} of {}",
                limit.resource, limit.used, limit.limit
            );
            (Style::Yellow, line(text))
        }
        Event::StreamReset(reset) => {
            let text = format!(
                "the runner's host lost power: what came after event {} never happened",
                reset.seq
            );
            (Style::Red, text)
        }
        Event::DelegateStart(start) => (Style::Dim, line(format!("⇢ asks {}", start.target_session_id))),
        Event::DelegateEnd(end) => (Style::Dim, line(format!("⇠ {}: {}", end.responder, end.response))),
        Event::DelegateError(error) => (Style::Red, line(format!("✗ delegation: {}", error.error))),
        _ => return None,
    })
}

/// What a tool would work on, where the title does not say it.
fn targets(request: &PermissionRequest) -> String {
    let targets = request.tool.iter().flat_map(|tool| &tool.targets);
    let named = targets.filter(|target| !request.title.contains(target.as_str()));
    named.fold(String::new(), |text, target| format!("{text} · {target}"))
}

/// A question, with the name that its answer needs.
fn question(request: &InputRequest) -> String {
    let (id, title, choices) = match request {
        InputRequest::SelectRequest(select) => {
            (&select.request_id, select.title.clone(), select.options.clone())
        }
        InputRequest::ConfirmRequest(confirm) => (
            &confirm.request_id,
            format!("{}: {}", confirm.title, confirm.message),
            vec!["--yes".to_owned(), "--no".to_owned()],
        ),
        InputRequest::TextRequest(input) => (&input.request_id, input.title.clone(), Vec::new()),
        InputRequest::PermissionRequest(permission) => (
            &permission.request_id,
            format!("May it: {}{}", permission.title, targets(permission)),
            ["--yes".to_owned(), "--no".to_owned()]
                .into_iter()
                .chain(permission.options.iter().map(|option| option.id.clone()))
                .collect(),
        ),
        InputRequest::Unknown(_) => {
            return "? the agent asks something that this version cannot show".to_owned();
        }
    };
    let mut text = format!("? {}", one_line(&title, LINE_WIDTH_MAX));
    if !choices.is_empty() {
        let choices = one_line(&choices.join(" | "), LINE_WIDTH_MAX);
        // A string takes every character.
        write!(text, " [{choices}]").ok();
    }
    write!(text, " (request {})", one_line(id, LINE_WIDTH_MAX)).ok();
    text
}
