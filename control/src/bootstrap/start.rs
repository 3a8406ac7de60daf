//! The first talk with a runner that starts: a request, a certificate, an address; JSON lines on its standard streams.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use oqto_protocol::enrol::SigningRequest;
use oqto_protocol::id::RunnerId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::authority::{Authority, IssueError};
use crate::bounds::{
    BOOTSTRAP_LINE_LEN_MAX, BOOTSTRAP_NOISE_LINES_MAX, BOOTSTRAP_TAIL_LEN_MAX, BOOTSTRAP_WAIT, LOCAL_IDLE_S,
    LOCAL_RUNNER_LIFE,
};
use crate::connection::RunnerAddr;

/// The only talk that there is yet.
const BOOTSTRAP_VERSION: u32 = 1;

/// Why a runner does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its program cannot be run.
    #[error("it cannot be run")]
    Spawn(#[source] io::Error),
    /// It cannot be talked to.
    #[error("cannot talk to it")]
    Talk(#[source] io::Error),
    /// It ended; what it said last is here.
    #[error("it ended ({status}){}", Said(said))]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it said on its standard error, the end of it.
        said: String,
    },
    /// It does not come to the point.
    #[error("it did not say {what} within {} s{}", BOOTSTRAP_WAIT.as_secs(), Said(said))]
    Slow {
        /// What was waited for.
        what: &'static str,
        /// What it said on its standard error, the end of it.
        said: String,
    },
    /// A line of it has no end.
    #[error("it wrote a line of more than {BOOTSTRAP_LINE_LEN_MAX} bytes")]
    LongLine,
    /// It says much and nothing to the point.
    #[error("it wrote {BOOTSTRAP_NOISE_LINES_MAX} lines and none was {what}")]
    Noise {
        /// What was waited for.
        what: &'static str,
    },
    /// It is older or newer than this control.
    #[error("it speaks version {theirs} of the bootstrap, this control {BOOTSTRAP_VERSION}")]
    Version {
        /// Its version.
        theirs: u32,
    },
    /// Its key cannot be signed.
    #[error("cannot sign its key")]
    Sign(#[from] IssueError),
    /// Its certificate has no form to be written in.
    #[error("cannot write its certificate")]
    Encode(#[source] serde_json::Error),
}

/// What a program said, behind a colon if it said anything.
struct Said<'a>(&'a str);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.trim() {
            "" => Ok(()),
            said => write!(f, ": {said}"),
        }
    }
}

/// What a runner says first.
#[derive(Deserialize)]
struct Request {
    oqto_bootstrap: u32,
    runner_id: RunnerId,
    request: SigningRequest,
}

/// What it says last.
#[derive(Deserialize)]
struct Listening {
    listening: SocketAddr,
}

/// A runner that waits for its certificate. Dropping it closes its standard input, and with that it ends.
pub(super) struct Asking {
    child: Child,
    stdin: ChildStdin,
    lines: BufReader<ChildStdout>,
    tail: JoinHandle<String>,
    runner_id: RunnerId,
    request: SigningRequest,
}

/// Starts a runner and waits for its request.
pub(super) async fn start(program: &Path, dir: &Path) -> Result<Asking, StartError> {
    let mut child = Command::new(program)
        .arg("serve")
        .arg("--state-dir")
        .arg(dir)
        .args(["--bootstrap", "--exit-when-idle", &LOCAL_IDLE_S.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(StartError::Spawn)?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(StartError::Talk(io::ErrorKind::BrokenPipe.into()));
    };
    let mut tail = tokio::spawn(tail_of(stderr));
    let mut lines = BufReader::new(stdout);
    let request = hear::<Request>(&mut lines, &mut child, &mut tail, "what it needs").await?;
    let Request {
        oqto_bootstrap,
        runner_id,
        request,
    } = request;
    if oqto_bootstrap != BOOTSTRAP_VERSION {
        return Err(StartError::Version {
            theirs: oqto_bootstrap,
        });
    }
    Ok(Asking {
        child,
        stdin,
        lines,
        tail,
        runner_id,
        request,
    })
}

impl Asking {
    /// The name that it asks for.
    pub(super) fn runner_id(&self) -> &RunnerId {
        &self.runner_id
    }

    /// Gives it its certificate and waits until it listens. From then on it lives on its own.
    pub(super) async fn grant(mut self, authority: &Authority) -> Result<RunnerAddr, StartError> {
        let grant = authority.grant(&self.request, &self.runner_id, LOCAL_RUNNER_LIFE)?;
        let mut line = serde_json::to_vec(&grant).map_err(StartError::Encode)?;
        line.push(b'\n');
        // When it has died, what it said is the better reason, and listening for an answer finds it.
        let told = match self.stdin.write_all(&line).await {
            Ok(()) => self.stdin.flush().await,
            Err(error) => Err(error),
        };
        let heard = hear::<Listening>(
            &mut self.lines,
            &mut self.child,
            &mut self.tail,
            "where it listens",
        )
        .await;
        // Its standard error is let go: nobody would read it.
        self.tail.abort();
        let Listening { listening } = heard?;
        told.map_err(StartError::Talk)?;
        Ok(RunnerAddr {
            id: self.runner_id,
            address: listening,
        })
    }
}

/// The next line that is a `T`. What a shell says at its start is passed over.
async fn hear<T: DeserializeOwned>(
    lines: &mut BufReader<ChildStdout>,
    child: &mut Child,
    tail: &mut JoinHandle<String>,
    what: &'static str,
) -> Result<T, StartError> {
    match timeout(BOOTSTRAP_WAIT, hear_unbounded(lines, what)).await {
        Ok(Ok(Some(value))) => Ok(value),
        Ok(Ok(None)) => match timeout(BOOTSTRAP_WAIT, child.wait()).await {
            Ok(status) => {
                let status = status.map_err(StartError::Talk)?;
                Err(StartError::Ended {
                    status,
                    said: tail.await.unwrap_or_default(),
                })
            }
            Err(_) => Err(slow(child, tail, what).await),
        },
        Ok(Err(error)) => {
            end(child).await;
            Err(error)
        }
        Err(_) => Err(slow(child, tail, what).await),
    }
}

async fn hear_unbounded<T: DeserializeOwned>(
    lines: &mut BufReader<ChildStdout>,
    what: &'static str,
) -> Result<Option<T>, StartError> {
    let mut line = Vec::new();
    for _ in 0..BOOTSTRAP_NOISE_LINES_MAX {
        line.clear();
        let mut bounded = (&mut *lines).take(BOOTSTRAP_LINE_LEN_MAX as u64);
        bounded
            .read_until(b'\n', &mut line)
            .await
            .map_err(StartError::Talk)?;
        if let Ok(value) = serde_json::from_slice(&line) {
            return Ok(Some(value));
        }
        if line.last() != Some(&b'\n') {
            return if line.len() >= BOOTSTRAP_LINE_LEN_MAX {
                Err(StartError::LongLine)
            } else {
                Ok(None)
            };
        }
    }
    Err(StartError::Noise { what })
}

async fn slow(child: &mut Child, tail: &mut JoinHandle<String>, what: &'static str) -> StartError {
    end(child).await;
    // What it started may hold its standard error open for ever: that is not waited for.
    let said = timeout(BOOTSTRAP_WAIT, tail)
        .await
        .ok()
        .and_then(Result::ok)
        .unwrap_or_default();
    StartError::Slow { what, said }
}

async fn end(child: &mut Child) {
    if let Err(error) = child.kill().await {
        tracing::debug!(%error, "a runner that does not start cannot be ended either");
    }
}

/// The end of what a program says.
async fn tail_of(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(len @ 1..) = stderr.read(&mut chunk).await {
        kept.extend_from_slice(chunk.get(..len).unwrap_or_default());
        let over = kept.len().saturating_sub(BOOTSTRAP_TAIL_LEN_MAX);
        kept.drain(..over);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
