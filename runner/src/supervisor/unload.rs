//! Unloaded sessions: of those that have ended, and those that sleep and were left alone for a while, there is a record on
//! disk and a line in the list. No task drives them and nobody holds their event log open, however many they are.
//!
//! What the list says of one stands in its record while it is unloaded, and is taken out before anything more is said of
//! it: so a runner that begins believes it and opens nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::SessionId;
use oqto_protocol::session::{SessionInfo, SessionState};
use tokio::sync::watch;

use super::again::FindError;
use super::driver::{DriveError, Driver};
use super::fleet::{Entry, Supervisor};
use super::handle::{Handle, cursor};
use super::record::{RecordError, SessionRecord};
use super::stores::UNUSED_MAX;
use crate::cause;
use crate::event_log::SessionLog;

/// How long a session that sleeps is left alone before it is unloaded: as long as its event log would stay open.
const UNLOAD_AFTER: Duration = UNUSED_MAX;

impl SessionRecord {
    /// Notes what a list says of the session while it is unloaded.
    pub(super) fn keep_unloaded(&mut self, dir: &Path, info: SessionInfo) -> Result<(), RecordError> {
        self.unloaded = Some(info);
        self.keep(dir)
    }

    /// Takes out what was noted: more is to be said of the session.
    pub(super) fn end_unloaded(&mut self, dir: &Path) -> Result<(), RecordError> {
        match self.unloaded.take() {
            Some(_) => self.keep(dir),
            None => Ok(()),
        }
    }
}

impl Handle {
    /// An unloaded session, of which this is known.
    pub(super) fn unloaded(record: SessionRecord, dir: PathBuf, info: SessionInfo) -> Self {
        let ended = info.state == SessionState::Closed;
        Self {
            record,
            dir,
            log: Weak::new(),
            shim_dir: watch::channel(None).1,
            asks: None,
            info: watch::channel(info).1,
            ended: watch::channel(ended).1,
            reason: Arc::default(),
        }
    }

    /// Whether it sleeps and nothing drives it.
    fn is_asleep(&self) -> bool {
        self.asks.is_none() && !*self.ended.borrow()
    }
}

impl Supervisor {
    /// Closes event logs that nobody uses, for as long as there is a supervisor.
    pub(super) fn close_unused_stores(self: &Arc<Self>) {
        let house = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UNUSED_MAX).await;
                let Some(house) = house.upgrade() else { return };
                house.stores.close_unused(false).await;
            }
        });
    }

    /// A session, driven unless it has ended: one that sleeps and is unloaded is found again first.
    pub(super) async fn load(self: &Arc<Self>, id: &SessionId) -> Result<Handle, Fault> {
        let handle = self.handle(id)?;
        if !handle.is_asleep() {
            return Ok(handle);
        }
        let _loading = self.loading.lock().await;
        if self.stopping.load(Ordering::Acquire) {
            return Err(Fault::new(FaultCode::Closing, "the runner is stopping"));
        }
        let handle = self.handle(id)?;
        if !handle.is_asleep() {
            return Ok(handle);
        }
        let Handle { mut record, dir, .. } = handle;
        let found = match record.end_unloaded(&dir) {
            Ok(()) => self.look_again(record, &dir).await,
            Err(error) => Err(error.into()),
        };
        found.map_err(|error| unfound(id, &error))?;
        let handle = self.handle(id)?;
        if handle.is_asleep() {
            // There was nothing left of it.
            self.lock().remove(id);
        }
        self.handle(id)
    }

    /// The log of a session that is driven, or has ended.
    pub(super) async fn log_of(self: &Arc<Self>, handle: &Handle) -> Result<SessionLog, Fault> {
        if let Some(log) = handle.log.upgrade() {
            return Ok((*log).clone());
        }
        // One at a time: what was lost with its event log is told once.
        let _loading = self.loading.lock().await;
        let (record, dir) = (&handle.record, &handle.dir);
        let opened = async {
            let store = self.store(&record.store).await?;
            if let Some(log) = store.session(record.id.as_str()).filter(|log| log.last_seq() > 0) {
                return Ok(log);
            }
            let anew = self.begin_anew(record, dir, &store).await?;
            let log = anew.or_else(|| store.session(record.id.as_str()));
            let log = log.ok_or(FindError::NoLog)?;
            let mut record = record.clone();
            let info = SessionInfo {
                cursor: cursor(&log),
                message_count: log.next_idx(),
                ..handle.info()
            };
            record.keep_unloaded(dir, info.clone())?;
            if let Some(Entry::Made(known)) = self.lock().get_mut(&record.id) {
                **known = Handle::unloaded(record, dir.clone(), info);
            }
            Ok(log)
        };
        opened.await.map_err(|error| unfound(&record.id, &error))
    }
}

fn unfound(id: &SessionId, error: &FindError) -> Fault {
    let message = format!("session {id} cannot be found again: {}", cause::chain(error));
    tracing::error!("{message}");
    Fault::new(FaultCode::Storage, message)
}

impl Driver {
    /// Waits for a command to a session that sleeps and of which nothing is due; whether it was unloaded instead.
    pub(super) async fn doze(&mut self) -> Result<bool, DriveError> {
        tokio::select! {
            biased;
            Some(ask) = self.asks.recv() => {
                self.ask(ask);
                self.flush().await?;
                Ok(false)
            }
            () = tokio::time::sleep(UNLOAD_AFTER) => Ok(self.unload()),
        }
    }

    /// Whether nothing is lost with the driver: what it alone knows are variables' values, and who waits.
    pub(super) fn may_unload(&self) -> bool {
        self.mind.state() == SessionState::Dormant
            && self.mind.wake_at().is_none()
            && self.mind.waiting.is_empty()
            && self.env.as_ref().is_none_or(BTreeMap::is_empty)
    }

    /// Unloads the session unless somebody follows it or asks something of it; whether it is.
    fn unload(&mut self) -> bool {
        let Some(house) = self.house.upgrade() else {
            return false;
        };
        // The list's own handle is one.
        let is_followed = |ended: &watch::Sender<bool>| ended.receiver_count() > 1;
        if is_followed(&self.ended) || self.log.last_seq() < self.appended {
            return false;
        }
        if self.keep_unloaded().is_err() {
            // A full disk, say: it is tried again.
            return false;
        }
        {
            let mut sessions = house.lock();
            // Nobody can take a handle meanwhile, and who has none cannot ask.
            if let Some(Entry::Made(handle)) = sessions.get_mut(&self.record.id)
                && let Some(info) = &self.record.unloaded
                && !is_followed(&self.ended)
                && self.asks.is_empty()
            {
                **handle = Handle::unloaded(self.record.clone(), self.dir.clone(), info.clone());
                return true;
            }
        }
        if let Err(error) = self.record.end_unloaded(&self.dir) {
            tracing::warn!(session = self.log.id(), error = %cause::chain(&error), "its list may be old after a crash");
        }
        false
    }

    /// Notes what a list says of the session while nothing drives it.
    pub(super) fn keep_unloaded(&mut self) -> Result<(), RecordError> {
        let info = SessionInfo {
            cursor: cursor(&self.log),
            ..self.mind.info()
        };
        tokio::task::block_in_place(|| self.record.keep_unloaded(&self.dir, info))
    }
}
