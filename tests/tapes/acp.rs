//! Recorded sessions of agents that speak the Agent Client Protocol, as the records that a session is given.
//!
//! What was written to the agent then becomes the command that would have written it; the agent's answers, which name
//! its requests by number, become answers to ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oqto_protocol::command::*;
use oqto_runner::harness::Harness;
use serde_json::Value;

use crate::tape::{BEGAN, Record, Recorded, What, confined, envelope, id, note, recorded};

/// One recording.
pub(crate) struct Tape {
    pub(crate) name: String,
    pub(crate) harness: Harness,
    pub(crate) continue_session: Option<String>,
    pub(crate) records: Vec<Record>,
}

/// Every recording, by agent and name.
pub(crate) fn all() -> Vec<Tape> {
    let mut tapes = Vec::new();
    for agent in sorted(&dir()) {
        for path in sorted(&agent) {
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                tapes.push(read(&path));
            }
        }
    }
    assert!(tapes.len() > 25, "only {} recordings", tapes.len());
    tapes
}

/// Where the golden file of a recording is.
pub(crate) fn golden(name: &str) -> PathBuf {
    let (agent, scenario) = name.split_once('/').expect("an agent's");
    dir().join(agent).join("golden").join(format!("{scenario}.jsonl"))
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tapes/acp")
}

fn sorted(dir: &Path) -> Vec<PathBuf> {
    let entries = dir.read_dir().expect("the recordings are there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths
}

/// What is known while a recording is gone through.
#[derive(Default)]
struct Reading {
    /// What our request is called that was recorded under a number.
    names: BTreeMap<u64, String>,
    /// Its session: the first that was opened.
    session: Option<String>,
    /// The names of the agent's requests, as they come out of the dialect.
    asked: BTreeMap<String, String>,
    /// The mode that was set before anything else was said.
    mode: Option<String>,
    /// How the first session was opened.
    continues: Option<String>,
    /// Whether the session is there.
    opened: bool,
}

fn read(path: &Path) -> Tape {
    let scenario = path.file_stem().expect("named").to_string_lossy().into_owned();
    let agent = path
        .parent()
        .and_then(Path::file_name)
        .expect("named")
        .to_string_lossy();
    let lines = recorded(path);
    let mut reading = Reading::default();
    let mut records = vec![confined()];
    let killed = lines
        .iter()
        .any(|line| line.dir == "note" && line.line.starts_with("SIG"));
    for line in &lines {
        let at = BEGAN + line.t_ms;
        let what = reading.take(line, at, killed);
        records.extend(what.map(|what| Record { at, what }));
    }
    Tape {
        name: format!("{agent}/{scenario}"),
        harness: Harness::acp(&agent, "agent", reading.mode.as_deref()),
        continue_session: reading.continues,
        records,
    }
}

impl Reading {
    fn take(&mut self, line: &Recorded, at: u64, killed: bool) -> Option<What> {
        match line.dir.as_str() {
            "in" => self.written(&line.line).map(What::Command),
            "out" => self.printed(&line.line, at).map(What::Out),
            "err" => Some(What::Err(format!("{}\n", line.line).into_bytes())),
            _ => note(&line.line, killed),
        }
    }

    /// The command that would have written a line; `None` for what the dialect writes by itself.
    fn written(&mut self, line: &str) -> Option<CommandEnvelope> {
        let value: Value = serde_json::from_str(line).ok()?;
        let params = &value["params"];
        let number = value["id"].as_u64();
        let Some(method) = value["method"].as_str() else {
            let name = self.asked.get(&value["id"].to_string())?.clone();
            let outcome = &value["result"]["outcome"];
            return Some(envelope(
                &format!("answer{}", value["id"]),
                Command::InputResponse(InputResponse {
                    request_id: name,
                    value: outcome["optionId"].as_str().map(str::to_owned),
                    confirmed: None,
                    cancelled: (outcome["outcome"] == "cancelled").then_some(true),
                }),
            ));
        };
        let is_other = params["sessionId"]
            .as_str()
            .is_some_and(|session| self.session.as_deref().is_some_and(|ours| ours != session));
        let own = match method {
            "initialize" => Some("initialize"),
            "session/new" | "session/load" | "session/resume" if self.session.is_none() => {
                self.continues = params["sessionId"].as_str().map(str::to_owned);
                Some("open")
            }
            "session/set_mode" if !self.opened && self.mode.is_none() => {
                self.mode = params["modeId"].as_str().map(str::to_owned);
                Some("configure")
            }
            _ => None,
        };
        if let Some(own) = own {
            self.names.insert(number?, own.to_owned());
            return None;
        }
        if is_other {
            return None;
        }
        self.opened = true;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let command = match method {
            "session/prompt" => Command::Prompt(Prompt {
                message: text(&params["prompt"][0]["text"])?,
                images: Vec::new(),
                client_id: number.map(|number| format!("client-{number}")),
                resources: Vec::new(),
            }),
            "session/cancel" => Command::Abort(Abort {}),
            "session/set_mode" => Command::SetMode(SetMode {
                mode_id: text(&params["modeId"])?,
            }),
            "session/set_config_option" => match params["configId"].as_str()? {
                "model" => Command::SetModel(SetModel {
                    provider: "agent".to_owned(),
                    model_id: text(&params["value"])?,
                }),
                "effort" => Command::SetThinkingLevel(SetThinkingLevel {
                    level: text(&params["value"])?,
                }),
                _ => return None,
            },
            "session/list" => Command::ListSessions(ListSessions {}),
            _ => return None,
        };
        let name = number.map_or_else(|| "cancel".to_owned(), |number| format!("in{number}"));
        let envelope = envelope(&name, command);
        if let Some(number) = number {
            self.names.insert(number, id(&name).to_string());
        }
        Some(envelope)
    }

    /// A line of the agent's, with the names that our requests have; `None` for answers to what we never wrote.
    fn printed(&mut self, line: &str, at: u64) -> Option<Vec<u8>> {
        let value: Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(number) = value["id"].as_u64() {
            if value["method"].is_string() {
                self.asked
                    .insert(value["id"].to_string(), format!("{at}-{number}"));
            } else {
                let name = self.names.get(&number)?;
                if name == "open" {
                    let result = value["result"]["sessionId"].as_str();
                    self.session = result.map(str::to_owned).or_else(|| self.continues.clone());
                }
                let head = format!(r#"{{"jsonrpc":"2.0","id":{number},"#);
                let rest = line
                    .strip_prefix(&head)
                    .expect("an answer as this agent writes it");
                return Some(format!("{{\"jsonrpc\":\"2.0\",\"id\":\"{name}\",{rest}\n").into_bytes());
            }
        } else if value.get("id").is_some() {
            return None;
        }
        Some(format!("{line}\n").into_bytes())
    }
}
