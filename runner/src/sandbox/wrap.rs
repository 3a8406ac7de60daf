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
use crate::policy::{Architecture, Plan};

use super::entry::{Entry, Landlock, Namespaces, Rights, Rule};
use super::host::Host;
use super::report::Layer;
use super::view::{View, ViewError};
use super::{bubblewrap, landlock, seccomp};

/// The harness's home, seen from inside. Its name says nothing of the user or of where the runner keeps it.
pub const HOME: &str = "/home/agent";

/// This program, seen from inside.
pub const RUNNER: &str = "/run/oqto/oqto-runner";

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
        source: seccompiler::BackendError,
    },
    /// What is enforced cannot be written down.
    #[error("cannot write down what is to be enforced")]
    Entry {
        /// Why not.
        source: serde_json::Error,
    },
}

/// Puts a program into the sandbox of a plan. The result has to be started by the host's principal.
///
/// # Errors
///
/// The disk does not fit the plan, or the program wants what no sandbox gives.
pub fn wrap(plan: &Plan, inner: Launch, host: &Host) -> Result<Launch, WrapError> {
    let Launch {
        program,
        args,
        env,
        cwd,
    } = inner;
    if args.iter().any(|arg| !matches!(arg, Arg::Text(_))) {
        return Err(WrapError::Descriptors);
    }
    let view = View::of(plan)?;
    let (bwrap, runner) = (view.trusted(&host.bwrap)?, view.trusted(&host.runner_exe)?);
    // Without mounts of its own the program has no paths of its own either.
    let (home, inside) = match host.with(Layer::Mounts) {
        true => (Path::new(HOME), Path::new(RUNNER)),
        false => (plan.home.as_path(), runner.as_path()),
    };
    let entry = Entry {
        outside: Namespaces::own().map_err(|source| WrapError::Namespaces { source })?,
        network: plan.network,
        same: view.same()?,
        landlock: Landlock {
            rules: rules(&view, &program, home),
            ports: plan.ports.clone(),
            needed: landlock::needed(plan),
        },
        filters: seccomp::filters(&plan.calls, Architecture::NATIVE)?,
        limits: plan.limits.clone(),
        cgroup: host.cgroup.clone(),
        layers: plan.layers,
        without: host.without.clone(),
        env: environment(plan, env, host, home),
        cwd: PathBuf::from(cwd),
    };
    let entry = serde_json::to_vec(&entry).map_err(|source| WrapError::Entry { source })?;
    let options = bubblewrap::options(plan, &view, host, (&runner, inside));

    let mut words = vec![text("--args"), Arg::Data(options)];
    let identity = identity(host).into_iter().filter(|_| host.with(Layer::Mounts));
    for (file, lines) in identity {
        words.extend([text("--ro-bind-data"), Arg::Data(lines.into_bytes()), text(file)]);
    }
    words.extend([
        text("--"),
        Arg::Text(inside.as_os_str().to_owned()),
        text("enter"),
        text("--plan-fd"),
        Arg::Data(entry),
    ]);
    words.extend([text("--report-fd"), Arg::Report, text("--"), Arg::Text(program)]);
    words.extend(args);
    Ok(Launch {
        program: bwrap.into_os_string(),
        args: words,
        env: Vec::new(),
        cwd: OsString::from("/"),
    })
}

/// The view's rules. This program itself may be run only where it is the harness.
fn rules(view: &View, program: &OsStr, home: &Path) -> Vec<Rule> {
    let mut rules = view.rules();
    for rule in rules.iter_mut().filter(|rule| rule.path == Path::new(HOME)) {
        rule.path = home.to_owned();
    }
    if program == RUNNER {
        rules.push(Rule {
            path: PathBuf::from(RUNNER),
            rights: Rights::Read,
        });
    }
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
