//! The states of a session, each with what it alone needs.

use oqto_protocol::command::CommandEnvelope;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::session::SessionState;
use serde::{Deserialize, Serialize};

use super::fact::Fact;

/// Where a session is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its harness is being started.
    Starting(Starting),
    /// It waits for a prompt.
    Idle,
    /// It works on one.
    Streaming(Run),
    /// It shortens its context, outside any run.
    Compacting,
    /// It was told to stop working.
    Aborting(Aborting),
    /// It is being ended.
    Stopping(Stopping),
    /// Nothing of it runs; it can be started again.
    Down(Down),
    /// It has ended.
    Closed,
}

/// A harness that is being started.
#[derive(Debug)]
pub(super) struct Starting {
    /// When it should have answered.
    pub(super) until: u64,
    /// What it printed before the sandbox's report arrived.
    pub(super) early: Vec<u8>,
    /// What was seen of it before that.
    pub(super) early_facts: Vec<Fact>,
    /// What it was told before it could listen.
    pub(super) waiting: Vec<CommandEnvelope>,
}

/// A run, from the prompt that asked for it.
#[derive(Debug)]
pub(super) struct Run {
    /// Whether the harness has begun it.
    pub(super) begun: Begun,
}

/// Whether a harness has begun a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// It has.
    Yes,
    /// It did not yet.
    No {
        /// The command that asked for it.
        prompt: CommandId,
        /// Once the harness has taken that it begins before this time or not at all.
        until: Option<u64>,
    },
}

/// A run that was told to stop.
#[derive(Debug)]
pub(super) struct Aborting {
    /// The command that said so last.
    pub(super) command: CommandId,
    /// Whether the harness had begun it.
    pub(super) begun: Begun,
    /// When it should have stopped; nothing once that was said.
    pub(super) until: Option<u64>,
}

/// A session that is being ended.
#[derive(Debug)]
pub(super) struct Stopping {
    /// Why.
    pub(super) why: Why,
    /// When its harness is killed, next.
    pub(super) kill_at: u64,
    /// How often it was.
    pub(super) kills: u8,
}

/// Why a session is being ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody asked.
    Asked,
    /// Its harness cannot be listened to any longer; an error that says why was recorded.
    Broken(String),
    /// Its sandbox could not be made again; an error that says why was recorded.
    Unconfined(String),
    /// It is to be started again, as this command says.
    Restart(CommandId),
    /// The runner is stopping.
    RunnerStops,
}

/// A session of which nothing runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Down {
    /// When its harness is to be started again; nothing where that waits for somebody to say so.
    pub(super) start_at: Option<u64>,
    /// That was said to who drives it.
    #[serde(skip)]
    pub(super) told: bool,
    /// Why nothing runs, for people.
    pub(super) why: String,
    /// What is to be told when it runs again.
    pub(super) again: Again,
}

impl Down {
    /// What is answered to a command that needs the harness.
    pub(super) fn refuses(&self, cmd: &str) -> Fault {
        let Self { start_at, why, .. } = self;
        match start_at {
            Some(_) => Fault::new(
                FaultCode::Busy,
                format!("no {cmd} before the harness runs again: {why}"),
            ),
            None => Fault::new(
                FaultCode::WrongState,
                format!("no {cmd} while the session is dormant ({why}); session.restart starts it again"),
            ),
        }
    }
}

/// How a harness came to be started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Again {
    /// What was done, for people.
    pub(super) how: String,
    /// What is lost.
    pub(super) lost: Option<String>,
    /// The command that asked for it, until it is answered.
    pub(super) command: Option<CommandId>,
}

impl Starting {
    /// A harness that was started now and should have answered by then.
    pub(super) fn until(until: u64) -> Self {
        Self {
            until,
            early: Vec::new(),
            early_facts: Vec::new(),
            waiting: Vec::new(),
        }
    }
}

impl Stage {
    pub(super) fn state(&self) -> SessionState {
        match self {
            Self::Starting(_)
            | Self::Down(Down {
                start_at: Some(_), ..
            }) => SessionState::Starting,
            Self::Idle => SessionState::Idle,
            Self::Streaming(_) => SessionState::Streaming,
            Self::Compacting => SessionState::Compacting,
            Self::Aborting(_) => SessionState::Aborting,
            Self::Stopping(_) => SessionState::Stopping,
            Self::Down(Down { start_at: None, .. }) => SessionState::Dormant,
            Self::Closed => SessionState::Closed,
        }
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        match self {
            Self::Starting(starting) => Some(starting.until),
            Self::Streaming(Run {
                begun: Begun::No { until, .. },
            }) => *until,
            Self::Aborting(aborting) => aborting.until,
            Self::Stopping(stopping) => Some(stopping.kill_at),
            Self::Down(down) => down.start_at.filter(|_| !down.told),
            Self::Idle | Self::Streaming(Run { begun: Begun::Yes }) | Self::Compacting | Self::Closed => None,
        }
    }
}
