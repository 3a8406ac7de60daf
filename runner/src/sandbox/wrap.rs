//! The order of the layers, on one page.
//!
//! 1. The caller becomes the [principal](super::principal), if it is not yet, and starts bubblewrap with nothing in
//!    its environment: what a policy sets for the harness must not steer a program outside the sandbox.
//! 2. bubblewrap makes the namespaces, then the root: `/proc`, `/dev`, the [view](super::view), this program; makes
//!    further user namespaces impossible, drops every capability, and starts the door `enter` of this program.
//! 3. [`enter`](super::enter) closes descriptors, checks that it is inside and sees what it should, and gives up: new
//!    privileges, then resources (limits), files (landlock, whose rules are opened in this, the final, root), system
//!    calls (seccomp, last, because it refuses what the steps before it need).
//! 4. It tries what must fail, reports, and becomes the program.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use crate::launch::{Arg, Launch};
use crate::policy::{Architecture, Calls, Layers, Need, Plan};

use super::direct::{self, DirectError};
use super::entry::{Direct, Entry, Landlock, Namespaces, Rights, Rule};
use super::filter::TooLong;
use super::host::Host;
use super::probe::Outer;
use super::report::Layer;
use super::survey::Survey;
use super::view::{View, ViewError};
use super::{bubblewrap, landlock, seccomp};

/// The harness's home, seen from inside. Its name says nothing of the user or of where the runner keeps it.
pub const HOME: &str = "/home/agent";

/// This program, seen from inside.
pub const RUNNER: &str = "/run/oqto/oqto-runner";

/// The directory of what a program is shown beside the files of its plan.
pub const SHOWN: &str = "/run/oqto";

/// The user's name inside: no program should learn the host's users from here.
const USER: &str = "agent";

/// Why a program cannot be wrapped.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// The disk does not fit the plan.
    #[error("the files of the session cannot be laid out")]
    View {
        /// Why not.
        #[from]
        source: ViewError,
    },
    /// The program wants descriptors, which do not reach into a sandbox.
    #[error("a program in a sandbox gets no descriptors but its input and outputs")]
    Descriptors,
    /// A program that runs outside of the sandbox, or before it is closed, could be another one by now.
    #[error(
        "{path} lies in {root}, which the program in the sandbox may write, so it may be anything by now; take it \
         from elsewhere"
    )]
    Writable {
        /// bubblewrap, or this program.
        path: PathBuf,
        /// What it lies in.
        root: PathBuf,
    },
    /// Only a mount can show what is not on the disk.
    #[error("nothing can show the program {path} without mounts; oqto-runner doctor says how to get them")]
    Shown {
        /// What.
        path: PathBuf,
    },
    /// The namespaces of this process cannot be told.
    #[error("cannot tell the namespaces of the host")]
    Namespaces {
        /// Why not.
        source: io::Error,
    },
    /// What is refused cannot be said to the kernel.
    #[error("the system calls of the policy make no filter")]
    Filters {
        /// Why not.
        #[from]
        source: TooLong,
    },
    /// Landlock and seccomp alone cannot hold the plan.
    #[error("the layer namespaces failed")]
    Direct {
        /// Why not.
        #[from]
        source: DirectError,
    },
    /// What is enforced cannot be written down.
    #[error("cannot write down what is to be enforced")]
    Entry {
        /// Why not.
        source: serde_json::Error,
    },
}

/// A program in its sandbox, not started yet.
#[derive(Debug)]
pub struct Wrapped {
    /// What has to be started.
    pub launch: Launch,
    /// The protected paths as they were when the sandbox was laid out.
    pub survey: Survey,
}

/// Puts a program into the sandbox of a plan. The result has to be started by the host's principal.
///
/// # Errors
///
/// The disk does not fit the plan, or the program wants what no sandbox gives.
pub fn wrap(plan: &Plan, inner: Launch, host: &Host) -> Result<Wrapped, WrapError> {
    if inner.args.iter().any(|arg| !matches!(arg, Arg::Text(_))) {
        return Err(WrapError::Descriptors);
    }
    let view = View::of(plan)?;
    let runner = view.trusted(&host.runner_exe)?;
    let launch = match &host.outer {
        Outer::Bubblewrap(bwrap) => {
            let bwrap = view.trusted(bwrap)?;
            within(plan, inner, host, &view, (&bwrap, &runner))?
        }
        Outer::Nothing { why } => alone(plan, inner, host, &view, (&runner, why))?,
    };
    Ok(Wrapped {
        launch,
        survey: view.survey,
    })
}

/// With namespaces: bubblewrap, then this program.
fn within(
    plan: &Plan,
    inner: Launch,
    host: &Host,
    view: &View,
    (bwrap, runner): (&Path, &Path),
) -> Result<Launch, WrapError> {
    // Without mounts of its own the program has no paths of its own either.
    let (home, inside) = match host.with(Layer::Mounts) {
        true => (Path::new(HOME), Path::new(RUNNER)),
        false => (plan.home.as_path(), runner),
    };
    let entry = Entry {
        same: view.same()?,
        ..entry(
            plan,
            &inner,
            host,
            home,
            rules(view, &inner.program, home, host),
            &plan.calls,
        )?
    };
    let options = bubblewrap::options(plan, view, host, (runner, inside));
    // Before the options, the last of which closes the root.
    let mut words = shown(host)?;
    words.extend([text("--args"), Arg::Data(options)]);
    let identity = identity(host).into_iter().filter(|_| host.with(Layer::Mounts));
    for (file, lines) in identity {
        words.extend([text("--ro-bind-data"), Arg::Data(lines.into_bytes()), text(file)]);
    }
    words.extend([text("--"), Arg::Text(inside.as_os_str().to_owned())]);
    words.extend(entering(&entry, inner)?);
    Ok(Launch {
        program: bwrap.as_os_str().to_owned(),
        args: words,
        env: Vec::new(),
        cwd: OsString::from("/"),
    })
}

/// Without namespaces: this program alone.
fn alone(
    plan: &Plan,
    inner: Launch,
    host: &Host,
    view: &View,
    (runner, why): (&Path, &str),
) -> Result<Launch, WrapError> {
    direct::allowed(plan, why)?;
    if let Some(path) = host.shown.keys().next() {
        return Err(WrapError::Shown { path: path.clone() });
    }
    let home = plan.home.as_path();
    let moved = |text: &OsStr| direct::outside(text, home, runner);
    let inner = Launch {
        program: moved(&inner.program),
        args: inner
            .args
            .into_iter()
            .map(|arg| direct::argument(arg, home, runner))
            .collect(),
        env: inner
            .env
            .iter()
            .map(|(name, value)| (name.clone(), moved(value)))
            .collect(),
        cwd: inner.cwd,
    };
    let rules = direct::rules(view, runner, why)?;
    let tmp = home.join("tmp");
    let mut entry = Entry {
        direct: Some(Direct {
            why: why.to_owned(),
            tmp: tmp.clone(),
        }),
        // Nothing stands behind these two any more.
        layers: Layers {
            landlock: Need::Required,
            seccomp: Need::Required,
            ..plan.layers
        },
        ..entry(plan, &inner, host, home, rules, &direct::calls(plan)?)?
    };
    entry.env.retain(|(name, _)| name != "TMPDIR");
    entry.env.push(("TMPDIR".into(), tmp.into()));
    Ok(Launch {
        program: runner.as_os_str().to_owned(),
        args: entering(&entry, inner)?,
        env: Vec::new(),
        cwd: OsString::from("/"),
    })
}

/// The words that show what is not on the disk.
fn shown(host: &Host) -> Result<Vec<Arg>, WrapError> {
    let mut words = Vec::new();
    for (path, bytes) in &host.shown {
        if !host.with(Layer::Mounts) {
            return Err(WrapError::Shown { path: path.clone() });
        }
        words.extend([
            text("--ro-bind-data"),
            Arg::Data(bytes.clone()),
            Arg::Text(path.into()),
        ]);
    }
    Ok(words)
}

/// What both ways tell `enter`.
fn entry(
    plan: &Plan,
    inner: &Launch,
    host: &Host,
    home: &Path,
    rules: Vec<Rule>,
    calls: &Calls,
) -> Result<Entry, WrapError> {
    Ok(Entry {
        outside: Namespaces::own().map_err(|source| WrapError::Namespaces { source })?,
        network: plan.network,
        same: Vec::new(),
        landlock: Landlock {
            rules,
            ports: plan.ports.clone(),
            needed: landlock::needed(plan, &host.outer),
        },
        filters: seccomp::filters(calls, Architecture::NATIVE)?,
        limits: plan.limits.clone(),
        cgroup: host.cgroup.clone(),
        layers: plan.layers,
        without: host.without.clone(),
        direct: None,
        env: environment(plan, inner.env.clone(), host, home),
        cwd: PathBuf::from(&inner.cwd),
    })
}

/// The words of the door `enter` for a program.
fn entering(entry: &Entry, inner: Launch) -> Result<Vec<Arg>, WrapError> {
    let entry = serde_json::to_vec(entry).map_err(|source| WrapError::Entry { source })?;
    let mut words = vec![text("enter"), text("--plan-fd"), Arg::Data(entry)];
    words.extend([
        text("--report-fd"),
        Arg::Report,
        text("--"),
        Arg::Text(inner.program),
    ]);
    words.extend(inner.args);
    Ok(words)
}

/// The view's rules. This program itself may be run only where it is the harness.
fn rules(view: &View, program: &OsStr, home: &Path, host: &Host) -> Vec<Rule> {
    let mut rules = view.rules();
    for rule in rules.iter_mut().filter(|rule| rule.path == Path::new(HOME)) {
        rule.path = home.to_owned();
    }
    let runner = (program == RUNNER).then(|| PathBuf::from(RUNNER));
    rules.extend(host.shown.keys().cloned().chain(runner).map(|path| Rule {
        path,
        rights: Rights::Read,
    }));
    rules
}

fn text(word: &str) -> Arg {
    Arg::Text(OsString::from(word))
}

/// The sandbox's own variables, then the policy's, then what the program needs: the later ones win.
fn environment(
    plan: &Plan,
    inner: Vec<(OsString, OsString)>,
    host: &Host,
    home: &Path,
) -> Vec<(OsString, OsString)> {
    let own = [("USER", USER), ("LOGNAME", USER), ("SHELL", "/bin/sh")];
    let mut env: BTreeMap<OsString, OsString> = own.map(|(name, value)| (name.into(), value.into())).into();
    env.insert("HOME".into(), home.into());
    for name in &plan.env.pass {
        let name = OsString::from(name);
        if let Some(value) = host.env.get(&name) {
            env.insert(name, value.clone());
        }
    }
    env.extend(
        plan.env
            .set
            .iter()
            .map(|(name, value)| (name.into(), value.into())),
    );
    env.extend(inner);
    env.into_iter().collect()
}

/// The databases of users and groups: whose home is where must agree with the root that is shown.
fn identity(host: &Host) -> [(&'static str, String); 2] {
    let (uid, gid) = (host.principal.uid(), host.principal.gid());
    let nobody = "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
    [
        (
            "/etc/passwd",
            format!(
                "root:x:0:0:root:/root:/usr/sbin/nologin\n{nobody}{USER}:x:{uid}:{gid}::{HOME}:/bin/sh\n"
            ),
        ),
        (
            "/etc/group",
            format!("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n{USER}:x:{gid}:\n"),
        ),
    ]
}
