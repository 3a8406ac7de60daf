//! How the protocol's commands are said to pi.

use oqto_protocol::codec::Blob;
use oqto_protocol::command::{Command, InputResponse};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::message::{Media, Source};
use serde::Serialize;

use super::gate;
use super::translate::Pi;
use crate::harness::dialect::{Asked, Expect, Speech};

/// The id of the runner's own question whether pi is there.
pub(super) const PROBE_ID: &str = "probe";

/// The command that takes back what is queued.
pub(super) const CLEAR: &str = "clear_queue";

/// What the name of a request begins with that ends a shell command of the user's; the command's own follows.
const ABORT_SHELL: &str = "abort_bash ";

#[derive(Serialize)]
struct Request<'a, T> {
    id: &'a str,
    #[serde(rename = "type")]
    type_: &'a str,
    /// Flattened, since pi has one object a command and every field of it is ours.
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Prompt<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<Image<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    streaming_behavior: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Image<'a> {
    #[serde(rename = "type")]
    type_: &'a str,
    data: &'a Blob,
    mime_type: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SetModel<'a> {
    provider: &'a str,
    model_id: &'a str,
}

#[derive(Serialize)]
struct SetLevel<'a> {
    level: &'a str,
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Compact<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_instructions: Option<&'a str>,
}

#[derive(Serialize)]
struct Name<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fork<'a> {
    entry_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewSession<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_session: Option<&'a str>,
}

#[derive(Serialize)]
struct UiResponse<'a> {
    #[serde(rename = "type")]
    type_: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SwitchSession<'a> {
    session_path: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bash<'a> {
    command: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    exclude_from_context: bool,
}

/// The runner's own question whether pi is there.
pub(in crate::harness) fn probe() -> Vec<u8> {
    request(PROBE_ID, "get_state", Empty {})
}

impl Pi {
    /// Says a command.
    pub(in crate::harness) fn say(
        &mut self,
        command: &Command,
        id: CommandId,
        asked: &[Asked],
    ) -> Result<Speech, Fault> {
        let name = id.to_string();
        if self.is_moving() && begins(command) {
            let message = "pi is opening another session; wait for the answer to that";
            return Err(Fault::new(FaultCode::Busy, message));
        }
        match command {
            Command::Abort(_) => Speech::new(abort(&name, asked, self.newest_shell()), Expect::Nothing),
            Command::InputResponse(it) => Speech::new(input_response(it, asked), Expect::Nothing),
            Command::Fork(_) | Command::SessionNew(_) | Command::SessionSwitch(_) => {
                let speech = Speech::new(request_for(command, &name)?, Expect::Answer)?;
                self.moves();
                Ok(speech)
            }
            Command::Shell(it) => {
                let body = Bash {
                    command: &it.command,
                    exclude_from_context: it.apart,
                };
                // pi answers when it is over, which may be never.
                let mut speech = Speech::new(request(&name, "bash", body), Expect::Nothing)?;
                speech.means.push(self.shell(it, id)?);
                Ok(speech)
            }
            _ => Speech::new(request_for(command, &name)?, Expect::Answer),
        }
    }
}

/// Whether a command begins a run, or opens another session.
fn begins(command: &Command) -> bool {
    matches!(
        command,
        Command::Prompt(_)
            | Command::Steer(_)
            | Command::FollowUp(_)
            | Command::Fork(_)
            | Command::SessionNew(_)
            | Command::SessionSwitch(_)
    )
}

/// The request that pi answers under the same id.
fn request_for(command: &Command, id: &str) -> Result<Vec<u8>, Fault> {
    Ok(match command {
        Command::Prompt(it) => request(id, "prompt", prompt(&it.message, &it.images, None)?),
        // Not pi's own `steer` and `follow_up`: said a moment after a run's end they wait in a queue for the
        // next prompt, while a prompt with a behaviour begins a run then.
        Command::Steer(it) => request(id, "prompt", prompt(&it.message, &[], Some("steer"))?),
        Command::FollowUp(it) => request(id, "prompt", prompt(&it.message, &[], Some("followUp"))?),
        Command::GetStats(_) => request(id, "get_session_stats", Empty {}),
        Command::GetModels(_) => request(id, "get_available_models", Empty {}),
        Command::GetCommands(_) => request(id, "get_commands", Empty {}),
        Command::GetForkPoints(_) => request(id, "get_fork_messages", Empty {}),
        Command::SetModel(it) => {
            let body = SetModel {
                provider: &it.provider,
                model_id: &it.model_id,
            };
            request(id, "set_model", body)
        }
        Command::CycleModel(_) => request(id, "cycle_model", Empty {}),
        Command::SetThinkingLevel(it) => request(id, "set_thinking_level", SetLevel { level: &it.level }),
        Command::CycleThinkingLevel(_) => request(id, "cycle_thinking_level", Empty {}),
        Command::SetAutoCompaction(it) => request(id, "set_auto_compaction", Enabled { enabled: it.enabled }),
        Command::SetAutoRetry(it) => request(id, "set_auto_retry", Enabled { enabled: it.enabled }),
        Command::AbortRetry(_) => request(id, "abort_retry", Empty {}),
        Command::Compact(it) => {
            let custom_instructions = it.instructions.as_deref();
            request(id, "compact", Compact { custom_instructions })
        }
        Command::SetSessionName(it) => request(id, "set_session_name", Name { name: &it.name }),
        Command::Fork(it) => request(
            id,
            "fork",
            Fork {
                entry_id: &it.entry_id,
            },
        ),
        Command::SessionNew(it) => {
            let parent_session = it.parent_session.as_deref();
            request(id, "new_session", NewSession { parent_session })
        }
        Command::SessionSwitch(it) => {
            let session_path = &it.session_path;
            request(id, "switch_session", SwitchSession { session_path })
        }
        Command::SessionCreate(_)
        | Command::SessionClose(_)
        | Command::SessionDelete(_)
        | Command::SessionRestart(_)
        | Command::Shell(_)
        | Command::SetMode(_)
        | Command::Abort(_)
        | Command::InputResponse(_)
        | Command::ListSessions(_)
        | Command::GetState(_)
        | Command::GetMessages(_)
        | Command::Delegate(_)
        | Command::DelegateCancel(_)
        | Command::Unknown(_) => {
            return Err(Fault::new(
                FaultCode::Unsupported,
                format!("pi has no command for {}", command.name()),
            ));
        }
    })
}

fn prompt<'a>(message: &'a str, images: &'a [Media], behavior: Option<&'a str>) -> Result<Prompt<'a>, Fault> {
    Ok(Prompt {
        message,
        images: images.iter().map(image).collect::<Result<_, _>>()?,
        streaming_behavior: behavior,
    })
}

fn image(media: &Media) -> Result<Image<'_>, Fault> {
    match &media.source {
        Source::SourceInline(inline) => Ok(Image {
            type_: "image",
            data: &inline.data,
            mime_type: &inline.mime,
        }),
        Source::SourceUrl(_) | Source::SourceAttachment(_) | Source::Unknown(_) => Err(Fault::new(
            FaultCode::Invalid,
            "pi takes pictures only inline, as base64",
        )),
    }
}

/// An open dialog keeps pi from ever answering an abort, so it is cancelled first; messages that are still queued
/// would begin the next run, so they are taken back. A pi that has no `clear_queue` says so, and nobody waits for it.
/// Shell commands of the user's are no part of a run.
fn abort(id: &str, asked: &[Asked], newest_shell: Option<CommandId>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in asked {
        line(
            &UiResponse {
                type_: "extension_ui_response",
                id: gate::own_id(request),
                value: None,
                confirmed: None,
                cancelled: Some(true),
            },
            &mut bytes,
        );
    }
    bytes.extend(request("clear", CLEAR, Empty {}));
    bytes.extend(request(id, "abort", Empty {}));
    if let Some(shell) = newest_shell {
        bytes.extend(request(&format!("{ABORT_SHELL}{shell}"), "abort_bash", Empty {}));
    }
    bytes
}

/// What ends a shell command once more, when pi has answered that it did and it had not. pi has nothing to end while its
/// extensions are still asked about a command that it has just been told.
pub(super) fn abort_again(response_id: &str, newest_shell: Option<CommandId>) -> Option<Vec<u8>> {
    let meant: CommandId = response_id.strip_prefix(ABORT_SHELL)?.parse().ok()?;
    // One that was told since is not meant.
    (newest_shell == Some(meant)).then(|| request("abort_bash", "abort_bash", Empty {}))
}

fn input_response(response: &InputResponse, asked: &[Asked]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let request = asked.iter().find(|it| it.request_id == response.request_id);
    line(
        &UiResponse {
            type_: "extension_ui_response",
            id: request.map_or(&response.request_id, gate::own_id),
            value: response.value.as_deref(),
            confirmed: response.confirmed,
            cancelled: response.cancelled,
        },
        &mut bytes,
    );
    bytes
}

fn request<T: Serialize>(id: &str, type_: &str, body: T) -> Vec<u8> {
    let mut bytes = Vec::new();
    line(&Request { id, type_, body }, &mut bytes);
    bytes
}

/// Appends one line. pi ends lines at `\n` alone, and JSON has none inside.
fn line<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    // Texts, numbers and flags under names always have a JSON form, and a vector takes every byte.
    let written = serde_json::to_writer(&mut *out, value);
    debug_assert!(written.is_ok());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use oqto_protocol::command::{Abort, Shell};

    use super::*;
    use crate::harness::dialect::Beginning;
    use crate::harness::fragment::Fragment;

    const ID: CommandId = CommandId([7; 16]);

    fn pi(version: &str) -> Pi {
        let mut pi = Pi::default();
        let _ = pi.begin(&Beginning {
            version: Some(version.to_owned()),
            ..Beginning::default()
        });
        pi
    }

    fn shell(pi: &mut Pi, apart: bool) -> Result<Speech, Fault> {
        let command = "sleep 60".to_owned();
        pi.say(&Command::Shell(Shell { command, apart }), ID, &[])
    }

    #[test]
    fn a_shell_command_is_a_tool_that_an_abort_ends() {
        let mut pi = pi("0.87.1");
        let speech = shell(&mut pi, true).expect("said");
        let said = String::from_utf8(speech.bytes).expect("text");
        assert!(
            said.ends_with("\"type\":\"bash\",\"command\":\"sleep 60\",\"excludeFromContext\":true}\n"),
            "{said}"
        );
        assert!(matches!(speech.means[..], [Fragment::Event(_)]));
        assert!(pi.works_aside());
        let aborted = |pi: &mut Pi| {
            let speech = pi
                .say(&Command::Abort(Abort {}), CommandId([8; 16]), &[])
                .expect("said");
            String::from_utf8(speech.bytes)
                .expect("text")
                .contains("abort_bash")
        };
        assert!(aborted(&mut pi));
        // It may have come before pi had anything to end.
        let mut out = Vec::new();
        let answer =
            |id: &str| format!(r#"{{"id":"{id}","type":"response","command":"abort_bash","success":true}}"#);
        let first = answer(&format!("abort_bash {ID}"));
        pi.push(first.as_bytes(), 0, &mut out);
        let [Fragment::Write(again)] = &out[..] else {
            panic!("{out:?}")
        };
        assert!(again.starts_with(br#"{"id":"abort_bash","type":"abort_bash""#));
        out.clear();
        pi.push(answer("abort_bash").as_bytes(), 0, &mut out);
        assert!(!out.iter().any(|it| matches!(it, Fragment::Write(_))), "{out:?}");
        out.clear();
        let answer = format!(
            r#"{{"id":"{ID}","type":"response","command":"bash","success":true,"data":{{"cancelled":true}}}}"#
        );
        pi.push(answer.as_bytes(), 0, &mut out);
        assert!(
            matches!(&out[..], [Fragment::Event(oqto_protocol::event::Event::ToolEnd(end))] if end.is_error),
            "{out:?}"
        );
        assert!(!pi.works_aside() && !aborted(&mut pi));
        out.clear();
        pi.push(first.as_bytes(), 0, &mut out);
        assert!(!out.iter().any(|it| matches!(it, Fragment::Write(_))), "{out:?}");
    }

    #[test]
    fn a_pi_that_would_tell_its_model_keeps_no_shell_command_apart() {
        let mut pi = pi("0.74.2");
        assert_eq!(
            shell(&mut pi, true).expect_err("refused").code,
            FaultCode::Unsupported
        );
        assert!(!pi.works_aside());
        assert!(shell(&mut pi, false).is_ok());
    }
}
