//! What this host can enforce, tried for real, and how to get what it cannot.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use serde::Serialize;

use super::principal::{NOBODY, Principal};
use super::report::Layer;
use super::{cgroup, landlock};
use crate::policy::{Need, Plan};

/// Where bubblewrap is looked for when nothing says where programs are.
const USUAL: &[&str] = &["/usr/local/bin", "/usr/bin", "/bin"];

/// What this host does about one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which layer, or what else was looked at.
    pub layer: String,
    /// Whether the host can enforce it.
    pub usable: bool,
    /// Whether the shipped policies do without it.
    pub need: Need,
    /// What was found.
    pub detail: String,
    /// What to do to make it usable.
    pub step: Option<String>,
}

/// There is no bubblewrap.
#[derive(Debug, thiserror::Error)]
#[error("bubblewrap (bwrap) is not installed, so there are no namespaces: {INSTALL}")]
pub struct NoBubblewrap;

const INSTALL: &str =
    "install it (Debian and Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap)";

/// bubblewrap's path: in the directories of `path`, as the variable of that name has them; in the usual ones if it
/// names none.
///
/// # Errors
///
/// There is none.
pub fn bubblewrap(path: &std::ffi::OsStr) -> Result<PathBuf, NoBubblewrap> {
    let named: Vec<PathBuf> = std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .collect();
    let usual = USUAL.iter().filter(|_| named.is_empty()).map(PathBuf::from);
    let mut candidates = named
        .iter()
        .cloned()
        .chain(usual)
        .map(|directory| directory.join("bwrap"));
    candidates
        .find(|candidate| candidate.is_file())
        .ok_or(NoBubblewrap)
}

/// What a session's sandbox is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outer {
    /// bubblewrap, by an absolute path.
    Bubblewrap(PathBuf),
    /// Nothing: landlock and seccomp hold alone.
    Nothing {
        /// Why there are no namespaces.
        why: String,
    },
}

/// What a sandbox can be made with here. Only where a policy can do without namespaces they are tried first, and never
/// with a program that a session may have put there: that one is left to [`wrap`](super::wrap()), which refuses it.
///
/// # Errors
///
/// There is no bubblewrap, and the policy requires namespaces.
pub fn outer(plan: &Plan, path: &std::ffi::OsStr, principal: &Principal) -> Result<Outer, NoBubblewrap> {
    let found = bubblewrap(path).map(|bwrap| std::fs::canonicalize(&bwrap).unwrap_or(bwrap));
    match (found, plan.layers.namespaces) {
        (Ok(bwrap), Need::Required) => Ok(Outer::Bubblewrap(bwrap)),
        (Ok(bwrap), Need::IfAvailable) if exposed(plan, &bwrap) => Ok(Outer::Bubblewrap(bwrap)),
        (Ok(bwrap), Need::IfAvailable) => match namespaces(&bwrap, Some(principal)) {
            Finding { usable: true, .. } => Ok(Outer::Bubblewrap(bwrap)),
            Finding { detail: why, .. } => Ok(Outer::Nothing { why }),
        },
        (Err(error), Need::IfAvailable) => Ok(Outer::Nothing {
            why: error.to_string(),
        }),
        (Err(error), Need::Required) => Err(error),
    }
}

/// Whether a program lies where a session may write, or where an earlier one could.
fn exposed(plan: &Plan, program: &Path) -> bool {
    let written = |root: &crate::policy::Pattern| root.covers_path(program);
    program.starts_with(plan.workspace.as_path()) || plan.files.write.iter().any(written)
}

/// Tries every layer that depends on the host. If this process is root, namespaces are tried as `principal`, or as
/// nobody.
#[must_use]
pub fn probe(path: &std::ffi::OsStr, principal: Option<&Principal>) -> Vec<Finding> {
    // Before anything is started here that would be in the same group.
    let cgroup = Finding {
        need: Need::IfAvailable,
        ..finding(Layer::Cgroup, cgroup::probe())
    };
    let namespaces = match bubblewrap(path) {
        Ok(bwrap) => namespaces(&bwrap, principal),
        Err(error) => finding(Layer::Namespaces, Err((error.to_string(), INSTALL))),
    };
    let landlock = landlock::probe().map_err(|error| {
        (
            error.to_string(),
            "boot Linux 5.13 or later with landlock in the list of lsm= on the kernel's command line",
        )
    });
    vec![
        namespaces,
        finding(Layer::Landlock, landlock),
        finding(Layer::Seccomp, seccomp()),
        cgroup,
    ]
}

fn finding(layer: Layer, result: Result<String, (String, &str)>) -> Finding {
    match result {
        Ok(detail) => Finding {
            layer: layer.to_string(),
            usable: true,
            need: Need::Required,
            detail,
            step: None,
        },
        Err((detail, step)) => Finding {
            layer: layer.to_string(),
            usable: false,
            need: Need::Required,
            detail,
            step: Some(step.to_owned()),
        },
    }
}

fn namespaces(bwrap: &Path, principal: Option<&Principal>) -> Finding {
    let result = || -> Result<String, (String, &'static str)> {
        let failed = |error: io::Error| (format!("cannot run {}: {error}", bwrap.display()), INSTALL);
        let version = Command::new(bwrap)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(failed)?;
        let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        let help = Command::new(bwrap)
            .arg("--help")
            .stdin(Stdio::null())
            .output()
            .map_err(failed)?;
        if !String::from_utf8_lossy(&help.stdout).contains("--disable-userns") {
            return Err((
                format!("{version} cannot disable further user namespaces"),
                "install bubblewrap 0.8 or later",
            ));
        }
        let mut trial = Command::new(bwrap);
        trial.args([
            "--unshare-user",
            "--unshare-ipc",
            "--unshare-pid",
            "--unshare-uts",
            "--unshare-cgroup",
        ]);
        trial.args([
            "--unshare-net",
            "--disable-userns",
            "--cap-drop",
            "ALL",
            "--ro-bind",
            "/",
            "/",
        ]);
        trial
            .args(["--proc", "/proc", "--dev", "/dev", "--", "/bin/true"])
            .env_clear()
            .stdin(Stdio::null());
        // Root may make namespaces where nobody else may, and harnesses do not run as root.
        if geteuid().is_root() {
            let (uid, gid) =
                principal.map_or((NOBODY, NOBODY), |principal| (principal.uid(), principal.gid()));
            trial.uid(uid).gid(gid);
        }
        let tried = trial.output().map_err(failed)?;
        if tried.status.success() {
            return Ok(format!("{version} at {}", bwrap.display()));
        }
        let said = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
        Err((format!("{version} fails: {said}"), step()))
    };
    finding(Layer::Namespaces, result())
}

/// Ubuntu's restriction, and what bubblewrap needs under it: nothing but its name in a profile that allows them.
const APPARMOR: &str =
    "AppArmor restricts user namespaces (Ubuntu 23.10 and later). Allow them to bubblewrap, as root:
          printf '%s\\n' 'abi <abi/4.0>,' 'include <tunables/global>' \\
            'profile bwrap /usr/bin/bwrap flags=(unconfined) {' '  userns,' '}' >/etc/apparmor.d/bwrap
          apparmor_parser -r /etc/apparmor.d/bwrap";

/// The usual reasons why an unprivileged user gets no namespaces, as the kernel shows them.
fn step() -> &'static str {
    let is = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        APPARMOR
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "sysctl -w user.max_user_namespaces=15000"
    } else {
        "if this is a container, start it so that it may make user namespaces and mount /proc (systemd-nspawn: \
         on by default; docker: --security-opt seccomp=unconfined --security-opt systempaths=unconfined)"
    }
}

fn seccomp() -> Result<String, (String, &'static str)> {
    let step = "boot a kernel with CONFIG_SECCOMP_FILTER";
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    let actions = actions.map_err(|error| (format!("the kernel has no seccomp filters: {error}"), step))?;
    let has = |action: &str| actions.split_whitespace().any(|known| known == action);
    match has("errno") && has("kill_process") {
        true => Ok(format!("actions: {}", actions.trim())),
        false => Err((format!("the kernel's filters know only {}", actions.trim()), step)),
    }
}
