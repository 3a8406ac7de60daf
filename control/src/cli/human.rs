//! Events as a conversation.

use std::collections::BTreeMap;

use oqto_protocol::codec::Json;
use oqto_protocol::event::{Envelope, Event, ToolProgress};
use oqto_protocol::id::MessageId;
use oqto_protocol::message::{Content, Message, Part, Role};

use super::ask;
use super::clean::{clean, one_line};
use super::note::{LINE_WIDTH_MAX, Style, note};
use super::quote::quote;
use super::tool;

/// How many running calls are remembered; what is beyond shows without its arguments.
const CALLS_MAX: usize = 256;

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
            Event::InputNeeded(needed) => {
                if let Some((style, text)) = note(&envelope.event) {
                    self.line(style, &text, page);
                }
                let request = ask::name(&needed.request).unwrap_or_default();
                let how = quote(["oqtoctl", "answer", envelope.session_id.as_str(), request]);
                self.line(Style::Dim, &format!("  {how} …"), page);
            }
            other => {
                if let Some((style, text)) = note(other) {
                    self.line(style, &text, page);
                }
            }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What a human sees of events in their JSON form.
    fn page(colour: bool, events: &[Value]) -> String {
        let mut human = Human::new(colour, true);
        let mut page = String::new();
        for event in events {
            let mut whole = json!({"session_id": "s-1", "runner_id": "r-1", "epoch": 1, "seq": 1, "ts": 7});
            for (key, value) in event.as_object().unwrap() {
                whole[key] = value.clone();
            }
            human.show(&serde_json::from_value(whole).unwrap(), &mut page);
        }
        human.end_line(&mut page);
        page
    }

    fn text(delta: &str) -> Value {
        json!({"event": "stream.text_delta", "message_id": "m-1", "delta": delta, "content_index": 0})
    }

    fn thought(delta: &str) -> Value {
        json!({"event": "stream.thinking_delta", "message_id": "m-1", "delta": delta, "content_index": 0})
    }

    fn message(id: &str, role: &str, text: &str) -> Value {
        let part = json!({"id": "p", "type": "text", "text": text});
        json!({"event": "stream.message_end", "message": {
            "id": id, "idx": 0, "role": role, "parts": [part], "created_at": 7}})
    }

    fn call(id: &str, command: &str) -> Value {
        json!({"event": "tool.start", "tool_call_id": id, "name": "bash", "input": {"command": command}})
    }

    fn result(id: &str, output: &Value, is_error: bool, ms: u64) -> Value {
        json!({"event": "tool.end", "tool_call_id": id, "name": "bash", "output": output,
            "is_error": is_error, "duration_ms": ms})
    }

    #[test]
    fn a_run_reads_like_a_conversation() {
        let digest = "0".repeat(64);
        let sandbox = json!({"policy": "workspace", "digest": digest, "network": "none", "layers": [
            {"layer": "seccomp", "state": "enforced"}, {"layer": "landlock", "state": "absent"}]});
        let events = [
            json!({"event": "session.created", "resumed": false, "harness": "pi", "sandbox": sandbox}),
            message("m-0", "user", "What is here?"),
            json!({"event": "agent.working", "phase": "thinking"}),
            thought("I should "),
            thought("look."),
            text("Let me "),
            text("look.\n"),
            call("c-1", "ls -la"),
            result("c-1", &json!("a\nb\nc\nd\ne\n"), false, 130),
            call("c-2", "make"),
            json!({"event": "sandbox.violation", "layer": "landlock", "operation": "write",
                "target": "/etc/passwd", "decision": "denied"}),
            result("c-2", &json!({"exit_code": 3}), true, 2000),
            text("There are five files"),
            message("m-1", "assistant", "There are five files"),
            json!({"event": "retry.start", "attempt": 1, "max_attempts": 3, "delay_ms": 5, "error": "busy"}),
            message("m-2", "assistant", "A message that was not streamed."),
            json!({"event": "agent.error", "error": "out of money", "recoverable": true}),
            json!({"event": "agent.input_needed", "request": {"type": "confirm", "request_id": "q-1",
                "title": "Delete", "message": "Sure?"}}),
            json!({"event": "stream.done", "reason": "stop"}),
            json!({"event": "agent.idle"}),
            json!({"event": "session.closed", "reason": "asked to"}),
        ];
        let wanted = "\
pi · policy workspace · network none · landlock absent
› What is here?
I should look.
Let me look.
⚙ bash ls -la → 5 lines, 0.1 s
⛔ sandbox denied write /etc/passwd (landlock)
⚙ bash make → ✗ exit 3, 2.0 s
There are five files
↻ attempt 1 of 3: busy
A message that was not streamed.
✗ out of money
? Delete: Sure? [--yes | --no] (request q-1)
  oqtoctl answer s-1 q-1 …
session ended: asked to
";
        assert_eq!(page(false, &events), wanted);
    }

    #[test]
    fn colours_are_ours_and_never_theirs() {
        let events = [
            thought("hm \u{1b}[5m"),
            text("\u{1b}]0;pwned\u{7}hi\r\u{8}"),
            call("c", "a\u{1b}[2Jb"),
            result("c", &json!("no\u{9b}31m"), true, 0),
        ];
        let wanted = "\x1b[2mhm [5m\x1b[0m\n]0;pwnedhi\n\x1b[31m⚙ bash a[2Jb → ✗ no31m, 0.0 s\x1b[0m\n";
        assert_eq!(page(true, &events), wanted);
    }

    #[test]
    fn what_is_new_to_this_version_is_not_shown_and_breaks_nothing() {
        let unknown = json!({"event": "x-unknown", "kind": 900, "bytes": "AAAA"});
        assert_eq!(page(false, &[text("a"), unknown, text("b")]), "ab\n");
    }
}
