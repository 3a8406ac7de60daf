//! A runner that no control has started: enrolled for a token, served by itself, dialled or dialling.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use oqto_control::{
    Control, Event, ListenOptions, Listener, Options, Runner, RunnerAddr, Session, SessionConfig,
};
use oqto_protocol::id::RunnerId;
use oqto_tests::{Ended, Home, signal, wait_until};

use crate::watch::Watch;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A control that listens, and a place for a runner.
pub(crate) struct Far {
    pub(crate) control: Control,
    pub(crate) listener: Listener,
    pub(crate) home: Home,
    serving: Option<Child>,
}

impl Far {
    /// Certificates live so long.
    pub(crate) fn new(life: Duration) -> Self {
        let home = Home::new();
        let control = control(&home, "main", life);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = control.listen(ListenOptions { address }).unwrap();
        Self {
            control,
            listener,
            home,
            serving: None,
        }
    }

    /// Enrols the runner under a name.
    pub(crate) fn enrolled(&self, name: &str) {
        let (token, _) = self
            .control
            .authority()
            .create_token(PATIENCE, Some(name.parse().unwrap()))
            .unwrap();
        let ended = self.enrol(&self.home.state(), token.reveal(), &["--runner-id", name]);
        assert_eq!(ended.code, 0, "{ended:?}");
    }

    /// Runs `oqto-runner enrol` for a state directory, with the token on its standard input.
    pub(crate) fn enrol(&self, state: &Path, token: &str, more: &[&str]) -> Ended {
        enrol(
            &self.home,
            self.listener.address(),
            &self.control.authority().pin(),
            state,
            token,
            more,
        )
    }

    /// Serves from here on.
    pub(crate) fn serve(&mut self, words: &[&str]) {
        let log = File::create(self.log_path()).unwrap();
        let mut command = self.home.environment(&self.home.runner_program());
        command
            .arg("serve")
            .args(words)
            .arg("--state-dir")
            .arg(self.home.state());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.serving = Some(child.unwrap());
    }

    /// Serves nowhere, and is reached because it dials.
    pub(crate) async fn dialling(&mut self) -> Runner {
        let at = self.listener.address().to_string();
        self.serve(&["--listen", "none", "--dial", &at]);
        let came = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        came.expect("the runner dials").unwrap()
    }

    /// Serves on the loopback; where it is reached.
    pub(crate) fn listening(&mut self) -> RunnerAddr {
        self.serve(&[]);
        let path = self.home.state().join("runner.json");
        wait_until("the runner to listen", || {
            let found: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            Some(RunnerAddr {
                id: found["runner_id"].as_str()?.parse().ok()?,
                address: found["address"].as_str()?.parse().ok()?,
            })
        })
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap()
    }

    fn log_path(&self) -> PathBuf {
        self.home.path("runner.err")
    }

    /// Waits until the runner's log says something so many times.
    pub(crate) async fn logs(&self, words: &str, times: usize) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while self.log().matches(words).count() < times {
            assert!(tokio::time::Instant::now() < end, "{words}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A session that says a line each 20 ms, and the stream of it.
    pub(crate) async fn talks(&self, runner: &Runner, lines: usize) -> (Session, Watch) {
        let config = SessionConfig {
            harness: "exec".to_owned(),
            cwd: Some(self.home.workspace().display().to_string()),
            ..SessionConfig::default()
        };
        let session = runner.create(config).await.unwrap();
        let watch = Watch::new(session.events().await.unwrap());
        let script = format!("for n in $(seq {lines}); do echo line $n; sleep 0.02; done");
        session.prompt(script).await.unwrap();
        (session, watch)
    }

    /// Ends everything in good order.
    pub(crate) async fn end(mut self) {
        if let Some(mut child) = self.serving.take() {
            signal(i32::try_from(child.id()).unwrap(), Signal::SIGTERM);
            let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap();
            assert!(status.unwrap().success(), "{}", self.log());
        }
        self.control.close().await;
        let home = self.home;
        tokio::task::spawn_blocking(move || drop(home)).await.unwrap();
    }
}

/// A control of the home's authority, whose runners get certificates for `life`.
pub(crate) fn control(home: &Home, name: &str, life: Duration) -> Control {
    let options = Options::under(home.path("data/oqto"))
        .control_id(name.parse().unwrap())
        .runner_life(life);
    Control::open(options).unwrap()
}

/// Runs `oqto-runner enrol` to its end.
pub(crate) fn enrol(
    home: &Home,
    at: SocketAddr,
    pin: &str,
    state: &Path,
    token: &str,
    more: &[&str],
) -> Ended {
    let mut command = home.environment(&home.runner_program());
    command.args([
        "enrol",
        "--control",
        &at.to_string(),
        "--ca-pin",
        pin,
        "--token-file",
        "-",
    ]);
    command.arg("--state-dir").arg(state).args(more);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who refuses before it reads has closed it.
    let _ = child.stdin.take().unwrap().write_all(token.as_bytes());
    child.wait_with_output().unwrap().into()
}

/// That a stream has each of so many lines once and in order, and no number is missing.
pub(crate) fn has_all(watch: &Watch, lines: usize) {
    let mut last = None;
    for envelope in &watch.seen {
        let seq = envelope.seq.unwrap();
        if let Some(last) = last {
            assert_eq!(envelope.first_seq.unwrap_or(seq), last + 1);
        }
        last = Some(seq);
    }
    let pieces = watch.seen.iter().filter_map(|envelope| match &envelope.event {
        Event::ToolProgress(progress) => progress.partial_output.value()["stdout"]
            .as_str()
            .map(str::to_owned),
        _ => None,
    });
    let whole: String = (1..=lines).map(|n| format!("line {n}\n")).collect();
    assert_eq!(pieces.collect::<String>(), whole);
}

pub(crate) fn id(name: &str) -> RunnerId {
    name.parse().unwrap()
}
