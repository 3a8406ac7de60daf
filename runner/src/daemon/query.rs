//! What a runner is asked beside its sessions' commands.

use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::query::{Answer, Policies, Query, SessionList, Status};

use super::Daemon;
use super::authorise::{authorise, may_see};
use super::connection::malformed;
use crate::identity::Peer;
use crate::transport::Received;

/// Answers one query.
pub(super) async fn answer(frame: &Received, peer: &Peer, daemon: &Daemon) -> Answer {
    let asked = match frame.body::<Query>() {
        Ok(query) => authorise(daemon, peer, query, frame).await,
        Err(error) => Err(malformed("query", &error)),
    };
    match asked {
        Ok(query) => serve(query.into_asked(), peer, daemon)
            .await
            .unwrap_or_else(Answer::Fault),
        Err(fault) => Answer::Fault(fault),
    }
}

async fn serve(query: Query, peer: &Peer, daemon: &Daemon) -> Result<Answer, Fault> {
    match query {
        Query::RunnerStatus(_) => Ok(Answer::Status(status(peer, daemon))),
        Query::RunnerSessions(_) => Ok(Answer::SessionList(SessionList {
            sessions: daemon
                .supervisor
                .sessions(|workplace| may_see(daemon, peer, workplace)),
        })),
        Query::PolicyList(_) => daemon
            .supervisor
            .policies()
            .map(|policies| Answer::Policies(Policies { policies })),
        Query::PolicyShow(show) => daemon.supervisor.policy(&show.name).map(Answer::Policy),
        // What no room serves yet. Named one by one, so that a new query does not compile until it is decided.
        Query::RunnerAttest(_)
        | Query::FilesList(_)
        | Query::FilesStat(_)
        | Query::FilesRead(_)
        | Query::FilesWrite(_)
        | Query::FilesRemove(_)
        | Query::FilesRename(_)
        | Query::FilesMakeDir(_)
        | Query::TerminalOpen(_)
        | Query::AuditTail(_)
        | Query::Enrol(_)
        | Query::Renew(_)
        | Query::Trust(_)
        | Query::Unknown(_) => {
            let message = format!("this runner does not serve {}", query.name());
            Err(Fault::new(FaultCode::Unsupported, message))
        }
    }
}

fn status(peer: &Peer, daemon: &Daemon) -> Status {
    let mut notes = Vec::new();
    // They name sessions, wherever those work.
    if daemon.roles.on_runner(&peer.control).is_some() {
        notes = daemon.supervisor.notes();
    }
    if let Some(because) = daemon.audit.failing() {
        notes.push(format!(
            "what needs a record is refused, since the audit log takes none: {because}"
        ));
    }
    Status {
        runner_id: daemon.runner_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: daemon.started.elapsed().as_secs(),
        sessions: daemon.supervisor.live(),
        sessions_max: daemon.supervisor.sessions_max(),
        rss_bytes: crate::sys::rss_bytes(),
        harnesses: daemon.supervisor.harnesses(),
        notes,
    }
}
