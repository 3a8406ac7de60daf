//! Events as a conversation.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use oqto_protocol::codec::Json;
use oqto_protocol::event::{Envelope, Event, InputRequest, ToolProgress};
use oqto_protocol::id::MessageId;
use oqto_protocol::message::{Content, Message, Part, Role};
use oqto_protocol::policy::LayerState;

use super::clean::{clean, one_line};
use super::tool;

/// How many running calls are remembered; what is beyond shows without its arguments.
const CALLS_MAX: usize = 256;
const LINE_WIDTH_MAX: usize = 100;

/// How a piece of text looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Dim,
    Bold,
    Red,
    Yellow,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "\x1b[2m",
            Self::Bold => "\x1b[1m",
            Self::Red => "\x1b[31m",
            Self::Yellow => "\x1b[33m",
        }
    }
}

/// What stands last on the page, so that what follows begins rightly.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// A whole line.
    Line,
    /// The text of an assistant, in the middle or at the end of a line.
    Text { at_line_start: bool },
    /// Its thoughts, in the same way.
    Thought { at_line_start: bool },
}

/// Writes events for a human, one after the other. Pure: it appends to a string.
pub(super) struct Human {
    colour: bool,
    echo: bool,
    last: Last,
    streamed: Option<MessageId>,
    calls: BTreeMap<String, Option<Json>>,
}

impl Human {
    /// With or without colours; `echo` also shows what the user said.
    pub(super) fn new(colour: bool, echo: bool) -> Self {
        Self {
            colour,
            echo,
            last: Last::Line,
            streamed: None,
            calls: BTreeMap::new(),
        }
    }

    /// Whether something else may be written below without breaking a line.
    pub(super) fn is_at_line_start(&self) -> bool {
        match self.last {
            Last::Line => true,
            Last::Text { at_line_start } | Last::Thought { at_line_start } => at_line_start,
        }
    }

    /// Ends the line at hand, if any.
    pub(super) fn end_line(&mut self, page: &mut String) {
        if !self.is_at_line_start() {
            page.push('\n');
        }
        self.last = Last::Line;
    }

    /// Writes what a human should see of an event.
    pub(super) fn show(&mut self, envelope: &Envelope, page: &mut String) {
        match &envelope.event {
            Event::TextDelta(delta) => {
                self.streamed = Some(delta.message_id);
                self.text(&delta.delta, page);
            }
            Event::ThinkingDelta(delta) => {
                self.streamed = Some(delta.message_id);
                self.thought(&delta.delta, page);
            }
            Event::MessageEnd(end) => self.message_end(&end.message, page),
            Event::ToolStart(tool) => {
                if self.calls.len() < CALLS_MAX {
                    self.calls.insert(tool.tool_call_id.clone(), tool.input.clone());
                }
            }
            Event::ToolProgress(progress) => self.progress(progress, page),
            Event::ToolEnd(tool) => {
                let input = self.calls.remove(&tool.tool_call_id).flatten();
                let call = tool::call(&tool.name, input.as_ref());
                let result = tool::result(tool);
                let style = if result.starts_with('✗') {
                    Style::Red
                } else {
                    Style::Dim
                };
                self.line(style, &format!("⚙ {call} → {result}"), page);
            }
            other => self.note(other, page),
        }
    }

    /// A whole message, as a list of them shows it.
    pub(super) fn message(&mut self, message: &Message, page: &mut String) {
        let who = match message.role {
            Role::User => "you",
            Role::Assistant => "assistant",
            Role::System => "system",
            Role::Tool => "tool",
            _ => "somebody",
        };
        if message.role != Role::Tool {
            self.line(Style::Bold, &format!("{who}:"), page);
        }
        for part in &message.parts {
            self.part(part, page);
        }
        self.end_line(page);
    }

    fn message_end(&mut self, message: &Message, page: &mut String) {
        let streamed = self.streamed.take() == Some(message.id);
        match message.role {
            Role::User if self.echo => {
                for part in &message.parts {
                    if let Content::Text(text) = &part.content {
                        self.line(Style::Bold, &format!("› {}", clean(&text.text)), page);
                    }
                }
            }
            Role::Assistant if !streamed => {
                for part in &message.parts {
                    self.part_text(part, page);
                }
            }
            _ => {}
        }
        self.end_line(page);
    }

    fn part_text(&mut self, part: &Part, page: &mut String) {
        match &part.content {
            Content::Text(text) => self.text(&text.text, page),
            Content::Thinking(thinking) => self.thought(&thinking.text, page),
            _ => {}
        }
    }

    fn part(&mut self, part: &Part, page: &mut String) {
        match &part.content {
            Content::ToolCall(call) => {
                let call = tool::call(&call.name, call.input.as_ref());
                self.line(Style::Dim, &format!("⚙ {call}"), page);
            }
            Content::ToolResult(result) => {
                let end = oqto_protocol::event::ToolEnd {
                    tool_call_id: String::new(),
                    name: String::new(),
                    output: result.output.clone().unwrap_or_default(),
                    is_error: result.is_error,
                    duration_ms: result.duration_ms,
                };
                self.line(Style::Dim, &format!("  → {}", tool::result(&end)), page);
            }
            Content::Text(_) | Content::Thinking(_) => self.part_text(part, page),
            Content::FileRef(file) => self.line(
                Style::Dim,
                &format!("[{}]", one_line(&file.uri, LINE_WIDTH_MAX)),
                page,
            ),
            Content::Image(_) | Content::Audio(_) | Content::Video(_) | Content::Attachment(_) => {
                self.line(Style::Dim, "[attachment]", page);
            }
            Content::Extension(_) | Content::Unknown(_) => {}
        }
    }

    /// What a program writes is its part of the conversation; what other tools gave so far is folded into their end.
    fn progress(&mut self, progress: &ToolProgress, page: &mut String) {
        let output = progress.partial_output.value();
        for key in ["stdout", "stderr"] {
            if let Some(text) = output.get(key).and_then(serde_json::Value::as_str) {
                self.text(text, page);
            }
        }
    }

    fn text(&mut self, text: &str, page: &mut String) {
        if !matches!(self.last, Last::Text { .. }) {
            self.end_line(page);
        }
        let text = clean(text);
        page.push_str(&text);
        let at_line_start = ends_line(&text).unwrap_or(self.is_at_line_start());
        self.last = Last::Text { at_line_start };
    }

    fn thought(&mut self, text: &str, page: &mut String) {
        if !matches!(self.last, Last::Thought { .. }) {
            self.end_line(page);
        }
        let text = clean(text);
        self.styled(Style::Dim, &text, page);
        let at_line_start = ends_line(&text).unwrap_or(self.is_at_line_start());
        self.last = Last::Thought { at_line_start };
    }

    fn note(&mut self, event: &Event, page: &mut String) {
        let line = |text: String| one_line(&text, LINE_WIDTH_MAX);
        let (style, text) = match event {
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
                let text = format!(
                    "{} · policy {} · network {}{absent}",
                    created.harness, sandbox.policy, sandbox.network
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
            Event::AgentError(error) => (Style::Red, format!("✗ {}", clean(error.error.trim_end()))),
            Event::InputNeeded(needed) => (Style::Yellow, question(&needed.request)),
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
            Event::ThinkingLevelChanged(thinking) => {
                (Style::Dim, line(format!("thinking {}", thinking.level)))
            }
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
            _ => return,
        };
        self.line(style, &text, page);
    }

    fn line(&mut self, style: Style, text: &str, page: &mut String) {
        self.end_line(page);
        self.styled(style, text, page);
        page.push('\n');
    }

    fn styled(&self, style: Style, text: &str, page: &mut String) {
        if self.colour && style != Style::Plain && !text.is_empty() {
            page.push_str(style.code());
            page.push_str(text);
            page.push_str("\x1b[0m");
        } else {
            page.push_str(text);
        }
    }
}

/// Whether what stands behind a text is a line's start; `None` for an empty text, which changes nothing.
fn ends_line(text: &str) -> Option<bool> {
    text.chars().last().map(|c| c == '\n')
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
            format!(
                "{} {}",
                permission.title,
                permission.description.as_deref().unwrap_or_default()
            ),
            permission
                .options
                .iter()
                .map(|option| option.id.clone())
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
