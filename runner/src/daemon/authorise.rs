//! Who may do what: every rule stands in this file, and dispatch takes nothing that did not pass it.
//!
//! Until roles are told apart, there is one rule: a control whose certificate the runner's own authority signed
//! owns the runner. What is decided is in the audit log before anything comes of it.

use oqto_protocol::command::{Command, CommandEnvelope};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::{CommandId, Digest, RunnerId, SessionId};
use oqto_protocol::query::Query;
use oqto_protocol::stream::Subscribe;

use super::Daemon;
use crate::audit::record::digest_of;
use crate::audit::{Entry, Outcome, Unrecorded};
use crate::identity::Peer;
use crate::transport::Received;

/// The policy of a session that names none.
const POLICY_DEFAULT: &str = "workspace";

/// Something asked for by somebody who may ask it, and recorded. Only [`authorise`] makes one.
#[derive(Debug)]
pub(super) struct Authorised<C> {
    asked: C,
}

impl<C> Authorised<C> {
    /// What is asked.
    pub(super) fn into_asked(self) -> C {
        self.asked
    }
}

/// Whether the audit log says that something was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It changes something, or shows what agents and people said.
    Recorded,
    /// It only tells how things stand, and is asked often.
    Unrecorded,
}

/// Something that can be asked for.
pub(super) trait Asked {
    /// The runner that it is for, when it says so.
    fn runner_id(&self) -> Option<&RunnerId>;
    /// What it is called, for logs.
    fn name(&self) -> &'static str;
    /// Whether it is recorded.
    fn kept(&self) -> Kept;
    /// The session that it is about.
    fn session_id(&self) -> Option<&SessionId>;
    /// Its name for ever, where it has one.
    fn command_id(&self) -> Option<CommandId> {
        None
    }
    /// The policy that it asks for.
    fn policy(&self) -> Option<&str> {
        None
    }
}

impl Asked for CommandEnvelope {
    fn runner_id(&self) -> Option<&RunnerId> {
        self.runner_id.as_ref()
    }

    fn name(&self) -> &'static str {
        self.command.name()
    }

    fn kept(&self) -> Kept {
        match &self.command {
            Command::ListSessions(_)
            | Command::GetState(_)
            | Command::GetStats(_)
            | Command::GetModels(_)
            | Command::GetCommands(_) => Kept::Unrecorded,
            // Also what comes new, until somebody decides otherwise.
            _ => Kept::Recorded,
        }
    }

    fn session_id(&self) -> Option<&SessionId> {
        Some(&self.session_id)
    }

    fn command_id(&self) -> Option<CommandId> {
        Some(self.id)
    }

    fn policy(&self) -> Option<&str> {
        match &self.command {
            Command::SessionCreate(create) => Some(create.config.policy.as_deref().unwrap_or(POLICY_DEFAULT)),
            _ => None,
        }
    }
}

impl Asked for Query {
    fn runner_id(&self) -> Option<&RunnerId> {
        None
    }

    fn name(&self) -> &'static str {
        Self::name(self)
    }

    fn kept(&self) -> Kept {
        match self {
            Self::RunnerStatus(_) | Self::RunnerSessions(_) | Self::PolicyList(_) | Self::PolicyShow(_) => {
                Kept::Unrecorded
            }
            // As above.
            _ => Kept::Recorded,
        }
    }

    fn session_id(&self) -> Option<&SessionId> {
        None
    }
}

impl Asked for Subscribe {
    fn runner_id(&self) -> Option<&RunnerId> {
        None
    }

    fn name(&self) -> &'static str {
        "subscribe"
    }

    fn kept(&self) -> Kept {
        Kept::Recorded
    }

    fn session_id(&self) -> Option<&SessionId> {
        Some(&self.session_id)
    }
}

/// Decides whether `peer` may have `asked`, which came as `frame`, and comes back when that is on disk.
///
/// # Errors
/// A fault for the peer when it may not, when it means another runner, or when it cannot be recorded.
pub(super) async fn authorise<C: Asked>(
    daemon: &Daemon,
    peer: &Peer,
    asked: C,
    frame: &Received,
) -> Result<Authorised<C>, Fault> {
    let decided = decide(&daemon.runner_id, &asked);
    if asked.kept() == Kept::Recorded {
        let mut entry = entry_of(&asked, peer, &decided, frame.body_bytes());
        entry.policy = asked.policy().and_then(|name| policy_digest(daemon, name));
        let recorded = daemon.audit.record(entry).await;
        // What is refused anyway may be so unrecorded: nothing comes of it, and the log counts it.
        decided.and(recorded.map_err(|error| storage(asked.name(), &error)))?;
    } else {
        decided?;
    }
    Ok(Authorised { asked })
}

/// The rules.
fn decide<C: Asked>(here: &RunnerId, asked: &C) -> Result<(), Fault> {
    match asked.runner_id() {
        Some(meant) if meant != here => Err(Fault::new(
            FaultCode::NotFound,
            format!("{} is for runner {meant}, this is runner {here}", asked.name()),
        )),
        // A peer whose certificate is of another authority never came this far: `Peer` is made of ours alone.
        _ => Ok(()),
    }
}

fn entry_of<C: Asked>(asked: &C, peer: &Peer, decided: &Result<(), Fault>, arguments: &[u8]) -> Entry {
    let mut entry = from_peer(asked.name(), Outcome::Allowed, peer);
    entry.session = asked.session_id().cloned();
    entry.command = asked.command_id();
    entry.arguments = Some(digest_of(&[arguments]));
    if let Err(fault) = decided {
        entry.outcome = Outcome::Refused;
        entry.reason = Some(fault.code.to_string());
    }
    entry
}

/// Says who.
pub(super) fn from_peer(what: &'static str, outcome: Outcome, peer: &Peer) -> Entry {
    let mut entry = Entry::new(what, outcome);
    entry.authority = Some(peer.authority.clone());
    entry.control = Some(peer.control.clone());
    entry
}

/// What the policy says that is asked for; none where there is no such policy, which the command is refused for.
fn policy_digest(daemon: &Daemon, name: &str) -> Option<Digest> {
    let policy = daemon.supervisor.policy(name).ok()?;
    Some(policy.info.digest)
}

/// What cannot be recorded is not done.
pub(super) fn storage(what: &str, error: &Unrecorded) -> Fault {
    let message =
        format!("{what} is not done, since it cannot be recorded: {error}; make room on the runner's disk");
    Fault::new(FaultCode::Storage, message)
}
