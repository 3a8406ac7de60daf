//! What an agent asks before it acts, and how it is answered.
//!
//! The targets of a request are all that it names: the rules of a policy have to allow each of them.

use oqto_protocol::codec::Json;
use oqto_protocol::command::InputResponse;
use oqto_protocol::event::{
    InputRequest, PermissionKind, PermissionOption, PermissionRequest, PermissionTool,
};
use oqto_protocol::fault::{Fault, FaultCode};
use serde::Deserialize as _;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::out::{self, method};
use super::tool::{KEPT_LEN_MAX, NAME_LEN_MAX, Said};
use super::{Acp, unknown, wire};
use crate::harness::dialect::Asked;
use crate::harness::excerpt::excerpt;
use crate::harness::fragment::Fragment;

/// How long an agent's name for its request may be, in bytes.
const ID_LEN_MAX: usize = 128;

/// How many answers a request may offer.
const OPTIONS_MAX: usize = 32;

/// How long an answer that is offered may be called, in bytes.
const OPTION_LEN_MAX: usize = 1024;

/// How much of a target is told, in bytes: more than is compared with any rule, so that what is longer is of none.
const TARGET_LEN_MAX: usize = 8192;

/// How many targets are looked at. A request that names more has none that a rule could allow.
const TARGETS_MAX: usize = 256;

/// Under which names agents give the path, or the address, that a tool works on.
const TARGET_NAMES: [&str; 12] = [
    "path",
    "file_path",
    "filePath",
    "filepath",
    "abs_path",
    "absolute_path",
    "file",
    "notebook_path",
    "old_path",
    "new_path",
    "url",
    "uri",
];

impl Acp {
    pub(super) fn asks_permission(
        &mut self,
        id: &RawValue,
        params: Option<&RawValue>,
        now_ms: u64,
        out: &mut Vec<Fragment>,
    ) {
        let read =
            params.and_then(|params| serde_json::from_str::<wire::AskPermission<'_>>(params.get()).ok());
        let call = read
            .as_ref()
            .and_then(|ask| serde_json::from_str::<wire::AskedCall<'_>>(ask.tool_call.get()).ok());
        let (Some(ask), Some(call)) = (read, call) else {
            let message = "a tool call and options are needed";
            out.push(Fragment::Write(out::error(id, out::INVALID_PARAMS, message)));
            out.push(unread(params));
            return;
        };
        // Of a session that is not ours any more nobody can say anything.
        if self.session.as_deref() != Some(&*ask.session_id) {
            out.push(Fragment::Write(cancelled(id)));
            return;
        }
        let is_bounded = id.get().len() <= ID_LEN_MAX
            && call.tool_call_id.len() <= NAME_LEN_MAX
            && ask.options.len() <= OPTIONS_MAX
            && ask.options.iter().all(|it| it.option_id.len() <= OPTION_LEN_MAX);
        // Of two answers with one id whoever chooses one chooses the other.
        let is_twice = |at: usize| {
            let id = &ask.options[at].option_id;
            ask.options[..at].iter().any(|it| it.option_id == *id)
        };
        if !is_bounded || (0..ask.options.len()).any(is_twice) || self.is_opening() {
            let message = "nothing can be asked in this form, or now";
            out.push(Fragment::Write(out::error(id, out::INVALID_PARAMS, message)));
            out.push(unread(params));
            return;
        }
        let said = Said {
            id: call.tool_call_id,
            name: call.name,
            title: call.title,
            kind: call.kind,
            status: None,
            input: call.raw_input,
            output: None,
            content: call.content,
            locations: call.locations,
            meta: call.meta,
        };
        let at = self.call(&said, out);
        let known = self.calls[at].clone();
        let targets = match (&known.input, known.is_forgotten) {
            (None, true) => Vec::new(),
            (input, _) => targets(&said, input.as_deref()).unwrap_or_default(),
        };
        // Who is to decide sees the whole message, also what is too long to be repeated here.
        self.finish_message(None, None, out);
        let is_short = |text: &str| text.len() <= KEPT_LEN_MAX;
        let options = ask.options.into_iter().map(|option| PermissionOption {
            id: option.option_id.into_owned(),
            label: excerpt(option.name.as_bytes(), OPTION_LEN_MAX),
            kind: match &*option.kind {
                "allow_once" => PermissionKind::AllowOnce,
                "allow_always" => PermissionKind::AllowAlways,
                "reject_always" => PermissionKind::RejectAlways,
                // What it means is not known: it is never taken for a yes.
                _ => PermissionKind::RejectOnce,
            },
        });
        let request = PermissionRequest {
            request_id: request_id(now_ms, id),
            title: known.title.clone().unwrap_or_else(|| known.name.clone()),
            description: None,
            options: options.collect(),
            metadata: is_short(ask.tool_call.get()).then(|| Json::from(ask.tool_call)),
            tool: Some(PermissionTool {
                tool_call_id: Some(known.id),
                name: known.name,
                kind: known.kind,
                targets,
                input: known
                    .input
                    .filter(|input| is_short(input))
                    .and_then(|input| Json::parse(input).ok()),
            }),
            timeout: None,
        };
        out.push(Fragment::Asks(InputRequest::PermissionRequest(request)));
    }
}

/// A request that was refused unread, kept as it came.
fn unread(params: Option<&RawValue>) -> Fragment {
    unknown(
        method::REQUEST_PERMISSION,
        params.map_or(&[], |params| params.get().as_bytes()),
    )
}

/// The name of a request: an agent counts anew each time it is started, and an answer must not meet another request.
fn request_id(now_ms: u64, id: &RawValue) -> String {
    format!("{now_ms}-{}", id.get())
}

/// The agent's own name in that of a request.
fn own_id(request_id: &str) -> Option<Box<RawValue>> {
    let (_, id) = request_id.split_once('-')?;
    RawValue::from_string(id.to_owned()).ok()
}

/// Whether the agent's own name for a request is this one.
pub(in crate::harness) fn is_of(request_id: &str, own: &str) -> bool {
    request_id.split_once('-').is_some_and(|(_, id)| id == own)
}

/// The answer to a request, and which call it allows, if any.
pub(super) fn answer(response: &InputResponse, asked: &[Asked]) -> Result<(Vec<u8>, Option<String>), Fault> {
    let fault = |message: &str| Fault::new(FaultCode::Invalid, message);
    let id = own_id(&response.request_id).ok_or_else(|| fault("the request has no name of the agent's"))?;
    if response.cancelled == Some(true) {
        return Ok((cancelled(&id), None));
    }
    let request = asked.iter().find(|asked| asked.request_id == response.request_id);
    let (options, tool) = match request.map(|asked| &asked.request) {
        Some(InputRequest::PermissionRequest(request)) => (request.options.as_slice(), request.tool.as_ref()),
        _ => (&[][..], None),
    };
    let by_kind = |kinds: [PermissionKind; 2]| {
        let mut found = kinds
            .iter()
            .filter_map(|kind| options.iter().find(|option| option.kind == *kind));
        found.next()
    };
    let chosen = match (&response.value, response.confirmed) {
        (Some(value), _) => options.iter().find(|option| option.id == *value),
        (None, Some(true)) => by_kind([PermissionKind::AllowOnce, PermissionKind::AllowAlways]),
        (None, Some(false)) => match by_kind([PermissionKind::RejectOnce, PermissionKind::RejectAlways]) {
            Some(refusal) => Some(refusal),
            None => return Ok((cancelled(&id), None)),
        },
        (None, None) => None,
    };
    let chosen = chosen.ok_or_else(|| fault("the request offers no such answer"))?;
    let outcome = json!({ "outcome": { "outcome": "selected", "optionId": chosen.id } });
    let allows = matches!(
        chosen.kind,
        PermissionKind::AllowOnce | PermissionKind::AllowAlways
    );
    let allowed = tool.filter(|_| allows).and_then(|tool| tool.tool_call_id.clone());
    Ok((out::result(&id, outcome), allowed))
}

/// Says of every request that it will not be answered; some agents wait for ever otherwise.
pub(super) fn cancel_all(asked: &[Asked]) -> Vec<u8> {
    let ids = asked.iter().filter_map(|asked| own_id(&asked.request_id));
    ids.flat_map(|id| cancelled(&id)).collect()
}

fn cancelled(id: &RawValue) -> Vec<u8> {
    out::result(id, json!({ "outcome": { "outcome": "cancelled" } }))
}

/// All that a request names; `None` where that cannot be read, so that no rule with a pattern allows it.
fn targets(said: &Said<'_>, input: Option<&str>) -> Option<Vec<String>> {
    let mut targets = Vec::new();
    let input: Option<Value> = input.map(serde_json::from_str).transpose().ok()?;
    if let Some(Value::Object(fields)) = &input {
        match fields.get("command") {
            Some(Value::String(command)) => targets.push(command.clone()),
            Some(Value::Array(words)) => targets.push(shell_text(words)?),
            _ => {}
        }
    }
    if let Some(input) = &input {
        named(input, &mut targets);
    }
    // A shell's command is what it does; where an agent guesses at its files that adds nothing.
    if said.kind.as_deref() != Some("execute") || targets.is_empty() {
        for raw in [said.content, said.locations].into_iter().flatten() {
            let list = Vec::<wire::Placed<'_>>::deserialize(raw).ok()?;
            targets.extend(
                list.into_iter()
                    .filter_map(|placed| Some(placed.path?.into_owned())),
            );
        }
    }
    for target in targets.iter_mut().filter(|it| it.len() > TARGET_LEN_MAX) {
        *target = excerpt(target.as_bytes(), TARGET_LEN_MAX);
    }
    targets.sort();
    targets.dedup();
    (targets.len() <= TARGETS_MAX).then_some(targets)
}

/// Whatever stands under the name of a target, however deep.
fn named(value: &Value, targets: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(target) if TARGET_NAMES.contains(&name.as_str()) => {
                        targets.push(target.clone());
                    }
                    _ => named(value, targets),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| named(value, targets)),
        _ => {}
    }
}

/// The text that a shell is given, else the words as a shell would be given them.
fn shell_text(words: &[Value]) -> Option<String> {
    let words: Vec<&str> = words.iter().map(Value::as_str).collect::<Option<_>>()?;
    if let [shell, "-c" | "-lc", text] = words.as_slice()
        && ["sh", "bash", "zsh"].contains(&shell.rsplit('/').next().unwrap_or_default())
    {
        return Some((*text).to_owned());
    }
    let plain = |word: &str| {
        !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c))
    };
    let quoted = words.iter().map(|word| match plain(word) {
        true => (*word).to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    });
    Some(quoted.collect::<Vec<_>>().join(" "))
}
