//! The dialect of the pi coding agent: `pi --mode rpc`, one JSON object a line both ways.
//!
//! Known from recorded sessions of 0.87.1 and 0.74.2. `wire` has the shapes,
//! `message` and `answer` turn content and answers into the protocol's, `command` says what a command is called
//! here, `translate` keeps the little state that lines depend on, `update` reads the pieces of messages, `ui`
//! what extensions show and ask, and `gate` what ours does, which makes pi ask before it acts.
//!
//! What pi can do and nobody is offered: its messages, entries, tree and last text (the session's own log has what was
//! said, and asking for all of it again costs more the longer it gets), `export_html` (the agent's own tools write
//! files), `clone` (a fork of the newest message), the queues' modes (one at a time is what steering means here).
//!
//! What only pi knows travels as `status` lines whose keys begin with `x-pi-`, as `x` parts and as metadata.

use std::collections::BTreeMap;

use oqto_protocol::session::Capability;

use super::registry::{OwnSessions, Start};

mod answer;
mod command;
mod gate;
mod message;
mod translate;
mod ui;
mod update;
mod wire;

pub(super) use command::probe;
pub(super) use gate::{args as gate_args, shown as gate};
pub use translate::Pi;

/// What pi can do.
pub(super) const CAPABILITIES: &[Capability] = CAPABILITIES_ASKING.split_at(CAPABILITIES_ASKING.len() - 1).0;

const _: () = assert!(matches!(CAPABILITIES_ASKING.last(), Some(Capability::Permission)));

/// The same of one that is made to ask before it acts.
pub(super) const CAPABILITIES_ASKING: &[Capability] = &[
    Capability::Abort,
    Capability::Steer,
    Capability::FollowUp,
    Capability::Compact,
    Capability::SetModel,
    Capability::CycleModel,
    Capability::SetThinkingLevel,
    Capability::CycleThinkingLevel,
    Capability::Thinking,
    Capability::Images,
    Capability::Resume,
    Capability::Fork,
    Capability::NewSession,
    Capability::SwitchSession,
    Capability::ListSessions,
    Capability::Shell,
    Capability::AutoCompaction,
    Capability::AutoRetry,
    Capability::SessionName,
    Capability::Commands,
    Capability::Models,
    Capability::Stats,
    Capability::Permission,
];

/// Where pi keeps its sessions. It has no command that lists them, makes an empty one of a path that is not there, and
/// calls that a success: so the runner looks.
pub(super) const OWN_SESSIONS: OwnSessions = OwnSessions {
    below: "sessions",
    suffix: ".jsonl",
};

/// With what pi is started.
pub(super) fn args(start: &Start<'_>) -> Vec<String> {
    let mut args = vec!["--mode".to_owned(), "rpc".to_owned()];
    let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
    match (start.provider, start.model) {
        (Some(provider), Some(model)) => option("--model", format!("{provider}/{model}")),
        (Some(provider), None) => option("--provider", provider.to_owned()),
        (None, Some(model)) => option("--model", model.to_owned()),
        (None, None) => {}
    }
    if let Some(session) = start.continue_session {
        option("--session", session.to_owned());
    }
    args
}

/// Where pi keeps its own, and what it asks the network at its start (updates, packages, telemetry); its model is not
/// meant by it.
pub(super) fn env(start: &Start<'_>) -> BTreeMap<String, String> {
    let env = [
        ("PI_CODING_AGENT_DIR", start.private_dir),
        ("PI_OFFLINE", "1"),
        ("PI_SKIP_VERSION_CHECK", "1"),
    ];
    env.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}
