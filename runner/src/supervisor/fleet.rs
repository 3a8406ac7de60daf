//! All sessions of this runner.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use oqto_protocol::codec::decode_all;
use oqto_protocol::command::{Command, CommandEnvelope, GetMessages};
use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::Transient;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::hello::HarnessInfo;
use oqto_protocol::id::{CommandId, Digest, SessionId};
use oqto_protocol::message::Message;
use oqto_protocol::policy::{PolicyInfo, PolicyText};
use oqto_protocol::reply::{Messages, Reply, ReplyData, State};
use oqto_protocol::session::SessionInfo;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinSet;

use super::claims::Claims;
use super::group;
use super::handle::{Ask, Followed, Handle, Workplace, cursor};
use super::installed;
use super::settings::Settings;
use super::stores::Stores;
use super::vitals::Vitals;
use super::witness::Witness;
use crate::audit;
use crate::cause;
use crate::event_log::{EventLog, Health};
use crate::harness::Harnesses;
use crate::private::{self, PrivateError};
use crate::sandbox;

/// How many sessions are looked for at once when a runner begins: each takes a few descriptors meanwhile.
const FINDING_MAX: usize = 64;

/// How many messages are answered at once.
const MESSAGES_MAX: u32 = 256;

/// Telemetry that waits for a slow peer; past this the oldest is dropped.
const TRANSIENTS_MAX: usize = 256;

/// How long sessions may take to end when the runner stops: the harness's own grace and then some.
const STOP_MAX: Duration = Duration::from_secs(15);

/// All sessions of this runner.
pub struct Supervisor {
    pub(super) settings: Settings,
    pub(super) stores: Stores,
    /// Held while an unloaded session is found again, or its name leaves.
    pub(super) loading: tokio::sync::Mutex<()>,
    pub(super) sessions: Mutex<BTreeMap<SessionId, Entry>>,
    /// What could not be found again, as a human is told it.
    left_alone: Mutex<Vec<String>>,
    pub(super) drivers: Mutex<JoinSet<()>>,
    pub(super) live: watch::Sender<u32>,
    /// What is decided for sessions is recorded there.
    pub(super) audit: Arc<audit::Log>,
    /// Which of their harnesses' own sessions they have.
    pub(super) claims: Arc<Claims>,
    /// Sent whenever the making of a session has come to an end.
    pub(super) made: watch::Sender<()>,
    /// Nothing new is begun.
    pub(super) stopping: AtomicBool,
    /// It makes room for the next runner: what is under way is left as it stands.
    pub(super) handing_over: AtomicBool,
    /// Who knows what the kernel says of sessions.
    pub(super) witness: Arc<Witness>,
    /// How their processes do.
    pub(super) vitals: Arc<Vitals>,
    pub(super) transients: broadcast::Sender<Transient>,
}

/// A name that is taken.
#[derive(Clone)]
pub(super) enum Entry {
    /// By a session that is being made by this command; its driver comes before its sandbox is known to hold.
    Making(CommandId, Option<Box<Handle>>),
    /// By a session.
    Made(Box<Handle>),
    /// By one that is being deleted.
    Leaving,
}

/// A runner whose sessions cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory cannot be made or read.
    #[error("cannot use {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else could have put something into a directory, or can look into it.
    #[error(transparent)]
    Open(#[from] PrivateError),
}

/// What a peer is told of these harnesses; `exe` is the runner's own program. It looks at the disk.
#[must_use]
pub fn harnesses(harnesses: &Harnesses, exe: &Path) -> Vec<HarnessInfo> {
    harnesses
        .iter()
        .map(|harness| installed::info(harness, exe))
        .collect()
}

impl Supervisor {
    /// Opens the runner's sessions: those whose shim lives go on, the others are history.
    ///
    /// # Errors
    /// When the state directory cannot be used. A single session that cannot be read is logged and left alone.
    pub async fn open(settings: Settings, audit: Arc<audit::Log>) -> Result<Arc<Self>, OpenError> {
        // The principals of sessions pass through to their own directories; they can list none.
        for (dir, mode) in [
            (settings.sessions_dir(), 0o711),
            (settings.state_dir.join("workspaces"), 0o711),
            (settings.stores_dir(), 0o700),
        ] {
            private::dir(&dir, mode)?;
        }
        let supervisor = Arc::new(Self {
            settings,
            audit,
            stores: Stores::default(),
            loading: tokio::sync::Mutex::default(),
            sessions: Mutex::default(),
            left_alone: Mutex::default(),
            drivers: Mutex::default(),
            live: watch::Sender::new(0),
            claims: Arc::default(),
            made: watch::Sender::new(()),
            stopping: AtomicBool::new(false),
            handing_over: AtomicBool::new(false),
            witness: Witness::begin(),
            vitals: Arc::default(),
            transients: broadcast::Sender::new(TRANSIENTS_MAX),
        });
        let dir = supervisor.settings.sessions_dir();
        let entries = std::fs::read_dir(&dir);
        // At once, so that a shim that has to be waited for holds up no other.
        let mut finding = JoinSet::new();
        for entry in entries.map_err(|source| OpenError::Directory {
            path: dir.clone(),
            source,
        })? {
            let path = entry
                .map_err(|source| OpenError::Directory {
                    path: dir.clone(),
                    source,
                })?
                .path();
            if finding.len() == FINDING_MAX {
                finding.join_next().await;
            }
            let supervisor = supervisor.clone();
            finding.spawn(async move {
                if let Err(error) = supervisor.find_again(&path).await {
                    let error = cause::chain(&error);
                    tracing::error!(dir = %path.display(), error, "session left alone");
                    supervisor.leave_alone(&path, &error);
                }
            });
        }
        // One that panics has left its session alone.
        while finding.join_next().await.is_some() {}
        // Whatever may still live has its shim's directory, also when it could not be found again.
        group::sweep(|id| dir.join(id).join("shim").exists());
        supervisor.close_unused_stores();
        Ok(supervisor)
    }

    /// What a peer is told of the harnesses.
    #[must_use]
    pub fn harnesses(&self) -> Vec<HarnessInfo> {
        harnesses(&self.settings.harnesses, &self.settings.exe)
    }

    /// How many sessions may live at once.
    #[must_use]
    pub fn sessions_max(&self) -> u32 {
        self.settings.sessions_max.get()
    }

    /// How many sessions live.
    #[must_use]
    pub fn live(&self) -> u32 {
        *self.live.borrow()
    }

    /// How many sessions live, now and whenever that changes.
    #[must_use]
    pub fn watch_live(&self) -> watch::Receiver<u32> {
        self.live.subscribe()
    }

    /// Telemetry, from now on.
    #[must_use]
    pub fn transients(&self) -> broadcast::Receiver<Transient> {
        self.transients.subscribe()
    }

    /// What a human should know of this runner.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let open: Vec<_> = self
            .handles()
            .filter(Handle::lives)
            .filter(|handle| handle.record.sandbox.network == oqto_protocol::policy::NetworkAccess::Host)
            .map(|handle| handle.record.id.to_string())
            .collect();
        let mut notes = Vec::new();
        if !open.is_empty() {
            notes.push(format!(
                "these sessions have the host's whole network: {}",
                open.join(", ")
            ));
        }
        notes.extend(
            self.left_alone
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .cloned(),
        );
        notes.extend(self.failing_stores());
        notes.extend(self.set_asides().into_iter().map(|path| {
            format!(
                "an event log was damaged and is set aside as {}; keep it or delete it",
                path.display()
            )
        }));
        notes
    }

    /// A session that cannot be used is in no list; whoever misses it must still learn why.
    fn leave_alone(&self, dir: &Path, error: &str) {
        let name = dir.file_name().unwrap_or_default().display();
        let note = format!(
            "session {name} is left alone, with what may still run of it: {error}; the runner tries again when it is \
             started again"
        );
        self.left_alone
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(note);
    }

    /// Event logs that cannot be written now.
    fn failing_stores(&self) -> Vec<String> {
        let failing = self.stores.failing().into_iter().map(|(path, text)| {
            format!(
                "the event log {} cannot be written: {text}; its sessions wait until it can",
                path.display()
            )
        });
        failing.collect()
    }

    /// Those sessions, alive and ended, the oldest first, that work where somebody may see them.
    pub fn sessions(&self, may_see: impl Fn(&Workplace) -> bool) -> Vec<SessionInfo> {
        let seen = self.handles().filter(|handle| may_see(&handle.workplace()));
        let mut sessions: Vec<_> = seen.map(|handle| handle.info()).collect();
        sessions.sort_by_key(|session| session.created_at);
        sessions
    }

    /// Where a session works; `None` where there is none of that name, or it is only being made, or deleted.
    #[must_use]
    pub fn workplace(&self, id: &SessionId) -> Option<Workplace> {
        match self.lock().get(id) {
            Some(Entry::Made(handle) | Entry::Making(_, Some(handle))) => Some(handle.workplace()),
            Some(Entry::Making(_, None) | Entry::Leaving) | None => None,
        }
    }

    /// The policies that sessions may name.
    ///
    /// # Errors
    /// A fault for the peer when they cannot be read.
    pub fn policies(&self) -> Result<Vec<PolicyInfo>, Fault> {
        // The shipped ones are part of this program: they are read once.
        static SHIPPED: OnceLock<Vec<PolicyInfo>> = OnceLock::new();
        let is_shipped = self.settings.policy_dir.is_none();
        if let Some(policies) = SHIPPED.get().filter(|_| is_shipped) {
            return Ok(policies.clone());
        }
        let catalog = self.catalog()?;
        let policies = catalog.names().map(|name| policy_info(&catalog, name));
        let policies = policies.collect::<Result<Vec<_>, _>>()?;
        Ok(match is_shipped {
            true => SHIPPED.get_or_init(|| policies).clone(),
            false => policies,
        })
    }

    /// One policy as written.
    ///
    /// # Errors
    /// A fault for the peer when there is none of that name.
    pub fn policy(&self, name: &str) -> Result<PolicyText, Fault> {
        let catalog = self.catalog()?;
        let name = name
            .parse()
            .map_err(|error| policy_fault(FaultCode::Invalid, &error))?;
        let info = policy_info(&catalog, &name)?;
        let text = catalog
            .text(&name)
            .map_err(|error| policy_fault(FaultCode::NotFound, &error))?;
        Ok(PolicyText {
            info,
            text: text.to_owned(),
        })
    }

    fn catalog(&self) -> Result<crate::policy::Catalog, Fault> {
        let catalog = sandbox::catalog(self.settings.policy_dir.as_deref());
        catalog.map_err(|error| policy_fault(FaultCode::Policy, &error))
    }

    /// A session's events.
    ///
    /// # Errors
    /// A fault for the peer when there is no such session.
    pub async fn follow(self: &Arc<Self>, id: &SessionId) -> Result<Followed, Fault> {
        let handle = self.load(id).await?;
        Ok(Followed {
            log: self.log_of(&handle).await?,
            ended: handle.ended,
        })
    }

    /// Carries out one command. A session that it makes works in `directory` where that is given, or is not made.
    pub async fn command(self: &Arc<Self>, envelope: CommandEnvelope, directory: Option<PathBuf>) -> Reply {
        let (id, name) = (envelope.id, envelope.command.name());
        match self.carry_out(envelope, directory).await {
            Ok(reply) => reply,
            Err(fault) => Reply::refused(id, name, fault),
        }
    }

    async fn carry_out(
        self: &Arc<Self>,
        envelope: CommandEnvelope,
        directory: Option<PathBuf>,
    ) -> Result<Reply, Fault> {
        let (id, name, session) = (envelope.id, envelope.command.name(), envelope.session_id.clone());
        let done = |data| Reply::done(id, name, data);
        match envelope.command {
            Command::SessionCreate(create) => {
                let created = self.create(session, id, *create.config, directory).await?;
                Ok(done(Some(ReplyData::Created(created))))
            }
            Command::SessionDelete(_) => {
                self.delete(&session, id).await?;
                Ok(done(None))
            }
            Command::SessionSwitch(ref switch) => {
                let to = switch.session_path.clone();
                self.switch(envelope, &to).await
            }
            Command::ListSessions(_) => {
                self.load(&session).await?;
                match self.list_sessions(&session)? {
                    Some(listed) => Ok(done(Some(listed))),
                    None => self.ask(&session, envelope).await,
                }
            }
            Command::GetState(_) => {
                let status = Box::new(self.status(&session).await?);
                Ok(done(Some(ReplyData::State(State { status }))))
            }
            Command::GetMessages(asked) => {
                let messages = self.messages(&session, &asked).await?;
                Ok(done(Some(ReplyData::Messages(messages))))
            }
            Command::Delegate(_) | Command::DelegateCancel(_) | Command::Unknown(_) => Err(Fault::new(
                FaultCode::Unsupported,
                format!("this runner does not serve {name}"),
            )),
            Command::SessionClose(_) => match self.ask(&session, envelope).await {
                // Whoever closed it first, it is closed.
                Err(_) if *self.handle(&session)?.ended.borrow() => Ok(done(None)),
                answer => answer,
            },
            _ => self.ask(&session, envelope).await,
        }
    }

    /// Leaves a command to the session's driver.
    pub(super) async fn ask(
        self: &Arc<Self>,
        session: &SessionId,
        envelope: CommandEnvelope,
    ) -> Result<Reply, Fault> {
        let handle = self.load(session).await?;
        let over = || match handle.reason.get() {
            Some(reason) => Fault::new(
                FaultCode::WrongState,
                format!("session {session} has ended: {reason}"),
            ),
            None => Fault::new(FaultCode::WrongState, format!("session {session} has ended")),
        };
        let asks = handle.asks.as_ref().ok_or_else(over)?;
        let (reply, replied) = oneshot::channel();
        asks.send(Ask::Command(Box::new(envelope), reply))
            .await
            .map_err(|_| over())?;
        replied.await.map_err(|_| over())
    }

    async fn status(
        self: &Arc<Self>,
        id: &SessionId,
    ) -> Result<oqto_protocol::session::SessionStatus, Fault> {
        let handle = self.load(id).await?;
        if let Some(asks) = &handle.asks {
            let (reply, replied) = oneshot::channel();
            if asks.send(Ask::State(reply)).await.is_ok()
                && let Ok(mut status) = replied.await
            {
                status.info.cursor = told(&handle, status.info.cursor).await;
                return Ok(status);
            }
        }
        Ok(handle.ended_status())
    }

    /// What was said, from the log: it is there whatever became of the harness.
    async fn messages(self: &Arc<Self>, id: &SessionId, asked: &GetMessages) -> Result<Messages, Fault> {
        let handle = self.load(id).await?;
        let log = self.log_of(&handle).await?;
        let limit = asked.limit.unwrap_or(MESSAGES_MAX).min(MESSAGES_MAX) as usize;
        let found = log.messages(asked.after_idx, limit).await;
        let failed = |error: &dyn std::error::Error| Fault::new(FaultCode::Storage, cause::chain(error));
        let (rows, more) = found.map_err(|error| failed(&error))?;
        let messages = rows
            .iter()
            .map(|row| decode_all::<Message>(row).map_err(|error| failed(&error)))
            .collect::<Result<_, _>>()?;
        Ok(Messages { messages, more })
    }

    /// Nothing more may live.
    pub(super) fn full(&self) -> Fault {
        let message = format!(
            "this runner has {} sessions already; close one",
            self.sessions_max()
        );
        Fault::new(FaultCode::Limit, message)
    }

    pub(super) fn handle(&self, id: &SessionId) -> Result<Handle, Fault> {
        match self.lock().get(id) {
            Some(Entry::Made(handle)) => Ok((**handle).clone()),
            Some(Entry::Making(..)) => Err(Fault::new(
                FaultCode::Busy,
                format!("session {id} is still being made"),
            )),
            Some(Entry::Leaving) => Err(Fault::new(
                FaultCode::Busy,
                format!("session {id} is being deleted"),
            )),
            None => Err(no_session(id)),
        }
    }

    pub(super) fn handles(&self) -> impl Iterator<Item = Handle> + use<> {
        let made = |entry: &Entry| match entry {
            Entry::Made(handle) | Entry::Making(_, Some(handle)) => Some((**handle).clone()),
            Entry::Making(_, None) | Entry::Leaving => None,
        };
        self.lock()
            .values()
            .filter_map(made)
            .collect::<Vec<_>>()
            .into_iter()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Entry>> {
        // What a panic left behind is as whole as each single insertion.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event log of a workspace, opened when somebody needs it.
    pub(super) async fn store(&self, path: &Path) -> Result<Arc<EventLog>, crate::event_log::OpenError> {
        self.stores.open(path, || self.open_store(path)).await
    }

    /// Tells every session that the runner is stopping.
    async fn stop_all(&self) {
        // All at once: one that is slow to hear must not take the others' time to end.
        let mut telling = JoinSet::new();
        for handle in self.handles().filter(|handle| !*handle.ended.borrow()) {
            let Some(asks) = handle.asks else { continue };
            let Ok(id) = super::create::new_command_id() else {
                continue;
            };
            telling.spawn(async move {
                // A driver that is gone has closed its session already.
                let _ = asks.send(Ask::Stop(id.0)).await;
            });
        }
        while telling.join_next().await.is_some() {}
    }

    /// Ends what runs of every session and commits what they said: those that can be started again are dormant then, the
    /// others closed.
    pub async fn stop(self: Arc<Self>) {
        self.begin_to_stop().await;
        let mut drivers = std::mem::take(&mut *self.drivers.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = async {
            self.stop_all().await;
            while drivers.join_next().await.is_some() {}
        };
        if tokio::time::timeout(STOP_MAX, ended).await.is_err() {
            // Their shims live on and are found again at the next start.
            tracing::warn!("{} sessions did not end in time", drivers.len());
            drivers.detach_all();
        }
        self.close_stores().await;
    }

    /// Lets go of every session as it stands: shims, harnesses and tapes go on, and the next runner finds them.
    pub async fn hand_over(self: Arc<Self>) {
        self.handing_over.store(true, Ordering::Release);
        self.begin_to_stop().await;
        let mut drivers = std::mem::take(&mut *self.drivers.lock().unwrap_or_else(PoisonError::into_inner));
        // A driver may be left at any point: what it did not finish stands on the tape.
        drivers.shutdown().await;
        self.close_stores().await;
    }

    /// Nothing is begun any more, nor is it on its way.
    async fn begin_to_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        drop(self.loading.lock().await);
    }

    async fn close_stores(&self) {
        self.lock().clear();
        self.stores.close().await;
    }
}

/// What is said of a session that is not there, and to who may not know that it is.
#[must_use]
pub fn no_session(id: &SessionId) -> Fault {
    let message = format!("there is no session {id} on this runner");
    Fault::new(FaultCode::NotFound, message)
}

/// How far of what was decided may be told: a reader who asks for what comes after an event that is not committed would be
/// refused. While nothing can be committed that is what was.
async fn told(handle: &Handle, decided: Cursor) -> Cursor {
    let Some(log) = handle.log.upgrade() else {
        // It has ended meanwhile, and all that it said is committed.
        return handle.info().cursor;
    };
    if decided.seq > log.last_seq() {
        let mut health = log.health();
        tokio::select! {
            // Of one that is over what is committed is all there will be.
            _ = log.wait_past(decided.seq - 1) => {}
            _ = health.wait_for(|health| *health != Health::Fine) => {}
        }
    }
    let committed = cursor(&log);
    Cursor {
        seq: decided.seq.min(committed.seq),
        ..committed
    }
}

fn policy_info(
    catalog: &crate::policy::Catalog,
    name: &crate::policy::PolicyName,
) -> Result<PolicyInfo, Fault> {
    use sha2::Digest as _;
    let policy = catalog
        .policy(name)
        .map_err(|error| policy_fault(FaultCode::NotFound, &error))?;
    let text = catalog
        .text(name)
        .map_err(|error| policy_fault(FaultCode::NotFound, &error))?;
    Ok(PolicyInfo {
        name: name.to_string(),
        description: policy.description,
        digest: Digest(sha2::Sha256::digest(text).into()),
    })
}

fn policy_fault(code: FaultCode, error: &dyn std::error::Error) -> Fault {
    Fault::new(code, cause::chain(error))
}
