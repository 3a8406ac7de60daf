//! What was said, in the words that pi and the protocol have in common.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use oqto_protocol::message::{Content, Message, Role, StopReason};
use oqto_tests::Agents;
use serde_json::Value;

/// A message, as far as both sides can say it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) role: String,
    pub(crate) text: Vec<String>,
    pub(crate) thinking: Vec<String>,
    pub(crate) calls: Vec<(String, String, Value)>,
    pub(crate) stop: Option<String>,
    pub(crate) result_of: Option<String>,
    pub(crate) is_error: Option<bool>,
}

impl From<&Message> for Said {
    fn from(message: &Message) -> Self {
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "toolResult",
            _ => "system",
        };
        let stop = message.stop_reason.as_ref().map(|reason| match reason {
            StopReason::ToolUse => "toolUse".to_owned(),
            other => other.to_string(),
        });
        let mut said = Self {
            role: role.to_owned(),
            stop,
            result_of: message.tool_call_id.clone(),
            is_error: message.is_error,
            ..Self::default()
        };
        for part in &message.parts {
            match &part.content {
                Content::Text(text) => said.text.push(text.text.clone()),
                Content::Thinking(thinking) => said.thinking.push(thinking.text.clone()),
                Content::ToolCall(call) => {
                    let input = call
                        .input
                        .as_ref()
                        .map_or(Value::Null, oqto_protocol::codec::Json::value);
                    said.calls
                        .push((call.tool_call_id.clone(), call.name.clone(), input));
                }
                Content::ToolResult(result) => {
                    let output = result
                        .output
                        .as_ref()
                        .map_or(Value::Null, oqto_protocol::codec::Json::value);
                    said.take(&output);
                }
                _ => {}
            }
        }
        said
    }
}

impl Said {
    /// A message as pi has it.
    fn of_pi(message: &Value) -> Self {
        let word = |name: &str| message.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut said = Self {
            role: word("role").unwrap(),
            stop: word("stopReason"),
            result_of: word("toolCallId"),
            is_error: message.get("isError").and_then(Value::as_bool),
            ..Self::default()
        };
        said.take(&message["content"]);
        said
    }

    /// Takes in what pi calls content: a text, or a list of parts.
    fn take(&mut self, content: &Value) {
        if let Some(text) = content.as_str() {
            self.text
                .extend(Some(text.to_owned()).filter(|text| !text.is_empty()));
        }
        for part in content.as_array().into_iter().flatten() {
            let word = |name: &str| part[name].as_str().unwrap().to_owned();
            match part["type"].as_str().unwrap() {
                "text" => self.text.push(word("text")),
                "thinking" => self.thinking.push(word("thinking")),
                "toolCall" => self
                    .calls
                    .push((word("id"), word("name"), part["arguments"].clone())),
                other => panic!("pi says {other}"),
            }
        }
    }
}

/// What pi itself says was said in the session of this file, asked outside of every sandbox.
pub(crate) fn by_pi(agents: &Agents, config: &Path, session: &Path) -> Vec<Said> {
    let scratch = tempfile::tempdir().unwrap();
    // It may write into what it opens; and what lies in its configuration's directory it moves elsewhere.
    let config_dir = scratch.path().join("config");
    std::fs::create_dir(&config_dir).unwrap();
    let copy = scratch.path().join(session.file_name().unwrap());
    std::fs::copy(session, &copy).unwrap();
    std::fs::copy(config.join("models.json"), config_dir.join("models.json")).unwrap();
    let mut pi = Command::new(agents.bin().join("node"))
        .arg(agents.bin().join("pi").canonicalize().unwrap())
        .args(["--mode", "rpc", "--model", "fake/fake-model", "--session"])
        .arg(&copy)
        .current_dir(scratch.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", scratch.path())
        .env("PI_CODING_AGENT_DIR", config_dir)
        .env("PI_OFFLINE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    pi.stdin
        .as_mut()
        .unwrap()
        .write_all(b"{\"id\":\"1\",\"type\":\"get_messages\"}\n")
        .unwrap();
    let mut lines = BufReader::new(pi.stdout.take().unwrap()).lines();
    let answer = loop {
        let line = lines.next().expect("pi answers").unwrap();
        let value: Value = serde_json::from_str(&line).unwrap();
        if value["type"] == "response" {
            break value;
        }
    };
    drop(pi.stdin.take());
    assert!(pi.wait().unwrap().success());
    assert_eq!(answer["success"], true, "{answer}");
    let messages = answer["data"]["messages"].as_array().unwrap();
    messages.iter().map(Said::of_pi).collect()
}
