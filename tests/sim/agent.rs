//! A harness as the shim sees it: lines in, lines out, and at times it dies. What it says to a prompt follows from the
//! prompt alone.

use std::borrow::Cow;
use std::collections::VecDeque;

use oqto_protocol::id::CommandId;
use oqto_runner::harness::{ExecLine, ExecOrder, Harness};
use serde_json::{Value, json};

use crate::dice::Dice;

/// How it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Exec,
    /// A pi that says when a run is over.
    Pi,
    /// One that does not, as before 0.80.4.
    OldPi,
}

impl Dialect {
    pub(crate) fn harness(self) -> Harness {
        match self {
            Self::Exec => Harness::exec(),
            Self::Pi | Self::OldPi => Harness::pi(),
        }
    }
}

/// A line that is said after a while.
#[derive(Debug)]
struct Line {
    after_ms: u64,
    text: Vec<u8>,
}

/// The harness's process.
#[derive(Debug)]
pub(crate) struct Agent {
    dialect: Dialect,
    heard: Vec<u8>,
    to_say: VecDeque<Line>,
    /// The prompt that it works at.
    works: Option<String>,
    is_message_open: bool,
    /// It dies when it has said so many lines more.
    pub(crate) dies_after: Option<u64>,
}

impl Agent {
    pub(crate) fn new(dialect: Dialect) -> Self {
        let mut agent = Self {
            dialect,
            heard: Vec::new(),
            to_say: VecDeque::new(),
            works: None,
            is_message_open: false,
            dies_after: None,
        };
        if dialect == Dialect::Exec {
            agent.say_exec(5, &ExecLine::Ready {});
        }
        agent
    }

    /// After how long it says its next line.
    pub(crate) fn next_after(&self) -> Option<u64> {
        self.to_say.front().map(|line| line.after_ms)
    }

    /// Its next line.
    pub(crate) fn speak(&mut self) -> Option<Vec<u8>> {
        let line = self.to_say.pop_front()?;
        if line
            .text
            .starts_with(br#"{"type":"message_start","message":{"role":"assistant""#)
        {
            self.is_message_open = true;
        } else if line.text.starts_with(br#"{"type":"message_end""#) {
            self.is_message_open = false;
        }
        if self.to_say.is_empty() {
            self.works = None;
        }
        Some(line.text)
    }

    /// Hears bytes; the commands that had an effect on it.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Vec<CommandId> {
        self.heard.extend_from_slice(bytes);
        let mut effects = Vec::new();
        while let Some(at) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=at).collect();
            effects.extend(match self.dialect {
                Dialect::Exec => self.obey_exec(&line),
                Dialect::Pi | Dialect::OldPi => self.obey_pi(&line),
            });
        }
        effects
    }

    fn obey_exec(&mut self, line: &[u8]) -> Option<CommandId> {
        match serde_json::from_slice(line).expect("exec is told what it understands") {
            ExecOrder::Run { id, .. } if self.works.is_some() => {
                let (id, error) = (Cow::Owned(id), Cow::Borrowed("something runs"));
                self.say_exec(1, &ExecLine::Refused { id, error });
                None
            }
            ExecOrder::Run { id, text } => {
                let effect = id.parse().ok();
                let mut dice = Dice::named(0, &text);
                let name = || Cow::Owned(id.clone());
                self.say_exec(dice.between(1, 8), &ExecLine::Started { id: name() });
                for n in 0..dice.between(0, 9) {
                    let piece = format!("{text} says {n} {}\n", "x".repeat(dice.index(60)));
                    let piece = Cow::<str>::Owned(piece);
                    let line = if dice.percent(20) {
                        ExecLine::Err(piece)
                    } else {
                        ExecLine::Out(piece)
                    };
                    self.say_exec(pause(&mut dice), &line);
                }
                let ended = ExecLine::Ended {
                    id: name(),
                    code: Some(0),
                    signal: None,
                };
                self.say_exec(dice.between(1, 20), &ended);
                self.works = Some(id);
                effect
            }
            ExecOrder::Abort {} => {
                if let Some(id) = self.works.take() {
                    self.to_say.clear();
                    let ended = ExecLine::Ended {
                        id: Cow::Owned(id),
                        code: None,
                        signal: Some(15),
                    };
                    self.say_exec(3, &ended);
                }
                None
            }
        }
    }

    fn obey_pi(&mut self, line: &[u8]) -> Option<CommandId> {
        let order: Value = serde_json::from_slice(line).expect("pi is told JSON");
        let (id, type_) = (order["id"].as_str(), order["type"].as_str().unwrap_or_default());
        let effect = id.and_then(|id| id.parse().ok());
        let answer = |success: bool| {
            let mut answer = json!({ "id": id, "type": "response", "command": type_, "success": success });
            if !success {
                answer["error"] = json!("busy");
            }
            answer
        };
        match type_ {
            "prompt" if self.works.is_some() => {
                self.say(1, &answer(false));
                return None;
            }
            "prompt" => {
                self.say(2, &answer(true));
                self.run(order["message"].as_str().unwrap_or_default());
                self.works = id.map(str::to_owned);
            }
            "abort" => {
                if self.works.take().is_some() {
                    self.to_say.clear();
                    if std::mem::take(&mut self.is_message_open) {
                        self.say(2, &end("assistant", &json!([]), "aborted"));
                    }
                    self.say_over();
                }
                self.say(1, &answer(true));
            }
            "get_state" => {
                let mut state = answer(true);
                state["data"] = json!({ "sessionId": "one", "isStreaming": false });
                self.say(30, &state);
            }
            _ => self.say(1, &answer(true)),
        }
        effect
    }

    /// A run of pi: some turns of a model that thinks, talks and uses tools.
    fn run(&mut self, text: &str) {
        let mut dice = Dice::named(0, text);
        self.say(1, &json!({ "type": "agent_start" }));
        let said = json!([{ "type": "text", "text": text }]);
        self.say(0, &start("user"));
        self.say(0, &end("user", &said, "stop"));
        let turns = dice.between(1, 3);
        for turn in 0..turns {
            self.say(pause(&mut dice), &start("assistant"));
            self.say(0, &update(&json!({ "type": "text_start", "contentIndex": 0 })));
            let mut whole = String::new();
            for n in 0..dice.between(1, 8) {
                let delta = format!("{n}{} ", "y".repeat(dice.index(20)));
                whole.push_str(&delta);
                let delta = json!({ "type": "text_delta", "contentIndex": 0, "delta": delta });
                self.say(pause(&mut dice), &update(&delta));
            }
            let mut content = vec![json!({ "type": "text", "text": whole })];
            let call = (turn + 1 < turns).then(|| format!("call-{turn}"));
            if let Some(call) = &call {
                let args = json!({ "command": "ls" });
                let begun =
                    json!({ "type": "toolcall_start", "contentIndex": 1, "id": call, "toolName": "bash" });
                self.say(0, &update(&begun));
                let whole = json!({ "type": "toolCall", "id": call, "name": "bash", "arguments": args });
                let ended = json!({ "type": "toolcall_end", "contentIndex": 1, "toolCall": whole });
                self.say(1, &update(&ended));
                content.push(whole);
            }
            let reason = if call.is_some() { "toolUse" } else { "stop" };
            self.say(1, &end("assistant", &json!(content), reason));
            if let Some(call) = &call {
                self.use_tool(call, &mut dice);
            }
        }
        self.say_over();
    }

    fn use_tool(&mut self, call: &str, dice: &mut Dice) {
        let name = json!({ "toolCallId": call, "toolName": "bash" });
        let with = |type_: &str, key: &str, value: Value| {
            let mut line = name.clone();
            line["type"] = json!(type_);
            line[key] = value;
            line
        };
        let given = json!({ "content": [{ "type": "text", "text": call }] });
        self.say(
            0,
            &with("tool_execution_start", "args", json!({ "command": "ls" })),
        );
        for _ in 0..dice.below(3) {
            self.say(
                pause(dice),
                &with("tool_execution_update", "partialResult", given.clone()),
            );
        }
        let mut ended = with("tool_execution_end", "result", given);
        ended["isError"] = json!(false);
        self.say(pause(dice), &ended);
        let mut result = end("toolResult", &json!([{ "type": "text", "text": call }]), "stop");
        result["message"]["toolCallId"] = json!(call);
        result["message"]["toolName"] = json!("bash");
        self.say(0, &start("toolResult"));
        self.say(0, &result);
    }

    fn say_over(&mut self) {
        self.say(1, &json!({ "type": "agent_end", "messages": [] }));
        if self.dialect == Dialect::Pi {
            self.say(0, &json!({ "type": "agent_settled" }));
        }
    }

    fn say(&mut self, after_ms: u64, line: &Value) {
        // Where a type stands first, as pi writes it.
        let mut text = match line.get("type") {
            Some(type_) if line.get("id").is_none() => {
                let mut rest = line.clone();
                rest.as_object_mut().expect("a line is an object").remove("type");
                let rest = rest.to_string();
                let comma = if rest.len() > 2 { "," } else { "" };
                format!("{{\"type\":{type_}{comma}{}", &rest[1..]).into_bytes()
            }
            _ => line.to_string().into_bytes(),
        };
        text.push(b'\n');
        self.to_say.push_back(Line { after_ms, text });
    }

    fn say_exec(&mut self, after_ms: u64, line: &ExecLine<'_, Cow<'_, str>>) {
        let mut text = serde_json::to_vec(line).expect("a line of exec has a form");
        text.push(b'\n');
        self.to_say.push_back(Line { after_ms, text });
    }

    /// What it says to a prompt, all of it: the messages that a transcript of the run must have.
    pub(crate) fn transcript(dialect: Dialect, prompt: &str) -> Vec<String> {
        let mut agent = Self::new(dialect);
        agent.to_say.clear();
        let id = CommandId([0; 16]).to_string();
        match dialect {
            Dialect::Exec => {
                let order = ExecOrder::Run {
                    id,
                    text: prompt.to_owned(),
                };
                let mut line = serde_json::to_vec(&order).expect("an order has a form");
                line.push(b'\n');
                agent.hear(&line);
                let mut tail = String::new();
                while let Some(line) = agent.speak() {
                    if let Ok(ExecLine::<String>::Out(text) | ExecLine::Err(text)) =
                        serde_json::from_slice(&line)
                    {
                        tail.push_str(&text);
                    }
                }
                vec![format!("user {prompt}"), format!("tool {tail}")]
            }
            Dialect::Pi | Dialect::OldPi => {
                agent.run(prompt);
                let mut messages = Vec::new();
                while let Some(line) = agent.speak() {
                    let line: Value = serde_json::from_slice(&line).expect("pi says JSON");
                    if line["type"] == "message_end" {
                        let message = &line["message"];
                        let role = match message["role"].as_str() {
                            Some("toolResult") => "tool",
                            role => role.unwrap_or_default(),
                        };
                        let text = message["content"][0]["text"].as_str().unwrap_or_default();
                        messages.push(format!("{role} {text}"));
                    }
                }
                messages
            }
        }
    }
}

/// Most pieces come at once, some after a while: long enough at times for deadlines to pass.
fn pause(dice: &mut Dice) -> u64 {
    match dice.below(20) {
        0..=13 => dice.between(0, 5),
        14..=18 => dice.between(5, 120),
        _ => dice.between(120, 1500),
    }
}

fn start(role: &str) -> Value {
    json!({ "type": "message_start", "message": { "role": role } })
}

fn end(role: &str, content: &Value, reason: &str) -> Value {
    json!({ "type": "message_end", "message": { "role": role, "content": content, "stopReason": reason } })
}

fn update(event: &Value) -> Value {
    json!({ "type": "message_update", "assistantMessageEvent": event })
}
