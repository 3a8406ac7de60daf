//! From a configuration to a daemon that serves, and to its end.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use oqto_protocol::id::RunnerId;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::config::{Config, Listen};
use super::dial::{self, Target};
use super::ready::{self, Stage};
use super::{Daemon, Roles, connection, renewal};
use crate::attestation::{Attestor, CheckSettings};
use crate::audit;
use crate::identity::{self, Credentials};
use crate::supervisor::{self, Settings, Supervisor};
use crate::transport::{BindError, Dialler, Incoming, Listener};

/// Threads that serve peers and drive sessions. Sessions are bounded by the disk, not by these.
const WORKERS: usize = 2;

/// Where it is said where a runner listens, in its state directory.
const WHEREABOUTS: &str = "runner.json";

/// The longest that this may be, bytes: a name, an address and a number.
const WHEREABOUTS_LEN_MAX: u64 = 4096;

/// How long the log of a runner in the background may be at its start, bytes; a longer one is set aside, once.
const LOG_LEN_MAX: u64 = 4 * 1024 * 1024;

/// How long a runner that was killed may hold its state: to others it is dead when the first of its threads is, and the
/// lock goes with the last.
const DYING_MAX: Duration = Duration::from_secs(2);

/// The same where the one that said where it is has died: what holds the lock then is a thread of it that waits for a slow
/// disk.
const DEAD_MAX: Duration = Duration::from_secs(20);

/// How often that is looked at.
const DYING_LOOK: Duration = Duration::from_millis(10);

/// How this start differs from any other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Get a certificate over standard input and output, then go on without them.
    pub bootstrap: bool,
    /// End after so long without a session and without a connection.
    pub exit_when_idle: Option<Duration>,
}

/// Why the daemon did not run, or not to a good end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory cannot be used.
    #[error("cannot use the state directory {path}")]
    StateDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else could look into it or change it.
    #[error(
        "the state directory {path} belongs to user {owner} and has mode {mode:03o}; it has to belong to user {wanted_owner} \
         and nobody else may write or list it: chown {wanted_owner} {path} && chmod {wanted_mode:03o} {path}"
    )]
    StateDirOpen {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its mode.
        mode: u32,
        /// Whose it has to be.
        wanted_owner: u32,
        /// The widest mode that it may have.
        wanted_mode: u32,
    },
    /// Another runner uses it.
    #[error("another runner uses the state directory {path}")]
    Taken {
        /// Which.
        path: PathBuf,
    },
    /// No certificate over standard input and output.
    #[error("cannot get a certificate")]
    Bootstrap(#[from] identity::BootstrapError),
    /// Who starts it so wants to be told where it listens.
    #[error("a runner that is started with --bootstrap has to listen; leave out --listen none")]
    BootstrapNowhere,
    /// The identity cannot be read.
    #[error("cannot use this runner's identity")]
    Identity(#[from] identity::StoreError),
    /// No control has signed it yet.
    #[error(
        "this runner has no certificate yet: enrol it with what `oqtoctl token create` prints on the control \
         (oqto-runner enrol --help), or let `oqtoctl` on this host start it"
    )]
    NoIdentity,
    /// TLS does not take it.
    #[error("cannot serve with this runner's identity")]
    Tls(#[from] identity::TlsError),
    /// The address cannot be had.
    #[error("cannot be reached")]
    Bind(#[from] BindError),
    /// What is decided cannot be recorded.
    #[error("cannot record what is decided")]
    Audit(#[from] audit::OpenError),
    /// The sessions cannot be kept.
    #[error("cannot keep sessions")]
    Sessions(#[from] supervisor::OpenError),
    /// Where it listens cannot be said.
    #[error("cannot say where this runner listens")]
    Announce(#[source] io::Error),
    /// The runtime or a signal handler cannot be had.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// This program's own file is not to be found.
    #[error("cannot find this program's own file")]
    Exe(#[source] io::Error),
}

/// Where a runner is reached, for who runs on the same host. Trust comes from TLS, not from this file.
#[derive(Serialize)]
struct Whereabouts<'a> {
    runner_id: &'a RunnerId,
    address: SocketAddr,
    pid: u32,
}

/// What becomes of the sessions when the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// They end with it: SIGTERM, SIGINT, or nobody needed it any more.
    Ended,
    /// They go on, and the next runner finds them: SIGUSR2, by which a service manager restarts it.
    Running,
}

/// Runs the daemon until it is told to stop, by SIGTERM or SIGINT or by its idleness, or to make room for the next one,
/// by SIGUSR2.
///
/// # Errors
/// See [`RunError`].
pub fn run(config: Config, options: Options) -> Result<(), RunError> {
    let Config {
        listen,
        dial,
        state_dir,
        policy_dir,
        policy_at_most,
        principal,
        sessions_max,
        retention,
        harnesses,
        health,
        roles,
        audit,
    } = config;
    if options.bootstrap && listen == Listen::Nowhere {
        return Err(RunError::BootstrapNowhere);
    }
    make_state_dir(&state_dir)?;
    let _lock = lock(&state_dir)?;
    let identity_dir = state_dir.join("identity");
    let credentials = if options.bootstrap {
        identity::bootstrap(&identity_dir, io::stdin().lock(), io::stdout().lock())?
    } else {
        Credentials::open(&identity_dir)?.ok_or(RunError::NoIdentity)?
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let settings = Settings {
        runner_id: credentials.runner_id(),
        state_dir,
        policy_dir,
        policy_at_most,
        principal,
        sessions_max,
        retention,
        harnesses,
        health,
        exe: std::env::current_exe().map_err(RunError::Exe)?,
        control_dirs: directories::BaseDirs::new()
            .map(|dirs| vec![dirs.data_dir().join("oqto"), dirs.config_dir().join("oqto")])
            .unwrap_or_default(),
    };
    let starter = options
        .bootstrap
        .then(|| log_to(&settings.state_dir.join("runner.log")));
    let mut starter = starter.transpose().map_err(RunError::Announce)?;
    let served = runtime.block_on(serve(
        listen,
        dial,
        credentials,
        (roles, audit),
        settings,
        options,
        &mut starter,
    ));
    if let (Err(_), Some(starter)) = (&served, starter) {
        // Why it did not start is theirs to hear; without them it is only in the exit code.
        let _ = nix::unistd::dup2_stderr(starter);
    }
    served
}

async fn serve(
    listen: Listen,
    dial: Vec<Target>,
    credentials: Credentials,
    (roles, audit): (Roles, audit::Settings),
    settings: Settings,
    options: Options,
    starter: &mut Option<OwnedFd>,
) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Runtime)?;
    let mut hand_over = signal(SignalKind::user_defined2()).map_err(RunError::Runtime)?;
    // From before the first handshake: what changes meanwhile is not missed.
    let mut changes = credentials.changes();
    let secret = credentials.key().derive("connections of runners that are gone");
    let listener = match listen {
        Listen::At(address) => Some(Listener::bind(address, credentials.server_config()?, &secret)?),
        Listen::Nowhere => None,
    };
    let dialler = Arc::new(Dialler::new(&secret));
    let state_dir = settings.state_dir.clone();
    let runner_id = settings.runner_id.clone();
    let audit = Arc::new(open_audit(&state_dir, &runner_id, credentials.key(), audit)?);
    // However it came by its certificate while it did not run.
    let mut identity = audit::Entry::new("identity", audit::Outcome::Noted);
    identity.authority = Some(credentials.authority_id());
    identity.detail = Some(format!("certificate {}", credentials.now().serial()));
    // A log that takes no record says so itself; sessions are kept all the same.
    let _said = audit.record(identity).await;
    let checks = CheckSettings {
        exe: settings.exe.clone(),
        policy_dir: settings.policy_dir.clone(),
        policy_at_most: settings.policy_at_most.clone(),
    };
    let attestor = Attestor::new(runner_id.clone(), credentials.key(), checks);
    let supervisor = Supervisor::open(settings, audit.clone()).await?;
    let daemon = Arc::new(Daemon {
        runner_id,
        credentials: Arc::new(credentials),
        renewing: Arc::default(),
        supervisor: supervisor.clone(),
        roles,
        audit,
        attestor,
        present: watch::Sender::new(0),
        started: Instant::now(),
    });
    let whereabouts = state_dir.join(WHEREABOUTS);
    if let Some(address) = listener.as_ref().map(Listener::address) {
        say_where(&whereabouts, &daemon.runner_id, address)?;
        tracing::info!(runner = %daemon.runner_id, %address, "listening");
        if options.bootstrap {
            identity::announce(io::stdout().lock(), address).map_err(RunError::Announce)?;
            detach().map_err(RunError::Announce)?;
            *starter = None;
        }
    }
    ready::say(Stage::Ready).map_err(RunError::Announce)?;
    let mut connections = JoinSet::new();
    let mut keepers = JoinSet::new();
    keepers.spawn(renewal::watch(daemon.clone()));
    for target in dial {
        tracing::info!(runner = %daemon.runner_id, control = %target, "dialling");
        keepers.spawn(dial::keep(target, dialler.clone(), daemon.clone()));
    }
    let idle = idleness(&daemon, options.exit_when_idle);
    let beats = supervisor.clone();
    let beat = beats.beat();
    tokio::pin!(idle, beat);
    let leave = loop {
        tokio::select! {
            // What has changed counts before the next link does: who was told so dials at once. And nobody who dials keeps
            // this runner from stopping.
            biased;
            _ = terminate.recv() => break Leave::Ended,
            _ = interrupt.recv() => break Leave::Ended,
            _ = hand_over.recv() => break Leave::Running,
            Ok(()) = changes.changed() => show_anew(listener.as_ref(), &daemon),
            () = &mut beat => {}
            () = &mut idle => {
                tracing::info!("nobody needs this runner any more");
                break Leave::Ended;
            }
            incoming = next(listener.as_ref()) => {
                let Some(incoming) = incoming else { break Leave::Ended };
                while connections.try_join_next().is_some() {}
                connections.spawn(connection::accept(incoming, daemon.clone()));
            }
        }
    };
    tracing::info!(sessions = ?leave, "stopping");
    if let Err(error) = ready::say(Stage::Stopping) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
    // Removed first: who looks for a runner now shall start another.
    let _ = fs::remove_file(&whereabouts);
    match leave {
        Leave::Ended => supervisor.stop().await,
        Leave::Running => {
            // Whoever is in the middle of something finds a link that is gone, and the next runner. Before what serves it:
            // a stream that is let go of ends in good order, and so ends a session's.
            close(listener.as_ref(), &dialler).await;
            keepers.shutdown().await;
            connections.shutdown().await;
            supervisor.hand_over().await;
        }
    }
    close(listener.as_ref(), &dialler).await;
    keepers.shutdown().await;
    daemon.audit.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// The next link that comes; a runner that does not listen waits for ever.
async fn next(listener: Option<&Listener>) -> Option<Incoming> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Has handshakes from here on go by what this runner shows and trusts now.
fn show_anew(listener: Option<&Listener>, daemon: &Daemon) {
    let Some(listener) = listener else { return };
    let shown = daemon.credentials.server_config().map_err(RunError::Tls);
    let shown = shown.and_then(|tls| listener.set_tls(tls).map_err(RunError::Bind));
    if let Err(error) = shown {
        tracing::error!(error = %crate::cause::chain(&error), "new links go by the certificate and roots from before");
    }
}

async fn close(listener: Option<&Listener>, dialler: &Dialler) {
    if let Some(listener) = listener {
        listener.close().await;
    }
    dialler.close().await;
}

/// The audit log, signed by the runner's key.
fn open_audit(
    state_dir: &Path,
    runner_id: &RunnerId,
    key: Arc<identity::Key>,
    settings: audit::Settings,
) -> Result<audit::Log, audit::OpenError> {
    let public = audit::PublicKey(key.public().to_vec());
    let sign = Arc::new(move |message: &[u8]| {
        key.sign(message).map_err(|error| {
            tracing::error!(error = %crate::cause::chain(&error), "cannot sign");
            audit::seal::NoSignature
        })
    });
    audit::Log::open(
        &state_dir.join("audit"),
        runner_id.clone(),
        &public,
        sign,
        settings,
    )
}

/// Ends when there was no session and no connection for so long; never when it is not asked for.
async fn idleness(daemon: &Daemon, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let mut present = daemon.present.subscribe();
    let mut live = daemon.supervisor.watch_live();
    loop {
        let busy = *present.borrow_and_update() > 0 || *live.borrow_and_update() > 0;
        let changed = async {
            tokio::select! {
                _ = present.changed() => {}
                _ = live.changed() => {}
            }
        };
        if busy {
            changed.await;
        } else if tokio::time::timeout(limit, changed).await.is_err() {
            return;
        }
    }
}

pub(super) fn make_state_dir(path: &Path) -> Result<(), RunError> {
    // The principals of sessions pass through it when the runner is root; what is secret has a mode of its own.
    let wanted_owner = crate::sys::effective_uid();
    let wanted_mode = if wanted_owner == 0 { 0o711 } else { 0o700 };
    let made = DirBuilder::new().recursive(true).mode(wanted_mode).create(path);
    let found = made.and_then(|()| fs::metadata(path));
    let found = found.map_err(|source| RunError::StateDir {
        path: path.to_owned(),
        source,
    })?;
    let (owner, mode) = (found.uid(), found.permissions().mode() & 0o7777);
    if owner == wanted_owner && mode & !wanted_mode == 0 {
        return Ok(());
    }
    // One that was there before could hold what somebody else put there. Its owner has to mend it and to know why.
    Err(RunError::StateDirOpen {
        path: path.to_owned(),
        owner,
        mode,
        wanted_owner,
        wanted_mode,
    })
}

/// One runner a state directory: two would give out the same numbers.
fn lock(state_dir: &Path) -> Result<Flock<File>, RunError> {
    let path = state_dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let file = file.map_err(|source| RunError::StateDir {
        path: path.clone(),
        source,
    })?;
    let mut file = file;
    let begun = Instant::now();
    loop {
        // Looked at before the lock: one that is gone by then does not hold it.
        let patience = if is_dead(state_dir) { DEAD_MAX } else { DYING_MAX };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            // Nothing waits for a lock with a bound, and a runner that lives keeps it for ever.
            Err((same, nix::Error::EWOULDBLOCK)) if begun.elapsed() < patience => {
                file = same;
                std::thread::sleep(DYING_LOOK);
            }
            Err((_, nix::Error::EWOULDBLOCK)) => {
                return Err(RunError::Taken {
                    path: state_dir.to_owned(),
                });
            }
            Err((_, error)) => {
                return Err(RunError::StateDir {
                    path,
                    source: error.into(),
                });
            }
        }
    }
}

/// Whether the runner that said last where it is has died and is not gone yet.
fn is_dead(state_dir: &Path) -> bool {
    let said = crate::sys::read_bounded(&state_dir.join(WHEREABOUTS), WHEREABOUTS_LEN_MAX);
    let said: Option<serde_json::Value> = said
        .ok()
        .flatten()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let pid = said.and_then(|said| said.get("pid")?.as_i64()?.try_into().ok());
    pid.is_some_and(crate::sys::is_dead)
}

fn say_where(path: &Path, runner_id: &RunnerId, address: SocketAddr) -> Result<(), RunError> {
    let said = (|| {
        let text = serde_json::to_vec(&Whereabouts {
            runner_id,
            address,
            pid: std::process::id(),
        })?;
        let new = path.with_extension("json.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&text)?;
        fs::rename(&new, path)
    })();
    said.map_err(RunError::Announce)
}

/// Lets go of who started this: their terminal, their pipes, their session.
fn detach() -> io::Result<()> {
    // A process that leads its session already has nothing to leave.
    let _ = nix::unistd::setsid();
    let nothing = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let nothing = nothing.as_fd();
    nix::unistd::dup2_stdin(nothing)?;
    Ok(nix::unistd::dup2_stdout(nothing)?)
}

/// From here on the log is a file, since who started this reads no further than its start. Gives the standard error that
/// they read.
fn log_to(log: &Path) -> io::Result<OwnedFd> {
    if fs::metadata(log).is_ok_and(|found| found.len() > LOG_LEN_MAX) {
        fs::rename(log, log.with_extension("log.old"))?;
    }
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(log)?;
    let starter = io::stderr().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stderr(log)?;
    Ok(starter)
}
