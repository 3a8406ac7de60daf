//! What benches of the sandbox share: an ordinary user, and a place of its own with everything in it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::unistd::User;
use oqto_runner::launch::Launch;
use oqto_runner::policy::{AbsolutePath, Request, resolve};
use oqto_runner::sandbox::principal::Principal;
use oqto_runner::sandbox::probe::{Outer, bubblewrap};
use oqto_runner::sandbox::{Host, catalog, wrap};

use super::{Effort, RunnerProgram, open_bed};

/// Nobody starts a sandbox as root. A user whom the host knows, as it does who works on it: one that is missing in
/// /etc/passwd is looked up in vain in every other database, which takes milliseconds.
const SOMEBODY: &str = "backup";

/// A place that an ordinary user can reach, with a runner, a workspace and a home; this process is that user.
#[derive(Debug)]
pub struct Bed {
    path: PathBuf,
}

impl Bed {
    /// The bed that this process is to measure in; `None` in the process that has still to [`make`](Self::make) one.
    ///
    /// # Panics
    /// When the command line ends where the bed should be named.
    #[must_use]
    pub fn asked() -> Option<Self> {
        let words: Vec<OsString> = std::env::args_os().collect();
        let at = words.iter().position(|word| word == "--in")?;
        let path = PathBuf::from(&words[at + 1]);
        Some(Self { path })
    }

    /// Makes a bed, runs this bench again in it as an ordinary user, and removes it.
    ///
    /// # Panics
    /// When there is no such user, or the disk is full.
    #[must_use]
    pub fn make(effort: Effort) -> ExitCode {
        let program = RunnerProgram::ready();
        let bed = open_bed();
        let copy = |from: &Path, name: &str| {
            let to = bed.path().join(name);
            fs::copy(from, &to).expect("our own directory");
            fs::set_permissions(&to, Permissions::from_mode(0o755)).expect("our own file");
            to
        };
        for name in ["workspace", "home", "bench"] {
            fs::create_dir(bed.path().join(name)).expect("our own directory");
        }
        copy(program.path(), "oqto-runner");
        let bench = copy(&std::env::current_exe().expect("Linux"), "bench/bench");
        let mut again = Command::new(bench);
        again.arg("--in").arg(bed.path()).env("TMPDIR", bed.path());
        if effort == Effort::Smoke {
            again.arg("--quick");
        }
        if nix::unistd::geteuid().is_root() {
            let found = User::from_name(SOMEBODY).expect("/etc/passwd");
            let user = found.expect("a user of every Debian");
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            for dir in ["", "workspace", "home"] {
                chown(bed.path().join(dir), Some(uid), Some(gid)).expect("root may");
            }
            again.uid(uid).gid(gid);
        }
        let ended = again.current_dir("/").status().expect("a copy of this program");
        ExitCode::from(u8::from(!ended.success()))
    }

    /// The runner in it.
    #[must_use]
    pub fn runner(&self) -> PathBuf {
        self.path.join("oqto-runner")
    }

    /// The workspace in it.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.path.join("workspace")
    }

    /// What is the home inside.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// This program in it, in a directory that the sandbox shows.
    #[must_use]
    pub fn bench(&self) -> PathBuf {
        self.path.join("bench/bench")
    }

    /// What starts a program under the policy `workspace`.
    ///
    /// # Panics
    /// When the shipped policy cannot be enforced here.
    #[must_use]
    pub fn wrapped(&self, program: impl Into<OsString>, args: Vec<oqto_runner::launch::Arg>) -> Launch {
        let absolute = |path: PathBuf| AbsolutePath::try_from(path.as_path()).expect("a path of ours");
        let catalog = catalog(None).expect("the shipped policies");
        let principal = Principal::choose(None, &self.workspace()).expect("an ordinary user");
        let request = Request {
            workspace: absolute(self.workspace()),
            user_home: absolute(principal.home().to_owned()),
            session_home: absolute(self.home()),
            read: vec![absolute(self.path.join("bench"))],
            closed: Vec::new(),
            network_for: None,
            policy_at_most: None,
            workspace_file: None,
        };
        let name = "workspace".parse().expect("a shipped policy");
        let plan = resolve(&catalog, &name, &request).expect("the shipped policy fits");
        let env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let host = Host {
            outer: Outer::Bubblewrap(bubblewrap(&env[&OsString::from("PATH")]).expect("bubblewrap")),
            runner_exe: self.runner(),
            env,
            principal,
            shown: Default::default(),
            cgroup: None,
            without: Default::default(),
        };
        let inner = Launch {
            program: program.into(),
            args,
            env: Vec::new(),
            cwd: self.workspace().into(),
        };
        wrap(&plan, inner, &host).expect("it can be wrapped").launch
    }
}
