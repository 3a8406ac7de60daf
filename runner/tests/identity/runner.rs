//! The runner as it ships, in a state directory of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oqto_protocol::id::RunnerId;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::control::PATIENCE;

const RUNNER: &str = env!("CARGO_BIN_EXE_oqto-runner");

/// A place for a runner, which goes with everything in it.
pub(crate) struct Place {
    home: tempfile::TempDir,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Where a runner says that it is.
#[derive(Deserialize)]
pub(crate) struct Whereabouts {
    pub(crate) runner_id: RunnerId,
    pub(crate) address: SocketAddr,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    pub(crate) fn identity(&self, name: &str) -> PathBuf {
        self.state().join("identity").join(name)
    }

    /// The program with the words that follow, in an environment that knows no home.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(RUNNER);
        command
            .args(words)
            .arg("--state-dir")
            .arg(self.state())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path())
            .kill_on_drop(true);
        command
    }

    /// Runs `enrol` to its end, with the token on its standard input.
    pub(crate) async fn enrol(&self, at: SocketAddr, pin: &str, token: &str, more: &[&str]) -> Ended {
        let at = at.to_string();
        let words = ["enrol", "--control", &at, "--ca-pin", pin, "--token-file", "-"];
        let mut child = self
            .command(&[&words[..], more].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Who refuses before it reads has closed it.
        let _ = stdin.write_all(token.as_bytes()).await;
        drop(stdin);
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let ended = ended.expect("enrol ends in time").unwrap();
        Ended {
            code: ended.status.code(),
            out: String::from_utf8(ended.stdout).unwrap(),
            err: String::from_utf8(ended.stderr).unwrap(),
        }
    }

    /// Starts `serve` with more words.
    pub(crate) fn serve(&self, more: &[&str]) -> Running<'_> {
        let log = fs::File::create(self.home.path().join("log")).unwrap();
        let child = self
            .command(&[&["serve"], more].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Running { place: self, child }
    }
}

/// A runner that runs; it is killed when it is let go of.
pub(crate) struct Running<'a> {
    place: &'a Place,
    child: Child,
}

impl Running<'_> {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.place.home.path().join("log")).unwrap()
    }

    /// Where it listens, once it does.
    pub(crate) async fn listening(&mut self) -> Whereabouts {
        let path = self.place.state().join("runner.json");
        self.until("the runner to listen", |_| {
            serde_json::from_slice(&fs::read(&path).ok()?).ok()
        })
        .await
    }

    /// Waits until its log says something, so many times.
    pub(crate) async fn logs(&mut self, words: &str, times: usize) {
        let what = format!("{times} times {words:?} in the log");
        self.until(&what, |log| (log.matches(words).count() >= times).then_some(()))
            .await;
    }

    async fn until<T>(&mut self, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(&self.log()) {
                return found;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!(
                    "waited for {what}, and the runner ended ({status}):\n{}",
                    self.log()
                );
            }
            assert!(Instant::now() < end, "waited for {what}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.expect("the runner stops in time").unwrap();
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// How a runner ended that does not start.
    pub(crate) async fn failed(mut self) -> String {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        assert!(!ended.expect("it ends in time").unwrap().success());
        self.log()
    }
}
