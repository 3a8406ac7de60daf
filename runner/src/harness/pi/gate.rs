//! What makes pi ask before it acts, and what it asks.
//!
//! pi asks nobody by itself, but lets an extension look at each call of a tool before it runs. Ours asks through a
//! dialog, whose title is read here. It is told in each session that pi opens that the extension is there, before pi
//! answers the command that opened it: without that the session takes no prompt.
//!
//! Whoever can imitate a question is told the answer to what it asked itself, and no call of a tool waits for that.

use oqto_protocol::codec::Json;
use oqto_protocol::event::{
    InputRequest, PermissionKind, PermissionOption, PermissionRequest, PermissionTool,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::wire;
use crate::harness::dialect::Asked;
use crate::harness::excerpt::{cut, excerpt};
use crate::harness::registry::{Shown, Start};

/// The extension.
const EXTENSION: &str = include_str!("gate.js");

/// How the title of its questions begins.
const MARK: &str = "oqto-gate/1 ";

/// Under which key it says that it is there.
const STATUS_KEY: &str = "oqto-gate";

/// What it says there, unless what it would ask about is not what would run.
const ASKS: &str = "asks";

/// How long pi's name for a dialog, and the names of a call and its tool, may be, in bytes. pi's own have 36; providers name
/// calls.
const NAME_LEN_MAX: usize = 1024;

/// How much of a target is told, in bytes: more than is compared with any rule, so that what is longer is of none.
const TARGET_LEN_MAX: usize = 8192;

/// How much of a target stands in a title, in bytes.
const TITLE_LEN_MAX: usize = 256;

/// What of it is shown to a pi that is made to ask.
pub(in crate::harness) fn shown(start: &Start<'_>) -> Shown {
    Shown {
        path: format!("{}/pi-gate.js", start.shown_dir),
        text: EXTENSION,
    }
}

/// With what a pi is started that is made to ask. Another extension could undo what this one does, so there is none.
pub(in crate::harness) fn args(shown: &Shown) -> [String; 3] {
    ["--no-extensions", "--extension", &shown.path].map(str::to_owned)
}

/// The call that a question is about.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: wire::Text<'a>,
    #[serde(borrow)]
    name: wire::Text<'a>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    /// Whether that is all of its input.
    whole: bool,
}

/// What is known of it in the session that pi has open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Gate {
    /// This pi is not made to ask.
    #[default]
    None,
    /// It has not said yet that it is there.
    Awaited,
    /// It is there.
    There,
}

/// What the extension says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is there, and asks.
    There,
    /// What it would ask about is not what would run.
    Steered,
}

/// What the extension says of itself, where it is that.
pub(super) fn said(request: &wire::UiRequest<'_>) -> Option<Said> {
    if request.method != "setStatus" || request.status_key.as_deref() != Some(STATUS_KEY) {
        return None;
    }
    Some(match request.status_text.as_deref() {
        Some(ASKS) => Said::There,
        _ => Said::Steered,
    })
}

/// The question that a dialog is; `None` where it is none of the gate's.
pub(super) fn question(request: &wire::UiRequest<'_>, now_ms: u64) -> Option<InputRequest> {
    let said = request.title.as_deref()?.strip_prefix(MARK)?;
    if request.method != "select" || request.id.len() > NAME_LEN_MAX {
        return None;
    }
    let call: Option<Call<'_>> = serde_json::from_str(said).ok();
    let is_cut = call.as_ref().is_some_and(|call| !call.whole);
    let tool = call.as_ref().map(tool);
    let title = tool.as_ref().map_or_else(|| "a tool".to_owned(), title);
    let option = |id: &str, label: &str, kind| PermissionOption {
        id: id.to_owned(),
        label: label.to_owned(),
        kind,
    };
    Some(InputRequest::PermissionRequest(PermissionRequest {
        // pi's own names may come again in another process; an answer must not meet another request.
        request_id: format!("{now_ms}-{}", request.id),
        title,
        description: is_cut.then(|| "What it is given is too long to be told in full.".to_owned()),
        options: vec![
            option("allow", "Allow", PermissionKind::AllowOnce),
            option("reject", "Reject", PermissionKind::RejectOnce),
        ],
        metadata: None,
        tool,
        timeout: None,
    }))
}

/// pi's own name for the dialog of a request.
pub(super) fn own_id(asked: &Asked) -> &str {
    let own = match asked.request {
        InputRequest::PermissionRequest(_) => asked.request_id.split_once('-').map(|(_, own)| own),
        _ => None,
    };
    own.unwrap_or(&asked.request_id)
}

fn tool(call: &Call<'_>) -> PermissionTool {
    let fields: Option<Value> = call
        .input
        .and_then(|input| serde_json::from_str(input.get()).ok());
    let kind = kind(&call.name);
    PermissionTool {
        tool_call_id: Some(cut(&call.id, NAME_LEN_MAX)),
        name: cut(&call.name, NAME_LEN_MAX),
        kind: kind.map(str::to_owned),
        targets: match (kind, &fields) {
            (Some(kind), Some(fields)) => target(kind, fields).into_iter().collect(),
            // Of another's tool nothing is known, so no rule with a pattern allows it.
            _ => Vec::new(),
        },
        input: call.input.filter(|_| call.whole).map(Json::from),
    }
}

/// What pi's own tools do.
fn kind(name: &str) -> Option<&'static str> {
    match name {
        "bash" | "powershell" => Some("execute"),
        "edit" | "write" => Some("edit"),
        "read" => Some("read"),
        "find" | "grep" | "ls" => Some("search"),
        _ => None,
    }
}

/// What a call of them works on.
fn target(kind: &str, fields: &Value) -> Option<String> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let target = match kind {
        "execute" => text("command")?.to_owned(),
        // Without a path they search where they are.
        "search" => plain_spaces(text("path").unwrap_or(".")),
        _ => plain_spaces(text("path")?),
    };
    Some(if target.len() > TARGET_LEN_MAX {
        excerpt(target.as_bytes(), TARGET_LEN_MAX)
    } else {
        target
    })
}

/// A path as pi understands it, which takes every kind of space for one.
fn plain_spaces(path: &str) -> String {
    path.replace(
        |letter: char| {
            matches!(
                letter,
                '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
            )
        },
        " ",
    )
}

fn title(tool: &PermissionTool) -> String {
    match tool.targets.first() {
        Some(target) => format!("{}: {}", tool.name, excerpt(target.as_bytes(), TITLE_LEN_MAX)),
        None => tool.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use oqto_protocol::command::{Abort, Command, InputResponse, Prompt, SessionNew};
    use oqto_protocol::fault::{Fault, FaultCode};
    use oqto_protocol::id::CommandId;

    use super::super::Pi;
    use super::*;
    use crate::harness::dialect::{Beginning, Speech};
    use crate::harness::fragment::Fragment;

    const ID: CommandId = CommandId([7; 16]);

    const THERE: &str = r#"{"type":"extension_ui_request","id":"1","method":"setStatus","statusKey":"oqto-gate","statusText":"asks"}"#;
    const READY: &str = r#"{"id":"probe","type":"response","command":"get_state","success":true,"data":{}}"#;

    fn begun() -> Pi {
        let mut pi = Pi::default();
        let _ = pi.begin(&Beginning {
            asks: true,
            ..Beginning::default()
        });
        pi
    }

    fn push(pi: &mut Pi, line: &str) -> Vec<Fragment> {
        let mut out = Vec::new();
        pi.push(line.as_bytes(), 5, &mut out);
        out
    }

    fn there() -> Pi {
        let mut pi = begun();
        assert_eq!(push(&mut pi, THERE), []);
        assert!(push(&mut pi, READY).contains(&Fragment::Ready));
        pi
    }

    fn says(pi: &mut Pi, command: &Command) -> Result<Speech, Fault> {
        pi.say(command, ID, &[])
    }

    fn new_session() -> Command {
        Command::SessionNew(SessionNew { parent_session: None })
    }

    fn prompt() -> Command {
        Command::Prompt(Prompt {
            message: "hello".to_owned(),
            images: Vec::new(),
            client_id: None,
            resources: Vec::new(),
        })
    }

    fn moved(data: &str) -> String {
        format!(r#"{{"id":"{ID}","type":"response","command":"new_session","success":true,"data":{data}}}"#)
    }

    #[test]
    fn a_pi_that_does_not_say_that_it_asks_is_never_ready() {
        assert!(matches!(push(&mut begun(), READY)[..], [Fragment::Unable(_)]));
        assert!(matches!(
            push(&mut begun(), r#"{"type":"agent_start"}"#)[..],
            [Fragment::Unable(_)]
        ));
        // One that was not made to is ready as it is, and what looks like a question is a dialog of an extension's.
        let mut pi = Pi::default();
        assert!(push(&mut pi, READY).contains(&Fragment::Ready));
        assert!(matches!(push(&mut pi, THERE)[..], [Fragment::Event(_)]));
    }

    #[test]
    fn a_pi_that_would_run_something_else_than_it_asks_about_is_never_ready() {
        let steered = THERE.replace("\"asks\"", "\"steered\"");
        assert!(matches!(push(&mut begun(), &steered)[..], [Fragment::Unable(_)]));
    }

    #[test]
    fn each_session_that_pi_opens_has_to_ask_anew() {
        let mut pi = there();
        assert!(says(&mut pi, &new_session()).is_ok());
        for command in [prompt(), new_session()] {
            assert_eq!(
                says(&mut pi, &command).expect_err("refused").code,
                FaultCode::Busy
            );
        }
        assert!(matches!(
            push(&mut pi, &moved(r#"{"cancelled":false}"#))[..],
            [Fragment::Unable(_)]
        ));

        let mut pi = there();
        assert!(says(&mut pi, &new_session()).is_ok());
        let _ = push(&mut pi, THERE);
        assert!(matches!(
            push(&mut pi, &moved(r#"{"cancelled":false}"#))[..],
            [Fragment::Answer { .. }]
        ));
        assert!(says(&mut pi, &prompt()).is_ok());

        // One that was not opened leaves the one before.
        assert!(says(&mut pi, &new_session()).is_ok());
        let _ = push(&mut pi, &moved(r#"{"cancelled":true}"#));
        assert!(says(&mut pi, &prompt()).is_ok());
    }

    #[test]
    fn an_answer_and_an_abort_use_pis_own_name_for_a_question() {
        let mut pi = there();
        let line = r#"{"type":"extension_ui_request","id":"6cda-69e4","method":"select","title":"oqto-gate/1 {}","options":["allow","reject"]}"#;
        let fragments = push(&mut pi, line);
        let [Fragment::Asks(request)] = &fragments[..] else {
            panic!("{fragments:?}")
        };
        let asked = [Asked {
            request_id: "5-6cda-69e4".to_owned(),
            request: request.clone(),
            until: None,
        }];
        let response = Command::InputResponse(InputResponse {
            request_id: "5-6cda-69e4".to_owned(),
            value: Some("allow".to_owned()),
            confirmed: None,
            cancelled: None,
        });
        let said = pi.say(&response, ID, &asked).expect("said").bytes;
        assert_eq!(
            String::from_utf8_lossy(&said),
            "{\"type\":\"extension_ui_response\",\"id\":\"6cda-69e4\",\"value\":\"allow\"}\n"
        );
        let said = pi.say(&Command::Abort(Abort {}), ID, &asked).expect("said").bytes;
        assert!(
            String::from_utf8_lossy(&said)
                .starts_with(r#"{"type":"extension_ui_response","id":"6cda-69e4","cancelled":true}"#)
        );
    }

    fn asked(said: &str) -> Option<PermissionRequest> {
        let line = serde_json::json!({
            "id": "an-id", "method": "select", "title": said, "options": ["allow", "reject"],
        })
        .to_string();
        let request: wire::UiRequest<'_> = serde_json::from_str(&line).expect("a request");
        match question(&request, 5)? {
            InputRequest::PermissionRequest(request) => Some(request),
            other => panic!("{other:?}"),
        }
    }

    fn tool_of(call: &str) -> PermissionTool {
        asked(&format!("{MARK}{call}"))
            .expect("a question")
            .tool
            .expect("a tool")
    }

    #[test]
    fn a_question_names_the_tool_its_kind_and_what_it_works_on() {
        for (call, kind, targets) in [
            (
                r#""name":"bash","input":{"command":"ls | wc"}"#,
                "execute",
                "ls | wc",
            ),
            (
                r#""name":"write","input":{"path":"a","content":"b"}"#,
                "edit",
                "a",
            ),
            (r#""name":"edit","input":{"path":"/a","edits":[]}"#, "edit", "/a"),
            (r#""name":"read","input":{"path":"a\u00a0b"}"#, "read", "a b"),
            (r#""name":"grep","input":{"pattern":"x"}"#, "search", "."),
            (r#""name":"ls","input":{"path":"../x"}"#, "search", "../x"),
        ] {
            let tool = tool_of(&format!(r#"{{"id":"1",{call},"whole":true}}"#));
            assert_eq!(
                (tool.kind.as_deref(), tool.targets.as_slice()),
                (Some(kind), [targets.to_owned()].as_slice()),
                "{call}"
            );
            assert!(tool.input.is_some());
        }
        let request = asked(&format!(
            r#"{MARK}{{"id":"1","name":"bash","input":{{"command":"ls"}},"whole":true}}"#
        ))
        .expect("a question");
        assert_eq!(
            (request.request_id.as_str(), request.title.as_str()),
            ("5-an-id", "bash: ls")
        );
    }

    #[test]
    fn what_cannot_be_compared_has_no_target_or_one_that_fits_no_rule() {
        let other = tool_of(r#"{"id":"1","name":"other","input":{"path":"a"},"whole":true}"#);
        assert_eq!((other.kind, other.targets), (None, Vec::new()));
        let nothing = tool_of(r#"{"id":"1","name":"write","input":{"path":["a"]},"whole":true}"#);
        assert_eq!(nothing.targets, Vec::<String>::new());
        let long = "x".repeat(TARGET_LEN_MAX);
        let long = asked(&format!(
            r#"{MARK}{{"id":"1","name":"bash","input":{{"command":"{long}x"}},"whole":false}}"#
        ));
        let long = long.expect("a question");
        assert!(long.description.is_some_and(|it| it.contains("too long")));
        let tool = long.tool.expect("a tool");
        assert!(tool.targets[0].len() > TARGET_LEN_MAX && tool.input.is_none());
    }

    #[test]
    fn a_question_that_cannot_be_read_is_one_about_an_unknown_tool() {
        for said in ["", "{}", r#"{"id":1}"#, "[]"] {
            let request = asked(&format!("{MARK}{said}")).expect("a question");
            assert_eq!(request.tool, None, "{said}");
        }
        assert_eq!(asked("May I?"), None);
    }
}
