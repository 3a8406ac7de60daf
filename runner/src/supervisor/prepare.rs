//! From what a session is asked to be to what will be started: everything that can be refused is refused here,
//! before anything runs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::SessionId;
use oqto_protocol::policy::{NetworkAccess, SandboxReport};
use oqto_protocol::session::SessionConfig;

use super::group;
use super::installed::{self, NotInstalled};
use super::seed::{self, SeedError};
use super::settings::Settings;
use crate::harness::{
    Edition, Harness, Needs, Network as NeedsNetwork, PrivateDir, Serve, Shown, Start, UnknownHarness,
};
use crate::launch::{Arg, Launch};
use crate::policy::{self, AbsolutePath, BadPath, Network, Permissions, Plan, PolicyName};
use crate::sandbox::{self, Host, Wrapped};
use crate::shim::{Order, Principal};

/// The policy of a session that names none.
const POLICY_DEFAULT: &str = "workspace";

/// The harness's private directory below its home.
pub(super) const PRIVATE_DIR: &str = ".agent";

/// A session that is ready to be started.
pub(super) struct Prepared {
    /// The harness.
    pub(super) harness: Harness,
    /// Which edition of it is installed.
    pub(super) edition: Edition,
    /// What the shim is told.
    pub(super) order: Order,
    /// The workspace.
    pub(super) workspace: PathBuf,
    /// What is to hold it; the layers come from the kernel.
    pub(super) sandbox: SandboxReport,
    /// Who answers when the harness asks to be allowed something.
    pub(super) permissions: Permissions,
}

/// Why a session cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No such harness.
    #[error("cannot start this harness")]
    Harness(#[from] UnknownHarness),
    /// Its program is not there.
    #[error("harness {harness} is not installed")]
    NotInstalled {
        /// Which harness.
        harness: String,
        /// What is missing.
        source: NotInstalled,
    },
    /// It has to be born in a group of its own, and cannot.
    #[error("the layer cgroup failed")]
    Cgroup(#[from] sandbox::cgroup::CgroupError),
    /// The workspace is not there, or is no directory.
    #[error("cannot work in {path}")]
    Workspace {
        /// What was asked for.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It leads elsewhere than when it was allowed.
    #[error("cannot work in {path}, which leads elsewhere than when it was allowed")]
    Moved {
        /// What was asked for.
        path: PathBuf,
    },
    /// A path that is needed cannot stand in a policy.
    #[error("the path {path} {source}")]
    Path {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: BadPath,
    },
    /// Nobody whom the harness could run as.
    #[error("no user to run the harness as")]
    Principal(#[from] sandbox::principal::PrincipalError),
    /// No such policy, or it does not allow what is asked for.
    #[error("the policy does not allow this session")]
    Policy(#[from] policy::ResolveError),
    /// The policies cannot be read.
    #[error("cannot read the policies")]
    Policies(#[from] sandbox::PoliciesError),
    /// The workspace's own policy cannot be read.
    #[error("the workspace narrows its policy in vain")]
    WorkspaceFile(#[from] sandbox::WorkspaceFileError),
    /// What is called a policy cannot be one.
    #[error("there is no policy {name:?}")]
    PolicyName {
        /// What was asked for.
        name: String,
        /// What names look like.
        source: policy::BadName,
    },
    /// A variable that the policy does not name.
    #[error(
        "policy {policy} does not let the variable {name} in; name it under [env] pass in a policy that extends it"
    )]
    Variable {
        /// Which policy.
        policy: PolicyName,
        /// Which variable.
        name: String,
    },
    /// No bubblewrap.
    #[error("this host cannot make a sandbox")]
    Bubblewrap(#[from] sandbox::probe::NoBubblewrap),
    /// The principal cannot run this program.
    #[error("the user of the harness cannot reach the runner's program")]
    Reach(#[from] sandbox::ReachError),
    /// A protected path is no text.
    #[error("cannot write down what is to be watched")]
    Watch(#[source] serde_json::Error),
    /// The sandbox cannot be laid out.
    #[error("cannot lay out the sandbox")]
    Wrap(#[from] sandbox::WrapError),
    /// The session's directory cannot be made.
    #[error("cannot make the session's directory {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The harness's configuration cannot be copied.
    #[error("cannot give the session a configuration of its own")]
    Seed(#[from] SeedError),
}

impl PrepareError {
    /// What the peer is told.
    pub(super) fn fault(&self) -> Fault {
        let code = match self {
            Self::Harness(_) | Self::NotInstalled { .. } => FaultCode::NotFound,
            Self::Workspace { .. } | Self::Path { .. } | Self::PolicyName { .. } => FaultCode::Invalid,
            Self::Principal(_) | Self::Moved { .. } => FaultCode::Denied,
            Self::Policy(_)
            | Self::Policies(_)
            | Self::WorkspaceFile(_)
            | Self::Variable { .. }
            | Self::Bubblewrap(_)
            | Self::Reach(_)
            | Self::Cgroup(_)
            | Self::Watch(_)
            | Self::Wrap(_) => FaultCode::Policy,
            Self::Directory { .. } | Self::Seed(_) => FaultCode::Storage,
        };
        Fault::new(code, crate::cause::chain(self))
    }
}

/// Whether a session has a home already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// It is made, with a copy of the user's configuration.
    New,
    /// What the harness left there stays: it goes on with it.
    Kept,
}

/// Decides everything about a session; its home is below `dir`. Where `allowed` is given, it works there or not at all.
///
/// # Errors
/// See [`PrepareError`]. Of a new session the caller removes `dir`.
pub(super) fn prepare(
    settings: &Settings,
    id: &SessionId,
    dir: &Path,
    config: &SessionConfig,
    allowed: Option<&Path>,
    home: Home,
) -> Result<Prepared, PrepareError> {
    let mut harness = settings.harnesses.find(&config.harness)?;
    let workspace = workspace(settings, id, config.cwd.as_deref())?;
    if allowed.is_some_and(|allowed| allowed != workspace) {
        let asked = config.cwd.clone().unwrap_or_default();
        return Err(PrepareError::Moved { path: asked.into() });
    }
    let principal = sandbox::principal::Principal::choose(settings.principal, &workspace)?;
    if config.cwd.is_none() && home == Home::New {
        seed::hand_over(&workspace, &principal)?;
    }
    let program = program(&harness)?;
    let session_home = dir.join("home");
    let place = Place {
        workspace: &workspace,
        session_home: &session_home,
        principal: &principal,
        read: program
            .as_ref()
            .map(|found| found.read.as_slice())
            .unwrap_or_default(),
    };
    let plan = plan(settings, &harness, config, &place)?;
    if plan.permissions.wanted {
        harness = harness.made_to_ask();
    }
    let needs = harness.needs(&Start {
        provider: config.provider.as_deref(),
        model: config.model.as_deref(),
        continue_session: config.continue_session.as_deref(),
        private_dir: &format!("{}/{PRIVATE_DIR}", sandbox::HOME),
        shown_dir: sandbox::SHOWN,
    });
    if home == Home::New {
        make_home(&session_home)?;
        if needs.private_dir == PrivateDir::Needed {
            seed::seed(harness.definition(), &session_home.join(PRIVATE_DIR), &principal)?;
        }
        seed::hand_over(&session_home, &principal)?;
    }
    let edition = program
        .as_ref()
        .map(|found| found.edition.clone())
        .unwrap_or_default();
    let inner = inner(&plan, &harness, &needs, program, &workspace);
    Ok(Prepared {
        harness,
        edition,
        order: order(settings, id, config, &plan, &principal, (inner, needs.shown))?,
        sandbox: report(&plan),
        permissions: plan.permissions,
        workspace,
    })
}

/// The program of a harness; `None` where the runner itself is it.
fn program(harness: &Harness) -> Result<Option<installed::Installed>, PrepareError> {
    let definition = harness.definition();
    if definition.program.is_none() {
        return Ok(None);
    }
    installed::find(definition)
        .map(Some)
        .map_err(|source| PrepareError::NotInstalled {
            harness: definition.name.clone(),
            source,
        })
}

/// Where a session is, and as whom.
struct Place<'a> {
    workspace: &'a Path,
    session_home: &'a Path,
    principal: &'a sandbox::principal::Principal,
    /// What of the host its program needs.
    read: &'a [PathBuf],
}

/// What the policy that a session names makes of it.
fn plan(
    settings: &Settings,
    harness: &Harness,
    config: &SessionConfig,
    place: &Place<'_>,
) -> Result<Plan, PrepareError> {
    let name = config.policy.as_deref().unwrap_or(POLICY_DEFAULT);
    let name: PolicyName = name.parse().map_err(|source| PrepareError::PolicyName {
        name: name.to_owned(),
        source,
    })?;
    let catalog = sandbox::catalog(settings.policy_dir.as_deref())?;
    let user_home = place.principal.home();
    let request = policy::Request {
        workspace: absolute(place.workspace)?,
        user_home: absolute(user_home)?,
        session_home: absolute(place.session_home)?,
        read: place
            .read
            .iter()
            .chain(&harness.definition().read)
            .map(|path| absolute(path))
            .collect::<Result<_, _>>()?,
        closed: settings
            .closed(user_home)
            .map(|path| absolute(&path))
            .collect::<Result<_, _>>()?,
        network_for: (harness.network() == NeedsNetwork::Needed).then(|| harness.name().to_owned()),
        policy_at_most: settings.policy_at_most.clone(),
        workspace_file: sandbox::workspace_file(place.workspace, place.principal)?,
    };
    let mut plan = policy::resolve(&catalog, &name, &request)?;
    plan.env.pass.extend(harness.definition().pass.iter().cloned());
    match config.env.keys().find(|name| !plan.env.pass.contains(*name)) {
        Some(name) => Err(PrepareError::Variable {
            policy: plan.policy,
            name: name.clone(),
        }),
        None => Ok(plan),
    }
}

/// What the shim is told: the harness, with what it is shown, and its sandbox around it.
fn order(
    settings: &Settings,
    id: &SessionId,
    config: &SessionConfig,
    plan: &Plan,
    principal: &sandbox::principal::Principal,
    (inner, shown): (Launch, Vec<Shown>),
) -> Result<Order, PrepareError> {
    let (leaf, state, detail) = group::make(id, plan)?;
    let host = Host {
        outer: sandbox::probe::outer(plan, &std::env::var_os("PATH").unwrap_or_default(), principal)?,
        runner_exe: sandbox::reachable_exe(&settings.exe, principal, &settings.bin_dir(), &plan.files.write)?,
        env: config
            .env
            .iter()
            .map(|(name, value)| (name.into(), value.reveal().into()))
            .collect(),
        principal: principal.clone(),
        shown: shown
            .into_iter()
            .map(|file| (file.path.into(), file.text.into()))
            .collect(),
        cgroup: Some((state, detail)),
        without: BTreeSet::new(),
    };
    let Wrapped { launch, survey } = sandbox::wrap(plan, inner, &host)?;
    let ours = nix::unistd::geteuid().as_raw();
    let become_principal = Principal {
        uid: principal.uid(),
        gid: principal.gid(),
    };
    Ok(Order {
        launch,
        principal: (principal.uid() != ours).then_some(become_principal),
        watch: Some(survey.watch().map_err(PrepareError::Watch)?),
        doorway: leaf.map(|leaf| leaf.doorway()),
    })
}

/// The directory that the session works in; one of its own, which is there already, where none is named.
fn workspace(settings: &Settings, id: &SessionId, cwd: Option<&str>) -> Result<PathBuf, PrepareError> {
    let asked = match cwd {
        Some(cwd) => PathBuf::from(cwd),
        None => settings.workspace_dir(id),
    };
    let failed = |source| PrepareError::Workspace {
        path: asked.clone(),
        source,
    };
    let path = fs::canonicalize(&asked).map_err(failed)?;
    if !asked.is_absolute() {
        return Err(failed(io::Error::other("the path must be absolute")));
    }
    if path.is_dir() {
        Ok(path)
    } else {
        Err(failed(io::ErrorKind::NotADirectory.into()))
    }
}

fn absolute(path: &Path) -> Result<AbsolutePath, PrepareError> {
    AbsolutePath::try_from(path).map_err(|source| PrepareError::Path {
        path: path.to_owned(),
        source,
    })
}

fn make_home(path: &Path) -> Result<(), PrepareError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|source| PrepareError::Directory {
            path: path.to_owned(),
            source,
        })
}

/// The harness itself, before the sandbox is put around it.
fn inner(
    plan: &Plan,
    harness: &Harness,
    needs: &Needs,
    program: Option<installed::Installed>,
    workspace: &Path,
) -> Launch {
    let mut env: BTreeMap<OsString, OsString> = needs
        .env
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let mut args = Vec::new();
    let program = match program {
        None => PathBuf::from(sandbox::RUNNER),
        Some(found) => {
            let host = host(harness.definition().serve, &found.program);
            let is_served = !host.is_empty();
            let leading = found.leading.into_iter().map(OsString::from);
            args.extend(host.into_iter().chain(leading).map(Arg::Text));
            let system = plan.env.set.get("PATH").map(String::as_str).unwrap_or_default();
            let path = found
                .path
                .iter()
                .map(PathBuf::from)
                .chain(std::env::split_paths(system));
            // A directory with a colon in its name cannot stand in PATH; the harness is started by its own path.
            if let Ok(path) = std::env::join_paths(path) {
                env.insert("PATH".into(), path);
            }
            if is_served {
                PathBuf::from(sandbox::RUNNER)
            } else {
                found.program
            }
        }
    };
    args.extend(needs.args.iter().map(|arg| Arg::Text(arg.into())));
    Launch {
        program: program.into(),
        args,
        env: env.into_iter().collect(),
        cwd: workspace.into(),
    }
}

/// What this program is told to be the client that `program` asks for files and terminals; nothing where none is served.
fn host(serve: Serve, program: &Path) -> Vec<OsString> {
    let options = [(serve.fs, "--fs"), (serve.terminal, "--terminal")];
    let mut words: Vec<OsString> = options
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, option)| option.into())
        .collect();
    if !words.is_empty() {
        words.insert(0, "acp-host".into());
        words.extend(["--".into(), program.into()]);
    }
    words
}

fn report(plan: &Plan) -> SandboxReport {
    SandboxReport {
        policy: plan.policy.to_string(),
        digest: plan.digest(),
        network: match plan.network {
            Network::None => NetworkAccess::None,
            Network::Host => NetworkAccess::Host,
        },
        layers: Vec::new(),
    }
}
