//! Finding or starting the runner of this machine.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use oqto_protocol::id::RunnerId;

use super::find::found;
use super::program::runner_program;
use super::start::{StartError, start};
use crate::bounds::{BOOTSTRAP_WAIT, LOCAL_CONNECT_WAIT};
use crate::connection::{ConnectError, RunnerAddr};
use crate::control::Control;
use crate::fleet::{RecordError, Records};
use crate::runner::Runner;

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
    /// It asks for the name of another runner.
    #[error("the runner of this machine calls itself {id}, as another that is known")]
    Taken {
        /// The name.
        id: RunnerId,
    },
    /// The known runners cannot be read.
    #[error("cannot read which runners are known")]
    Records(#[from] RecordError),
    /// It started and cannot be connected.
    #[error("cannot connect to the runner that was started")]
    Connect(#[from] ConnectError),
}

/// Where the private runner is, and its program if one was asked for.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) program: Option<PathBuf>,
}

/// The runner that runs in the state directory, or one that is started there.
pub(crate) async fn local(control: &Control, place: &Place, records: &Records) -> Result<Runner, LocalError> {
    let dir = &place.dir;
    if let Some(runner) = knock(control, found(dir)).await {
        return Ok(runner);
    }
    make_dir(dir)?;
    let _lock = lock(dir).await?;
    // Who held the lock may have started it.
    if let Some(runner) = knock(control, found(dir)).await {
        return Ok(runner);
    }
    let program = runner_program(place.program.as_deref()).ok_or(LocalError::NoProgram)?;
    let failed = |source| LocalError::Start {
        program: program.clone(),
        source,
    };
    let asking = start(&program, dir).await.map_err(failed)?;
    if records.find(asking.runner_id())?.is_some() {
        return Err(LocalError::Taken {
            id: asking.runner_id().clone(),
        });
    }
    let at = asking.grant(control.authority()).await.map_err(failed)?;
    Ok(control.connect(at).await?)
}

/// Connects to a runner that may be gone.
async fn knock(control: &Control, at: Option<RunnerAddr>) -> Option<Runner> {
    let connect = control.connect(at?);
    match tokio::time::timeout(LOCAL_CONNECT_WAIT, connect).await {
        Ok(Ok(runner)) => Some(runner),
        Ok(Err(error)) => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the runner that was found is not ours"
            );
            None
        }
        Err(_) => None,
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
