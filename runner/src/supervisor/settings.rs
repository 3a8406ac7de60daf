//! What the supervisor knows of its runner: where things are, and how many there may be.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Gid, Uid};
use oqto_protocol::id::{RunnerId, SessionId};

use crate::event_log::Retention;
use crate::harness::Harnesses;
use crate::policy::PolicyName;
use crate::session::SilentAct;

/// What the supervisor knows of its runner.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The runner's name.
    pub runner_id: RunnerId,
    /// Where the runner keeps everything.
    pub state_dir: PathBuf,
    /// Where policies beside the shipped ones are.
    pub policy_dir: Option<PathBuf>,
    /// The policy that no session may go beyond.
    pub policy_at_most: Option<PolicyName>,
    /// As whom harnesses run when the runner is root.
    pub principal: Option<(Uid, Gid)>,
    /// How many sessions may live at once.
    pub sessions_max: NonZeroU32,
    /// How long events are kept that somebody else has.
    pub retention: Retention,
    /// The harnesses that there are.
    pub harnesses: Harnesses,
    /// The runner's own program.
    pub exe: PathBuf,
    /// How the health of sessions is looked after.
    pub health: HealthSettings,
    /// Where this user's controls keep their authority and configuration.
    pub control_dirs: Vec<PathBuf>,
}

/// How the health of sessions is looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// How often the processes of sessions are looked at and told of.
    pub heartbeat: Duration,
    /// After how long a silence of a harness that works is told; `None`: never.
    pub silent_warn: Option<Duration>,
    /// After how long a silence something is done about it, and what.
    pub silent_act: Option<(Duration, SilentAct)>,
}

impl Settings {
    /// Where the sessions are.
    pub(super) fn sessions_dir(&self) -> PathBuf {
        self.state_dir.join("sessions")
    }

    /// Where one session is.
    pub(super) fn session_dir(&self, id: &SessionId) -> PathBuf {
        self.sessions_dir().join(id.as_str())
    }

    /// The workspace of a session that named none.
    pub(super) fn workspace_dir(&self, id: &SessionId) -> PathBuf {
        self.state_dir.join("workspaces").join(id.as_str())
    }

    /// Where the event logs are, one a workspace.
    pub(super) fn stores_dir(&self) -> PathBuf {
        self.state_dir.join("events")
    }

    /// Where copies of the runner's program are that other users may run.
    pub(super) fn bin_dir(&self) -> PathBuf {
        self.state_dir.join("bin")
    }

    /// What no session may reach whatever its policy says: the runner's own state, keys, program and policies, and
    /// those of a control of the same user. Not the whole of the state, since sessions' own workspaces lie in it.
    pub(super) fn closed(&self, user_home: &Path) -> impl Iterator<Item = PathBuf> {
        let own = [
            "identity",
            "sessions",
            "events",
            "bin",
            "runner.json",
            "runner.log",
        ];
        let own = own.map(|name| self.state_dir.join(name));
        let control = [".local/share/oqto", ".config/oqto"].map(|name| user_home.join(name));
        own.into_iter()
            .chain(control)
            .chain(self.control_dirs.clone())
            .chain(self.policy_dir.clone())
    }
}
