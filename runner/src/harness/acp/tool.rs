//! The calls of tools in a turn: what an agent says of each, piece by piece, and what that means.
//!
//! A call begins as a part of the message that the model makes. It is whole when the tool begins, when it asks to be
//! allowed, or when the message ends; its result is a message of its own.

use oqto_protocol::codec::Json;
use oqto_protocol::event::{Event, Phase, ProgressMode, ToolEnd, ToolProgress, ToolStart};
use oqto_protocol::message::{Content, Part, Role, ToolResult};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Acp, Message, NotOfAcp, PARTS_MAX, wire};
use crate::bounds::HARNESS_LINE_MAX;
use crate::harness::excerpt::cut;
use crate::harness::fragment::{Draft, Fragment};

/// How many calls of one turn are remembered. No model makes more; the oldest is forgotten then, once it has ended.
const CALLS_MAX: usize = 256;

/// How much of one call's input or preview is remembered, in bytes. A longer one is told at once and forgotten.
pub(super) const KEPT_LEN_MAX: usize = 256 * 1024;

/// How much of the inputs of all calls is remembered together, in bytes: two of the longest lines.
const INPUTS_LEN_MAX: usize = 2 * HARNESS_LINE_MAX;

/// How long the name of a call or a tool may be, in bytes.
pub(super) const NAME_LEN_MAX: usize = 1024;

/// One call of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: Option<String>,
    pub(super) title: Option<String>,
    /// Its arguments, JSON text.
    pub(super) input: Option<String>,
    /// Whether those were too long to be remembered.
    pub(super) is_forgotten: bool,
    /// What it showed last, JSON text: its result where the end of it shows nothing.
    preview: Option<String>,
    /// What its terminal said, as far as it is remembered: at most twice as much as is told with the result.
    printed: String,
    /// Which part of the message that is being made it is.
    part: Option<u32>,
    /// Whether the tool began, or was allowed to.
    begun: bool,
    /// When it said that it had, Unix milliseconds.
    began: Option<u64>,
    ended: bool,
}

impl Call {
    /// Its arguments; of an agent that never tells those, what it calls it, which is all that there is of them.
    fn told_input(&self) -> Option<Json> {
        match (&self.input, &self.title) {
            (Some(input), _) => Json::parse(input.clone()).ok(),
            (None, Some(title)) if !self.is_forgotten => Some(Json::from(&json!({ "title": title }))),
            (None, _) => None,
        }
    }

    /// Remembers what its terminal said; what of that is new.
    fn print<'a>(&mut self, meta: &'a Meta<'_>) -> Option<&'a str> {
        let more = match (&meta.printed, &meta.printed_more) {
            (Some(all), _) => {
                self.printed.clear();
                all
            }
            (None, Some(more)) => more,
            (None, None) => return None,
        };
        self.printed.push_str(&more.data);
        // Not with each piece: that would move all of it each time.
        if self.printed.len() > 2 * KEPT_LEN_MAX {
            self.printed = self.printed_last().to_owned();
        }
        Some(&more.data)
    }

    /// The end of what its terminal said: what is longer was told piece by piece, and this is what is wanted of it.
    fn printed_last(&self) -> &str {
        let mut from = self.printed.len().saturating_sub(KEPT_LEN_MAX);
        while !self.printed.is_char_boundary(from) {
            from += 1;
        }
        &self.printed[from..]
    }

    fn forget_long(&mut self) {
        if self
            .input
            .as_ref()
            .is_some_and(|input| input.len() > KEPT_LEN_MAX)
        {
            self.input = None;
            self.is_forgotten = true;
        }
    }
}

/// What an update says of a call.
pub(super) struct Said<'a> {
    pub(super) id: wire::Text<'a>,
    pub(super) name: Option<wire::Text<'a>>,
    pub(super) title: Option<wire::Text<'a>>,
    pub(super) kind: Option<wire::Text<'a>>,
    pub(super) status: Option<wire::Text<'a>>,
    pub(super) input: Option<&'a RawValue>,
    pub(super) output: Option<&'a RawValue>,
    pub(super) content: Option<&'a RawValue>,
    pub(super) locations: Option<&'a RawValue>,
    pub(super) meta: Option<&'a RawValue>,
}

/// What agents say of a tool beside the protocol.
#[derive(Default, Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "claudeCode")]
    claude: Option<ClaudeMeta<'a>>,
    /// What qwen calls it.
    #[serde(borrow, default, rename = "toolName")]
    tool_name: Option<wire::Text<'a>>,
    /// What codex's terminal says, since the last time and in all, and how its command ended.
    #[serde(borrow, default, rename = "terminal_output_delta")]
    printed_more: Option<Printed<'a>>,
    #[serde(borrow, default, rename = "terminal_output")]
    printed: Option<Printed<'a>>,
    #[serde(borrow, default, rename = "terminal_exit")]
    exit: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Printed<'a> {
    #[serde(borrow)]
    data: wire::Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaudeMeta<'a> {
    #[serde(borrow, default)]
    tool_name: Option<wire::Text<'a>>,
}

impl Acp {
    /// An update of a call, be it the first or a later one.
    pub(super) fn tool(
        &mut self,
        said: &Said<'_>,
        now_ms: u64,
        out: &mut Vec<Fragment>,
    ) -> Result<(), NotOfAcp> {
        if said.id.len() > NAME_LEN_MAX {
            return Err(NotOfAcp);
        }
        let at = self.call(said, out);
        let status = said.status.as_deref().unwrap_or_default();
        let has_ended = matches!(status, "completed" | "failed");
        if has_ended || status == "in_progress" {
            // One that is told of when it is over began nobody knows when.
            self.begin_call(at, (!has_ended).then_some(now_ms), out);
        }
        let serves_terminals = self.beginning.serve.terminal;
        let content = said.content.filter(|content| is_shown(content, serves_terminals));
        let meta = meta(said);
        let printed = self.calls.get_mut(at).and_then(|call| call.print(&meta));
        let Some(call) = self.calls.get_mut(at) else {
            return Ok(());
        };
        if has_ended && !call.ended {
            let shown = match call.printed.is_empty() {
                true => None,
                false => Some(text_block(call.printed_last())),
            };
            let content = content.map(RawValue::get).or(shown.as_deref());
            let output = object(&[
                ("content", content.or(call.preview.as_deref())),
                ("rawOutput", said.output.map(RawValue::get)),
                ("locations", said.locations.map(RawValue::get)),
                ("exit", meta.exit.map(RawValue::get)),
            ]);
            self.end_call(at, &output, status == "failed", now_ms, out);
            return Ok(());
        }
        let mode = match printed {
            Some(_) if content.is_none() => ProgressMode::More,
            _ => ProgressMode::Whole,
        };
        let printed = printed.map(text_block);
        let more = object(&[
            ("content", content.map(RawValue::get).or(printed.as_deref())),
            ("rawOutput", said.output.map(RawValue::get)),
        ]);
        if more == "{}" {
            return Ok(());
        }
        let preview = content.filter(|content| content.get().len() <= KEPT_LEN_MAX);
        if let Some(preview) = preview {
            call.preview = Some(preview.get().to_owned());
        }
        // Before it has begun it is told with the result, or with the question whether it may.
        if call.begun || preview.is_none() {
            out.push(Fragment::Event(Event::ToolProgress(ToolProgress {
                tool_call_id: call.id.clone(),
                name: call.name.clone(),
                partial_output: Json::parse(more).unwrap_or_default(),
                mode,
            })));
        }
        Ok(())
    }

    /// The call that an update is about, with what it says of it; a new one is a part of the message that is being made.
    pub(super) fn call(&mut self, said: &Said<'_>, out: &mut Vec<Fragment>) -> usize {
        let at = match self.calls.iter().rposition(|call| call.id == said.id) {
            Some(at) => at,
            None => self.new_call(said, out),
        };
        let call = &mut self.calls[at];
        if let Some(kind) = &said.kind {
            call.kind = Some(cut(kind, NAME_LEN_MAX));
        }
        if let Some(title) = &said.title {
            call.title = Some(cut(title, NAME_LEN_MAX));
        }
        if let Some(input) = said.input.filter(|input| !matches!(input.get(), "{}" | "null")) {
            call.input = Some(input.get().to_owned());
            call.is_forgotten = false;
            self.bound_inputs(at, out);
        }
        at
    }

    /// Tells the message whose calls have more arguments than are remembered, and forgets the long ones of all but one.
    fn bound_inputs(&mut self, at: usize, out: &mut Vec<Fragment>) {
        let len = |call: &Call| call.input.as_ref().map_or(0, String::len);
        if self.calls.iter().map(len).sum::<usize>() <= INPUTS_LEN_MAX {
            return;
        }
        self.finish_message(None, None, out);
        for (n, call) in self.calls.iter_mut().enumerate() {
            if n != at {
                call.forget_long();
            }
        }
    }

    fn new_call(&mut self, said: &Said<'_>, out: &mut Vec<Fragment>) -> usize {
        if self.calls.len() == CALLS_MAX {
            let oldest = self.calls.iter().position(|call| call.ended).unwrap_or(0);
            self.calls.remove(oldest);
        }
        self.totals.calls += 1;
        let name = name(said);
        if self.message.as_ref().is_some_and(|it| it.parts >= PARTS_MAX) {
            self.finish_message(None, None, out);
        }
        if self.message.is_none() {
            self.message = Some(Message::default());
            out.push(Fragment::Started(Role::Assistant));
        }
        let part = self.message.as_mut().map(|message| {
            message.calls = true;
            message.last = None;
            message.parts += 1;
            message.parts - 1
        });
        out.push(Fragment::Phase(Phase::Generating));
        out.push(Fragment::CallStarted {
            tool_call_id: said.id.to_string(),
            name: name.clone(),
            content_index: part.unwrap_or(0),
        });
        self.calls.push(Call {
            id: said.id.to_string(),
            name,
            kind: None,
            title: None,
            input: None,
            is_forgotten: false,
            preview: None,
            printed: String::new(),
            part,
            begun: false,
            began: None,
            ended: false,
        });
        self.calls.len() - 1
    }

    /// The message is about to end, and the calls in it are whole.
    pub(super) fn end_calls_of_message(&mut self, out: &mut Vec<Fragment>) {
        for call in &mut self.calls {
            let Some(content_index) = call.part.take() else {
                continue;
            };
            let input = call.told_input();
            call.forget_long();
            out.push(Fragment::CallEnded {
                tool_call_id: call.id.clone(),
                name: call.name.clone(),
                input: input.unwrap_or_else(|| Json::from(&json!({}))),
                content_index,
            });
        }
    }

    /// The tool was allowed to begin: not every agent says when it does.
    pub(super) fn may_begin(&mut self, id: &str, out: &mut Vec<Fragment>) {
        if let Some(at) = self.calls.iter().rposition(|call| call.id == id && !call.ended) {
            self.begin_call(at, None, out);
        }
    }

    fn begin_call(&mut self, at: usize, now_ms: Option<u64>, out: &mut Vec<Fragment>) {
        let Some(call) = self.calls.get_mut(at) else {
            return;
        };
        call.began = call.began.or(now_ms);
        if call.begun {
            return;
        }
        call.begun = true;
        // What the model says next is another message.
        self.finish_message(None, None, out);
        if let Some(call) = self.calls.get(at) {
            out.push(Fragment::Phase(Phase::ToolRunning));
            out.push(Fragment::Event(Event::ToolStart(ToolStart {
                tool_call_id: call.id.clone(),
                name: call.name.clone(),
                input: call.told_input(),
            })));
        }
    }

    fn end_call(&mut self, at: usize, output: &str, is_error: bool, now_ms: u64, out: &mut Vec<Fragment>) {
        // A message that goes on while a tool ends goes on as another one.
        self.finish_message(None, None, out);
        let Some(call) = self.calls.get_mut(at) else {
            return;
        };
        call.ended = true;
        call.preview = None;
        call.printed = String::new();
        call.input = None;
        let output = Json::parse(output).unwrap_or_default();
        let duration_ms = call.began.map(|began| now_ms.saturating_sub(began));
        let (id, name) = (call.id.clone(), call.name.clone());
        out.push(Fragment::Event(Event::ToolEnd(ToolEnd {
            tool_call_id: id.clone(),
            name: name.clone(),
            output: output.clone(),
            is_error,
            duration_ms,
        })));
        let result = Content::ToolResult(ToolResult {
            tool_call_id: id.clone(),
            name: Some(name.clone()),
            output: Some(output),
            is_error,
            duration_ms,
        });
        let part = Part {
            id: "p-0".to_owned(),
            content: result,
        };
        out.push(Fragment::Started(Role::Tool));
        out.push(Fragment::Finished(Box::new(Draft {
            tool_call_id: Some(id),
            tool_name: Some(name),
            is_error: Some(is_error),
            ..Draft::new(Role::Tool, vec![part])
        })));
        if self.calls.iter().all(|call| call.ended || !call.begun) {
            out.push(Fragment::Phase(Phase::Generating));
        }
    }

    /// The turn is over: what never ended, or was never allowed to begin, has no result.
    pub(super) fn end_calls(&mut self, now_ms: u64, out: &mut Vec<Fragment>) {
        for at in 0..self.calls.len() {
            if !self.calls[at].ended {
                self.end_call(at, "null", true, now_ms, out);
            }
        }
        self.calls.clear();
    }
}

/// The tool's name: as the agent calls it, else of what kind it is.
fn name(said: &Said<'_>) -> String {
    let meta = meta(said);
    let by_claude = meta.claude.and_then(|claude| claude.tool_name);
    let mut names = [&said.name, &by_claude, &meta.tool_name, &said.kind].into_iter();
    let name = names.find_map(Option::as_ref);
    name.map_or_else(|| "other".to_owned(), |name| cut(name, NAME_LEN_MAX))
}

/// What is said beside the protocol, as far as it is known.
fn meta<'a>(said: &Said<'a>) -> Meta<'a> {
    said.meta
        .and_then(|meta| serde_json::from_str(meta.get()).ok())
        .unwrap_or_default()
}

/// Whether there is anything in it to be shown: a terminal that the runner does not serve has no face here.
fn is_shown(content: &RawValue, serves_terminals: bool) -> bool {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        type_: wire::Text<'a>,
    }
    match serde_json::from_str::<Vec<Typed<'_>>>(content.get()) {
        Ok(list) => list.iter().any(|it| serves_terminals || it.type_ != "terminal"),
        Err(_) => true,
    }
}

/// A text as content.
fn text_block(text: &str) -> String {
    json!([{ "type": "content", "content": { "type": "text", "text": text } }]).to_string()
}

/// An object of those fields that are there; their values are JSON texts.
fn object(fields: &[(&str, Option<&str>)]) -> String {
    let mut text = String::from("{");
    for (name, value) in fields {
        if let Some(value) = value.filter(|value| !matches!(*value, "null" | "[]")) {
            if text.len() > 1 {
                text.push(',');
            }
            text.push('"');
            text.push_str(name);
            text.push_str("\":");
            text.push_str(value);
        }
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_terminal_says_the_end_is_remembered() {
        let mut acp = Acp {
            session: Some("s".to_owned()),
            ..Acp::default()
        };
        let update = |more: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"sessionId":"s","update":{{"sessionUpdate":"tool_call_update","toolCallId":"t",{more}}}}}}}"#
            )
        };
        let mut out = Vec::new();
        for n in 0..40_000 {
            let data = format!("\u{e9}{n:05} and more\\n");
            let line = update(&format!(
                r#""_meta":{{"terminal_output_delta":{{"data":"{data}"}}}}"#
            ));
            acp.push(line.as_bytes(), 0, &mut out);
            assert!(acp.calls[0].printed.len() <= 2 * KEPT_LEN_MAX);
        }
        out.clear();
        acp.push(update(r#""status":"completed""#).as_bytes(), 0, &mut out);
        let ended = out.iter().find_map(|it| match it {
            Fragment::Event(Event::ToolEnd(end)) => Some(end.output.text()),
            _ => None,
        });
        let text = ended.expect("an end");
        assert!(text.contains("39999 and more") && !text.contains("00000 and more"));
        assert!(
            (KEPT_LEN_MAX..2 * KEPT_LEN_MAX).contains(&text.len()),
            "{}",
            text.len()
        );
    }

    #[test]
    fn no_agent_fills_the_memory_with_the_inputs_of_its_calls() {
        let mut acp = Acp {
            session: Some("s".to_owned()),
            ..Acp::default()
        };
        let long = "x".repeat(HARNESS_LINE_MAX / 2);
        let mut told = 0;
        for n in 0..12 {
            let line = format!(
                r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"sessionId":"s","update":{{"sessionUpdate":"tool_call","toolCallId":"{n}","rawInput":{{"text":"{long}"}}}}}}}}"#
            );
            let mut out = Vec::new();
            acp.push(line.as_bytes(), 0, &mut out);
            let is_whole = |it: &&Fragment| matches!(it, Fragment::CallEnded { input, .. } if input.text().len() > long.len());
            told += out.iter().filter(is_whole).count();
            let held: usize = acp
                .calls
                .iter()
                .flat_map(|call| &call.input)
                .map(String::len)
                .sum();
            assert!(held <= INPUTS_LEN_MAX, "{n}: {held}");
        }
        assert!(told >= 8, "{told}");
    }
}
