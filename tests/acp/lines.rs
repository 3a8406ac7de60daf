//! Every line that was ever written or read is one of the official types.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use agent_client_protocol::v1::schema::{
    AuthenticateRequest, CancelNotification, CancelRequestNotification, CloseSessionRequest,
    CloseSessionResponse, Error, InitializeRequest, InitializeResponse, ListSessionsRequest,
    ListSessionsResponse, LoadSessionRequest, LoadSessionResponse, NewSessionRequest, NewSessionResponse,
    PromptRequest, PromptResponse, RequestPermissionRequest, RequestPermissionResponse, ResumeSessionRequest,
    ResumeSessionResponse, SessionNotification, SetSessionConfigOptionRequest,
    SetSessionConfigOptionResponse, SetSessionModeRequest, SetSessionModeResponse, WriteTextFileRequest,
};
use oqto_protocol::command::{
    Abort, Command, CycleModel, InputResponse, ListSessions, Prompt, Resource, SessionNew, SessionSwitch,
    SetMode, SetModel, SetThinkingLevel,
};
use oqto_protocol::id::CommandId;
use oqto_runner::harness::Fragment;
use serde_json::Value;

use crate::updates::Opened;

/// Reads it as the official type, and asserts that this kept all that it says.
fn read<T>(value: &Value) -> Result<(), String>
where
    T: for<'a> serde::Deserialize<'a> + serde::Serialize,
{
    let read: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    let again = serde_json::to_value(&read).map_err(|error| error.to_string())?;
    match lost(value, &again) {
        Some(path) => Err(format!("{path} is lost")),
        None => Ok(()),
    }
}

/// Where something is said that was not kept; what is said by leaving it out may be left out.
fn lost(said: &Value, kept: &Value) -> Option<String> {
    match (said, kept) {
        (Value::Object(said), Value::Object(kept)) => said.iter().find_map(|(key, said)| {
            let below = match kept.get(key) {
                Some(kept) => lost(said, kept),
                None => lost(said, &Value::Null),
            };
            below.map(|path| format!("/{key}{path}"))
        }),
        (Value::Array(said), Value::Array(kept)) if said.len() == kept.len() => said
            .iter()
            .zip(kept)
            .enumerate()
            .find_map(|(at, (said, kept))| lost(said, kept).map(|path| format!("/{at}{path}"))),
        (Value::Object(said), _) if said.values().all(|said| lost(said, &Value::Null).is_none()) => None,
        (Value::Array(said), _) if said.is_empty() => None,
        (Value::Null | Value::Bool(false), Value::Null) => None,
        // The state and the kind of a call that says none.
        (Value::String(said), Value::Null) if said == "pending" || said == "other" => None,
        (said, kept) => (said != kept).then(String::new),
    }
}

/// Judges a line that the runner writes.
pub(crate) fn judge_ours(line: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let params = &value["params"];
    if value["jsonrpc"] != "2.0" {
        return Err("it is no JSON-RPC".to_owned());
    }
    let Some(method) = value["method"].as_str() else {
        return match value.get("error") {
            Some(error) => read::<Error>(error),
            // The only request of the agent's that is answered otherwise.
            None => read::<RequestPermissionResponse>(&value["result"]),
        };
    };
    match method {
        "initialize" => read::<InitializeRequest>(params),
        "authenticate" => read::<AuthenticateRequest>(params),
        "session/new" => read::<NewSessionRequest>(params),
        "session/load" => read::<LoadSessionRequest>(params),
        "session/resume" => read::<ResumeSessionRequest>(params),
        "session/list" => read::<ListSessionsRequest>(params),
        "session/close" => read::<CloseSessionRequest>(params),
        "session/prompt" => read::<PromptRequest>(params),
        "session/cancel" => read::<CancelNotification>(params),
        "session/set_mode" => read::<SetSessionModeRequest>(params),
        "session/set_config_option" => read::<SetSessionConfigOptionRequest>(params),
        other => Err(format!("the protocol has no method {other}")),
    }
}

/// Judges a line of an agent's; `asked` are the methods of the requests that it answers. `None`: an extension.
fn judge_theirs(value: &Value, asked: &BTreeMap<String, String>) -> Option<Result<(), String>> {
    let (params, result) = (&value["params"], &value["result"]);
    match value["method"].as_str() {
        Some("session/update") => return Some(read::<SessionNotification>(params)),
        Some("session/request_permission") => return Some(read::<RequestPermissionRequest>(params)),
        Some("$/cancel_request") => return Some(read::<CancelRequestNotification>(params)),
        // One agent asks for it though it was told that nobody serves it.
        Some("fs/write_text_file") => return Some(read::<WriteTextFileRequest>(params)),
        // The protocol wants them to begin with an underscore; those of one agent do not.
        Some(extension)
            if ["_", "qwen/", "craft/"]
                .iter()
                .any(|own| extension.starts_with(own)) =>
        {
            return None;
        }
        Some(other) => return Some(Err(format!("the protocol has no method {other}"))),
        None => {}
    }
    if let Some(error) = value.get("error") {
        return Some(read::<Error>(error));
    }
    Some(match asked.get(&value["id"].to_string())?.as_str() {
        "initialize" => read::<InitializeResponse>(result),
        "session/new" => read::<NewSessionResponse>(&without(result, &["models"])),
        // One agent repeats there which session it is.
        "session/load" => read::<LoadSessionResponse>(&without(result, &["models", "sessionId"])),
        "session/resume" => read::<ResumeSessionResponse>(&without(result, &["models", "sessionId"])),
        "session/close" => read::<CloseSessionResponse>(result),
        // Not of the protocol yet.
        "session/fork" => return None,
        "session/list" => read::<ListSessionsResponse>(result),
        "session/prompt" => read::<PromptResponse>(result),
        "session/set_mode" => read::<SetSessionModeResponse>(result),
        "session/set_config_option" => read::<SetSessionConfigOptionResponse>(result),
        other => Err(format!("an answer to {other}")),
    })
}

/// The same without what is not of the protocol: of models it has had a list of its own only for a while.
fn without(result: &Value, names: &[&str]) -> Value {
    let mut result = result.clone();
    if let Value::Object(fields) = &mut result {
        fields.retain(|name, _| !names.contains(&name.as_str()));
    }
    result
}

/// The recordings, or the golden files beside them, of every agent.
fn recordings(below: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tapes/acp");
    let agents = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = agents
        .flat_map(|agent| fs::read_dir(agent.join(below)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    found.sort();
    assert!(found.len() > 25, "only {} recordings", found.len());
    found
}

fn objects(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Every line that the golden files say the dialect writes; that they are right is another test's.
#[test]
fn every_line_that_a_recording_makes_us_write_is_official() {
    let mut judged = 0;
    for path in recordings("golden") {
        for action in objects(&path) {
            for line in action["write"].as_str().into_iter().flat_map(str::lines) {
                judge_ours(line).unwrap_or_else(|why| panic!("{}: {why}: {line}", path.display()));
                judged += 1;
            }
        }
    }
    println!("{judged} lines written by this runner, all of the official types");
    assert!(judged > 100, "only {judged}");
}

#[test]
fn every_line_that_an_agent_wrote_is_official() {
    let (mut judged, mut extensions) = (0, 0);
    let mut wrong = BTreeMap::new();
    for path in recordings("") {
        let mut asked = BTreeMap::new();
        for record in objects(&path) {
            let Some(value) = record["line"]
                .as_str()
                .and_then(|line| serde_json::from_str::<Value>(line).ok())
            else {
                continue;
            };
            if record["dir"] == "in" {
                if let Some(method) = value["method"].as_str() {
                    asked.insert(value["id"].to_string(), method.to_owned());
                }
            } else if record["dir"] == "out" {
                match judge_theirs(&value, &asked) {
                    Some(Ok(())) => judged += 1,
                    Some(Err(why)) => drop(wrong.insert(why, format!("{}: {value}", path.display()))),
                    None => extensions += 1,
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{judged} lines recorded from agents, all of the official types; {extensions} extensions");
    assert!(judged > 500, "only {judged}");
}

#[test]
fn every_command_is_said_in_the_official_types() {
    let text = |text: &str| text.to_owned();
    let resource = |text: Option<&str>| Resource {
        uri: "file:///w/a.rs".to_owned(),
        label: None,
        mime: Some("text/rust".to_owned()),
        text: text.map(str::to_owned),
    };
    let image: oqto_protocol::message::Media = serde_json::from_value(serde_json::json!({
        "source": { "type": "base64", "data": "aGk=", "mime": "image/png" }
    }))
    .unwrap();
    let commands = [
        Command::Prompt(Prompt {
            message: text("look \u{2028} \"here\""),
            images: vec![image],
            client_id: None,
            resources: vec![resource(None), resource(Some("fn main() {}"))],
        }),
        Command::Abort(Abort {}),
        Command::SetMode(SetMode {
            mode_id: text("plan"),
        }),
        Command::SetModel(SetModel {
            provider: text("any"),
            model_id: text("small"),
        }),
        Command::CycleModel(CycleModel {}),
        Command::SetThinkingLevel(SetThinkingLevel { level: text("high") }),
        Command::ListSessions(ListSessions {}),
        Command::SessionNew(SessionNew { parent_session: None }),
        Command::SessionSwitch(SessionSwitch {
            session_path: text("other"),
        }),
    ];
    for (at, command) in commands.iter().enumerate() {
        let mut opened = Opened::new();
        let id = CommandId([u8::try_from(at).unwrap() + 1; 16]);
        let speech = opened.dialect.say(command, id, &[]);
        let speech = speech.unwrap_or_else(|fault| panic!("{}: {fault:?}", command.name()));
        for line in String::from_utf8(speech.bytes).unwrap().lines() {
            judge_ours(line).unwrap_or_else(|why| panic!("{}: {why}: {line}", command.name()));
        }
    }
}

#[test]
fn every_answer_to_a_question_is_official_and_so_is_a_refusal_of_what_is_not_served() {
    for response in [
        (Some("once"), None, None),
        (None, Some(true), None),
        (None, Some(false), None),
        (None, None, Some(true)),
    ] {
        let mut opened = Opened::new();
        let asked = opened.ask();
        let (value, confirmed, cancelled) = response;
        let command = Command::InputResponse(InputResponse {
            request_id: asked[0].request_id.clone(),
            value: value.map(str::to_owned),
            confirmed,
            cancelled,
        });
        let speech = opened.dialect.say(&command, CommandId([9; 16]), &asked).unwrap();
        let line = String::from_utf8(speech.bytes).unwrap();
        judge_ours(line.trim_end()).unwrap_or_else(|why| panic!("{why}: {line}"));
        assert!(line.contains("\"id\":7,"), "{line}");
    }
    let mut opened = Opened::new();
    let request =
        r#"{"jsonrpc":"2.0","id":8,"method":"terminal/create","params":{"sessionId":"s","command":"x"}}"#;
    let refused = opened.push(request);
    let written = refused.iter().find_map(|fragment| match fragment {
        Fragment::Write(bytes) => Some(String::from_utf8(bytes.clone()).unwrap()),
        _ => None,
    });
    let line = written.expect("a refusal");
    judge_ours(line.trim_end()).unwrap_or_else(|why| panic!("{why}: {line}"));
}
