//! Who may do what: what was asked is held against the roles of who asked in this file alone, and dispatch takes nothing
//! that did not pass it. What is decided is in the audit log before anything comes of it.

use std::path::PathBuf;

use oqto_protocol::bounds::BEHALF_LEN_MAX;
use oqto_protocol::command::{Command, CommandEnvelope};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::{CommandId, ControlId, Digest, RunnerId, SessionId};
use oqto_protocol::query::Query;
use oqto_protocol::role::ControlRole;
use oqto_protocol::stream::Subscribe;

use super::Daemon;
use super::needs::{self, Kept, Need, Place};
use super::roles::Roles;
use crate::audit::record::{digest_of, is_plain};
use crate::audit::{Entry, Outcome, Unrecorded};
use crate::identity::Peer;
use crate::supervisor::{Workplace, no_session};
use crate::transport::Received;

/// The policy of a session that names none.
const POLICY_DEFAULT: &str = "workspace";

/// How much of a directory's name a peer is told back, characters.
const TOLD_LEN_MAX: usize = 256;

/// Something asked for by somebody who may ask it, and recorded. Only [`authorise`] makes one.
#[derive(Debug)]
pub(super) struct Authorised<C> {
    asked: C,
    directory: Option<PathBuf>,
}

impl<C> Authorised<C> {
    /// What is asked.
    pub(super) fn into_asked(self) -> C {
        self.asked
    }
}

impl Authorised<CommandEnvelope> {
    /// What is asked; and of a new session the one directory that it may work in, links resolved, unless it may work in
    /// any.
    pub(super) fn into_command(self) -> (CommandEnvelope, Option<PathBuf>) {
        (self.asked, self.directory)
    }
}

/// Something that can be asked for.
pub(super) trait Asked {
    /// What it is called, for logs.
    fn name(&self) -> &'static str;
    /// What who asks needs, and whether it is recorded.
    fn need(&self) -> (Need<'_>, Kept);
    /// The runner that it is for, when it says so.
    fn runner_id(&self) -> Option<&RunnerId> {
        None
    }
    /// The session that it is about.
    fn session_id(&self) -> Option<&SessionId> {
        match self.need() {
            (Need::Role(_, Place::Session(session)), _) => Some(session),
            _ => None,
        }
    }
    /// Its name for ever, where it has one.
    fn command_id(&self) -> Option<CommandId> {
        None
    }
    /// The policy that it asks for.
    fn policy(&self) -> Option<&str> {
        None
    }
    /// More, for people.
    fn detail(&self) -> Option<String> {
        None
    }
    /// For whom it is asked, as who asks says.
    fn on_behalf_of(&self) -> Option<&str> {
        None
    }
}

impl Asked for CommandEnvelope {
    fn name(&self) -> &'static str {
        self.command.name()
    }

    fn need(&self) -> (Need<'_>, Kept) {
        needs::of_command(&self.command, &self.session_id)
    }

    fn runner_id(&self) -> Option<&RunnerId> {
        self.runner_id.as_ref()
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

    fn detail(&self) -> Option<String> {
        let Command::InputResponse(response) = &self.command else {
            return None;
        };
        // A value may be any text, and what was said is not kept here; the session's events say what it meant.
        let answer = match (response.confirmed, response.cancelled) {
            (Some(true), _) => "yes",
            (Some(false), _) => "no",
            (None, Some(true)) => "cancelled",
            _ => "a value",
        };
        let request: String = response.request_id.chars().take(TOLD_LEN_MAX).collect();
        Some(format!("request {}: {answer}", request.escape_debug()))
    }

    fn on_behalf_of(&self) -> Option<&str> {
        self.on_behalf_of.as_deref()
    }
}

impl Asked for Query {
    fn name(&self) -> &'static str {
        Self::name(self)
    }

    fn need(&self) -> (Need<'_>, Kept) {
        needs::of_query(self)
    }
}

impl Asked for Subscribe {
    fn name(&self) -> &'static str {
        "subscribe"
    }

    fn need(&self) -> (Need<'_>, Kept) {
        needs::of_subscription(&self.session_id)
    }

    fn on_behalf_of(&self) -> Option<&str> {
        self.on_behalf_of.as_deref()
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
    let (need, kept) = asked.need();
    let directory = directory(&daemon.roles, &peer.control, need).await;
    let decide = || {
        check(&daemon.runner_id, &asked)?;
        let workplace = match need {
            Need::Role(_, Place::Session(session)) => daemon.supervisor.workplace(session),
            _ => directory.clone().map(Workplace::Named),
        };
        judge(
            &daemon.roles,
            &peer.control,
            asked.name(),
            need,
            workplace.as_ref(),
        )
    };
    let decided = decide();
    if kept == Kept::Recorded || decided.is_err() {
        let mut entry = entry_of(&asked, peer, &decided, frame.body_bytes());
        entry.policy = asked.policy().and_then(|name| policy_digest(daemon, name));
        let recorded = daemon.audit.record(entry).await;
        // What is refused anyway may be so unrecorded: nothing comes of it, and the log counts it.
        decided.and(recorded.map_err(|error| storage(asked.name(), &error)))?;
        // While it was written down, the session may have become another one of that name.
        decide()?;
    } else {
        decided?;
    }
    Ok(Authorised { asked, directory })
}

/// Whether it knows of a session that works there.
pub(super) fn may_see(daemon: &Daemon, peer: &Peer, workplace: &Workplace) -> bool {
    daemon.roles.at(&peer.control, workplace) >= Some(ControlRole::Read)
}

/// Whether what it has of a session's events may be forgotten here. Who may only read takes nothing away from others.
pub(super) fn may_acknowledge(daemon: &Daemon, peer: &Peer, session: &SessionId) -> bool {
    let workplace = daemon.supervisor.workplace(session);
    workplace.is_some_and(|workplace| daemon.roles.at(&peer.control, &workplace) >= Some(ControlRole::Write))
}

/// The directory, links resolved, of a new session that who asks may not make just anywhere; `None` also where there is
/// none, since who may not look there is not told.
async fn directory(roles: &Roles, control: &ControlId, need: Need<'_>) -> Option<PathBuf> {
    let Need::Role(role, Place::Directory(Some(asked))) = need else {
        return None;
    };
    if roles.on_runner(control) >= Some(role) {
        return None;
    }
    let asked = PathBuf::from(asked);
    if !asked.is_absolute() {
        return None;
    }
    // It may lie on a file system that takes its time.
    let resolved = tokio::task::spawn_blocking(move || std::fs::canonicalize(asked));
    resolved.await.ok()?.ok()
}

/// What nobody may ask.
fn check<C: Asked>(here: &RunnerId, asked: &C) -> Result<(), Fault> {
    if let Some(meant) = asked.runner_id()
        && meant != here
    {
        return Err(Fault::new(
            FaultCode::NotFound,
            format!("{} is for runner {meant}, this is runner {here}", asked.name()),
        ));
    }
    match asked.on_behalf_of() {
        Some(text) if text.is_empty() || text.len() > BEHALF_LEN_MAX || !text.chars().all(is_plain) => {
            let message = format!(
                "{}: on_behalf_of has to be 1 to {BEHALF_LEN_MAX} bytes of text without control characters",
                asked.name()
            );
            Err(Fault::new(FaultCode::Invalid, message))
        }
        _ => Ok(()),
    }
}

/// Whether a control has the role that something needs. `workplace` is where the session works that it is about, or is to
/// work; without it there is no such session, or no such directory that it may know of.
pub(super) fn judge(
    roles: &Roles,
    control: &ControlId,
    name: &str,
    need: Need<'_>,
    workplace: Option<&Workplace>,
) -> Result<(), Fault> {
    let (role, place) = match need {
        Need::Role(role, place) => (role, place),
        Need::Signed => return Ok(()),
        Need::Unserved => {
            let message = format!("this runner does not serve {name}");
            return Err(Fault::new(FaultCode::Unsupported, message));
        }
    };
    let has = match (place, workplace) {
        (Place::Anywhere, _) => roles.anywhere(control),
        (Place::Session(_) | Place::Directory(_), Some(workplace)) => roles.at(control, workplace),
        (Place::Session(_) | Place::Directory(_), None) | (Place::Runner, _) => roles.on_runner(control),
    };
    if has >= Some(role) {
        return Ok(());
    }
    let there = match place {
        // Who may not see a session is told what is said of one that is not there: names are not to be guessed.
        Place::Session(session) if has.is_none() || workplace.is_none() => return Err(no_session(session)),
        Place::Session(session) => format!("in the workspace of session {session}"),
        Place::Directory(Some(asked)) => {
            let told: String = asked.chars().take(TOLD_LEN_MAX).collect();
            format!("in {told:?}")
        }
        Place::Runner | Place::Directory(None) => "on the whole runner".to_owned(),
        Place::Anywhere => "on the runner or in one of its workspaces".to_owned(),
    };
    let has = has.map_or_else(|| "none".to_owned(), |has| has.to_string());
    let message = format!(
        "{name} needs the role {role} {there}, and control {control} has {has}; roles are given by [[role]] in the runner's \
         own configuration"
    );
    Err(Fault::new(FaultCode::Denied, message))
}

fn entry_of<C: Asked>(asked: &C, peer: &Peer, decided: &Result<(), Fault>, arguments: &[u8]) -> Entry {
    let mut entry = from_peer(asked.name(), Outcome::Allowed, peer);
    entry.session = asked.session_id().cloned();
    entry.command = asked.command_id();
    entry.arguments = Some(digest_of(&[arguments]));
    entry.on_behalf_of = asked.on_behalf_of().map(str::to_owned);
    entry.detail = asked.detail();
    if let Err(fault) = decided {
        entry.outcome = Outcome::Refused;
        entry.reason = Some(fault.code.to_string());
        match (fault.code, asked.need().0) {
            (FaultCode::Denied, Need::Role(role, _)) => entry.detail = Some(format!("needs {role}")),
            // It is not what it should be.
            (FaultCode::Invalid, _) => entry.on_behalf_of = None,
            _ => {}
        }
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
