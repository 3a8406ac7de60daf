//! One program in a sandbox, without a daemon: `sandbox run`.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::launch::{Arg, Entrance, Launch, SpawnError, Spawned, spawn};
use crate::policy::{AbsolutePath, BadPath, PolicyName, Request, ResolveError, resolve};

use super::cgroup::CgroupError;
use super::group::Group;
use super::home::Home;
use super::host::{Host, ReachError, reachable_exe};
use super::policies::{PoliciesError, catalog};
use super::principal::{AssumeError, Principal, PrincipalError};
use super::probe::{NoBubblewrap, outer};
use super::report::{self, Enforced, Layer, Report, ReportError};
use super::view::ViewError;
use super::workspace_file::{WorkspaceFileError, workspace_file};
use super::wrap::{WrapError, Wrapped, wrap};

/// Where a copy of this program stands that every principal can reach, when root starts it from its own home.
const BIN_DIR: &str = "/var/lib/oqto/bin";

/// Where copies of this program stand: root's where everybody can reach them, anybody else's with their own state.
pub(super) fn bin_dir() -> PathBuf {
    let own = || Some(directories::BaseDirs::new()?.state_dir()?.join("oqto/bin"));
    match crate::sys::effective_uid() {
        0 => None,
        _ => own(),
    }
    .unwrap_or_else(|| PathBuf::from(BIN_DIR))
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// By which policy.
    pub policy: PolicyName,
    /// A directory of policies beside the shipped ones.
    pub policy_dir: Option<PathBuf>,
    /// A policy that it must not go beyond.
    pub policy_at_most: Option<PolicyName>,
    /// In which workspace.
    pub workspace: PathBuf,
    /// Which program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Layers that a test leaves out; none otherwise.
    pub without: BTreeSet<Layer>,
}

/// A program that ended.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended, as a shell says it: its code, or 128 and the signal.
    pub code: u8,
    /// What held it.
    pub layers: Vec<Enforced>,
    /// Protected paths that no mount could protect and that changed.
    pub changed: Vec<PathBuf>,
    /// Protected paths whose protection ended because somebody outside put something else in their place.
    pub unsealed: Vec<PathBuf>,
    /// The temporary home and the group, as far as they could not be removed.
    pub left: Vec<PathBuf>,
}

/// Why a program was not run, or why nobody knows how it ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The workspace is not there.
    #[error("cannot work in {path}")]
    Workspace {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A path cannot stand in a plan.
    #[error("the path {path} cannot be used")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: BadPath,
    },
    /// Nobody to run as.
    #[error("there is nobody to run the program as")]
    Principal {
        /// Why not.
        #[from]
        source: PrincipalError,
    },
    /// This program cannot be reached from inside.
    #[error("the sandbox cannot reach this program")]
    Reach {
        /// Why not.
        #[from]
        source: ReachError,
    },
    /// Privileges cannot be given up.
    #[error("cannot give up being root")]
    Assume {
        /// Why not.
        #[from]
        source: AssumeError,
    },
    /// The program has no home.
    #[error("cannot make a temporary home in {path}")]
    Home {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The operator's policies cannot be read.
    #[error("the policies cannot be used")]
    Policies {
        /// Why not.
        #[from]
        source: PoliciesError,
    },
    /// The workspace's own policy cannot be read.
    #[error(transparent)]
    WorkspaceFile(#[from] WorkspaceFileError),
    /// The policy does not fit.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The protected paths cannot be looked at.
    #[error("the protected paths cannot be looked at")]
    Survey {
        /// Why not.
        #[from]
        source: ViewError,
    },
    /// No namespaces.
    #[error(transparent)]
    Bubblewrap(#[from] NoBubblewrap),
    /// It has to be born in a group of its own, and cannot.
    #[error("the layer cgroup failed")]
    Cgroup {
        /// Why not.
        #[from]
        source: CgroupError,
    },
    /// The group cannot be entered.
    #[error("cannot step into the session's cgroup")]
    Entrance {
        /// Why not.
        source: io::Error,
    },
    /// The program cannot be wrapped.
    #[error("the program cannot be wrapped")]
    Wrap {
        /// Why not.
        #[from]
        source: WrapError,
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
    /// Signals cannot be waited for.
    #[error("cannot wait for the program")]
    Wait {
        /// Why not.
        #[from]
        source: Errno,
    },
    /// The program's end cannot be told.
    #[error("cannot tell how the program ended")]
    Ended {
        /// Why not.
        source: io::Error,
    },
    /// bubblewrap ended before this program was reached; it said why itself.
    #[error(
        "the layer namespaces failed: bubblewrap could not make the sandbox; oqto-runner doctor says what is missing"
    )]
    NoReport,
    /// A layer failed.
    #[error("the layer {layer} failed: {error}")]
    Layer {
        /// Which.
        layer: Layer,
        /// Why.
        error: String,
        /// The exit code that says it.
        code: u8,
    },
}

impl RunError {
    /// The exit code that says it: 126 and 127 for the program itself, 125 for everything else.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Layer { code, .. } => *code,
            _ => 125,
        }
    }
}

/// Runs a program to its end, with this process's input and outputs.
///
/// Has to be called from a process with one thread, which belongs to the principal for good afterwards.
///
/// # Errors
///
/// See [`RunError`]; then nothing of the program ran, unless its end could not be told.
pub fn run(job: &Job) -> Result<Outcome, RunError> {
    let Job {
        policy,
        policy_dir,
        policy_at_most,
        workspace,
        program,
        args,
        without,
    } = job;
    let real = fs::canonicalize(workspace);
    let workspace = real.map_err(|source| RunError::Workspace {
        path: workspace.clone(),
        source,
    })?;
    let catalog = catalog(policy_dir.as_deref())?;
    let env: BTreeMap<OsString, OsString> = env::vars_os().collect();
    let principal = Principal::choose(None, &workspace)?;
    let exe = env::current_exe().map_err(|source| RunError::Workspace {
        path: "/proc/self/exe".into(),
        source,
    })?;
    let runner_exe = reachable_exe(&exe, &principal, &bin_dir(), &[absolute(&workspace)?.into()])?;
    principal.assume()?;

    let home = Home::make().map_err(|(path, source)| RunError::Home { path, source })?;
    let asked = Asked {
        workspace: &workspace,
        principal: &principal,
        env: &env,
        policy_dir: policy_dir.as_deref(),
        policy_at_most: policy_at_most.as_ref(),
    };
    let request = asked.request(home.path())?;
    let plan = resolve(&catalog, policy, &request)?;
    let path = env.get(OsStr::new("PATH")).map(OsString::as_os_str);
    let outer = outer(&plan, path.unwrap_or_default(), &principal)?;
    let (group, state, detail) = Group::make(&plan)?;
    let host = Host {
        cgroup: Some((state, detail)),
        outer,
        runner_exe,
        shown: BTreeMap::new(),
        env,
        principal,
        without: without.clone(),
    };
    let inner = Launch {
        program: program.clone(),
        args: args.iter().cloned().map(Arg::Text).collect(),
        env: Vec::new(),
        cwd: workspace.into_os_string(),
    };
    let Wrapped { launch, survey } = wrap(&plan, inner, &host)?;
    // Without a namespace of processes, what the program leaves running becomes a child of this process, and ends here.
    nix::sys::prctl::set_child_subreaper(true)?;
    let ended = start_and_wait(&launch, group.entrance.as_ref());
    crate::sys::end_children();
    let (layers, status) = ended?;
    let group_left = group.remove();
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    // Both are eight bits wide in the kernel's own encoding.
    let code = u8::try_from(code).unwrap_or(u8::MAX);
    Ok(Outcome {
        code,
        layers,
        changed: survey.changed(),
        unsealed: survey.unsealed(),
        left: home.remove().into_iter().chain(group_left).collect(),
    })
}

/// What a plan made by hand is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// Without links.
    pub(super) workspace: &'a Path,
    pub(super) principal: &'a Principal,
    pub(super) env: &'a BTreeMap<OsString, OsString>,
    pub(super) policy_dir: Option<&'a Path>,
    pub(super) policy_at_most: Option<&'a PolicyName>,
}

impl Asked<'_> {
    pub(super) fn request(self, session_home: &Path) -> Result<Request, RunError> {
        let user_home = self.principal.home();
        Ok(Request {
            workspace: absolute(self.workspace)?,
            user_home: absolute(&fs::canonicalize(user_home).unwrap_or_else(|_| user_home.to_owned()))?,
            session_home: absolute(session_home)?,
            read: Vec::new(),
            closed: closed(self.env, user_home, self.policy_dir)?,
            network_for: None,
            policy_at_most: self.policy_at_most.cloned(),
            workspace_file: workspace_file(self.workspace, self.principal)?,
        })
    }
}

fn start_and_wait(
    launch: &Launch,
    entrance: Option<&Entrance>,
) -> Result<(Vec<Enforced>, ExitStatus), RunError> {
    let start = || spawn(launch, Stdio::inherit(), Stdio::inherit(), Stdio::inherit());
    let Spawned { mut child, report } = Entrance::through(entrance, start)?;
    let (text, status) = follow(&mut child, report)?;
    let lines = report::read(&text[..])?;
    match (lines.first(), lines.last()) {
        (None, _) => Err(RunError::NoReport),
        (_, Some(Report::Failed { layer, error })) => {
            let code = status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(125);
            Err(RunError::Layer {
                layer: *layer,
                error: error.clone(),
                code,
            })
        }
        (Some(Report::Confined { layers }), _) => Ok((layers.clone(), status)),
        // Only a first line that failed is left, and then it is the last or what follows makes no sense.
        (Some(Report::Failed { .. }), _) => Err(RunError::NoReport),
    }
}

/// Reads what the sandbox reports and waits for the end of what runs in it, whichever comes first: whoever dies on the
/// way may leave the pipe open. Whoever stops this process stops what it runs.
pub(super) fn follow(child: &mut Child, report: Option<OwnedFd>) -> Result<(Vec<u8>, ExitStatus), RunError> {
    // Blocked after the start, since a child inherits what is blocked. None is missed: whoever ended before is
    // found without a signal, and a signal that ends this process here takes the sandbox along.
    let mut awaited = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        awaited.add(signal);
    }
    awaited.thread_block()?;
    let signals = SignalFd::with_flags(&awaited, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let ended = |source| RunError::Ended { source };
    let (mut text, mut report) = (Vec::new(), report.map(File::from));
    loop {
        let status = child.try_wait().map_err(ended)?;
        if let (Some(status), None) = (status, &report) {
            return Ok((text, status));
        }
        if status.is_some() {
            // Whoever is left of it waits for somebody who is gone, and holds the pipe.
            crate::sys::end_children();
        }
        let mut polled = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        polled.extend(
            report
                .as_ref()
                .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let reported = polled.get(1).is_some_and(|pipe| pipe.any().unwrap_or(true));
        while let Some(signal) = signals.read_signal()? {
            // Its death takes the whole process namespace along.
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                child.kill().map_err(ended)?;
            }
        }
        if let Some(pipe) = report.as_mut().filter(|_| reported) {
            let mut piece = [0; 4096];
            let len = pipe.read(&mut piece).map_err(ReportError::from)?;
            text.extend_from_slice(&piece[..len]);
            // More than that is no report, and reading it says so.
            if len == 0 || text.len() > report::LEN_MAX {
                report = None;
            }
        }
    }
}

/// Where runners and controls of this host and user keep what is theirs, and the policies of this very run.
pub(super) fn closed(
    env: &BTreeMap<OsString, OsString>,
    home: &Path,
    policies: Option<&Path>,
) -> Result<Vec<AbsolutePath>, RunError> {
    let system = ["/etc/oqto", "/var/lib/oqto", "/run/oqto"].map(PathBuf::from);
    let usual = [".config", ".local/share", ".local/state"].map(|name| home.join(name));
    let named = ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"]
        .into_iter()
        .filter_map(|name| Some(PathBuf::from(env.get(OsStr::new(name))?)))
        .filter(|path| path.is_absolute());
    let own = usual.into_iter().chain(named).map(|above| above.join("oqto"));
    let policies = policies.map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
    let all = system.into_iter().chain(own).chain(policies);
    all.map(|path| absolute(&path)).collect()
}

pub(super) fn absolute(path: &Path) -> Result<AbsolutePath, RunError> {
    AbsolutePath::try_from(path).map_err(|source| RunError::Path {
        path: path.to_owned(),
        source,
    })
}
