//! How a session is given to a task of its own, newly made or found again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use oqto_protocol::cursor::Cursor;
use oqto_protocol::fault::Fault;
use oqto_protocol::id::SessionId;
use oqto_protocol::secret::Secret;
use oqto_protocol::session::SessionState;
use tokio::sync::{mpsc, oneshot, watch};

use super::claims::{Claim, Claims, Held};
use super::driver::Driver;
use super::facts::Facts;
use super::fleet::{Entry, Supervisor};
use super::handle::{Handle, cursor};
use super::health::Watchdog;
use super::mind::Mind;
use super::origin::Origin;
use super::patience::Patience;
use super::record::SessionRecord;
use crate::event_log::SessionLog;
use crate::harness::Harness;
use crate::session::Setup;
use crate::shim::{Client, Hold, TapeReader};

/// Commands that wait for a session's driver.
const ASKS_MAX: usize = 16;

/// A session that is to be driven.
pub(super) struct Subject {
    pub(super) record: SessionRecord,
    pub(super) dir: PathBuf,
    pub(super) log: SessionLog,
    pub(super) origin: Origin,
    /// What of it there is; nothing where it is down.
    pub(super) body: Option<Body>,
    /// How it came to be here.
    pub(super) arrival: Arrival,
}

/// How a session came to be driven.
pub(super) enum Arrival {
    /// It is new.
    New {
        /// Told whether it comes to be.
        born: oneshot::Sender<Result<(), Fault>>,
        /// The values of its variables, which stand nowhere else.
        env: BTreeMap<String, Secret>,
    },
    /// An earlier runner left it.
    Found,
}

/// What there is of one start of a session's harness.
pub(super) struct Body {
    /// Its shim; `None` when that is gone and only its tape is left.
    pub(super) shim: Option<Client>,
    /// Its tape.
    pub(super) tape: TapeReader,
    /// The shim's directory.
    pub(super) dir: PathBuf,
    /// By which the shim is ended when it does not listen.
    pub(super) hold: Option<Hold>,
}

impl Body {
    pub(super) fn new(dir: PathBuf, shim: Option<Client>, tape: TapeReader) -> Self {
        // Without it the shim cannot be ended by force, nor what the kernel says of it be known: less, but not nothing.
        let hold = Hold::of(&dir).unwrap_or_else(|error| {
            tracing::error!(dir = %dir.display(), %error, "the shim's lock cannot be used");
            None
        });
        Self {
            shim,
            tape,
            dir,
            hold,
        }
    }

    /// How long the tape is.
    pub(super) fn tape_len(&self) -> u64 {
        match &self.shim {
            Some(client) => client.greeting().tape_len,
            None => self.tape.file_len().unwrap_or(0),
        }
    }

    /// The shim's process.
    pub(super) fn shim_pid(&self) -> Option<i32> {
        self.hold.as_ref().and_then(|hold| hold.holder().ok().flatten())
    }
}

/// Where the shim of one start of a session's harness is.
pub(super) fn shim_dir(session_dir: &Path, generation: u64) -> PathBuf {
    session_dir.join("shim").join(generation.to_string())
}

impl Supervisor {
    /// Gives a session to a task of its own.
    pub(super) fn drive(self: &Arc<Self>, subject: Subject) {
        let Subject {
            record,
            dir,
            log,
            origin,
            body,
            arrival,
        } = subject;
        let (is_new, born, env) = match arrival {
            Arrival::New { born, env } => (true, Some(born), Some(env)),
            Arrival::Found => (false, None, None),
        };
        let log = Arc::new(log);
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let (ended, end) = watch::channel(false);
        let (shim_dir, shims) = watch::channel(None);
        let tape_len = body.as_ref().map_or(0, Body::tape_len);
        let was_down = origin.is_down();
        let mut mind = Mind::new(origin, tape_len, cursor(&log), log.next_idx());
        if was_down && body.is_some() {
            mind.begin_tape(tape_len);
        }
        let reason = mind.reason();
        let (info, watched) = watch::channel(mind.info());
        let mut driver = Driver {
            mind,
            house: Arc::downgrade(self),
            record: record.clone(),
            dir: dir.clone(),
            env,
            restart_envs: Vec::new(),
            log: log.clone(),
            shim: None,
            tape: None,
            asks: asked,
            born,
            info,
            ended,
            shim_dir,
            hold: None,
            patience: Patience::new(),
            facts: self.facts(&record, None),
            appended: 0,
            lone_mark: None,
            was_gone: body.as_ref().is_none_or(|body| body.shim.is_none()),
            start_due: false,
            leaving: false,
            lives: Lives::new(self, record.id.clone()),
        };
        if let Some(body) = body {
            driver.take_up(body, self);
        }
        driver.lives.is(driver.mind.state() != SessionState::Dormant);
        driver.claim();
        let handle = Handle {
            record,
            dir,
            log: Arc::downgrade(&log),
            shim_dir: shims,
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
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        while drivers.try_join_next().is_some() {}
        drivers.spawn(driver.run());
    }
}

impl Supervisor {
    /// What is learnt from outside of a start of a session's harness, which this shim is of.
    pub(super) fn facts(&self, record: &SessionRecord, shim_pid: Option<i32>) -> Facts {
        let watchdog = Watchdog::new(
            self.settings.health.clone(),
            self.vitals.clone(),
            record.id.clone(),
        );
        Facts::new(record.watch.as_deref(), self.witness.attend(shim_pid), watchdog)
    }
}

/// Counts one session among those that live, while it does. What does not live has none of its harness's own sessions.
pub(super) struct Lives {
    live: watch::Sender<u32>,
    counted: bool,
    claims: Arc<Claims>,
    id: SessionId,
}

impl Lives {
    fn new(house: &Supervisor, id: SessionId) -> Self {
        Self {
            live: house.live.clone(),
            counted: false,
            claims: house.claims.clone(),
            id,
        }
    }

    /// Counts the session where at most so many live; whether it is counted now.
    pub(super) fn enter(&mut self, live_max: u32) -> bool {
        if !self.counted {
            self.counted = self.live.send_if_modified(|live| {
                let fits = *live < live_max;
                *live += u32::from(fits);
                fits
            });
        }
        self.counted
    }

    /// Gives the session this of its harness's own, instead of what it had, while it lives.
    fn moved(&self, claim: Claim) {
        if self.counted {
            self.claims.moved(claim, &self.id);
        }
    }

    /// Gives the session this of its harness's own, unless another has it.
    ///
    /// # Errors
    /// When another has it.
    pub(super) fn take(&self, claim: Claim) -> Result<bool, Held> {
        self.claims.take(claim, &self.id)
    }

    /// Says whether the session lives now.
    pub(super) fn is(&mut self, lives: bool) {
        if std::mem::replace(&mut self.counted, lives) != lives {
            self.live.send_modify(|live| {
                *live = if lives { *live + 1 } else { live.saturating_sub(1) };
            });
            if !lives {
                self.claims.release(&self.id);
            }
        }
    }
}

impl Drop for Lives {
    fn drop(&mut self) {
        self.is(false);
    }
}

impl Driver {
    /// Has the session have that of its harness's own in which it is.
    pub(super) fn claim(&self) {
        if let Some(claim) = self.own_claim() {
            self.lives.moved(claim);
        }
    }

    /// The harness's own session in which it is, or is to begin.
    pub(super) fn own_claim(&self) -> Option<Claim> {
        let record = &self.record;
        let own = self
            .mind
            .own_session()
            .or(record.config.continue_session.as_deref())?;
        Some(tokio::task::block_in_place(|| {
            Claim::new(&record.config.harness, own, &record.workspace)
        }))
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
        edition: record.edition.clone(),
        permissions: record.permissions.clone(),
        continue_session: config.continue_session.clone(),
        title: config.title.clone(),
        provider: config.provider.clone(),
        model: config.model.clone(),
        labels: config.labels.clone(),
        created_at: *created_at,
        cursor,
        next_idx,
    }
}
