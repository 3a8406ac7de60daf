//! Recorded sessions as the records that a session is given.
//!
//! A recording has one JSON object a line: when, in which direction, what. What was typed into pi then becomes the
//! command that would have typed it, under an id made of its own, and pi's answers are answers to that id.

use std::path::{Path, PathBuf};

use oqto_protocol::codec::Blob;
use oqto_protocol::command::*;
use oqto_protocol::id::CommandId;
use oqto_protocol::message::{Media, Source, SourceInline};
use oqto_protocol::policy::{LayerReport, LayerState};
use oqto_runner::harness::Harness;
use oqto_runner::session::{ExitStatus, Input, Report};
use serde::Deserialize;
use serde_json::Value;

/// When every recording begins, Unix milliseconds.
pub(crate) const BEGAN: u64 = 1_800_000_000_000;

/// One record of a tape.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) at: u64,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Out(Vec<u8>),
    Err(Vec<u8>),
    Command(CommandEnvelope),
    Report(Report),
    Exited(ExitStatus),
}

impl What {
    pub(crate) fn input(&self) -> Input<'_> {
        match self {
            Self::Out(bytes) => Input::Out(bytes),
            Self::Err(bytes) => Input::Err(bytes),
            Self::Command(envelope) => Input::Command(envelope),
            Self::Report(report) => Input::Report(report),
            Self::Exited(status) => Input::Exited(*status),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Recorded {
    pub(crate) t_ms: u64,
    pub(crate) dir: String,
    pub(crate) line: String,
}

/// Every recording, as `AGENT-VERSION/SCENARIO`.
pub(crate) fn all() -> Vec<(String, PathBuf)> {
    let agents = entries(&dir()).filter(|path| path.is_dir());
    let mut tapes: Vec<_> = agents
        .flat_map(|agent| entries(&agent).collect::<Vec<_>>())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .map(|path| {
            let name = path.with_extension("");
            let name = name.strip_prefix(dir()).expect("below it").display().to_string();
            (name, path)
        })
        .collect();
    tapes.sort();
    assert!(tapes.len() > 70, "only {} recordings", tapes.len());
    tapes
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = dir.read_dir().expect("the recordings are there");
    entries.map(|entry| entry.expect("readable").path())
}

pub(crate) fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tapes")
}

/// Where the golden file of a recording is.
pub(crate) fn golden(name: &str) -> PathBuf {
    let (agent, scenario) = name.split_once('/').expect("an agent's");
    dir().join(agent).join("golden").join(format!("{scenario}.jsonl"))
}

/// What a recording shows.
pub(crate) fn scenario(name: &str) -> &str {
    name.split_once('/').expect("an agent's").1
}

/// The pi of a recording: in some it was made to ask before it acts.
pub(crate) fn pi(name: &str) -> Harness {
    match scenario(name).starts_with("gate") {
        true => Harness::pi().made_to_ask(),
        false => Harness::pi(),
    }
}

/// Reads a recording.
pub(crate) fn read(path: &Path) -> Vec<Record> {
    let lines = recorded(path);
    let mut records = vec![confined()];
    // What was recorded had no runner that asks whether pi is there: the answer is put where pi first spoke, but for what
    // it says before it reads anything.
    let speaks = |line: &&Recorded| line.dir == "out" && !line.line.contains(r#""statusKey":"oqto-gate""#);
    if let Some(first) = lines.iter().find(speaks) {
        let ready = br#"{"id":"probe","type":"response","command":"get_state","success":true,"data":{}}"#;
        let at = BEGAN + first.t_ms;
        let line = [ready.as_slice(), b"\n"].concat();
        let what = What::Out(line);
        records.push(Record { at, what });
    }
    let killed = lines
        .iter()
        .any(|line| line.dir == "note" && (line.line.starts_with("SIG") || line.line == "stdin is closed"));
    for line in &lines {
        let what = match line.dir.as_str() {
            "out" => Some(What::Out(format!("{}\n", renamed(&line.line)).into_bytes())),
            "err" => Some(What::Err(format!("{}\n", line.line).into_bytes())),
            "in" => command(&line.line).map(|envelope| What::Command(as_asked(envelope, &lines))),
            _ => note(&line.line, killed),
        };
        let at = BEGAN + line.t_ms;
        records.extend(what.map(|what| Record { at, what }));
    }
    records.sort_by_key(|record| record.at);
    records
}

/// The command, where it answers a question of one who was made to ask, under the name that the question has here.
fn as_asked(mut envelope: CommandEnvelope, lines: &[Recorded]) -> CommandEnvelope {
    if let Command::InputResponse(response) = &mut envelope.command {
        let own = format!(r#""id":"{}""#, response.request_id);
        let question = lines.iter().find(|line| {
            line.dir == "out" && line.line.contains(&own) && line.line.contains(r#""title":"oqto-gate/1 "#)
        });
        if let Some(question) = question {
            response.request_id = format!("{}-{}", BEGAN + question.t_ms, response.request_id);
        }
    }
    envelope
}

/// The lines of a recording.
pub(crate) fn recorded(path: &Path) -> Vec<Recorded> {
    let text = std::fs::read_to_string(path).expect("readable");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("recorded"))
        .collect()
}

/// Its sandbox holds: with that every session begins.
pub(crate) fn confined() -> Record {
    let layer = LayerReport {
        layer: "namespaces".to_owned(),
        state: LayerState::Enforced,
        detail: None,
    };
    Record {
        at: BEGAN,
        what: What::Report(Report::Confined { layers: vec![layer] }),
    }
}

pub(crate) fn note(line: &str, killed: bool) -> Option<What> {
    if let Some(code) = line.strip_prefix("exit ") {
        let code: i32 = code.parse().expect("a number");
        return Some(What::Exited(if code < 0 {
            ExitStatus::Signal(-code)
        } else {
            ExitStatus::Code(code)
        }));
    }
    (line == "stdin closed" && !killed)
        .then(|| What::Command(envelope("close", Command::SessionClose(SessionClose {}))))
}

/// The id of the command that was recorded as `name`: its letters, then zeros.
pub(crate) fn id(name: &str) -> CommandId {
    let mut bytes = [0; 16];
    let len = name.len().min(16);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    CommandId(bytes)
}

pub(crate) fn envelope(name: &str, command: Command) -> CommandEnvelope {
    CommandEnvelope {
        id: id(name),
        session_id: "tape".parse().expect("a name"),
        runner_id: None,
        command,
        on_behalf_of: None,
    }
}

/// pi's answer to a recorded command, as an answer to ours.
fn renamed(line: &str) -> String {
    let heads = [r#"{"id":""#, r#"{"type":"bash_execution_update","id":""#];
    let named = heads.into_iter().find_map(|head| {
        let (name, rest) = line.strip_prefix(head)?.split_once('"')?;
        Some((head, name, rest))
    });
    match named {
        Some((head, name, rest)) => format!("{head}{}\"{rest}", id(name)),
        None => line.to_owned(),
    }
}

/// The command that would have typed a line into pi; `None` for what the runner never types.
fn command(line: &str) -> Option<CommandEnvelope> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    let name = text("id")?;
    let message = text("message").unwrap_or_default();
    let client_id = Some(format!("client-{name}"));
    let command = match text("type")?.as_str() {
        "prompt" if value.get("message").is_none_or(|message| !message.is_string()) => return None,
        "prompt" => match text("streamingBehavior").as_deref() {
            Some("steer") => Command::Steer(Steer { message, client_id }),
            Some(_) => Command::FollowUp(FollowUp { message, client_id }),
            None => Command::Prompt(Prompt {
                message,
                images: images(&value),
                client_id,
                resources: Vec::new(),
            }),
        },
        "steer" => Command::Steer(Steer { message, client_id }),
        "follow_up" => Command::FollowUp(FollowUp { message, client_id }),
        "abort" => Command::Abort(Abort {}),
        "extension_ui_response" => Command::InputResponse(InputResponse {
            request_id: name.clone(),
            value: text("value"),
            confirmed: flag("confirmed"),
            cancelled: flag("cancelled"),
        }),
        "bash" => Command::Shell(Shell {
            command: text("command")?,
            apart: flag("excludeFromContext").unwrap_or_default(),
        }),
        "get_state" => Command::GetState(GetState {}),
        "get_messages" => Command::GetMessages(GetMessages {
            after_idx: None,
            limit: None,
        }),
        "get_session_stats" => Command::GetStats(GetStats {}),
        "get_available_models" => Command::GetModels(GetModels { workdir: None }),
        "get_commands" => Command::GetCommands(GetCommands {}),
        "get_fork_messages" => Command::GetForkPoints(GetForkPoints {}),
        "set_model" => Command::SetModel(SetModel {
            provider: text("provider")?,
            model_id: text("modelId")?,
        }),
        "cycle_model" => Command::CycleModel(CycleModel {}),
        "set_thinking_level" => Command::SetThinkingLevel(SetThinkingLevel {
            level: text("level")?,
        }),
        "cycle_thinking_level" => Command::CycleThinkingLevel(CycleThinkingLevel {}),
        "set_auto_compaction" => Command::SetAutoCompaction(SetAutoCompaction {
            enabled: flag("enabled")?,
        }),
        "set_auto_retry" => Command::SetAutoRetry(SetAutoRetry {
            enabled: flag("enabled")?,
        }),
        "abort_retry" => Command::AbortRetry(AbortRetry {}),
        "compact" => Command::Compact(Compact {
            instructions: text("customInstructions"),
        }),
        "set_session_name" => Command::SetSessionName(SetSessionName { name: text("name")? }),
        "fork" => Command::Fork(Fork {
            entry_id: text("entryId")?,
        }),
        "new_session" => Command::SessionNew(SessionNew { parent_session: None }),
        "switch_session" => Command::SessionSwitch(SessionSwitch {
            session_path: text("sessionPath")?,
        }),
        _ => return None,
    };
    Some(envelope(&name, command))
}

fn images(value: &Value) -> Vec<Media> {
    let Some(images) = value.get("images").and_then(Value::as_array) else {
        return Vec::new();
    };
    let image = |image: &Value| Media {
        source: Source::SourceInline(SourceInline {
            data: Blob::deserialize(&image["data"]).expect("base64"),
            mime: image["mimeType"].as_str().expect("a text").to_owned(),
        }),
        alt: None,
        duration_sec: None,
        transcript: None,
        filename: None,
        size_bytes: None,
    };
    images.iter().map(image).collect()
}
