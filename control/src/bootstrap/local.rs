//! Finding or starting the runner of this machine.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oqto_protocol::id::RunnerId;

use super::find::{Neighbour, found};
use super::program::runner_program;
use super::start::{StartError, start};
use crate::bounds::{BOOTSTRAP_WAIT, LOCAL_CONNECT_WAIT, LOCAL_RUNNER_LIFE, PROCESS_LOOK};
use crate::connection::{ConnectError, Connection, Dialer, Dialling, RunnerAddr, Way};
use crate::fleet::{RecordError, Records};

/// Why there is no runner on this machine.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Its state directory cannot be used.
    #[error("cannot {action} {}", path.display())]
    Dir {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else starts a runner there and does not come to an end.
    #[error("another start of this runner does not end ({})", path.display())]
    Busy {
        /// The lock that is held.
        path: PathBuf,
    },
    /// There is no program.
    #[error("no oqto-runner is beside this program or on the PATH, and OQTO_RUNNER is not set")]
    NoProgram,
    /// The program does not start.
    #[error("cannot start {}", program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: StartError,
    },
    /// One runs, is not trusted any more, and leaves no room for another.
    #[error(
        "the runner of this machine (process {pid}) is not trusted any more; kill -KILL {pid} ends it and not its agents, \
         and the next one takes them over with a new certificate"
    )]
    Stale {
        /// Its process.
        pid: u32,
        /// Why it is not trusted.
        source: ConnectError,
    },
    /// It asks for the name of another runner.
    #[error("the runner of this machine calls itself {id}, as another that is known")]
    Taken {
        /// The name.
        id: RunnerId,
    },
    /// Its process ended before it was connected.
    #[error("the runner of this machine ended before it was connected")]
    Died,
    /// The state directory was made anew.
    #[error("the runner of this machine calls itself {id} and was {was}: its state directory is another")]
    Changed {
        /// The name that it had.
        was: RunnerId,
        /// The name that it has.
        id: RunnerId,
    },
    /// The known runners cannot be read.
    #[error("cannot read which runners are known")]
    Records(#[from] RecordError),
    /// It started and cannot be connected.
    #[error("cannot connect to the runner that was started")]
    Connect(#[from] ConnectError),
}

impl LocalError {
    /// Whether trying again is of no use before somebody has changed something. A missing program is not of that kind:
    /// it may be in the middle of its replacement.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Stale { .. } | Self::Taken { .. } | Self::Changed { .. }
        )
    }
}

/// What became of knocking where a runner says it is.
enum Knock {
    Reached(RunnerAddr, Connection),
    /// Somebody is there and not trusted. It may be another who has its address and the number of its process.
    Refused(Neighbour, ConnectError),
    /// Its process lives, and has not answered yet.
    Slow(Neighbour),
    Nobody,
}

/// Where the private runner is, its program if one was asked for, and what it takes to start and to reach it: again
/// each time its process has died.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) program: Option<PathBuf>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) records: Arc<Records>,
    /// Whom a handle means that was made before: another runner is not taken for it.
    pub(crate) wanted: Option<RunnerId>,
}

impl Place {
    /// Connects to the runner that runs in the state directory, or to one that is started there.
    pub(crate) async fn reach(&self) -> Result<(RunnerAddr, Connection), LocalError> {
        let dir = &self.dir;
        if let Knock::Reached(at, connection) = self.knock().await? {
            return Ok((at, connection));
        }
        make_dir(dir)?;
        let _lock = lock(dir).await?;
        // Who held the lock may have started it.
        let knocked = match self.knock().await? {
            Knock::Reached(at, connection) => return Ok((at, connection)),
            other => other,
        };
        let program = runner_program(self.program.as_deref()).ok_or(LocalError::NoProgram)?;
        let failed = |source| LocalError::Start {
            program: program.clone(),
            source,
        };
        let asking = match (start(&program, dir).await, knocked) {
            // What is in the way says more than that something is.
            (Err(StartError::Ended { .. }), Knock::Refused(neighbour, source)) if neighbour.lives() => {
                let pid = neighbour.pid;
                return Err(LocalError::Stale { pid, source });
            }
            (Err(StartError::Ended { .. }), Knock::Slow(neighbour)) if neighbour.lives() => {
                let at = neighbour.at.clone();
                let connection = self.dial_living(neighbour).await?;
                self.check_wanted(&at.id)?;
                return Ok((at, connection));
            }
            (started, _) => started.map_err(failed)?,
        };
        self.check_wanted(asking.runner_id())?;
        if self.records.find(asking.runner_id())?.is_some() {
            return Err(LocalError::Taken {
                id: asking.runner_id().clone(),
            });
        }
        let at = asking.grant(self.dialer.authority()).await.map_err(failed)?;
        let neighbour = found(dir).filter(|neighbour| neighbour.at == at);
        let connection = self.dial_living(neighbour.ok_or(LocalError::Died)?).await?;
        Ok((at, connection))
    }

    /// Dials a runner as long as its process lives, and watches it from then on: a port that nobody listens at says
    /// nothing, so that its silence would only be understood much later.
    async fn dial_living(&self, neighbour: Neighbour) -> Result<Connection, LocalError> {
        let death = async {
            while neighbour.lives() {
                tokio::time::sleep(PROCESS_LOOK).await;
            }
        };
        let connection = tokio::select! {
            dialled = self.dialer.dial(&neighbour.at, LOCAL_RUNNER_LIFE) => dialled?,
            () = death => return Err(LocalError::Died),
        };
        connection.watch(PROCESS_LOOK, move || !neighbour.lives());
        Ok(connection)
    }

    /// Connects to a runner that may be gone.
    async fn knock(&self) -> Result<Knock, LocalError> {
        let Some(neighbour) = found(&self.dir) else {
            return Ok(Knock::Nobody);
        };
        let at = neighbour.at.clone();
        match tokio::time::timeout(LOCAL_CONNECT_WAIT, self.dial_living(neighbour.clone())).await {
            Ok(Ok(connection)) => {
                self.check_wanted(&at.id)?;
                Ok(Knock::Reached(at, connection))
            }
            Ok(Err(LocalError::Connect(
                error @ (ConnectError::Expired { .. } | ConnectError::Handshake { .. }),
            ))) => Ok(Knock::Refused(neighbour, error)),
            Ok(Err(error)) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the runner that was found is not ours"
                );
                Ok(Knock::Nobody)
            }
            Err(_) => Ok(Knock::Slow(neighbour)),
        }
    }

    fn check_wanted(&self, id: &RunnerId) -> Result<(), LocalError> {
        match &self.wanted {
            Some(wanted) if wanted != id => Err(LocalError::Changed {
                was: wanted.clone(),
                id: id.clone(),
            }),
            _ => Ok(()),
        }
    }
}

impl Way for Place {
    fn dial(&self) -> Dialling {
        let place = self.clone();
        Box::pin(async move {
            place
                .reach()
                .await
                .map_err(|error| ConnectError::Local(Box::new(error)))
        })
    }
}

/// Only its owner has business in it; but agents of root's runner are other users, and must get through.
fn make_dir(dir: &Path) -> Result<(), LocalError> {
    let mode = if is_root() { 0o711 } else { 0o700 };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .map_err(failed("make", dir))
}

/// The kernel gives a process's directory the process's effective user.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

async fn lock(dir: &Path) -> Result<File, LocalError> {
    let path = dir.join("start.lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    let locking = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
    match tokio::time::timeout(BOOTSTRAP_WAIT * 2, locking).await {
        Ok(Ok(locked)) => locked.map_err(failed("lock", &path)),
        Ok(Err(_)) | Err(_) => Err(LocalError::Busy { path }),
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> LocalError + 'a {
    move |source| LocalError::Dir {
        action,
        path: path.to_owned(),
        source,
    }
}
