//! What each thing that can be asked of a runner needs: the one table of roles. Pure.
//!
//! The matches are exhaustive, so that a new command or query does not compile until somebody decides who may give it.

use oqto_protocol::command::Command;
use oqto_protocol::id::SessionId;
use oqto_protocol::query::Query;
use oqto_protocol::role::ControlRole;

/// What somebody needs who asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need<'a> {
    /// This role there.
    Role(ControlRole, Place<'a>),
    /// Nothing but a connection: who signed it is asked, not who carries it.
    Signed,
    /// Nobody may have it, since no runner serves it. What becomes of it is said, so that a newer peer can do without.
    Unserved,
}

/// Where a role is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// On the whole runner.
    Runner,
    /// On the runner or in any of its workspaces: what is told names none of them, or only those that may be seen.
    Anywhere,
    /// In the workspace of this session.
    Session(&'a SessionId),
    /// In the directory that a new session is to work in; on the whole runner where it names none.
    Directory(Option<&'a str>),
}

/// Whether the audit log says that something was allowed. What was refused is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It changes something, or shows what agents and people said.
    Recorded,
    /// It only tells how things stand, and is asked often.
    Unrecorded,
}

/// What a command to a session needs.
pub(super) fn of_command<'a>(command: &'a Command, session: &'a SessionId) -> (Need<'a>, Kept) {
    let here = Place::Session(session);
    match command {
        Command::GetState(_)
        | Command::GetStats(_)
        | Command::GetModels(_)
        | Command::GetCommands(_)
        | Command::ListSessions(_) => (Need::Role(ControlRole::Read, here), Kept::Unrecorded),
        Command::GetMessages(_) | Command::GetForkPoints(_) => {
            (Need::Role(ControlRole::Read, here), Kept::Recorded)
        }
        Command::SetSessionName(_) => (Need::Role(ControlRole::Write, here), Kept::Recorded),
        Command::SessionCreate(create) => {
            let there = Place::Directory(create.config.cwd.as_deref());
            (Need::Role(ControlRole::Execute, there), Kept::Recorded)
        }
        // What an agent does next, or with what it thinks, is what runs.
        Command::SessionClose(_)
        | Command::SessionRestart(_)
        | Command::SessionNew(_)
        | Command::SessionSwitch(_)
        | Command::Prompt(_)
        | Command::Steer(_)
        | Command::FollowUp(_)
        | Command::Abort(_)
        | Command::InputResponse(_)
        | Command::SetModel(_)
        | Command::SetMode(_)
        | Command::Shell(_)
        | Command::CycleModel(_)
        | Command::SetThinkingLevel(_)
        | Command::CycleThinkingLevel(_)
        | Command::SetAutoCompaction(_)
        | Command::SetAutoRetry(_)
        | Command::Compact(_)
        | Command::AbortRetry(_)
        | Command::Fork(_)
        | Command::Delegate(_)
        | Command::DelegateCancel(_) => (Need::Role(ControlRole::Execute, here), Kept::Recorded),
        Command::SessionDelete(_) => (Need::Role(ControlRole::Owner, here), Kept::Recorded),
        Command::Unknown(_) => (Need::Unserved, Kept::Recorded),
    }
}

/// What a query needs.
pub(super) fn of_query(query: &Query) -> (Need<'_>, Kept) {
    let anywhere = Need::Role(ControlRole::Read, Place::Anywhere);
    let read = |session| {
        (
            Need::Role(ControlRole::Read, Place::Session(session)),
            Kept::Recorded,
        )
    };
    let write = |session| {
        (
            Need::Role(ControlRole::Write, Place::Session(session)),
            Kept::Recorded,
        )
    };
    match query {
        Query::RunnerStatus(_) | Query::RunnerSessions(_) | Query::PolicyList(_) | Query::PolicyShow(_) => {
            (anywhere, Kept::Unrecorded)
        }
        Query::RunnerAttest(_) => (anywhere, Kept::Recorded),
        Query::FilesList(asked) => read(&asked.session_id),
        Query::FilesStat(asked) => read(&asked.session_id),
        Query::FilesRead(asked) => read(&asked.session_id),
        Query::FilesWrite(asked) => write(&asked.session_id),
        Query::FilesRemove(asked) => write(&asked.session_id),
        Query::FilesRename(asked) => write(&asked.session_id),
        Query::FilesMakeDir(asked) => write(&asked.session_id),
        Query::TerminalOpen(asked) => {
            let here = Place::Session(&asked.session_id);
            (Need::Role(ControlRole::Execute, here), Kept::Recorded)
        }
        Query::AuditTail(_) => (Need::Role(ControlRole::Owner, Place::Runner), Kept::Recorded),
        Query::Trust(_) => (Need::Signed, Kept::Recorded),
        // Answered by a control.
        Query::Enrol(_) | Query::Renew(_) | Query::Unknown(_) => (Need::Unserved, Kept::Recorded),
    }
}

/// What a subscription to a session's events needs.
pub(super) fn of_subscription(session: &SessionId) -> (Need<'_>, Kept) {
    let here = Place::Session(session);
    (Need::Role(ControlRole::Read, here), Kept::Recorded)
}
