//! How a session comes to be.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::{CommandId, SessionId};
use oqto_protocol::reply::Created;
use oqto_protocol::secret::Secret;
use oqto_protocol::session::{SessionConfig, SessionInfo};
use tokio::sync::oneshot;

use super::begin::{Arrival, Body, Subject, setup, shim_dir};
use super::claims::Claim;
use super::fleet::{Entry, Supervisor};
use super::handle::cursor;
use super::origin::Origin;
use super::prepare::{Home, PrepareError, prepare};
use super::record::{RecordError, SessionRecord};
use super::settings::Settings;
use crate::event_log;
use crate::shim::start::{SELF, StartError};
use crate::shim::tape::ReadError;
use crate::shim::{self, Client, Hold, Order, TapeReader};
use crate::{cause, clock, sys};

/// Why a session was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CreateError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("cannot open the event log of the workspace")]
    Store(#[from] event_log::OpenError),
    #[error("cannot begin the session's log")]
    Log(#[from] event_log::CreateError),
    #[error("cannot keep the session's record")]
    Record(#[from] RecordError),
    #[error("cannot make the directory {path} for the session's shims")]
    Shims { path: PathBuf, source: io::Error },
    #[error("cannot start the session's shim")]
    Start(#[from] StartError),
    #[error("cannot reach the session's shim")]
    Connect(#[from] shim::client::ConnectError),
    #[error("cannot read the session's tape")]
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

/// How a command that makes a session found its name.
enum Place {
    /// Free: it has it now.
    Taken,
    /// It has it already, and is at it.
    Making,
    /// It has made the session already.
    Made(Box<SessionInfo>),
}

impl CreateError {
    fn fault(&self) -> Fault {
        match self {
            Self::Prepare(error) => error.fault(),
            Self::Store(_) | Self::Log(_) | Self::Record(_) | Self::Shims { .. } => {
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
        directory: Option<PathBuf>,
    ) -> Result<Created, Fault> {
        let mut made = self.made.subscribe();
        loop {
            made.mark_unchanged();
            match self.reserve(&id, command, directory.as_deref())? {
                Place::Taken => break,
                Place::Made(session) => return Ok(Created { session: *session }),
                // The same command, sent again by who lost the link: it is answered as the first one is.
                Place::Making => {
                    let _ = made.changed().await;
                }
            }
        }
        if let Err(fault) = self.claim(&id, &config, directory.as_deref()) {
            self.lock().remove(&id);
            self.made.send_replace(());
            return Err(fault);
        }
        // On a task of its own: when the peer goes away in the middle, the work is still finished or undone.
        let supervisor = self.clone();
        let made = tokio::spawn(async move {
            let made = supervisor.make(&id, command, config, directory.as_deref()).await;
            if made.is_err() {
                supervisor.claims.release(&id);
                supervisor.lock().remove(&id);
            }
            supervisor.made.send_replace(());
            made
        });
        made.await
            .map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))?
    }

    /// Takes the harness's own session that a new session is to go on with.
    fn claim(&self, id: &SessionId, config: &SessionConfig, directory: Option<&Path>) -> Result<(), Fault> {
        let Some(own) = &config.continue_session else {
            return Ok(());
        };
        let workspace = config.cwd.as_ref().map(PathBuf::from);
        let workspace = workspace.unwrap_or_else(|| self.settings.workspace_dir(id));
        let claim = tokio::task::block_in_place(|| Claim::new(&config.harness, own, &workspace));
        let taken = self.claims.take(claim, id);
        taken.map(drop).map_err(|held| self.held(&held, directory))
    }

    /// Takes the name, unless this very command has it already.
    fn reserve(&self, id: &SessionId, command: CommandId, directory: Option<&Path>) -> Result<Place, Fault> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Fault::new(FaultCode::Closing, "the runner is stopping"));
        }
        let mut sessions = self.lock();
        match sessions.get(id) {
            // One that works elsewhere is not what this command makes, whoever knows its name.
            Some(Entry::Made(handle))
                if handle.record.created_by == command
                    && directory.is_none_or(|directory| handle.record.workspace == directory) =>
            {
                return Ok(Place::Made(Box::new(handle.info())));
            }
            Some(Entry::Making(by, _)) if *by == command => return Ok(Place::Making),
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
            Entry::Made(handle) => handle.lives(),
        });
        if live.count() >= self.sessions_max() as usize {
            return Err(self.full());
        }
        sessions.insert(id.clone(), Entry::Making(command, None));
        Ok(Place::Taken)
    }

    async fn make(
        self: &Arc<Self>,
        id: &SessionId,
        command: CommandId,
        config: SessionConfig,
        directory: Option<&Path>,
    ) -> Result<Created, Fault> {
        let rooms = Rooms::make(&self.settings, id, &config)?;
        let (fault, store) = match self.start(id, command, config, directory, &rooms.session).await {
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
        if self.handing_over.load(Ordering::Acquire) {
            // What was begun is on disk and may run: the next runner finds it, and tells whoever asks for it again.
            return Err(Fault::new(
                FaultCode::Closing,
                "the runner makes room for the next one",
            ));
        }
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
        directory: Option<&Path>,
        dir: &Path,
    ) -> Result<(oneshot::Receiver<Result<(), Fault>>, Arc<event_log::EventLog>), CreateError> {
        let prepared =
            tokio::task::block_in_place(|| prepare(&self.settings, id, dir, &config, directory, Home::New))?;
        let store_path = self.settings.stores_dir().join(store_name(&prepared.workspace));
        let store = self.store(&store_path).await?;
        let mut config = config;
        let env = config.env.clone();
        for value in config.env.values_mut() {
            *value = Secret::default();
        }
        let record = SessionRecord {
            id: id.clone(),
            created_by: command,
            created_at: clock::unix_ms(),
            config,
            workspace: prepared.workspace,
            store: store_path,
            sandbox: prepared.sandbox,
            permissions: prepared.permissions,
            watch: prepared.order.watch.clone(),
            own_session: None,
            edition: prepared.edition,
            manner: Some(prepared.harness.definition().manner()),
            unloaded: None,
        };
        // Before the log: what a runner that dies here leaves is known by it.
        record.keep(dir)?;
        let log = store.create_session(id.as_str(), Bytes::new()).await?;
        match start_shim(dir, 0, &prepared.order).await {
            Ok(body) => {
                let setup = setup(&record, prepared.harness, cursor(&log), 0);
                let (born, birth) = oneshot::channel();
                self.drive(Subject {
                    origin: Origin::begin(setup, record.created_at),
                    record,
                    dir: dir.to_owned(),
                    log,
                    body: Some(body),
                    arrival: Arrival::New { born, env },
                });
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
}

/// The file of a workspace's event log: named by its path, which may be longer than a file's name.
fn store_name(workspace: &Path) -> PathBuf {
    use sha2::Digest as _;
    use std::os::unix::ffi::OsStrExt as _;
    let digest = sha2::Sha256::digest(workspace.as_os_str().as_bytes());
    let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    PathBuf::from(name).join("events.sqlite")
}

/// Starts the shim of one start of a session's harness, and reaches it.
pub(super) async fn start_shim(dir: &Path, generation: u64, order: &Order) -> Result<Body, CreateError> {
    let shims = dir.join("shim");
    let made = DirBuilder::new().recursive(true).mode(0o711).create(&shims);
    made.map_err(|source| CreateError::Shims { path: shims, source })?;
    let shim_dir = shim_dir(dir, generation);
    let child = shim::start(Path::new(SELF), &shim_dir, order).await?;
    reap(child);
    let reached = reach(&shim_dir).await;
    if reached.is_err() {
        // It began, and nobody would ever end it.
        end(&shim_dir).await;
        remove(&shim_dir);
    }
    let (client, tape) = reached?;
    Ok(Body::new(shim_dir, Some(client), tape))
}

async fn reach(shim_dir: &Path) -> Result<(Client, TapeReader), CreateError> {
    let client = Client::connect(shim_dir).await?;
    Ok((client, TapeReader::open(shim_dir, 0)?))
}

/// Ends a shim and what it runs, whatever state it is in.
pub(super) async fn end(shim_dir: &Path) {
    let ended = match Hold::of(shim_dir) {
        Ok(Some(hold)) => hold.kill().await,
        Ok(None) => Ok(true),
        Err(error) => Err(error),
    };
    match ended {
        Ok(true) => {}
        Ok(false) => tracing::error!(dir = %shim_dir.display(), "the shim does not die"),
        Err(error) => tracing::error!(dir = %shim_dir.display(), %error, "the shim cannot be ended"),
    }
}

/// Waits for a shim's end, so that nothing of it is left in the table of processes.
fn reap(mut child: tokio::process::Child) {
    tokio::spawn(async move {
        // How it ended stands on its tape.
        let _ = child.wait().await;
    });
}

/// Removes what is a session's own and nobody uses any more.
pub(super) fn remove(dir: &Path) {
    if let Err(error) = sys::remove_tree(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "cannot remove a session's directory");
    }
}
