//! What a runner is asked beside its sessions' commands.

use oqto_protocol::attest::{Attest, Attestation, CHANNEL_LABEL};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::query::{Answer, Done, Policies, Query, SessionList, Status};
use oqto_protocol::trust::Trust;

use super::authorise::{Authorised, authorise, from_peer, may_see, storage};
use super::connection::{StreamError, malformed};
use super::{Daemon, records};
use crate::attestation::AttestError;
use crate::audit::Outcome;
use crate::cause::chain;
use crate::clock;
use crate::identity::{LearnError, Peer};
use crate::transport::{Connection, Received, Stream};

/// Serves one query to its end.
pub(super) async fn serve(
    mut stream: Stream,
    frame: &Received,
    peer: &Peer,
    connection: &Connection,
    daemon: &Daemon,
) -> Result<(), StreamError> {
    let asked = match frame.body::<Query>() {
        Ok(query) => authorise(daemon, peer, query, frame).await,
        Err(error) => Err(malformed("query", &error)),
    };
    let answer = match asked.map(Authorised::into_asked) {
        Ok(Query::AuditTail(asked)) => return records::serve(stream, &asked, daemon).await,
        Ok(query) => answer(query, peer, connection, daemon).await,
        Err(fault) => Err(fault),
    };
    stream.outbox.send(&answer.unwrap_or_else(Answer::Fault)).await?;
    stream.outbox.flush().await;
    Ok(())
}

async fn answer(
    query: Query,
    peer: &Peer,
    connection: &Connection,
    daemon: &Daemon,
) -> Result<Answer, Fault> {
    // Whom to trust is not to wait for anything that somebody else asks.
    let _turn = match query {
        Query::Trust(_) => None,
        _ => Some(connection.turns().query().await),
    };
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
        Query::RunnerAttest(ask) => attest(ask, connection, daemon).await.map(Answer::Attested),
        Query::Trust(trust) => learn(trust, peer, daemon).await,
        // What no room serves yet. Named one by one, so that a new query does not compile until it is decided.
        Query::FilesList(_)
        | Query::FilesStat(_)
        | Query::FilesRead(_)
        | Query::FilesWrite(_)
        | Query::FilesRemove(_)
        | Query::FilesRename(_)
        | Query::FilesMakeDir(_)
        | Query::TerminalOpen(_)
        // Answered record by record, in `records`.
        | Query::AuditTail(_)
        | Query::Enrol(_)
        | Query::Renew(_)
        | Query::Unknown(_) => {
            let message = format!("this runner does not serve {}", query.name());
            Err(Fault::new(FaultCode::Unsupported, message))
        }
    }
}

/// Whom to trust from now on, as the authority has signed it: who brings it does not count.
async fn learn(trust: Trust, peer: &Peer, daemon: &Daemon) -> Result<Answer, Fault> {
    let credentials = daemon.credentials.clone();
    let learnt = tokio::task::spawn_blocking(move || credentials.learn(trust)).await;
    match learnt {
        Ok(Ok(is_new)) => {
            if is_new {
                let number = daemon.credentials.now().statement_number();
                tracing::info!(number, "learnt whom to trust");
            }
            Ok(Answer::Done(Done {}))
        }
        Ok(Err(error)) => {
            let message = chain(&error);
            tracing::warn!(error = message, "trust statement refused");
            // That it was brought is recorded already; that it was not believed is what somebody looks for.
            let code = match error {
                LearnError::Trust(_) => FaultCode::Denied,
                LearnError::Store(_) => FaultCode::Storage,
            };
            let mut refused = from_peer("trust", Outcome::Refused, peer);
            refused.reason = Some(code.to_string());
            refused.detail = Some(message.clone());
            let recorded = daemon.audit.record(refused).await;
            recorded.map_err(|error| storage("trust", &error))?;
            Err(Fault::new(code, message))
        }
        Err(_) => Err(Fault::new(FaultCode::Closing, "the runner is stopping")),
    }
}

fn status(peer: &Peer, daemon: &Daemon) -> Status {
    // They say nothing of any session.
    let mut notes = daemon.credentials.now().notes(clock::unix_ms());
    // These name sessions, wherever those work.
    if daemon.roles.on_runner(&peer.control).is_some() {
        notes.extend(daemon.supervisor.notes());
    }
    notes.extend(daemon.audit.notes());
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

/// What this runner is, for who asks on this connection and nobody else.
async fn attest(ask: Attest, connection: &Connection, daemon: &Daemon) -> Result<Attestation, Fault> {
    let channel = connection.export(CHANNEL_LABEL);
    let channel = channel.map_err(|error| Fault::new(FaultCode::Internal, chain(&error)))?;
    let policies = daemon.supervisor.policies()?;
    let attested = daemon.attestor.attest(ask.nonce, channel, policies).await;
    attested.map_err(|error| {
        let code = match error {
            AttestError::Nonce { .. } => FaultCode::Invalid,
            AttestError::Binary(_) | AttestError::Kernel(_) | AttestError::Sign(_) => FaultCode::Internal,
        };
        Fault::new(code, chain(&error))
    })
}
