//! How a session is given to a task of its own, newly made or found again.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use oqto_protocol::cursor::Cursor;
use oqto_protocol::fault::Fault;
use tokio::sync::{mpsc, oneshot, watch};

use super::driver::Driver;
use super::facts::Facts;
use super::fleet::{Entry, Supervisor};
use super::handle::{Handle, cursor};
use super::health::Watchdog;
use super::mind::{Mind, Origin};
use super::record::SessionRecord;
use crate::event_log::SessionLog;
use crate::harness::Harness;
use crate::session::Setup;
use crate::shim::{Client, Hold, TapeReader};

/// Commands that wait for a session's driver.
const ASKS_MAX: usize = 16;

impl Supervisor {
    /// Gives a session to a task of its own.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing that a session is made of"
    )]
    pub(super) fn drive(
        self: &Arc<Self>,
        record: SessionRecord,
        dir: &Path,
        log: SessionLog,
        origin: Origin,
        shim: Option<Client>,
        tape: TapeReader,
        born: Option<oneshot::Sender<Result<(), Fault>>>,
    ) {
        let is_new = born.is_some();
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let (ended, end) = watch::channel(false);
        let tape_len = match &shim {
            Some(client) => client.greeting().tape_len,
            None => tape.file_len().unwrap_or(0),
        };
        let mind = Mind::new(origin, tape_len, cursor(&log));
        let reason = mind.reason();
        let (info, watched) = watch::channel(mind.info());
        let shim_dir = dir.join("shim");
        // Without it the shim cannot be ended by force, nor what the kernel says of it be known: less, but not nothing.
        let hold = Hold::of(&shim_dir).unwrap_or_else(|error| {
            tracing::error!(session = %record.id, %error, "the shim's lock cannot be used");
            None
        });
        let shim_pid = hold.as_ref().and_then(|hold| hold.holder().ok().flatten());
        let watchdog = Watchdog::new(
            self.settings.health.clone(),
            self.vitals.clone(),
            record.id.clone(),
        );
        let facts = Facts::new(record.watch.as_deref(), self.witness.attend(shim_pid), watchdog);
        let driver = Driver {
            mind,
            log: log.clone(),
            shim,
            tape,
            asks: asked,
            born,
            info,
            ended,
            shim_dir,
            hold,
            facts,
            appended: 0,
        };
        let handle = Handle {
            record,
            dir: dir.to_owned(),
            log,
            asks: Some(asks),
            info: watched,
            ended: end,
            reason,
        };
        let (id, by, handle) = (
            handle.record.id.clone(),
            handle.record.created_by,
            Box::new(handle),
        );
        let entry = if is_new {
            Entry::Making(by, Some(handle))
        } else {
            Entry::Made(handle)
        };
        self.lock().insert(id, entry);
        self.live.send_modify(|live| *live += 1);
        let supervisor = Arc::downgrade(self);
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        while drivers.try_join_next().is_some() {}
        drivers.spawn(async move {
            driver.run().await;
            if let Some(supervisor) = supervisor.upgrade() {
                supervisor.live.send_modify(|live| *live = live.saturating_sub(1));
            }
        });
    }
}

/// What a session's core is made of.
pub(super) fn setup(record: &SessionRecord, harness: Harness, cursor: Cursor, next_idx: u64) -> Setup {
    let SessionRecord {
        id,
        created_at,
        config,
        workspace,
        sandbox,
        ..
    } = record;
    Setup {
        session_id: id.clone(),
        harness,
        cwd: workspace.display().to_string(),
        sandbox: sandbox.clone(),
        resumed: config.continue_session.is_some(),
        title: config.title.clone(),
        provider: config.provider.clone(),
        model: config.model.clone(),
        labels: config.labels.clone(),
        created_at: *created_at,
        cursor,
        next_idx,
    }
}
