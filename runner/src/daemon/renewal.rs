//! The certificate is renewed over whichever link stands, and somebody is told when none does it.

use std::sync::Arc;
use std::time::Duration;

use oqto_protocol::enrol::Grant;
use oqto_protocol::fault::FaultCode;
use oqto_protocol::query::Query;
use tokio::sync::OwnedMutexGuard;

use super::Daemon;
use super::ask::{self, AskError};
use super::authorise::from_peer;
use super::backoff::{jittered, random};
use crate::audit::{Entry, Outcome, Unrecorded};
use crate::clock;
use crate::identity::{Peer, RenewError};
use crate::transport::Connection;

/// How long a moment of the wall clock is waited for at once: the clock may be set meanwhile, and a host may sleep.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// The shortest wait between two tries on a link.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// The longest: within a day there are many tries.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// The wait between tries when it is too late already: some control may yet do it, over a link that stands.
const RETRY_LATE: Duration = Duration::from_secs(30);

/// How often it is looked whether the runner was enrolled anew: costs a look at one file.
const LOOK: Duration = Duration::from_secs(10);

/// The same while the certificate is late or has expired, and somebody is probably at it.
const LOOK_LATE: Duration = Duration::from_secs(1);

/// Why the certificate was not renewed.
#[derive(Debug, thiserror::Error)]
enum Unrenewed {
    #[error("no new certificate")]
    Ask(#[from] AskError),
    #[error("the new certificate is not taken, since that cannot be recorded")]
    Record(#[from] Unrecorded),
    #[error("the new certificate is not taken")]
    Take(#[from] RenewError),
    #[error("the runner is stopping")]
    Stopping,
}

/// Renews the certificate over this link each time when it is due, as long as the link stands. All links do; who is first
/// does it for all.
pub(super) async fn keep(connection: &Connection, peer: &Arc<Peer>, daemon: &Arc<Daemon>) {
    let mut changes = daemon.credentials.changes();
    let mut has_failed = false;
    loop {
        let due = changes.borrow_and_update().renewed_at();
        tokio::select! {
            () = reached(due) => {}
            Ok(()) = changes.changed() => continue,
        }
        let renewing = daemon.renewing.clone().lock_owned().await;
        if changes.has_changed().unwrap_or(false) {
            continue;
        }
        let wait = match renew(connection, peer, daemon, renewing).await {
            Ok(()) => {
                has_failed = false;
                continue;
            }
            Err(error) => {
                let said = crate::cause::chain(&error);
                if has_failed {
                    tracing::debug!(control = %peer.control, error = said, "certificate not renewed");
                } else {
                    tracing::warn!(control = %peer.control, error = said, "certificate not renewed; it is tried again");
                }
                has_failed = true;
                retry_in(daemon.credentials.now().life().ends_at())
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Ok(()) = changes.changed() => {}
        }
    }
}

async fn renew(
    connection: &Connection,
    peer: &Arc<Peer>,
    daemon: &Arc<Daemon>,
    renewing: OwnedMutexGuard<()>,
) -> Result<(), Unrenewed> {
    let query = Query::Renew(daemon.credentials.renewal());
    let grant = ask::grant(connection, &query).await?;
    // From here on the authority counts on it, and may let go of the root of the certificate from before: that cuts this
    // link, and nobody waits here any more. No other link asks for one until this one is taken.
    let taking = take(grant, peer.clone(), daemon.clone());
    let taking = tokio::spawn(async move {
        let _renewing = renewing;
        taking.await
    });
    taking.await.map_err(|_| Unrenewed::Stopping)?
}

/// Takes a certificate that a control gave, once that is recorded.
async fn take(grant: Grant, peer: Arc<Peer>, daemon: Arc<Daemon>) -> Result<(), Unrenewed> {
    let entry = |outcome| from_peer("renew", outcome, &peer);
    daemon.audit.record(entry(Outcome::Allowed)).await?;
    let credentials = daemon.credentials.clone();
    let taken = tokio::task::spawn_blocking(move || credentials.renewed(grant)).await;
    match taken.map_err(|_| Unrenewed::Stopping)? {
        Ok(life) => {
            let serial = daemon.credentials.now().serial();
            tracing::info!(control = %peer.control, serial, ends_at = life.ends_at(), "certificate renewed");
            Ok(())
        }
        Err(error) => {
            let mut refused = entry(Outcome::Refused);
            let code = match error {
                RenewError::Grant(_) | RenewError::OtherAuthority { .. } => FaultCode::Invalid,
                RenewError::Store(_) => FaultCode::Storage,
            };
            refused.reason = Some(code.to_string());
            refused.detail = Some(crate::cause::chain(&error));
            daemon.audit.record(refused).await?;
            Err(error.into())
        }
    }
}

fn retry_in(ends_at: u64) -> Duration {
    match ends_at.checked_sub(clock::unix_ms()) {
        Some(left) => jittered(Duration::from_millis(left / 8), random()).clamp(RETRY_MIN, RETRY_MAX),
        None => jittered(RETRY_LATE, random()),
    }
}

/// Waits for a moment of our clock, Unix milliseconds.
async fn reached(moment: u64) {
    while let Some(left @ 1..) = moment.checked_sub(clock::unix_ms()) {
        tokio::time::sleep(Duration::from_millis(left).min(SLEEP_MAX)).await;
    }
}

/// Looks after the certificate as long as the runner lives: says once when nobody renews it, and takes one that the runner
/// was given anew on this host.
pub(super) async fn watch(daemon: Arc<Daemon>) {
    let mut said: Vec<String> = Vec::new();
    let mut failed = None;
    loop {
        let credentials = daemon.credentials.clone();
        match tokio::task::spawn_blocking(move || credentials.reload()).await {
            Ok(Ok(true)) => {
                let now = daemon.credentials.now();
                let (serial, ends_at) = (now.serial(), now.life().ends_at());
                tracing::info!(serial, ends_at, "enrolled anew");
                let mut entry = Entry::new("enrol", Outcome::Noted);
                entry.detail = Some(serial);
                if let Err(error) = daemon.audit.record(entry).await {
                    tracing::error!(%error, "cannot record that this runner was enrolled anew");
                }
                failed = None;
            }
            Ok(Ok(false)) => failed = None,
            Ok(Err(error)) => {
                let error = crate::cause::chain(&error);
                if failed.as_ref() != Some(&error) {
                    tracing::error!(error, "the certificate on disk is not taken");
                }
                failed = Some(error);
            }
            Err(_) => return,
        }
        let (now, standing) = (clock::unix_ms(), daemon.credentials.now());
        let notes = standing.notes(now);
        // What a note is about, without its seconds.
        let kinds: Vec<String> = notes
            .iter()
            .map(|note| note.chars().filter(|sign| !sign.is_ascii_digit()).collect())
            .collect();
        for (note, kind) in notes.iter().zip(&kinds) {
            if !said.contains(kind) {
                tracing::error!("{note}");
            }
        }
        said = kinds;
        let life = standing.life();
        let next = [life.late_at(), life.ends_at() + 1]
            .into_iter()
            .filter_map(|moment| moment.checked_sub(now))
            .find(|left| *left > 0)
            .map_or(LOOK, Duration::from_millis);
        let look = if said.is_empty() { LOOK } else { LOOK_LATE };
        let mut changes = daemon.credentials.changes();
        changes.mark_unchanged();
        tokio::select! {
            () = tokio::time::sleep(next.min(look)) => {}
            Ok(()) = changes.changed() => {}
        }
    }
}
