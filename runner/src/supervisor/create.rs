//! How a session comes to be, is found again after the runner was gone, and is forgotten.

use std::collections::{HashMap, VecDeque};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};

use bytes::Bytes;
use oqto_protocol::command::{Command, CommandEnvelope, SessionClose};
use oqto_protocol::cursor::Cursor;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::{CommandId, SessionId};
use oqto_protocol::reply::Created;
use oqto_protocol::session::{SessionConfig, SessionInfo, SessionState};
use tokio::sync::{mpsc, oneshot, watch};

use super::driver::Driver;
use super::fleet::{Entry, Supervisor};
use super::handle::{Handle, cursor};
use super::ledger::Ledger;
use super::mind::{Mark, Mind};
use super::prepare::{PrepareError, prepare};
use super::record::{RecordError, SessionRecord};
use super::settings::Settings;
use super::writes::Writes;
use crate::event_log::{self, SessionLog};
use crate::harness::{Harness, UnknownHarness};
use crate::session::{Session, Setup};
use crate::shim::start::{SELF, StartError};
use crate::shim::tape::ReadError;
use crate::shim::{self, Client, TapeReader};
use crate::{cause, clock, sys};

/// Commands that wait for a session's driver.
const ASKS_MAX: usize = 16;

/// Why a session was not made.
#[derive(Debug, thiserror::Error)]
enum CreateError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("cannot open the event log of the workspace")]
    Store(#[from] event_log::OpenError),
    #[error("cannot begin the session's log")]
    Log(#[from] event_log::CreateError),
    #[error("cannot keep the session's record")]
    Record(#[from] RecordError),
    #[error("cannot start the session's shim")]
    Start(#[from] StartError),
    #[error("cannot reach the session's shim")]
    Connect(#[from] shim::client::ConnectError),
    #[error("cannot read the session's tape")]
    Tape(#[from] ReadError),
}

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
    #[error("its tape cannot be read")]
    Tape(#[from] ReadError),
}

/// The directories that a session gets when it is made.
struct Rooms {
    session: PathBuf,
    /// Its workspace, when it named none.
    workspace: Option<PathBuf>,
}

impl Rooms {
    /// Makes them. None may be there: what an earlier session left is not ours to use or to remove.
    fn make(settings: &Settings, id: &SessionId, config: &SessionConfig) -> Result<Self, Fault> {
        let session = settings.session_dir(id);
        make_dir(&session, 0o711)?;
        let workspace = config.cwd.is_none().then(|| settings.workspace_dir(id));
        if let Some(workspace) = &workspace
            && let Err(fault) = make_dir(workspace, 0o755)
        {
            remove(&session);
            return Err(fault);
        }
        Ok(Self { session, workspace })
    }

    fn remove(&self) {
        remove(&self.session);
        if let Some(workspace) = &self.workspace {
            remove(workspace);
        }
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Fault> {
    let made = DirBuilder::new().mode(mode).create(path);
    made.map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::AlreadyExists => FaultCode::Exists,
            _ => FaultCode::Storage,
        };
        Fault::new(
            code,
            format!("cannot make the session's directory {}: {error}", path.display()),
        )
    })
}

impl CreateError {
    fn fault(&self) -> Fault {
        match self {
            Self::Prepare(error) => error.fault(),
            Self::Store(_) | Self::Log(_) | Self::Record(_) => {
                Fault::new(FaultCode::Storage, cause::chain(self))
            }
            Self::Start(_) => Fault::new(FaultCode::Harness, cause::chain(self)),
            Self::Connect(_) | Self::Tape(_) => Fault::new(FaultCode::Internal, cause::chain(self)),
        }
    }
}

/// A random name for a command of the runner's own.
pub(super) fn new_command_id() -> Result<CommandId, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(CommandId(bytes))
}

impl Supervisor {
    /// Makes a session. When it is answered the kernel has accepted its sandbox; when it fails nothing is left.
    pub(super) async fn create(
        self: &Arc<Self>,
        id: SessionId,
        command: CommandId,
        config: SessionConfig,
    ) -> Result<Created, Fault> {
        if let Some(session) = self.reserve(&id, command)? {
            return Ok(Created { session });
        }
        // On a task of its own: when the peer goes away in the middle, the work is still finished or undone.
        let supervisor = self.clone();
        let made = tokio::spawn(async move {
            let made = supervisor.make(&id, command, config).await;
            if made.is_err() {
                supervisor.lock().remove(&id);
            }
            made
        });
        made.await
            .map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))?
    }

    /// Takes the name; gives the session when this very command has made it already.
    fn reserve(&self, id: &SessionId, command: CommandId) -> Result<Option<SessionInfo>, Fault> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Fault::new(FaultCode::Closing, "the runner is stopping"));
        }
        let mut sessions = self.lock();
        match sessions.get(id) {
            Some(Entry::Made(handle)) if handle.record.created_by == command => {
                return Ok(Some(handle.info()));
            }
            Some(Entry::Making(by, _)) if *by == command => {
                return Err(Fault::new(
                    FaultCode::Busy,
                    format!("session {id} is still being made"),
                ));
            }
            Some(_) => {
                return Err(Fault::new(
                    FaultCode::Exists,
                    format!("there is a session {id} already"),
                ));
            }
            None => {}
        }
        let live = sessions.values().filter(|entry| match entry {
            Entry::Making(..) | Entry::Leaving => true,
            Entry::Made(handle) => !*handle.ended.borrow(),
        });
        if live.count() >= self.sessions_max() as usize {
            let message = format!(
                "this runner has {} sessions already; close one",
                self.sessions_max()
            );
            return Err(Fault::new(FaultCode::Limit, message));
        }
        sessions.insert(id.clone(), Entry::Making(command, None));
        Ok(None)
    }

    async fn make(
        self: &Arc<Self>,
        id: &SessionId,
        command: CommandId,
        config: SessionConfig,
    ) -> Result<Created, Fault> {
        let rooms = Rooms::make(&self.settings, id, &config)?;
        let (fault, store) = match self.start(id, command, config, &rooms.session).await {
            Ok((born, store)) => match born.await {
                Ok(Ok(())) => {
                    self.came_to_be(id);
                    let session = self.handle(id)?.info();
                    return Ok(Created { session });
                }
                Ok(Err(fault)) => (fault, Some(store)),
                Err(_) => (
                    Fault::new(FaultCode::Internal, "the session's driver ended"),
                    Some(store),
                ),
            },
            Err(error) => (error.fault(), None),
        };
        // Nothing is left half done: whoever reads the answer finds no trace of the session.
        let ended = match self.lock().get(id) {
            Some(Entry::Making(_, Some(handle))) => Some(handle.ended.clone()),
            Some(Entry::Making(_, None) | Entry::Made(_) | Entry::Leaving) | None => None,
        };
        if let Some(mut ended) = ended {
            // A driver that is gone has ended its session.
            let _ = ended.wait_for(|ended| *ended).await;
        }
        if let Some(store) = store
            && let Err(error) = store.delete_session(id.as_str()).await
        {
            tracing::warn!(session = %id, %error, "cannot forget a session that did not come to be");
        }
        tokio::task::block_in_place(|| super::group::end(id.as_str()));
        rooms.remove();
        Err(fault)
    }

    /// The session that was being made under this name is one.
    fn came_to_be(&self, id: &SessionId) {
        let mut sessions = self.lock();
        if let Some(Entry::Making(_, handle)) = sessions.get_mut(id)
            && let Some(handle) = handle.take()
        {
            sessions.insert(id.clone(), Entry::Made(handle));
        }
    }

    async fn start(
        self: &Arc<Self>,
        id: &SessionId,
        command: CommandId,
        config: SessionConfig,
        dir: &Path,
    ) -> Result<(oneshot::Receiver<Result<(), Fault>>, Arc<event_log::EventLog>), CreateError> {
        let prepared = tokio::task::block_in_place(|| prepare(&self.settings, id, dir, &config))?;
        let store_path = self.settings.stores_dir().join(store_name(&prepared.workspace));
        let store = self.store(&store_path).await?;
        let mut config = config;
        for value in config.env.values_mut() {
            value.clear();
        }
        let record = SessionRecord {
            id: id.clone(),
            created_by: command,
            created_at: clock::unix_ms(),
            config,
            workspace: prepared.workspace,
            store: store_path,
            sandbox: prepared.sandbox,
        };
        // Before the log: what a runner that dies here leaves is known by it.
        record.keep(dir)?;
        let log = store.create_session(id.as_str(), Bytes::new()).await?;
        let begun = async {
            let shim_dir = dir.join("shim");
            let child = shim::start(Path::new(SELF), &shim_dir, &prepared.order).await?;
            reap(child);
            let client = Client::connect(&shim_dir).await?;
            let tape = TapeReader::open(&shim_dir, 0)?;
            Ok::<_, CreateError>((client, tape))
        };
        match begun.await {
            Ok((client, tape)) => {
                let setup = setup(&record, prepared.harness, cursor(&log), 0);
                let core = Session::new(setup, record.created_at);
                let (born, birth) = oneshot::channel();
                self.drive(record, dir, log, core, Some(client), tape, Some(born), 0);
                Ok((birth, store))
            }
            Err(error) => {
                if let Err(error) = store.delete_session(id.as_str()).await {
                    tracing::warn!(session = %id, %error, "cannot forget a session that did not start");
                }
                Err(error)
            }
        }
    }

    /// Gives a session to a task of its own.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing that a session is made of"
    )]
    fn drive(
        self: &Arc<Self>,
        record: SessionRecord,
        dir: &Path,
        log: SessionLog,
        core: Session,
        shim: Option<Client>,
        tape: TapeReader,
        born: Option<oneshot::Sender<Result<(), Fault>>>,
        seq: u64,
    ) {
        let is_new = born.is_some();
        let reason = Arc::new(OnceLock::new());
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let (info, watched) = watch::channel(core.info());
        let (ended, end) = watch::channel(false);
        let tape_len = match &shim {
            Some(client) => client.greeting().tape_len,
            None => tape.file_len().unwrap_or(0),
        };
        let now = cursor(&log);
        let mind = Mind {
            core,
            ledger: Ledger::new(now.epoch, seq, now.seq),
            log: log.clone(),
            waiting: HashMap::new(),
            born,
            actions: Vec::new(),
            replies: Vec::new(),
            outcome: None,
            last_error: None,
            reason: reason.clone(),
            rested: false,
        };
        let shim_dir = dir.join("shim");
        let driver = Driver {
            mind,
            shim,
            tape,
            tape_len,
            asks: asked,
            info,
            ended,
            shim_dir,
            writes: Writes::default(),
            retry_at: None,
            replay_end: tape_len,
            appended: 0,
            marks: VecDeque::new(),
            needed: 0,
            told: (0, 0),
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

    /// Finds a session that an earlier runner left: it goes on when its shim lives; else what its tape still says is
    /// told, and it is over.
    pub(super) async fn find_again(self: &Arc<Self>, dir: &Path) -> Result<(), FindError> {
        let record = match SessionRecord::open(dir) {
            Ok(record) => record,
            Err(RecordError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                tracing::info!(dir = %dir.display(), "removed what was never a session");
                remove(dir);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let store = self.store(&record.store).await?;
        let harness: Harness = record.config.harness.parse()?;
        let shim_dir = dir.join("shim");
        let (log, begun) = (store.session(record.id.as_str()), shim_dir.exists());
        let log = match log {
            Some(log) => log,
            None if begun => return Err(FindError::NoLog),
            None => {
                // Its record comes before its log and goes after it: it was being made, or deleted.
                tracing::info!(session = %record.id, "removed what is no session any more");
                remove(dir);
                return Ok(());
            }
        };
        if !begun {
            self.remember(record, harness, dir, log);
            return Ok(());
        }
        let shim = match Client::connect(&shim_dir).await {
            Ok(client) => Some(client),
            Err(error) if error.nobody_listens() => {
                tracing::warn!(session = %record.id, error = %cause::chain(&error), "its shim is gone");
                None
            }
            Err(error) => return Err(FindError::Shim(error)),
        };
        if shim.is_none() && !shim_dir.join(shim::tape::FILE_NAME).exists() {
            // Its program never ran, or all that it said was told; what it was to run with may be a secret.
            remove(&shim_dir);
            if log.last_seq() > 0 {
                self.remember(record, harness, dir, log);
            } else {
                store.delete_session(record.id.as_str()).await?;
                remove(dir);
            }
            return Ok(());
        }
        let mark = log
            .mark()
            .and_then(|mark| serde_json::from_slice::<Mark>(&mark).ok());
        // Who is answered follows on in the epoch that holds now.
        let before = Cursor {
            seq: 0,
            ..cursor(&log)
        };
        let from_start = || Session::new(setup(&record, harness, before, 0), record.created_at);
        let (core, seq, offset) = match mark {
            Some(Mark { tape, seq, snapshot }) => {
                match Session::restore(snapshot, setup(&record, harness, before, 0)) {
                    Ok(core) => (core, seq, tape),
                    Err(_) => (from_start(), 0, 0),
                }
            }
            None => (from_start(), 0, 0),
        };
        let tape = TapeReader::open(&shim_dir, offset)?;
        tracing::info!(session = %record.id, alive = shim.is_some(), "found again");
        self.drive(record, dir, log, core, shim, tape, None, seq);
        Ok(())
    }

    /// Holds a session that is over.
    fn remember(&self, record: SessionRecord, harness: Harness, dir: &Path, log: SessionLog) {
        let setup = setup(&record, harness, cursor(&log), log.next_idx());
        let core = Session::new(setup, record.created_at);
        let mut info = core.info();
        info.state = SessionState::Closed;
        let (_, info) = watch::channel(info);
        let (_, ended) = watch::channel(true);
        let handle = Handle {
            record,
            dir: dir.to_owned(),
            log,
            asks: None,
            info,
            ended,
            reason: Arc::default(),
        };
        self.lock()
            .insert(handle.record.id.clone(), Entry::Made(Box::new(handle)));
    }

    /// Ends a session and forgets it.
    pub(super) async fn delete(self: &Arc<Self>, id: &SessionId, command: CommandId) -> Result<(), Fault> {
        let handle = {
            let mut sessions = self.lock();
            match sessions.get_mut(id) {
                Some(entry @ Entry::Made(_)) => std::mem::replace(entry, Entry::Leaving),
                _ => {
                    drop(sessions);
                    return self.handle(id).map(drop);
                }
            }
        };
        let Entry::Made(handle) = handle else {
            return Ok(());
        };
        // On a task of its own, like the making of one.
        let (supervisor, id) = (self.clone(), id.clone());
        let deleted = tokio::spawn(async move {
            let forgotten = supervisor.forget(&handle, command).await;
            match forgotten {
                Ok(()) => supervisor.lock().remove(&id),
                Err(_) => supervisor.lock().insert(id, Entry::Made(handle)),
            };
            forgotten
        });
        deleted
            .await
            .map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))?
    }

    async fn forget(&self, handle: &Handle, command: CommandId) -> Result<(), Fault> {
        let id = &handle.record.id;
        let mut ended = handle.ended.clone();
        if let Some(asks) = &handle.asks
            && !*ended.borrow()
        {
            let close = Command::SessionClose(SessionClose {});
            let envelope = CommandEnvelope {
                id: command,
                session_id: id.clone(),
                runner_id: None,
                command: close,
            };
            let (reply, _unheard) = oneshot::channel();
            // A driver that is gone has ended its session.
            let _ = asks
                .send(super::handle::Ask::Command(Box::new(envelope), reply))
                .await;
            let _ = ended.wait_for(|ended| *ended).await;
        }
        let storage = |error: &dyn std::error::Error| Fault::new(FaultCode::Storage, cause::chain(error));
        let store = self
            .store(&handle.record.store)
            .await
            .map_err(|error| storage(&error))?;
        match store.delete_session(id.as_str()).await {
            // A deletion that was cut off left only directories.
            Ok(()) | Err(event_log::ChangeError::Unknown) => {}
            Err(error) => return Err(storage(&error)),
        }
        remove(&handle.dir);
        remove(&self.settings.workspace_dir(id));
        Ok(())
    }
}

fn setup(record: &SessionRecord, harness: Harness, cursor: Cursor, next_idx: u64) -> Setup {
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

/// The file of a workspace's event log: named by its path, which may be longer than a file's name.
fn store_name(workspace: &Path) -> PathBuf {
    use sha2::Digest as _;
    use std::os::unix::ffi::OsStrExt as _;
    let digest = sha2::Sha256::digest(workspace.as_os_str().as_bytes());
    let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    PathBuf::from(name).join("events.sqlite")
}

/// Waits for a shim's end, so that nothing of it is left in the table of processes.
fn reap(mut child: tokio::process::Child) {
    tokio::spawn(async move {
        // How it ended stands on its tape.
        let _ = child.wait().await;
    });
}

fn remove(dir: &Path) {
    if let Err(error) = sys::remove_tree(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "cannot remove a session's directory");
    }
}
