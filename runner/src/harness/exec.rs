//! The dialect of the exec harness: each prompt is a shell command, run by a small agent of ours in the sandbox.
//!
//! The agent's two sides are here as types: [`Order`] goes in, [`Line`] comes out, one JSON object a line. One prompt
//! is one run; its exit code is the result.

use std::borrow::Cow;

use oqto_protocol::codec::{Blob, Json};
use oqto_protocol::command::Command;
use oqto_protocol::event::{Event, Phase, ProgressMode, ToolEnd, ToolProgress, ToolStart};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::message::{Content, Part, Role, Text, ToolResult};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::dialect::{Expect, Speech};
use super::fragment::{Draft, Fragment, Outcome};

/// How much of a run's output its result repeats, in bytes: the end is what tells how it went, and the whole was
/// streamed.
const TAIL_LEN_MAX: usize = 64 * 1024;

/// The name of the tool that a run is.
const TOOL: &str = "exec";

/// What a shell adds to the signal of a program.
const CODE_OF_SIGNAL: i32 = 128;

/// What the agent is told.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Run a shell's text under a name.
    Run {
        /// The name of the run.
        id: String,
        /// The text.
        text: String,
    },
    /// End what runs.
    Abort {},
}

/// What the agent says; output is a `T`, so that a reader need not unescape it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<'a, T> {
    /// It takes orders.
    Ready {},
    /// A run has begun.
    Started {
        /// Which.
        #[serde(borrow)]
        id: Cow<'a, str>,
    },
    /// A run could not begin.
    Refused {
        /// Which.
        #[serde(borrow)]
        id: Cow<'a, str>,
        /// Why.
        #[serde(borrow)]
        error: Cow<'a, str>,
    },
    /// Text on its standard output.
    Out(T),
    /// Text on its standard error.
    Err(T),
    /// Bytes on its standard output that are no text, in base64.
    OutB64(T),
    /// Bytes on its standard error that are no text, in base64.
    ErrB64(T),
    /// A run has ended.
    Ended {
        /// Which.
        #[serde(borrow)]
        id: Cow<'a, str>,
        /// With this exit code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// By this signal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
    },
}

/// What an exec agent has said so far, as far as its next line depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    run: Option<Run>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    id: CommandId,
    text: String,
    began: Option<u64>,
    stdout_bytes: u64,
    stderr_bytes: u64,
    tail: String,
}

impl Exec {
    pub(super) fn say(&mut self, command: &Command, id: CommandId) -> Result<Speech, Fault> {
        let (order, expect) = match command {
            Command::Prompt(prompt) => {
                let (id, text) = (id.to_string(), prompt.message.clone());
                (Order::Run { id, text }, Expect::Answer)
            }
            Command::Abort(_) => (Order::Abort {}, Expect::Nothing),
            _ => {
                return Err(Fault::new(
                    FaultCode::Unsupported,
                    format!("exec has no order for {}", command.name()),
                ));
            }
        };
        let mut bytes = Vec::new();
        // Two texts always have a JSON form, and a vector takes every byte.
        let written = serde_json::to_writer(&mut bytes, &order);
        debug_assert!(written.is_ok());
        bytes.push(b'\n');
        let speech = Speech::new(bytes, expect)?;
        if let Order::Run { text, .. } = order {
            self.run = Some(Run::new(id, text));
        }
        Ok(speech)
    }

    pub(super) fn push(&mut self, line: &[u8], now_ms: u64, out: &mut Vec<Fragment>) {
        let understood = serde_json::from_slice(line)
            .ok()
            .and_then(|line| self.read(line, now_ms, out));
        if understood.is_none() {
            out.push(Fragment::Stray);
        }
    }

    pub(super) fn at_rest(&self) -> bool {
        self.run.is_none()
    }

    fn read(&mut self, line: Line<'_, &RawValue>, now_ms: u64, out: &mut Vec<Fragment>) -> Option<()> {
        match line {
            Line::Ready {} => out.push(Fragment::Ready),
            Line::Started { id } => {
                let run = self.run.as_mut().filter(|run| run.is(&id))?;
                run.began = Some(now_ms);
                run.started(out);
            }
            Line::Refused { id, error } => {
                let run = self.run.take_if(|run| run.is(&id))?;
                let fault = Fault::new(FaultCode::Harness, format!("exec refused the run: {error}"));
                out.push(Fragment::Answer {
                    id: run.id,
                    answer: Err(fault),
                });
            }
            Line::Out(text) => out.push(self.run.as_mut()?.output("stdout", Encoding::Text, text)?),
            Line::Err(text) => out.push(self.run.as_mut()?.output("stderr", Encoding::Text, text)?),
            Line::OutB64(text) => out.push(self.run.as_mut()?.output("stdout", Encoding::Base64, text)?),
            Line::ErrB64(text) => out.push(self.run.as_mut()?.output("stderr", Encoding::Base64, text)?),
            Line::Ended { id, code, signal } => {
                let run = self.run.take_if(|run| run.is(&id))?;
                run.ended(code, signal, now_ms, out);
            }
        }
        Some(())
    }
}

#[derive(Clone, Copy)]
enum Encoding {
    Text,
    Base64,
}

impl Run {
    fn new(id: CommandId, text: String) -> Self {
        Self {
            id,
            text,
            began: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            tail: String::new(),
        }
    }

    fn is(&self, id: &str) -> bool {
        id.parse() == Ok(self.id)
    }

    fn started(&self, out: &mut Vec<Fragment>) {
        let said = Content::Text(Text {
            text: self.text.clone(),
            format: None,
        });
        out.extend([
            Fragment::Answer {
                id: self.id,
                answer: Ok(None),
            },
            Fragment::Began(Phase::ToolRunning),
            Fragment::Started(Role::User),
            Fragment::Finished(Box::new(Draft::new(Role::User, vec![only(said)]))),
            Fragment::Event(Event::ToolStart(ToolStart {
                tool_call_id: self.id.to_string(),
                name: TOOL.to_owned(),
                input: Some(Json::from(&json!({ "command": self.text }))),
            })),
        ]);
    }

    /// Takes a piece of output: `stream` names where it was written.
    fn output(&mut self, stream: &str, encoding: Encoding, raw: &RawValue) -> Option<Fragment> {
        let (len, name) = match encoding {
            Encoding::Text => {
                let text: Cow<'_, str> = Deserialize::deserialize(raw).ok()?;
                self.keep(&text);
                (text.len(), stream.to_owned())
            }
            Encoding::Base64 => {
                let bytes = Blob::deserialize(raw).ok()?.0;
                self.keep(&String::from_utf8_lossy(&bytes));
                (bytes.len(), format!("{stream}_base64"))
            }
        };
        let count = match stream {
            "stdout" => &mut self.stdout_bytes,
            _ => &mut self.stderr_bytes,
        };
        *count += len as u64;
        // The output is passed on as the JSON text that it came in.
        let partial_output = Json::parse(format!(r#"{{"{name}":{raw}}}"#)).ok()?;
        Some(Fragment::Event(Event::ToolProgress(ToolProgress {
            tool_call_id: self.id.to_string(),
            name: TOOL.to_owned(),
            partial_output,
            mode: ProgressMode::More,
        })))
    }

    fn keep(&mut self, text: &str) {
        self.tail.push_str(text);
        // Cut only at twice the bound, so that each byte is moved once.
        if self.tail.len() > 2 * TAIL_LEN_MAX {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let past = self.tail.len().saturating_sub(TAIL_LEN_MAX);
        let at = (past..=self.tail.len()).find(|at| self.tail.is_char_boundary(*at));
        self.tail.drain(..at.unwrap_or(past));
    }

    fn ended(mut self, code: Option<i32>, signal: Option<i32>, now_ms: u64, out: &mut Vec<Fragment>) {
        self.cut();
        let is_error = code != Some(0);
        let result = match signal {
            Some(signal) => json!({ "signal": signal }),
            None => json!({ "exit_code": code }),
        };
        let mut output = json!({
            "stdout_bytes": self.stdout_bytes,
            "stderr_bytes": self.stderr_bytes,
            "tail": self.tail,
        });
        if let (Some(output), serde_json::Value::Object(result)) = (output.as_object_mut(), result) {
            output.extend(result);
        }
        let output = Json::from(&output);
        let tool_call_id = self.id.to_string();
        let duration_ms = self.began.map(|began| now_ms.saturating_sub(began));
        let said = Content::ToolResult(ToolResult {
            tool_call_id: tool_call_id.clone(),
            name: Some(TOOL.to_owned()),
            output: Some(output.clone()),
            is_error,
            duration_ms,
        });
        let draft = Draft {
            tool_call_id: Some(tool_call_id.clone()),
            tool_name: Some(TOOL.to_owned()),
            is_error: Some(is_error),
            ..Draft::new(Role::Tool, vec![only(said)])
        };
        // A shell says in its code by which signal the program ended that it ran last.
        let ended_by = signal.or_else(|| code.map(|code| code - CODE_OF_SIGNAL));
        out.extend(
            ended_by
                .filter(|signal| *signal > 0)
                .map(|signal| Fragment::EndedBy { signal }),
        );
        let outcome = match signal {
            Some(signal) => Outcome::Failed {
                error: format!("the command was ended by signal {signal}"),
            },
            None => Outcome::Done,
        };
        out.extend([
            Fragment::Event(Event::ToolEnd(ToolEnd {
                tool_call_id,
                name: TOOL.to_owned(),
                output,
                is_error,
                duration_ms,
            })),
            Fragment::Started(Role::Tool),
            Fragment::Finished(Box::new(draft)),
            Fragment::Ended(outcome),
        ]);
    }
}

fn only(content: Content) -> Part {
    Part {
        id: "p-0".to_owned(),
        content,
    }
}
