//! Commands: what a session is told. Each has exactly one reply, and the same id again has no second effect.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::{grows, kinds};
use crate::delegation::{Delegate, DelegateCancel};
use crate::id::{CommandId, RunnerId, SessionId};
use crate::message::Media;
use crate::secret::Secret;
use crate::session::SessionConfig;

/// A command with whom it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandEnvelope {
    /// Its name for ever.
    pub id: CommandId,
    /// Whom it is for; for `session.create` the name that the session will have.
    pub session_id: SessionId,
    /// Where; without it the runner that it is sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_id: Option<RunnerId>,
    /// What to do. Flattened, since the protocol has one object a command and every field of it is known.
    #[serde(flatten)]
    pub command: Command,
    /// For whom the control asks, in its own words, 1 to [`BEHALF_LEN_MAX`](crate::bounds::BEHALF_LEN_MAX) bytes. The runner writes it down and
    /// believes nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
}

grows!(CommandEnvelope {
    id,
    session_id,
    runner_id,
    command,
    on_behalf_of
});

kinds! {
    /// What a session can be told.
    pub enum Command, "cmd" {
        /// Make a session.
        1 "session.create" since 1 => SessionCreate(SessionCreate),
        /// End it; its history stays.
        2 "session.close" since 1 => SessionClose(SessionClose),
        /// Forget it.
        3 "session.delete" since 1 => SessionDelete(SessionDelete),
        /// Start its harness again.
        4 "session.restart" since 1 => SessionRestart(SessionRestart),
        /// Begin anew in the same process.
        5 "session.new" since 1 => SessionNew(SessionNew),
        /// Go to another session of the harness.
        6 "session.switch" since 1 => SessionSwitch(SessionSwitch),
        /// List the harness's own sessions.
        7 "list_sessions" since 1 => ListSessions(ListSessions),
        /// Say something and let it work.
        16 "prompt" since 1 => Prompt(Prompt),
        /// Say something in the middle of work.
        17 "steer" since 1 => Steer(Steer),
        /// Say something for when it is done.
        18 "follow_up" since 1 => FollowUp(FollowUp),
        /// Stop working.
        19 "abort" since 1 => Abort(Abort),
        /// Answer what it asked.
        20 "input_response" since 1 => InputResponse(InputResponse),
        /// Run a shell command of the user's, and let the model read what it gave.
        21 "shell" since 1 => Shell(Shell),
        /// How it stands.
        32 "get_state" since 1 => GetState(GetState),
        /// What was said.
        33 "get_messages" since 1 => GetMessages(GetMessages),
        /// What it used.
        34 "get_stats" since 1 => GetStats(GetStats),
        /// Which models there are.
        35 "get_models" since 1 => GetModels(GetModels),
        /// Which commands its harness has.
        36 "get_commands" since 1 => GetCommands(GetCommands),
        /// From where it can branch.
        37 "get_fork_points" since 1 => GetForkPoints(GetForkPoints),
        /// Use another model.
        48 "set_model" since 1 => SetModel(SetModel),
        /// Use the next model.
        49 "cycle_model" since 1 => CycleModel(CycleModel),
        /// Think harder or less.
        50 "set_thinking_level" since 1 => SetThinkingLevel(SetThinkingLevel),
        /// Use the next level.
        51 "cycle_thinking_level" since 1 => CycleThinkingLevel(CycleThinkingLevel),
        /// Let it shorten its context by itself.
        52 "set_auto_compaction" since 1 => SetAutoCompaction(SetAutoCompaction),
        /// Let it try again by itself.
        53 "set_auto_retry" since 1 => SetAutoRetry(SetAutoRetry),
        /// Shorten its context.
        54 "compact" since 1 => Compact(Compact),
        /// Do not try again.
        55 "abort_retry" since 1 => AbortRetry(AbortRetry),
        /// Call it something.
        56 "set_session_name" since 1 => SetSessionName(SetSessionName),
        /// Let it ask more or less before it acts.
        57 "set_mode" since 1 => SetMode(SetMode),
        /// Branch off.
        64 "fork" since 1 => Fork(Fork),
        /// Ask another session.
        80 "delegate" since 1 => Delegate(Delegate),
        /// Take a question back.
        81 "delegate.cancel" since 1 => DelegateCancel(DelegateCancel),
    }
}

/// Makes a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionCreate {
    /// Of what.
    pub config: Box<SessionConfig>,
}

grows!(SessionCreate { config });

/// Ends a session; its history stays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionClose {}

grows!(SessionClose {});

/// Ends a session and forgets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionDelete {}

grows!(SessionDelete {});

/// Starts a session's harness again, with the harness's own session: a living one is ended first, in good order. It
/// is answered when the harness takes commands again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionRestart {
    /// The variables that the session was made with, where it had any: a runner keeps their values nowhere but in its
    /// memory, so that the next runner has to be told them again.
    #[serde(default)]
    pub env: BTreeMap<String, Secret>,
}

grows!(SessionRestart { env });

/// Begins anew in the same process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionNew {
    /// The harness's session that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_session: Option<String>,
}

grows!(SessionNew { parent_session });

/// Goes to another session of the harness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionSwitch {
    /// Which, as the harness names it.
    pub session_path: String,
}

grows!(SessionSwitch { session_path });

/// Lists the harness's own sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListSessions {}

grows!(ListSessions {});

/// Says something and lets the agent work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    /// What.
    pub message: String,
    /// Pictures with it.
    #[serde(default)]
    pub images: Vec<Media>,
    /// Comes back in the user message that this makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// What it is about: files and other sources that the agent may read, or reads here.
    #[serde(default)]
    pub resources: Vec<Resource>,
}

grows!(Prompt {
    message,
    images,
    client_id,
    resources
});

/// What a prompt is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// Where it is; of a file in the workspace `file://` and its absolute path.
    pub uri: String,
    /// For people; without it what the URI ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
    /// What it says; without it the agent looks for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

grows!(Resource {
    uri,
    label,
    mime,
    text
});

/// Says something in the middle of work; in idle it is a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steer {
    /// What.
    pub message: String,
    /// Comes back in the user message that this makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

grows!(Steer { message, client_id });

/// Says something for when the agent is done; in idle it is a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowUp {
    /// What.
    pub message: String,
    /// Comes back in the user message that this makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

grows!(FollowUp { message, client_id });

/// Stops the work at hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Abort {}

grows!(Abort {});

/// Answers what the agent asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputResponse {
    /// Which request.
    pub request_id: String,
    /// The choice or the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Yes or no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<bool>,
    /// No answer will come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<bool>,
}

grows!(InputResponse {
    request_id,
    value,
    confirmed,
    cancelled
});

/// Runs a shell command of the user's where the agent works, in its sandbox. Its output comes as a tool's whose call has the
/// command's id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shell {
    /// The shell's text.
    pub command: String,
    /// Whether the model is not told what it gave.
    #[serde(default)]
    pub apart: bool,
}

grows!(Shell { command, apart });

/// Asks how the session stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetState {}

grows!(GetState {});

/// Asks what was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetMessages {
    /// Only messages after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_idx: Option<u64>,
    /// How many at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

grows!(GetMessages { after_idx, limit });

/// Asks what the session used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetStats {}

grows!(GetStats {});

/// Asks which models there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetModels {
    /// For which workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
}

grows!(GetModels { workdir });

/// Asks which commands the harness has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetCommands {}

grows!(GetCommands {});

/// Asks from where the session can branch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetForkPoints {}

grows!(GetForkPoints {});

/// Changes the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetModel {
    /// Whose.
    pub provider: String,
    /// Which.
    pub model_id: String,
}

grows!(SetModel { provider, model_id });

/// Changes to the next model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CycleModel {}

grows!(CycleModel {});

/// Changes how hard the model thinks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetThinkingLevel {
    /// As the harness calls it.
    pub level: String,
}

grows!(SetThinkingLevel { level });

/// Changes to the next level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CycleThinkingLevel {}

grows!(CycleThinkingLevel {});

/// Switches the harness's own compaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetAutoCompaction {
    /// On or off.
    pub enabled: bool,
}

grows!(SetAutoCompaction { enabled });

/// Switches the harness's own retries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetAutoRetry {
    /// On or off.
    pub enabled: bool,
}

grows!(SetAutoRetry { enabled });

/// Shortens the context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compact {
    /// What to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
}

grows!(Compact { instructions });

/// Ends the retry that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AbortRetry {}

grows!(AbortRetry {});

/// Names the harness's session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetSessionName {
    /// The name.
    pub name: String,
}

grows!(SetSessionName { name });

/// Changes how much the agent asks before it acts, or what it does at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetMode {
    /// As the harness calls it.
    pub mode_id: String,
}

grows!(SetMode { mode_id });

/// Branches off an earlier message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fork {
    /// Which, as the harness names it.
    pub entry_id: String,
}

grows!(Fork { entry_id });
