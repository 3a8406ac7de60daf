//! How a session is found again after its runner was gone: it goes on, or what it still said is told and it is over.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oqto_protocol::cursor::Cursor;
use oqto_protocol::session::SessionState;

use super::begin::{Arrival, Body, Subject, setup, shim_dir};
use super::create::{end, remove};
use super::fleet::{Entry, Supervisor};
use super::handle::{Handle, cursor};
use super::origin::{BadMark, Origin};
use super::record::{RecordError, SessionRecord};
use crate::event_log::{self, SessionLog};
use crate::harness::{Harness, UnknownHarness};
use crate::session::Session;
use crate::shim::tape::ReadError;
use crate::shim::{self, Client, Hold, TapeReader};
use crate::{cause, clock};

/// How long a shim may live without listening: it begins or ends within milliseconds.
const BEGIN_MAX: Duration = Duration::from_secs(5);

/// How often such a shim is asked again.
const LOOK: Duration = Duration::from_millis(50);

/// Why a session was not found again.
#[derive(Debug, thiserror::Error)]
pub(super) enum FindError {
    #[error("its record cannot be used")]
    Record(#[from] RecordError),
    #[error("its event log cannot be opened")]
    Store(#[from] event_log::OpenError),
    #[error("its event log does not know it")]
    NoLog,
    #[error("what its event log has of it cannot be removed")]
    Forget(#[from] event_log::ChangeError),
    #[error("its harness is not known")]
    Harness(#[from] UnknownHarness),
    #[error("its shim may live and cannot be talked to")]
    Shim(#[source] shim::client::ConnectError),
    #[error("whether its shim lives cannot be told")]
    Hold(#[source] io::Error),
    #[error("its shim does not answer, and does not die when it is killed; it hangs in the kernel")]
    Hangs,
    #[error("where it is to be gone on with cannot be told")]
    Mark(#[from] BadMark),
    #[error("its event log cannot be read")]
    Read(#[from] event_log::ReadError),
    #[error("its tape cannot be read")]
    Tape(#[from] ReadError),
    #[error("what is left beside its damaged event log cannot be used")]
    Aside(#[source] io::Error),
    #[error("its log cannot be begun anew")]
    Anew(#[from] event_log::CreateError),
    #[error("a batch of its events is none")]
    Batch(#[from] event_log::BadBatch),
    #[error("what became of it cannot be told")]
    Tell(#[from] event_log::AppendError),
    #[error("what became of it is not kept")]
    Kept(#[from] event_log::Closed),
}

impl Supervisor {
    /// Finds a session that an earlier runner left: it goes on when its shim lives; else what its tape still says is
    /// told, and it is over.
    pub(super) async fn find_again(self: &Arc<Self>, dir: &Path) -> Result<(), FindError> {
        // First: whatever else is there, it is to go.
        if let Some(record) = SessionRecord::open_leaving(dir)? {
            self.forget_record(&record, dir).await?;
            tracing::info!(session = %record.id, "removed what was being deleted");
            return Ok(());
        }
        let mut record = match SessionRecord::open(dir) {
            Ok(record) => record,
            Err(RecordError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                tracing::info!(dir = %dir.display(), "removed what was never a session");
                remove(dir);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(info) = &record.unloaded
            && matches!(info.state, SessionState::Closed | SessionState::Dormant)
            && !dir.join("shim").exists()
        {
            let handle = Handle::unloaded(record.clone(), dir.to_owned(), info.clone());
            self.lock().insert(record.id, Entry::Made(Box::new(handle)));
            return Ok(());
        }
        record.end_unloaded(dir)?;
        self.look_again(record, dir).await
    }

    /// The harness of a session, as it was when it was started.
    pub(super) fn harness_of(&self, record: &SessionRecord) -> Result<Harness, UnknownHarness> {
        match &record.manner {
            Some(manner) => Ok(Harness::spoken(&record.config.harness, manner.clone())),
            None => self.settings.harnesses.find(&record.config.harness),
        }
    }

    /// As [`Supervisor::find_again`], of one of which more may be said.
    pub(super) async fn look_again(
        self: &Arc<Self>,
        record: SessionRecord,
        dir: &Path,
    ) -> Result<(), FindError> {
        let store = self.store(&record.store).await?;
        let harness = self.harness_of(&record)?;
        let mut log = store.session(record.id.as_str());
        if log.as_ref().is_none_or(|log| log.last_seq() == 0)
            && let Some(anew) = self.begin_anew(&record, dir, &store).await?
        {
            log = Some(anew);
        }
        let shims = dir.join("shim");
        let log = match log {
            Some(log) => log,
            None if shims.exists() => return Err(FindError::NoLog),
            None => {
                // Its record comes before its log and goes after it: it was being made, or deleted.
                tracing::info!(session = %record.id, "removed what is no session any more");
                remove(dir);
                return Ok(());
            }
        };
        // Who is answered follows on in the epoch that holds now.
        let before = Cursor {
            seq: 0,
            ..cursor(&log)
        };
        let setup = setup(&record, harness.clone(), before, 0);
        let mark = log.mark().await?;
        let origin = Origin::new(mark.as_deref().map(|mark| &mark[..]), setup, record.created_at)?;
        // Of a start that has ended and is told everything is known; only the one after it may be there.
        let generation = origin.generation() + u64::from(origin.is_down());
        end_others(&shims, generation).await;
        let shim_dir = shim_dir(dir, generation);
        let shim = match (origin.state(), shim_dir.exists()) {
            (SessionState::Closed, _) | (_, false) => None,
            (_, true) => reach(&shim_dir).await?,
        };
        if shim.is_none() && !shim_dir.join(shim::tape::FILE_NAME).exists() {
            // Its program never ran, or all that it said was told; what it was to run with may be a secret.
            remove(&shims);
            if origin.is_down() {
                tracing::info!(session = %record.id, "found again with nothing running");
                self.take_over(record, dir, log, origin, None);
            } else if log.last_seq() > 0 {
                self.remember(record, harness, dir, &log);
            } else {
                store.delete_session(record.id.as_str()).await?;
                remove(dir);
            }
            return Ok(());
        }
        let offset = if origin.is_down() { 0 } else { origin.tape() };
        let tape = TapeReader::open(&shim_dir, offset)?;
        tracing::info!(session = %record.id, generation, alive = shim.is_some(), "found again");
        let body = Body::new(shim_dir, shim, tape);
        self.take_over(record, dir, log, origin, Some(body));
        Ok(())
    }

    /// Drives a session that an earlier runner left.
    fn take_over(
        self: &Arc<Self>,
        record: SessionRecord,
        dir: &Path,
        log: SessionLog,
        origin: Origin,
        body: Option<Body>,
    ) {
        self.drive(Subject {
            record,
            dir: dir.to_owned(),
            log,
            origin,
            body,
            arrival: Arrival::Found,
        });
    }

    /// Holds a session that is over.
    fn remember(&self, mut record: SessionRecord, harness: Harness, dir: &Path, log: &SessionLog) {
        let setup = setup(&record, harness, cursor(log), log.next_idx());
        let mut info = Session::new(setup, record.created_at).info();
        info.state = SessionState::Closed;
        info.cursor = cursor(log);
        if let Err(error) = record.keep_unloaded(dir, info.clone()) {
            tracing::warn!(session = %record.id, error = %cause::chain(&error), "the next runner has to look");
        }
        let handle = Handle::unloaded(record, dir.to_owned(), info);
        let id = handle.record.id.clone();
        self.lock().insert(id, Entry::Made(Box::new(handle)));
    }
}

/// Ends and removes the starts of a harness of which everything is known: what is left of them was on its way out.
async fn end_others(shims: &Path, generation: u64) {
    let Ok(entries) = fs::read_dir(shims) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_str() != Some(&generation.to_string()) {
            end(&entry.path()).await;
            remove(&entry.path());
        }
    }
}

/// Connects with the shim in `dir`; `None` when there is none, or none any more.
///
/// A shim that lives and cannot be talked to is ended, and what it runs with it: nobody could ever tell it anything
/// again, and what it runs would go on with nobody watching.
async fn reach(dir: &Path) -> Result<Option<Client>, FindError> {
    let hold = Hold::of(dir).map_err(FindError::Hold)?;
    let until = clock::instant() + BEGIN_MAX;
    loop {
        let error = match Client::connect(dir).await {
            Ok(client) => return Ok(Some(client)),
            Err(error) => error,
        };
        let holder = hold.as_ref().map_or(Ok(None), Hold::holder);
        match (&hold, holder.map_err(FindError::Hold)?) {
            (Some(hold), Some(pid)) => {
                // One that only begins does not listen yet, and one that ends does not any more.
                if error.nobody_listens() && clock::instant() < until {
                    hold.let_go(LOOK).await.map_err(FindError::Hold)?;
                    continue;
                }
                tracing::error!(dir = %dir.display(), pid, error = %cause::chain(&error), "killing a shim that does not answer");
                return match hold.kill().await {
                    Ok(true) => Ok(None),
                    Ok(false) => Err(FindError::Hangs),
                    Err(error) => Err(FindError::Hold(error)),
                };
            }
            _ if error.nobody_listens() => {
                tracing::warn!(dir = %dir.display(), error = %cause::chain(&error), "the shim is gone");
                return Ok(None);
            }
            // Somebody listens, without the lock that shims of this version have.
            _ => return Err(FindError::Shim(error)),
        }
    }
}
