//! The sessions that a harness itself keeps, as files in its home: which there are, and going to another.

use std::path::Path;
use std::time::UNIX_EPOCH;

use oqto_protocol::codec::Json;
use oqto_protocol::command::CommandEnvelope;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::SessionId;
use oqto_protocol::reply::{HarnessAnswer, Reply, ReplyData};
use serde_json::json;

use super::claims::{Claim, Held};
use super::fleet::Supervisor;
use super::handle::Handle;
use super::prepare::PRIVATE_DIR;
use crate::harness::OwnSessions;
use crate::{sandbox, sys};

/// How many are listed, the newest. Nobody reads more, and each may have a name of 255 bytes.
const LISTED_MAX: usize = 1000;

/// How many names are looked at in one directory: whoever fills it waits for nobody.
const LOOKED_AT_MAX: usize = 10_000;

/// A harness's own session.
struct Own {
    /// Its file, as the harness calls it.
    path: String,
    /// When it was written last, Unix milliseconds.
    updated_at: u64,
}

impl Supervisor {
    /// What of a harness's own sessions is there: `None` where only the harness itself can say that.
    pub(super) fn list_sessions(&self, id: &SessionId) -> Result<Option<ReplyData>, Fault> {
        let handle = self.handle(id)?;
        let Some(kept) = self.kept(&handle)? else {
            return Ok(None);
        };
        let found = tokio::task::block_in_place(|| found(&handle, &kept))?;
        let sessions = found
            .into_iter()
            .map(|own| json!({"sessionId": own.path, "updated_at": own.updated_at}));
        let sessions: Vec<_> = sessions.collect();
        let answer = Json::from(&json!({ "sessions": sessions }));
        Ok(Some(ReplyData::HarnessAnswer(HarnessAnswer { answer })))
    }

    /// Has a session go to another of its harness's own, which is there and which no other session has.
    pub(super) async fn switch(
        self: &std::sync::Arc<Self>,
        envelope: CommandEnvelope,
        to: &str,
    ) -> Result<Reply, Fault> {
        let id = envelope.session_id.clone();
        let handle = self.load(&id).await?;
        if let Some(kept) = self.kept(&handle)? {
            let found = tokio::task::block_in_place(|| found(&handle, &kept))?;
            if !found.iter().any(|own| own.path == to) {
                let message = format!("the harness has no session {to}; list_sessions says which it has");
                return Err(Fault::new(FaultCode::NotFound, message));
            }
        }
        let record = &handle.record;
        let claim = tokio::task::block_in_place(|| Claim::new(&record.config.harness, to, &record.workspace));
        let taken = self.claims.take(claim.clone(), &id);
        let is_new = taken.map_err(|held| self.held(&held, Some(&record.workspace)))?;
        let answer = self.ask(&id, envelope).await;
        if is_new && answer.as_ref().map_or(true, |reply| !reply.success) {
            self.claims.leave(&claim, &id);
        }
        answer
    }

    /// What is answered to who wants what another session has. Who sees only what works in `near` is not told of one that
    /// works elsewhere.
    pub(super) fn held(&self, held: &Held, near: Option<&Path>) -> Fault {
        let is_seen = match (near, self.handle(&held.by)) {
            (None, _) => true,
            (Some(near), Ok(other)) => other.record.workspace == near,
            (Some(_), Err(_)) => false,
        };
        let message = match is_seen {
            true => format!(
                "session {by} has that session of its harness's open, and two would overwrite each other: go on in {by}, \
                 or close it first",
                by = held.by
            ),
            false => {
                "another session has that session of its harness's open, and two would overwrite each other: \
                      close that one first"
                    .to_owned()
            }
        };
        Fault::new(FaultCode::Busy, message)
    }

    fn kept(&self, handle: &Handle) -> Result<Option<OwnSessions>, Fault> {
        let harness = self.settings.harnesses.find(&handle.record.config.harness);
        let harness = harness.map_err(|error| Fault::new(FaultCode::NotFound, error.to_string()))?;
        Ok(harness.own_sessions())
    }
}

/// The newest sessions that a harness keeps, those first. Names alone are read, and no link is followed: it is the
/// harness that wrote there.
fn found(handle: &Handle, kept: &OwnSessions) -> Result<Vec<Own>, Fault> {
    let home = handle.dir.join("home");
    let called = inside(handle, &home);
    let failed = |error: std::io::Error| {
        let message = format!(
            "cannot read the harness's sessions below {}: {error}",
            home.display()
        );
        Fault::new(FaultCode::Storage, message)
    };
    let names = |names: &[&str]| sys::names_below(&home, names, LOOKED_AT_MAX).map_err(failed);
    let mut found = Vec::new();
    for group in names(&[PRIVATE_DIR, kept.below])? {
        if !group.is_dir {
            continue;
        }
        for file in names(&[PRIVATE_DIR, kept.below, &group.name])? {
            if file.is_dir || !file.name.ends_with(kept.suffix) {
                continue;
            }
            let updated_at = file
                .modified
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_millis();
            found.push(Own {
                path: format!(
                    "{called}/{PRIVATE_DIR}/{}/{}/{}",
                    kept.below, group.name, file.name
                ),
                updated_at: u64::try_from(updated_at).unwrap_or(u64::MAX),
            });
        }
        found.sort_by(|one, other| (other.updated_at, &other.path).cmp(&(one.updated_at, &one.path)));
        found.truncate(LISTED_MAX);
    }
    Ok(found)
}

/// What the harness calls its home: without namespaces it sees the home itself.
fn inside(handle: &Handle, home: &Path) -> String {
    match &handle.record.own_session {
        Some(own) if Path::new(own).starts_with(home) => home.display().to_string(),
        _ => sandbox::HOME.to_owned(),
    }
}
