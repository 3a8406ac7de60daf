//! A private home: workspace, state, data, configuration and a runner of its own, and nothing of it left at the end.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use oqto_control::{Control, Options, SessionConfig};

use crate::process::{Process, signal};
use crate::{Ended, SOMEBODY, built, end, is_root, wait_until};

/// Who runs the programs of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Who runs the test. Root's agents then run as somebody else, to whom the workspace belongs.
    Tester,
    /// Somebody who is not root.
    Somebody,
}

/// A private home. When it goes it ends its runner in good order, and fails the test if anything of it still runs.
#[derive(Debug)]
pub struct Home {
    dir: tempfile::TempDir,
    owner: Owner,
}

impl Home {
    /// A home of who runs the test.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Owner::Tester)
    }

    /// A home of that owner.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn of(owner: Owner) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("oqto-it-")
            .tempdir_in("/tmp")
            .unwrap();
        // Agents of root's runner are other users, and must get through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = Self { dir, owner };
        home.directory("workspace");
        home.directory("harness-config");
        for name in ["home", "state", "data", "config", "bin"] {
            fs::create_dir(home.path(name)).unwrap();
        }
        home.write_runner();
        home.configure("");
        if home.is_somebody() {
            // Only root can make somebody else's home; what the checkout has may be out of their reach.
            for program in ["oqtoctl", "oqto-runner"] {
                fs::copy(built(program), home.path("bin").join(program)).unwrap();
            }
            own(home.dir.path());
            for name in ["home", "state", "data", "config", "bin"] {
                own(&home.path(name));
            }
        }
        home
    }

    fn is_somebody(&self) -> bool {
        self.owner == Owner::Somebody && is_root()
    }

    /// The home itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path below it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory that agents work in.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.path("workspace")
    }

    /// Where the runner keeps everything.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state/oqto/runner")
    }

    /// Makes a directory of the agents' user.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        own(&path);
        path
    }

    /// Makes a file of the agents' user.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        own(&path);
        path
    }

    /// Makes a program that everybody may run.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Says in the runner's configuration what harness `pi` is.
    pub fn configure_pi(&self, program: &Path) {
        self.configure(&format!(
            "[harness.pi]\nprogram = {program:?}\nconfig_dir = {:?}\n",
            self.path("harness-config")
        ));
    }

    /// Writes the runner's configuration.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, text: &str) {
        let path = self.path("runner.toml");
        fs::write(&path, text).unwrap();
        // Whatever the umask lets others do: such a configuration is not believed.
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// A program that is the runner with this home's configuration: where it is by default depends on who runs it.
    fn write_runner(&self) {
        let runner = if self.is_somebody() {
            self.path("bin/oqto-runner")
        } else {
            built("oqto-runner")
        };
        let text = format!(
            "#!/bin/sh\nexec {runner:?} \"$@\" --config {:?}\n",
            self.path("runner.toml")
        );
        self.program("runner", &text);
    }

    /// The runner with this home's configuration.
    #[must_use]
    pub fn runner_program(&self) -> PathBuf {
        self.path("runner")
    }

    /// `oqtoctl` with these words, in the workspace, with nothing of the tester's environment.
    #[must_use]
    pub fn ctl(&self, words: &[&str]) -> Command {
        let mut command = self.environment(&if self.is_somebody() {
            self.path("bin/oqtoctl")
        } else {
            built("oqtoctl")
        });
        command.args(words);
        command
    }

    /// A program in the workspace, with this home's environment.
    #[must_use]
    pub fn environment(&self, program: &Path) -> Command {
        let mut command = if self.is_somebody() {
            let mut command = Command::new("setpriv");
            let id = SOMEBODY.to_string();
            command.args([
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "--inh-caps=-all",
                "--",
            ]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .current_dir(self.workspace())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("OQTO_RUNNER", self.runner_program());
        command
    }

    /// Runs `oqtoctl` to its end.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Ended {
        end(&mut self.ctl(words))
    }

    /// Runs a shell's text by `oqtoctl exec`.
    #[must_use]
    pub fn sh(&self, script: &str) -> Ended {
        self.run(&["exec", "--", "sh", "-c", script])
    }

    /// A control of this home; its runner is the one that `oqtoctl` would start.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn control(&self) -> Control {
        let options = Options::under(self.path("data/oqto"))
            .local_dir(self.state())
            .runner_program(self.runner_program());
        Control::open(options).unwrap()
    }

    /// A session of any program, in the workspace.
    #[must_use]
    pub fn exec(&self) -> SessionConfig {
        SessionConfig {
            harness: "exec".to_owned(),
            cwd: Some(self.workspace().display().to_string()),
            ..SessionConfig::default()
        }
    }

    /// The number of the runner's process, if one says that it runs.
    #[must_use]
    pub fn runner_pid(&self) -> Option<i32> {
        let text = fs::read(self.state().join("runner.json")).ok()?;
        let found: serde_json::Value = serde_json::from_slice(&text).ok()?;
        i32::try_from(found.get("pid")?.as_i64()?).ok()
    }

    /// Kills the runner and waits until it is gone.
    ///
    /// # Panics
    /// When none runs, or it does not die.
    pub fn kill_runner(&self) {
        let runner = Process {
            pid: self.runner_pid().expect("a runner"),
            words: String::new(),
        };
        runner.kill();
        wait_until("the runner to die", || (!runner.lives()).then_some(()));
    }

    /// What runs here beside the runner itself and what the test started.
    #[must_use]
    pub fn agents(&self) -> Vec<Process> {
        let runner = self.runner_pid();
        let mut found = Process::about(self.dir());
        found.retain(|process| Some(process.pid) != runner && !process.words.contains("fake_llm.py"));
        found
    }

    /// Waits until nothing runs here but the runner.
    ///
    /// # Panics
    /// When something stays.
    #[track_caller]
    pub fn no_agents(&self) {
        wait_until("every agent to end", || self.agents().is_empty().then_some(()));
    }

    /// Asserts that no session is half made: nothing runs, and the runner has no trace of one.
    ///
    /// # Panics
    /// When there is something.
    #[track_caller]
    pub fn no_sessions(&self) {
        self.no_agents();
        for name in ["sessions", "workspaces"] {
            let left: Vec<_> = fs::read_dir(self.state().join(name)).map_or_else(
                |_| Vec::new(),
                |entries| entries.map(|entry| entry.unwrap().path()).collect(),
            );
            assert_eq!(left, Vec::<PathBuf>::new());
        }
        let listed = self.run(&["sessions"]);
        assert_eq!(
            listed.text(),
            "SESSION  STATE  HARNESS  POLICY  WORKSPACE  TITLE\n",
            "{}",
            listed.err
        );
    }

    /// Ends the runner in good order and gives what still runs then.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn stop(&self) -> Vec<Process> {
        if let Some(pid) = self.runner_pid() {
            signal(pid, Signal::SIGTERM);
            let runner = Process {
                pid,
                words: String::new(),
            };
            wait_until("the runner to end", || (!runner.lives()).then_some(()));
        }
        let mut left = Process::about(self.dir());
        left.retain(|process| !process.words.contains("fake_llm.py"));
        left
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.state().join("runner.log")).unwrap_or_default();
            eprintln!("the runner's log:\n{log}");
            for process in Process::about(self.dir()) {
                eprintln!("left running: {process:?}");
                process.kill();
            }
            return;
        }
        let left = self.stop();
        for process in &left {
            process.kill();
        }
        assert!(left.is_empty(), "left running: {left:#?}");
    }
}

fn own(path: &Path) {
    if is_root() {
        chown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    }
}
