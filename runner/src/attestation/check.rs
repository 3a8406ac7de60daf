//! The sandbox's report on itself, made by `sandbox check` in a process of its own and kept for a while.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oqto_protocol::codec::Json;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::policy::PolicyName;
use crate::{cause, clock};

/// How long a report is given out again: a kernel does not change under a running host, and a check makes processes, so
/// that nobody is to have many made by asking often.
const FRESH_MAX: Duration = Duration::from_secs(5 * 60);

/// How long the word that there is no report is given out again: somebody may be mending what keeps it.
const FAILED_MAX: Duration = Duration::from_secs(10);

/// How long a check may take. It takes a tenth of a second where nothing is wrong.
const CHECK_MAX: Duration = Duration::from_secs(30);

/// The longest report, bytes: sixty attempts make ten thousand.
const REPORT_LEN_MAX: u64 = 256 * 1024;

/// How much of what a check says against itself is kept, bytes.
const COMPLAINT_LEN_MAX: u64 = 4 * 1024;

/// What is checked, and by which program.
#[derive(Clone, Debug)]
pub struct CheckSettings {
    /// The program that also holds the sessions' harnesses. The one that lies there by now is run, since the next
    /// session is held by that one too; the report has its digest.
    pub exe: PathBuf,
    /// Where policies beside the shipped ones are.
    pub policy_dir: Option<PathBuf>,
    /// The policy that no session may go beyond. It is checked itself then, since it is the widest that there is; else
    /// the one of a session that names none.
    pub policy_at_most: Option<PolicyName>,
}

/// Makes reports, one at a time.
pub(super) struct Checks {
    settings: CheckSettings,
    kept: Arc<Mutex<Option<Kept>>>,
}

struct Kept {
    report: Json,
    /// What the program was that made it, as the file system names it.
    program: Option<Program>,
    made: Instant,
    fresh_max: Duration,
}

/// A file and its content, as far as the file system tells.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Program([i64; 4]);

/// The report, as it is said.
#[derive(Serialize)]
struct Report {
    /// Unix milliseconds.
    checked_at: u64,
    /// What `oqto-runner sandbox check --json` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Box<RawValue>>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Why the sandbox was not checked.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("cannot run {program}")]
    Run { program: PathBuf, source: io::Error },
    #[error("the check of the sandbox did not end within {} s", CHECK_MAX.as_secs())]
    Slow,
    #[error("the check of the sandbox ended with {status}: {said}")]
    Failed { status: ExitStatus, said: String },
    #[error("the check of the sandbox says what is no report")]
    Malformed(#[source] serde_json::Error),
    #[error("the check of the sandbox says more than {REPORT_LEN_MAX} bytes")]
    TooLong,
}

impl Checks {
    pub(super) fn new(settings: CheckSettings) -> Self {
        Self {
            settings,
            kept: Arc::default(),
        }
    }

    /// The latest report; made anew when there is none that is fresh.
    pub(super) async fn latest(&self) -> Json {
        let kept = self.kept.clone().lock_owned().await;
        let program = Program::at(&self.settings.exe);
        if let Some(fresh) = &*kept
            && fresh.made.elapsed() < fresh.fresh_max
            && fresh.program == program
        {
            return fresh.report.clone();
        }
        // In a task of its own, which has the only key: who asks and goes away would else have one check after the
        // other begun.
        let settings = self.settings.clone();
        let making = tokio::spawn(make(settings, program, kept));
        making.await.unwrap_or_else(|ended| said(Err(ended.to_string())))
    }
}

async fn make(
    settings: CheckSettings,
    program: Option<Program>,
    mut kept: OwnedMutexGuard<Option<Kept>>,
) -> Json {
    let checked = check(&settings).await;
    let fresh_max = if checked.is_ok() { FRESH_MAX } else { FAILED_MAX };
    let report = said(checked.map_err(|error| cause::chain(&error)));
    *kept = Some(Kept {
        report: report.clone(),
        program,
        made: clock::instant(),
        fresh_max,
    });
    report
}

fn said(checked: Result<Box<RawValue>, String>) -> Json {
    let (check, error) = match checked {
        Ok(check) => (Some(check), None),
        Err(error) => (None, Some(error)),
    };
    let report = Report {
        checked_at: clock::unix_ms(),
        check,
        error,
    };
    let report = serde_json::value::to_raw_value(&report);
    Json::from(&*report.expect("a number and texts can always be said in JSON"))
}

async fn check(settings: &CheckSettings) -> Result<Box<RawValue>, CheckError> {
    let failed = |source| CheckError::Run {
        program: settings.exe.clone(),
        source,
    };
    let mut command = Command::new(&settings.exe);
    command.args(["sandbox", "check", "--json"]);
    if let Some(directory) = &settings.policy_dir {
        command.arg("--policy-dir").arg(directory);
    }
    if let Some(at_most) = &settings.policy_at_most {
        command.args(["--policy", at_most.as_str(), "--at-most", at_most.as_str()]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let whole = async {
        tokio::join!(
            read(out, REPORT_LEN_MAX),
            read(err, COMPLAINT_LEN_MAX),
            child.wait()
        )
    };
    let whole = tokio::time::timeout(CHECK_MAX, whole).await;
    let (out, err, status) = whole.map_err(|_| CheckError::Slow)?;
    let (out, err, status) = (
        out.map_err(failed)?,
        err.map_err(failed)?,
        status.map_err(failed)?,
    );
    // It fails also where the sandbox does not hold, and says so in its report.
    if out.is_empty() {
        let said = String::from_utf8_lossy(&err).trim().to_owned();
        return Err(CheckError::Failed { status, said });
    }
    if out.len() as u64 > REPORT_LEN_MAX {
        return Err(CheckError::TooLong);
    }
    serde_json::from_slice(&out).map_err(CheckError::Malformed)
}

/// What comes, to the end; kept up to the bound and one byte more. The rest is read too: who writes must not wait.
async fn read(from: Option<impl AsyncRead + Unpin>, len_max: u64) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(from) = from {
        let mut from = from.take(len_max + 1);
        from.read_to_end(&mut kept).await?;
        tokio::io::copy(&mut from.into_inner(), &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}

impl Program {
    fn at(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(path).ok()?;
        let [dev, ino] = [found.dev(), found.ino()].map(u64::cast_signed);
        Some(Self([dev, ino, found.ctime(), found.ctime_nsec()]))
    }
}
