//! The shapes of the Agent Client Protocol's lines, as far as they are read. Borrowed from the line wherever they can
//! be; what is not named is skipped unread, and what may be of any form is kept as it came.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// A text of the line: borrowed unless it has escapes.
pub(super) type Text<'a> = Cow<'a, str>;

/// Any line that is no update: a request or notification has a method, an answer has a result or an error.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) method: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "there")]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
}

/// What is there, also where it is `null`: agents answer with that what has nothing to say.
fn there<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// A line that is an update.
#[derive(Deserialize)]
pub(super) struct Notification<'a> {
    #[serde(borrow)]
    pub(super) method: Text<'a>,
    #[serde(borrow)]
    pub(super) params: UpdateParams<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UpdateParams<'a> {
    #[serde(borrow)]
    pub(super) session_id: Text<'a>,
    #[serde(borrow)]
    pub(super) update: Update<'a>,
}

/// A line that is an update, as far as it can be told of which kind, where the rest of it cannot be read.
#[derive(Deserialize)]
pub(super) struct AnyUpdate<'a> {
    #[serde(borrow)]
    pub(super) method: Text<'a>,
    #[serde(borrow)]
    pub(super) params: AnyUpdateParams<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AnyUpdateParams<'a> {
    #[serde(borrow, default)]
    pub(super) session_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) update: AnyKind<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AnyKind<'a> {
    #[serde(borrow)]
    pub(super) session_update: Text<'a>,
}

/// An update of any kind: one object whose fields depend on its kind, so that a line is gone through once.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Update<'a> {
    #[serde(borrow)]
    pub(super) session_update: Text<'a>,
    /// A block of a chunk, the list of a call.
    #[serde(borrow, default)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) message_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tool_call_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) title: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) status: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) raw_input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) raw_output: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) locations: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) entries: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) available_commands: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) current_mode_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) config_options: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) cost: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) used: Option<u64>,
    #[serde(default)]
    pub(super) size: Option<u64>,
    #[serde(borrow, default)]
    pub(super) severity: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) description: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) summary: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) error: Option<Text<'a>>,
    #[serde(borrow, default, rename = "_meta")]
    pub(super) meta: Option<&'a RawValue>,
}

/// A block of content.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Block<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) type_: Text<'a>,
    #[serde(borrow, default)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) mime_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) uri: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
}

/// A call of a tool that asks to be allowed, as far as targets are found in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AskedCall<'a> {
    #[serde(borrow)]
    pub(super) tool_call_id: Text<'a>,
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) title: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) raw_input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) locations: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    pub(super) meta: Option<&'a RawValue>,
}

/// A request for permission.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AskPermission<'a> {
    #[serde(borrow)]
    pub(super) session_id: Text<'a>,
    #[serde(borrow)]
    pub(super) tool_call: &'a RawValue,
    #[serde(borrow)]
    pub(super) options: Vec<AskOption<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AskOption<'a> {
    #[serde(borrow)]
    pub(super) option_id: Text<'a>,
    #[serde(borrow, default)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default)]
    pub(super) kind: Text<'a>,
}

/// A place in a file, or a change of one.
#[derive(Deserialize)]
pub(super) struct Placed<'a> {
    #[serde(borrow, default)]
    pub(super) path: Option<Text<'a>>,
}

/// What an agent takes back.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CancelRequest<'a> {
    #[serde(borrow)]
    pub(super) request_id: &'a RawValue,
}

/// What went wrong.
#[derive(Deserialize)]
pub(super) struct Failure<'a> {
    #[serde(default)]
    pub(super) code: i64,
    #[serde(borrow, default)]
    pub(super) message: Text<'a>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
}

impl<'a> Failure<'a> {
    /// Never fails: whoever waits is told, whatever the form of it.
    pub(super) fn read(error: &'a RawValue) -> Self {
        serde_json::from_str(error.get()).unwrap_or_else(|_| Self {
            code: 0,
            message: error.get().into(),
            data: None,
        })
    }
}

/// What `initialize` answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Initialized<'a> {
    pub(super) protocol_version: u64,
    #[serde(default)]
    pub(super) agent_capabilities: AgentCapabilities,
    #[serde(borrow, default)]
    pub(super) agent_info: Option<AgentInfo<'a>>,
    #[serde(borrow, default)]
    pub(super) auth_methods: Vec<AuthMethod<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AgentCapabilities {
    pub(super) load_session: bool,
    pub(super) prompt_capabilities: PromptCapabilities,
    pub(super) session_capabilities: SessionCapabilities,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PromptCapabilities {
    pub(super) image: bool,
    pub(super) embedded_context: bool,
}

/// Each is there, as an empty object, or it is not.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SessionCapabilities {
    pub(super) resume: Option<Offer>,
    pub(super) close: Option<Offer>,
    pub(super) list: Option<Offer>,
}

#[derive(Deserialize)]
pub(super) struct Offer {}

#[derive(Deserialize)]
pub(super) struct AgentInfo<'a> {
    #[serde(borrow, default)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default)]
    pub(super) version: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct AuthMethod<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
}

/// What a session is opened with, whether it is new or goes on.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Opened<'a> {
    #[serde(borrow, default)]
    pub(super) session_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) modes: Option<Modes<'a>>,
    #[serde(borrow, default)]
    pub(super) models: Option<Models<'a>>,
    #[serde(borrow, default)]
    pub(super) config_options: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Modes<'a> {
    #[serde(borrow)]
    pub(super) current_mode_id: Text<'a>,
    #[serde(borrow, default)]
    pub(super) available_modes: Vec<Named<'a>>,
}

/// What agents say of models that have no configuration options yet.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Models<'a> {
    #[serde(borrow)]
    pub(super) current_model_id: Text<'a>,
    #[serde(borrow, default)]
    pub(super) available_models: Vec<NamedModel<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Named<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(borrow, default)]
    pub(super) name: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NamedModel<'a> {
    #[serde(borrow)]
    pub(super) model_id: Text<'a>,
    #[serde(borrow, default)]
    pub(super) name: Text<'a>,
}

/// A configuration option; those that are no choice have another form and are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigOption<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(borrow, default)]
    pub(super) category: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) current_value: Text<'a>,
    #[serde(borrow)]
    pub(super) options: Vec<ConfigChoice<'a>>,
}

/// A value of an option, or a group of them.
#[derive(Deserialize)]
pub(super) struct ConfigChoice<'a> {
    #[serde(borrow, default)]
    pub(super) value: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default)]
    pub(super) options: Vec<ConfigChoice<'a>>,
}

/// What a prompt is answered with when the turn is over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TurnEnd<'a> {
    #[serde(borrow)]
    pub(super) stop_reason: Text<'a>,
    #[serde(borrow, default)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    pub(super) meta: Option<&'a RawValue>,
}

/// What was used. It is kept while a turn goes on, under the names of the protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Usage {
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) cached_read_tokens: Option<u64>,
    pub(super) cached_write_tokens: Option<u64>,
}

impl Usage {
    /// Counts what was used once more.
    pub(super) fn add(&mut self, more: &Self) {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        self.input_tokens = self.input_tokens.saturating_add(more.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(more.output_tokens);
        self.cached_read_tokens = sum(self.cached_read_tokens, more.cached_read_tokens);
        self.cached_write_tokens = sum(self.cached_write_tokens, more.cached_write_tokens);
    }
}

#[derive(Deserialize)]
pub(super) struct Cost<'a> {
    pub(super) amount: f64,
    #[serde(borrow, default)]
    pub(super) currency: Text<'a>,
}

/// One step of a plan.
#[derive(Deserialize)]
pub(super) struct PlanEntry<'a> {
    #[serde(borrow)]
    pub(super) content: Text<'a>,
    #[serde(borrow, default)]
    pub(super) status: Text<'a>,
    #[serde(borrow, default)]
    pub(super) priority: Option<Text<'a>>,
}
