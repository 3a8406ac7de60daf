//! How the runner starts a shim, and what both agree on about a session's directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::launch::{Doorway, Launch};

/// What a shim is to do, in its directory until the shim took it.
pub(super) const ORDER_FILE: &str = "launch.json";

/// Where a shim listens, in its directory.
pub(super) const SOCKET_FILE: &str = "shim.sock";

/// What a shim says on its standard output once its program runs. Anything else is why it does not.
pub(super) const READY: &str = "ready\n";

/// Where a shim's last words go, in its directory. It holds a lock on it for its life.
pub(super) const ERROR_FILE: &str = "shim.err";

/// This program, also after its file was replaced by a newer one.
pub const SELF: &str = "/proc/self/exe";

/// How long a shim may take to begin. It takes milliseconds; a host that is busier than this is not usable.
const START_MAX: Duration = Duration::from_secs(10);

/// The longest reason that is read from a shim which did not begin, in bytes.
const REASON_MAX: u64 = 4096;

/// What a shim is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The program that it starts.
    pub launch: Launch,
    /// Whom it becomes before anything else. None: it stays who the runner is.
    pub principal: Option<Principal>,
    /// What is looked at again when the program has ended, for whoever looks; nothing of it is understood here.
    #[serde(default)]
    pub watch: Option<String>,
    /// The group that the program is born in, if it has one of its own.
    pub doorway: Option<Doorway>,
}

/// A user of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// Its number.
    pub uid: u32,
    /// The number of its only group.
    pub gid: u32,
}

/// Why no shim runs. Nothing is left of the directory then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory cannot be made, or is there already: it is one shim's, once.
    #[error("cannot prepare the session's directory {dir}")]
    Prepare {
        /// The directory.
        dir: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The shim did not become a process.
    #[error("cannot start the shim {program}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It ran and gave up.
    #[error("the shim did not begin: {reason}")]
    GaveUp {
        /// Its own words.
        reason: String,
    },
    /// It said nothing in time.
    #[error("the shim did not begin within {} s", START_MAX.as_secs())]
    Silent,
}

/// Makes the directory `dir`, which must not be there, and starts a shim in it by running `program` (usually
/// [`SELF`]). Returns when the session's program runs.
///
/// The shim leaves the caller's session and holds none of its descriptors. It does not end with the caller: the
/// process is returned so that it can be reaped, and may be dropped.
///
/// # Errors
/// When the shim or its program did not start; then nothing of either runs.
pub async fn start(program: &Path, dir: &Path, order: &Order) -> Result<Child, StartError> {
    let last_words = prepare(dir, order).map_err(|source| StartError::Prepare {
        dir: dir.to_owned(),
        source,
    })?;
    let started = begin(program, dir, last_words).await;
    if started.is_err() {
        // It is ours, since we made it; what cannot be removed is found and removed when the runner starts.
        let _removed = fs::remove_dir_all(dir);
    }
    started
}

fn prepare(dir: &Path, order: &Order) -> io::Result<File> {
    DirBuilder::new().mode(0o700).create(dir)?;
    let mut new = OpenOptions::new();
    new.write(true).create_new(true).mode(0o600);
    let filled = (|| {
        new.open(dir.join(ORDER_FILE))?
            .write_all(&serde_json::to_vec(order)?)?;
        let last_words = new.open(dir.join(ERROR_FILE))?;
        if let Some(Principal { uid, gid }) = order.principal {
            // The order stays the runner's own: the session's user must not read or rewrite it.
            std::os::unix::fs::chown(dir, Some(uid), Some(gid))?;
        }
        Ok(last_words)
    })();
    if filled.is_err() {
        let _removed = fs::remove_dir_all(dir);
    }
    filled
}

async fn begin(program: &Path, dir: &Path, last_words: File) -> Result<Child, StartError> {
    let spawn_error = |source| StartError::Spawn {
        program: program.to_owned(),
        source,
    };
    let mut shim = Command::new(program)
        .arg0("oqto-runner")
        .args(["shim", "--dir"])
        .arg(dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(last_words)
        .spawn()
        .map_err(spawn_error)?;
    let mut said = String::new();
    let listened = match shim.stdout.take() {
        Some(stdout) => {
            let mut stdout = stdout.take(REASON_MAX);
            tokio::time::timeout(START_MAX, stdout.read_to_string(&mut said)).await
        }
        None => Ok(Ok(0)),
    };
    match listened {
        Ok(Ok(_)) if said == READY => Ok(shim),
        Ok(Ok(_)) => {
            // It ends by itself after a reason; one that broke the rule is not waited for.
            let _ended = shim.kill().await;
            Err(StartError::GaveUp { reason: said })
        }
        Ok(Err(source)) => {
            let _ended = shim.kill().await;
            Err(spawn_error(source))
        }
        Err(_elapsed) => {
            let _ended = shim.kill().await;
            Err(StartError::Silent)
        }
    }
}
