//! A runner of the bench's own, the program that ships, and a control that is connected with it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oqto_control::{Control, Options, Runner, RunnerAddr, Session, SessionConfig};
use serde_json::Value;
use tempfile::TempDir;

/// Harnesses never run as root: where the bench does, they run as a user that no host has.
const SOMEBODY: u32 = 61_234;

/// As many sessions as a bench may want at once.
const SESSIONS_MAX: u32 = 128;

/// A directory that every user may pass through; it is removed with the bench.
///
/// # Panics
/// When the host gives none.
#[must_use]
pub fn open_bed() -> TempDir {
    let bed = tempfile::Builder::new().prefix("oqto-bench-").tempdir();
    let bed = bed.expect("a temporary directory");
    fs::set_permissions(bed.path(), Permissions::from_mode(0o755)).expect("our own directory");
    bed
}

/// The runner as it ships: the release build.
#[derive(Clone, Debug)]
pub struct RunnerProgram(PathBuf);

impl RunnerProgram {
    /// Builds it when the bench was started by cargo, and finds it beside the bench. Another build, named by
    /// `OQTO_RUNNER`, is measured instead and said so.
    ///
    /// # Panics
    /// When it cannot be built or is not there: nothing else is worth measuring.
    #[must_use]
    pub fn ready() -> Self {
        if let Some(other) = std::env::var_os("OQTO_RUNNER") {
            println!("measured: {}", other.display());
            return Self(other.into());
        }
        if let Some(cargo) = std::env::var_os("CARGO") {
            return Self(built(&cargo));
        }
        let bench = std::env::current_exe().expect("Linux");
        let program = bench
            .ancestors()
            .nth(2)
            .map(|dir| dir.join("oqto-runner"))
            .filter(|program| program.exists());
        Self(program.expect("cargo build --release -p oqto-runner"))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// The release build of the runner: cargo says where it is.
fn built(cargo: &OsStr) -> PathBuf {
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--bin", "oqto-runner"])
        .args(["--message-format", "json-render-diagnostics", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../runner/Cargo.toml"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo, which started the bench");
    assert!(built.status.success(), "the runner does not build");
    let lines = built.stdout.split(|&byte| byte == b'\n');
    let mut said = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let program = said.find_map(|said| said["executable"].as_str().map(PathBuf::from));
    program.expect("cargo says where it is")
}

/// A runner with a private place, and a control connected with it. Ends with it.
pub struct House {
    /// The control's end.
    pub runner: Runner,
    bed: TempDir,
    daemon: Child,
    control: Control,
}

impl House {
    /// Starts a runner whose pi is this very program.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn open(program: &RunnerProgram) -> Self {
        let bed = open_bed();
        let pi = bed.path().join("pi/pi");
        fs::create_dir(bed.path().join("pi")).expect("our own directory");
        fs::copy(std::env::current_exe().expect("Linux"), &pi).expect("our own directory");
        let workspace = bed.path().join("workspace");
        fs::create_dir(&workspace).expect("our own directory");
        if fs::metadata(bed.path()).is_ok_and(|bed| bed.uid() == 0) {
            chown(&workspace, Some(SOMEBODY), Some(SOMEBODY)).expect("root may");
        }
        let config = bed.path().join("runner.toml");
        let text = format!(
            "sessions_max = {SESSIONS_MAX}\n[harness.pi]\nprogram = {:?}\n",
            pi.display().to_string()
        );
        fs::write(&config, text).expect("our own directory");
        let control =
            Control::open(Options::under(bed.path().join("control"))).expect("a control of our own");
        let (mut daemon, stdin, stdout) = start(program, bed.path(), &config);
        let at = enrol(&control, stdin, stdout);
        let runner = match control.connect(at).await {
            Ok(runner) => runner,
            Err(error) => {
                let _gone = daemon.kill();
                panic!("the runner that was started cannot be reached: {error}");
            }
        };
        Self {
            runner,
            bed,
            daemon,
            control,
        }
    }

    /// The daemon's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// Where sessions work.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.bed.path().join("workspace")
    }

    /// A session of the generator.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn session(&self) -> Session {
        let config = SessionConfig {
            harness: "pi".to_owned(),
            cwd: Some(self.workspace().display().to_string()),
            // pi reaches its models over the network, so that is the policy it is measured under.
            policy: Some("open-net".to_owned()),
            ..SessionConfig::default()
        };
        match self.runner.create(config).await {
            Ok(session) => session,
            Err(error) => panic!("no session: {}", chain(&error)),
        }
    }

    /// Ends it.
    ///
    /// # Panics
    /// When the runner does not end in time.
    pub async fn close(mut self) {
        self.control.close().await;
        let pid = Pid::from_raw(i32::try_from(self.daemon.id()).expect("a process id"));
        kill(pid, Signal::SIGTERM).expect("our own child");
        for _ in 0..500 {
            if self.daemon.try_wait().expect("our own child").is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _gone = self.daemon.kill();
        panic!("the runner does not end");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // Only a bench that failed leaves it running; it fails when the process is gone already.
        let _gone = self.daemon.kill();
    }
}

fn start(program: &RunnerProgram, bed: &Path, config: &Path) -> (Child, ChildStdin, ChildStdout) {
    let log = File::create(bed.join("start.log")).expect("our own directory");
    let mut daemon = Command::new(program.path())
        .args(["serve", "--bootstrap", "--log", "warn", "--config"])
        .arg(config)
        .arg("--state-dir")
        .arg(bed.join("runner"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the runner starts");
    let stdin = daemon.stdin.take().expect("piped");
    let stdout = daemon.stdout.take().expect("piped");
    (daemon, stdin, stdout)
}

/// Gives the runner its certificate, as whoever starts one does.
///
/// # Panics
/// When the runner does not speak as runners do.
pub(super) fn enrol(control: &Control, mut stdin: ChildStdin, stdout: ChildStdout) -> RunnerAddr {
    let mut lines = BufReader::new(stdout).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("the runner speaks").expect("a pipe");
        serde_json::from_str(&line).expect("the bootstrap is JSON")
    };
    let asked = next();
    let id = serde_json::from_value(asked["runner_id"].clone()).expect("its name");
    let request = serde_json::from_value(asked["request"].clone()).expect("its request");
    let life = Duration::from_secs(3600);
    let grant = control
        .authority()
        .sign(&request, &id, life)
        .expect("our own authority");
    let mut line = serde_json::to_vec(&grant).expect("a grant is JSON");
    line.push(b'\n');
    stdin.write_all(&line).expect("the runner listens");
    let address = serde_json::from_value(next()["listening"].clone()).expect("its address");
    RunnerAddr { id, address }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
