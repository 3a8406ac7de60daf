//! Sessions: how one is made and how it stands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::{Json, grows, words};
use crate::cursor::Cursor;
use crate::id::SessionId;
use crate::policy::SandboxReport;
use crate::secret::Secret;

/// What a session is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionConfig {
    /// Which harness: `pi`, `exec`, or a name that the runner's configuration defines.
    pub harness: String,
    /// The workspace, an absolute path on the runner's host; without it the runner makes an empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Whose model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Which model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The harness's own session to go on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continue_session: Option<String>,
    /// The sandbox policy; without it `workspace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Variables for the harness; each must be named by the policy.
    #[serde(default)]
    pub env: BTreeMap<String, Secret>,
    /// What to call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The embedder's own marks; the runner only keeps them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

grows!(SessionConfig {
    harness,
    cwd,
    provider,
    model,
    continue_session,
    policy,
    env,
    title,
    labels
});

words! {
    /// What a session is doing; which commands are allowed depends on it.
    pub enum SessionState {
        /// The harness is being started.
        0 "starting" => Starting,
        /// It waits for a prompt.
        1 "idle" => Idle,
        /// It works on one.
        2 "streaming" => Streaming,
        /// It shortens its context.
        3 "compacting" => Compacting,
        /// It was told to stop working.
        4 "aborting" => Aborting,
        /// It is being ended.
        5 "stopping" => Stopping,
        /// It has ended; its history stays until it is deleted.
        6 "closed" => Closed,
        /// Nothing of it runs; `session.restart` starts its harness again, with the harness's own session.
        7 "dormant" => Dormant,
    }
}

/// A session in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its name.
    pub session_id: SessionId,
    /// What it is doing.
    pub state: SessionState,
    /// Its harness.
    pub harness: String,
    /// Its workspace.
    pub cwd: String,
    /// Its policy.
    pub policy: String,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// When it was made, Unix milliseconds.
    pub created_at: u64,
    /// Its newest event.
    pub cursor: Cursor,
    /// How many messages it has.
    pub message_count: u64,
    /// Its model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The embedder's marks.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

grows!(SessionInfo {
    session_id,
    state,
    harness,
    cwd,
    policy,
    title,
    created_at,
    cursor,
    message_count,
    model,
    labels
});

/// How a session stands, in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// What a list says of it.
    pub info: SessionInfo,
    /// What its harness can do.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// How hard its model thinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking_level: Option<String>,
    /// Whose model it uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The input request that waits for an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_request: Option<String>,
    /// What holds it, once it was accepted by the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxReport>,
    /// What the harness says of itself, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness_state: Option<Json>,
}

grows!(SessionStatus {
    info,
    capabilities,
    thinking_level,
    provider,
    pending_request,
    sandbox,
    harness_state
});

/// What a session has used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionStats {
    /// Messages of the user.
    pub user_messages: u64,
    /// Messages of the model.
    pub assistant_messages: u64,
    /// Calls of tools.
    pub tool_calls: u64,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// The price in US dollars, as the harness reckons it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

grows!(SessionStats {
    user_messages,
    assistant_messages,
    tool_calls,
    input_tokens,
    output_tokens,
    cost_usd
});

words! {
    /// What a harness can do; a command outside is answered `unsupported` with this name.
    pub enum Capability {
        /// Stop working when told.
        0 "abort" => Abort,
        /// Take a message in the middle of work.
        1 "steer" => Steer,
        /// Queue a message for when it is done.
        2 "follow_up" => FollowUp,
        /// Shorten its context when told.
        3 "compact" => Compact,
        /// Change its model.
        4 "set_model" => SetModel,
        /// Change to its next model.
        5 "cycle_model" => CycleModel,
        /// Change how hard its model thinks.
        6 "set_thinking_level" => SetThinkingLevel,
        /// Change to the next such level.
        7 "cycle_thinking_level" => CycleThinkingLevel,
        /// Show what the model thought.
        8 "thinking" => Thinking,
        /// Take pictures.
        9 "images" => Images,
        /// Ask before it acts.
        10 "permission" => Permission,
        /// Go on with an earlier session of its own.
        11 "resume" => Resume,
        /// Branch off an earlier message.
        12 "fork" => Fork,
        /// Begin anew in the same process.
        13 "new_session" => NewSession,
        /// Go to another of its sessions in the same process.
        14 "switch_session" => SwitchSession,
        /// Switch its own compaction on and off.
        15 "auto_compaction" => AutoCompaction,
        /// Switch its own retries on and off, and abort one.
        16 "auto_retry" => AutoRetry,
        /// Take a name.
        17 "session_name" => SessionName,
        /// List its commands.
        18 "commands" => Commands,
        /// List its models.
        19 "models" => Models,
        /// Count what it used.
        20 "stats" => Stats,
        /// Ask another session.
        21 "delegate" => Delegate,
        /// Change how much it asks before it acts.
        22 "set_mode" => SetMode,
        /// Run a shell command of the user's.
        23 "shell" => Shell,
        /// List its own sessions.
        24 "list_sessions" => ListSessions,
        /// Take resources with a prompt.
        25 "resources" => Resources,
        /// Show a plan.
        26 "plan" => Plan,
    }
}
