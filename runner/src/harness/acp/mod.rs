//! The dialect of agents that speak the Agent Client Protocol, version 1: JSON-RPC, one object a line both ways.
//!
//! Known from recorded sessions of five agents and from the protocol's schema, whose official types judge this module
//! in the tests. `wire` has the shapes that are read and `out` those that are written; `open` brings an agent
//! from its start to a session in the mode that asks, `choice` knows its modes, models and levels of thinking, `update`
//! and `tool` read what it says and does, `permission` what it asks, `command` says commands and `answer` reads the
//! agent's answers to them. What single agents say beside the protocol is read in `beside`.
//!
//! Ids of our requests are texts: of a command its own id, else the name of the step, with the command's behind it where a
//! command asks for that. What only one agent knows travels as `status` lines whose keys begin with `x-acp-`.

mod answer;
mod beside;
mod choice;
mod command;
mod open;
mod out;
mod permission;
mod tool;
mod update;
mod wire;

pub(super) use self::permission::is_of;

use memchr::memmem;
use oqto_protocol::event::{Event, Status};
use oqto_protocol::id::CommandId;
use oqto_protocol::message::{Role, StopReason, Usage};
use oqto_protocol::session::Capability;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::choice::{Choice, What};
use self::open::{Offers, Opening};
use self::out::method;
use self::tool::Call;
use super::dialect::Beginning;
use super::excerpt::excerpt;
use super::fragment::{Draft, Fragment};

/// What every such agent can do; the rest each says itself.
pub(super) const CAPABILITIES: &[Capability] = &[
    Capability::Abort,
    Capability::Permission,
    Capability::Plan,
    Capability::Commands,
    Capability::Thinking,
    Capability::Stats,
    Capability::Resources,
    Capability::NewSession,
];

/// How long after it said something outside of any turn an agent may go on with it, in milliseconds. Some agents answer
/// a prompt before they have said the last of it.
const LATE_MS: u64 = 250;

/// How many parts a message may have: a session keeps so many of one that is being made. What follows is another.
const PARTS_MAX: u32 = 512;

/// How far into a line the name of its method stands, in bytes, when it stands before the rest.
const METHOD_AT_MAX: usize = 96;

/// How much of an unknown line is shown, in bytes.
const UNKNOWN_LEN_MAX: usize = 1024;

/// How long a method's name is shown, in bytes.
const METHOD_LEN_MAX: usize = 64;

/// What such an agent has said so far, as far as its next line depends on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Acp {
    beginning: Beginning,
    offers: Offers,
    /// The agent's name, as it says itself.
    name: String,
    /// The ways in which it can be told who its user is.
    auth_methods: Vec<String>,
    /// Its session, once that is open and in the mode that it is to be in.
    session: Option<String>,
    /// What is under way before commands can be said.
    opening: Option<Opening>,
    choices: Vec<Choice>,
    /// Its commands, as the JSON text that they came in.
    commands: Option<String>,
    /// Requests for commands that it has not answered.
    waiting: Vec<(CommandId, command::Waits)>,
    /// The prompt that it works at.
    run: Option<CommandId>,
    message: Option<Message>,
    calls: Vec<Call>,
    /// Until when what was said outside of any turn may go on.
    late_until: Option<u64>,
    /// What it says since it said that its engine failed.
    trouble: Option<String>,
    /// What the turn cost so far, where that is said on the way.
    used: Option<wire::Usage>,
    /// The summary of a compaction, as far as it came.
    summary: String,
    totals: Totals,
}

/// The message that is being made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Message {
    /// As the agent calls it.
    id: Option<String>,
    /// How many parts it has.
    parts: u32,
    /// Of what kind the last of them is.
    last: Option<Speaks>,
    /// Whether a call of a tool is among them.
    calls: bool,
}

/// Of what kind a part is that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Speaks {
    Text,
    Thought,
}

/// What was used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Totals {
    prompts: u64,
    messages: u64,
    calls: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: Option<f64>,
    /// Tokens of the context, and how many it may have.
    context: Option<(u64, u64)>,
}

/// A line that is none of the protocol.
struct NotOfAcp;

impl From<serde_json::Error> for NotOfAcp {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

impl Acp {
    pub(in crate::harness) fn push(&mut self, line: &[u8], now_ms: u64, out: &mut Vec<Fragment>) {
        if self.read(line, now_ms, out).is_err() {
            out.extend(self.unread(line));
        }
    }

    /// A line that cannot be read: kept where it is an update of a session that is not another one, whatever is in it.
    fn unread(&self, line: &[u8]) -> Option<Fragment> {
        let Ok(wire::AnyUpdate { method, params }) = serde_json::from_slice(line) else {
            return Some(Fragment::Stray);
        };
        if method != method::SESSION_UPDATE {
            return Some(Fragment::Stray);
        }
        let is_about =
            serde_json::from_str::<wire::Text<'_>>(params.session_id.map_or("null", RawValue::get))
                .map_or(true, |session| self.is_about(&session));
        is_about.then(|| unknown(&params.update.session_update, line))
    }

    fn read(&mut self, line: &[u8], now_ms: u64, out: &mut Vec<Fragment>) -> Result<(), NotOfAcp> {
        let head = &line[..line.len().min(METHOD_AT_MAX)];
        if memmem::find(head, br#""session/update""#).is_some() {
            let notification: wire::Notification<'_> = serde_json::from_slice(line)?;
            if notification.method == method::SESSION_UPDATE {
                return self.updated(notification.params, line, now_ms, out);
            }
        }
        let read: wire::Line<'_> = serde_json::from_slice(line)?;
        match (read.method.as_deref(), read.id) {
            (Some(method::SESSION_UPDATE), None) => {
                let params = read.params.ok_or(NotOfAcp)?;
                self.updated(serde_json::from_str(params.get())?, line, now_ms, out)
            }
            (Some(method), Some(id)) => {
                self.requested(method, id, read.params, now_ms, out);
                Ok(())
            }
            (Some(method), None) => {
                self.notified(method, read.params, line, out);
                Ok(())
            }
            (None, Some(id)) => self.answered(id, read.result, read.error, now_ms, out),
            (None, None) => Err(NotOfAcp),
        }
    }

    /// The agent asks something of the runner. Files and terminals are served inside the sandbox, before a line comes
    /// here, or not at all.
    fn requested(
        &mut self,
        method: &str,
        id: &RawValue,
        params: Option<&RawValue>,
        now_ms: u64,
        out: &mut Vec<Fragment>,
    ) {
        if method == method::REQUEST_PERMISSION {
            return self.asks_permission(id, params, now_ms, out);
        }
        let message = format!(
            "this client does not serve {}",
            excerpt(method.as_bytes(), METHOD_LEN_MAX)
        );
        out.push(Fragment::Write(out::error(id, out::METHOD_NOT_FOUND, &message)));
        out.push(unknown(
            method,
            params.map_or(&[], |params| params.get().as_bytes()),
        ));
    }

    fn notified(&mut self, method: &str, params: Option<&RawValue>, line: &[u8], out: &mut Vec<Fragment>) {
        let params_text = params.map_or("null", RawValue::get);
        match (
            method,
            serde_json::from_str::<wire::CancelRequest<'_>>(params_text),
        ) {
            (method::CANCEL_REQUEST, Ok(cancelled)) => {
                out.push(Fragment::AsksNoMore(cancelled.request_id.get().to_owned()));
            }
            _ => out.push(unknown(method, line)),
        }
    }

    /// Ends the message that is being made, when there is one.
    fn finish_message(
        &mut self,
        stop_reason: Option<StopReason>,
        usage: Option<Usage>,
        out: &mut Vec<Fragment>,
    ) {
        self.late_until = None;
        let Some(message) = self.message.take() else {
            return;
        };
        self.totals.messages += 1;
        self.end_calls_of_message(out);
        let stop_reason = stop_reason.or(message.calls.then_some(StopReason::ToolUse));
        out.push(Fragment::FinishedAsTold(Box::new(Draft {
            stop_reason,
            usage,
            model: self.current(What::Model).map(str::to_owned),
            ..Draft::new(Role::Assistant, Vec::new())
        })));
    }

    fn choice(&self, what: What) -> Option<&Choice> {
        self.choices.iter().find(|choice| choice.what == what)
    }

    fn current(&self, what: What) -> Option<&str> {
        self.choice(what).map(|choice| choice.current.as_str())
    }

    pub(in crate::harness) fn deadline(&self) -> Option<u64> {
        self.late_until
    }

    pub(in crate::harness) fn expire(&mut self, out: &mut Vec<Fragment>) {
        self.late_until = None;
        if self.run.is_none() {
            self.finish_message(None, None, out);
        }
    }

    pub(in crate::harness) fn at_rest(&self) -> bool {
        self.opening.is_none() && self.run.is_none() && self.message.is_none() && self.waiting.is_empty()
    }
}

/// What the protocol has no place for: kept, under a name that nothing of ours has.
fn unknown(name: &str, text: &[u8]) -> Fragment {
    Fragment::Event(Event::Status(Status {
        key: format!("x-acp-{}", excerpt(name.as_bytes(), METHOD_LEN_MAX)),
        text: Some(excerpt(text, UNKNOWN_LEN_MAX)),
    }))
}
