//! The whole: bait, sandbox, attempts, judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::unistd::{Gid, Uid, chown, geteuid};
use oqto_protocol::id::Digest;
use serde::Serialize;

use crate::launch::{Arg, Entrance, Launch, SpawnError, Spawned, spawn};
use crate::policy::{Plan, PolicyName, Request, resolve};
use crate::sandbox::group::Group;
use crate::sandbox::host::{Host, reachable_exe};
use crate::sandbox::landlock;
use crate::sandbox::policies::catalog;
use crate::sandbox::principal::Principal;
use crate::sandbox::probe::{Outer, bubblewrap};
use crate::sandbox::report::{self, Enforced, Layer, Report, ReportError};
use crate::sandbox::run::{RunError, absolute, bin_dir, closed, follow};
use crate::sandbox::wrap::{RUNNER, Wrapped, wrap};
use crate::sys;

use super::attempt::{Answer, Attempt, all};
use super::bait::{Laid, VARIABLE};
use super::inside::{DOOR, Line, Order};

/// As whom root checks, if nobody else is named: the first number of the range that systemd keeps for users without
/// an entry in the database, so that it is nobody's.
const SOMEBODY: u32 = 61_184;

/// The longest output of the attempts, in bytes: a hundred for each, and room for as many again. No more than a pipe
/// holds.
const OUTPUT_LEN_MAX: u64 = 64 * 1024;

/// What to check.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which policy.
    pub policy: PolicyName,
    /// A directory of policies beside the shipped ones.
    pub policy_dir: Option<PathBuf>,
    /// A policy that it must not go beyond.
    pub policy_at_most: Option<PolicyName>,
    /// Layers that a test leaves out, to show that their absence is found.
    pub without: BTreeSet<Layer>,
}

/// What a sandbox of a policy stopped on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Whether everything that the policy forbids was stopped.
    pub holds: bool,
    /// The policy.
    pub policy: PolicyName,
    /// The digest of the plan that was enforced. It names the check's own directories too, so it differs from one
    /// check to the next.
    pub plan: Digest,
    /// This program's version.
    pub version: &'static str,
    /// The digest of this program, which also holds every session's harness.
    pub binary: Digest,
    /// The kernel's release.
    pub kernel: String,
    /// The version of landlock's interface, if the kernel has one that holds anything.
    pub landlock_abi: Option<i32>,
    /// What the sandbox reported of its layers.
    pub layers: Vec<Enforced>,
    /// Every attempt, in the order in which they were made.
    pub attempts: Vec<Tried>,
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// Its name, which does not change from version to version.
    pub name: &'static str,
    /// What was tried.
    pub what: &'static str,
    /// Whether the policy forbids it. What it does not forbid is not tried.
    pub forbidden: bool,
    /// The layer that stopped it, if one did.
    pub stopped_by: Option<Layer>,
    /// What the kernel answered; `None` if it was not tried, or ended the one who tried.
    pub answer: Option<Answer>,
}

impl Tried {
    /// Whether this speaks against the sandbox.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.forbidden && self.stopped_by.is_none()
    }
}

/// Why nothing was checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The bait cannot be laid out.
    #[error("cannot lay out what the attempts are after in {path}")]
    Bait {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The sandbox cannot be prepared.
    #[error("the sandbox cannot be prepared")]
    Prepare {
        /// Why not.
        #[source]
        source: Box<RunError>,
    },
    /// The kernel does not say which one it is.
    #[error("cannot tell the kernel's release")]
    Kernel {
        /// Why not.
        source: io::Error,
    },
    /// This program cannot be read.
    #[error("cannot read this program")]
    Binary {
        /// Why not.
        source: io::Error,
    },
    /// The order cannot be written down.
    #[error("cannot write down what to try")]
    Order {
        /// Why not.
        source: serde_json::Error,
    },
    /// The sandbox does not start.
    #[error("the sandbox does not start")]
    Spawn {
        /// Why not.
        #[from]
        source: SpawnError,
    },
    /// The sandbox's report cannot be read.
    #[error("nobody knows whether the sandbox holds")]
    Report {
        /// Why not.
        #[from]
        source: ReportError,
    },
    /// A layer failed.
    #[error("the layer {layer} failed: {error}")]
    Layer {
        /// Which.
        layer: Layer,
        /// Why.
        error: String,
    },
    /// bubblewrap ended before this program was reached; it said why itself.
    #[error(
        "the layer namespaces failed: bubblewrap could not make the sandbox; oqto-runner doctor says what is missing"
    )]
    NoReport,
    /// What the attempts say cannot be read.
    #[error("cannot read what came of the attempts")]
    Output {
        /// Why not.
        source: io::Error,
    },
    /// What the attempts say makes no sense.
    #[error("what came of the attempts makes no sense (they ended with {status})")]
    Malformed {
        /// How they ended.
        status: ExitStatus,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl CheckError {
    fn prepare(source: impl Into<RunError>) -> Self {
        let source = Box::new(source.into());
        Self::Prepare { source }
    }
}

/// Makes a sandbox and tries what it must stop. Nothing of it is left afterwards.
///
/// Has to be called from a process with one thread, which belongs to the principal for good afterwards.
///
/// # Errors
///
/// See [`CheckError`]. That something was not stopped is no error but an answer.
pub fn check(job: &Job) -> Result<Check, CheckError> {
    let catalog = catalog(job.policy_dir.as_deref()).map_err(CheckError::prepare)?;
    let mut host_env: BTreeMap<OsString, OsString> = env::vars_os().collect();
    let path = host_env.get(&OsString::from("PATH")).cloned().unwrap_or_default();
    let bwrap = bubblewrap(&path).map_err(CheckError::prepare)?;
    host_env.insert(VARIABLE.into(), "1".into());

    let principal = principal().map_err(CheckError::prepare)?;
    let scratch = Scratch::make(&principal)?;
    let absolute = |path: &Path| absolute(path).map_err(CheckError::prepare);
    let exe = env::current_exe().map_err(|source| {
        CheckError::prepare(RunError::Workspace {
            path: "/proc/self/exe".into(),
            source,
        })
    })?;
    let runner_exe = reachable_exe(&exe, &principal, &bin_dir(), &[absolute(&scratch.path)?.into()])
        .map_err(CheckError::prepare)?;
    principal.assume().map_err(CheckError::prepare)?;

    let laid = scratch.lay()?;
    let request = Request {
        workspace: absolute(&laid.bait.workspace)?,
        user_home: absolute(&scratch.path.join("user"))?,
        session_home: absolute(&scratch.path.join("home"))?,
        read: Vec::new(),
        closed: closed(&host_env, principal.home(), job.policy_dir.as_deref())
            .map_err(CheckError::prepare)?,
        network_for: None,
        policy_at_most: job.policy_at_most.clone(),
        workspace_file: None,
    };
    let plan = resolve(&catalog, &job.policy, &request).map_err(CheckError::prepare)?;
    let (group, state, detail) = Group::make(&plan).map_err(CheckError::prepare)?;
    let host = Host {
        outer: Outer::Bubblewrap(bwrap),
        runner_exe,
        shown: BTreeMap::new(),
        env: host_env,
        principal,
        cgroup: Some((state, detail)),
        without: job.without.clone(),
    };
    let (layers, lines) = attempts(&plan, &laid, &host, group.entrance.as_ref())?;
    let attempts: Vec<Tried> = all().map(|attempt| judge(attempt, &plan, &lines)).collect();
    Ok(Check {
        holds: !attempts.iter().any(Tried::failed),
        policy: job.policy.clone(),
        plan: plan.digest(),
        version: env!("CARGO_PKG_VERSION"),
        binary: sys::own_digest().map_err(|source| CheckError::Binary { source })?,
        kernel: sys::kernel_release().map_err(|source| CheckError::Kernel { source })?,
        landlock_abi: landlock::version(),
        layers,
        attempts,
    })
}

/// Root checks as nobody in particular, anybody else as themselves.
fn principal() -> Result<Principal, RunError> {
    let somebody = (Uid::from_raw(SOMEBODY), Gid::from_raw(SOMEBODY));
    let own = geteuid().is_root().then_some(somebody);
    Ok(Principal::choose(own, Path::new("/"))?)
}

/// Starts the sandbox with this program in it, and reads what it says.
fn attempts(
    plan: &Plan,
    laid: &Laid,
    host: &Host,
    entrance: Option<&Entrance>,
) -> Result<(Vec<Enforced>, Vec<Line>), CheckError> {
    let forbidden = all().filter(|attempt| attempt.forbidden.by(plan));
    let order = Order {
        bait: laid.bait.clone(),
        attempts: forbidden.map(|attempt| attempt.name.to_owned()).collect(),
    };
    let order = serde_json::to_string(&order).map_err(|source| CheckError::Order { source })?;
    let inner = Launch {
        program: RUNNER.into(),
        args: vec![Arg::Text(DOOR.into()), Arg::Text(order.into())],
        env: Vec::new(),
        cwd: plan.workspace.as_path().into(),
    };
    let Wrapped { launch, .. } = wrap(plan, inner, host).map_err(CheckError::prepare)?;
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|errno| CheckError::prepare(RunError::Wait { source: errno }))?;
    let start = || spawn(&launch, Stdio::null(), Stdio::piped(), Stdio::inherit());
    let Spawned { mut child, report } = Entrance::through(entrance, start)?;
    // All that is said fits into the pipe, so nobody waits for it to be read.
    let out = child.stdout.take();
    let followed = follow(&mut child, report);
    sys::end_children();
    let (reported, status) = followed.map_err(CheckError::prepare)?;
    let mut text = String::new();
    if let Some(out) = out {
        out.take(OUTPUT_LEN_MAX)
            .read_to_string(&mut text)
            .map_err(|source| CheckError::Output { source })?;
    }
    let layers = match report::read(&reported[..])?.pop() {
        Some(Report::Confined { layers }) => layers,
        Some(Report::Failed { layer, error }) => return Err(CheckError::Layer { layer, error }),
        None => return Err(CheckError::NoReport),
    };
    let lines = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    let lines = lines.map_err(|source| CheckError::Malformed { status, source })?;
    Ok((layers, lines))
}

fn judge(attempt: &'static Attempt, plan: &Plan, lines: &[Line]) -> Tried {
    let line = lines.iter().find(|line| line.name == attempt.name);
    let answer = line.map(|line| line.answer);
    let by = |answer: Answer| {
        let stop = attempt.stops.iter().find(|(known, _)| *known == answer);
        stop.map(|(_, layer)| *layer)
    };
    Tried {
        name: attempt.name,
        what: attempt.what,
        forbidden: attempt.forbidden.by(plan),
        stopped_by: answer.and_then(by),
        answer,
    }
}

/// A directory for one check, which goes away with it.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn make(principal: &Principal) -> Result<Self, CheckError> {
        let above = env::temp_dir();
        let made = || -> io::Result<PathBuf> {
            let path = nix::unistd::mkdtemp(&fs::canonicalize(&above)?.join("oqto-check-XXXXXX"))?;
            // Landlock and the mounts have to stop what is tried, and not the mode of a directory. Before it is given
            // away, since after that its name may lead elsewhere.
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
            if geteuid().is_root() {
                let (uid, gid) = (Uid::from_raw(principal.uid()), Gid::from_raw(principal.gid()));
                chown(&path, Some(uid), Some(gid))?;
            }
            Ok(path)
        };
        match made() {
            Ok(path) => Ok(Self { path }),
            Err(source) => Err(CheckError::Bait { path: above, source }),
        }
    }

    fn lay(&self) -> Result<Laid, CheckError> {
        fs::create_dir(self.path.join("home"))
            .and_then(|()| Laid::below(&self.path))
            .map_err(|source| CheckError::Bait {
                path: self.path.clone(),
                source,
            })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What could not be made says so already, and what was tried inside cannot have come to here.
        let _ = sys::remove_tree(&self.path);
    }
}
