//! A home of its own for a runner, and what `oqtoctl` says of the sessions there.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

/// Who runs the agents of root's runner here: they are never root.
const SOMEBODY: u32 = 61_234;

/// How long a runner may take to end.
const GOODBYE: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

/// A private home with a runner of its own, which ends with it.
pub(crate) struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("oqto-acp-")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["workspace", "home", "state", "data", "config", "agent"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let bed = Self { dir };
        if fs::metadata(bed.path("workspace")).unwrap().uid() == 0 {
            chown(bed.path("workspace"), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        }
        let agent = bed.path("agent/official-agent");
        fs::copy(env!("CARGO_BIN_EXE_official-agent"), &agent).unwrap();
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
        bed.define("");
        let runner = format!(
            "#!/bin/sh\nexec {:?} \"$@\" --config {:?}\n",
            built("oqto-runner"),
            bed.path("runner.toml")
        );
        bed.file("runner", 0o755, &runner);
        bed
    }

    /// What the harness `official` is, and what more there is to say of it.
    pub(crate) fn define(&self, more: &str) {
        let agent = self.path("agent/official-agent");
        let text = format!("[harness.official]\ndialect = \"acp\"\nprogram = {agent:?}\n{more}");
        self.file("runner.toml", 0o644, &text);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, mode: u32, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A program that holds the one that it is told in our sandbox, in the workspace, behind our host.
    pub(crate) fn held(&self, reads: &[&Path]) -> PathBuf {
        let runner = self.path("agent/oqto-runner");
        fs::copy(built("oqto-runner"), &runner).unwrap();
        let reads: Vec<&Path> = reads.iter().copied().chain([runner.as_path()]).collect();
        let policy =
            format!("description = \"d\"\nextends = \"workspace\"\n[filesystem]\nread = {reads:?}\n");
        fs::create_dir(self.path("policies")).unwrap();
        self.file("policies/held.toml", 0o644, &policy);
        let program = format!(
            "#!/bin/sh\nexec env -i PATH=/usr/bin:/bin HOME={:?} {runner:?} sandbox run --policy-dir {:?} --policy held \
             --cwd {:?} {runner:?} acp-host --fs --terminal -- \"$@\"\n",
            self.path("home"),
            self.path("policies"),
            self.path("workspace"),
        );
        self.file("held", 0o755, &program);
        self.path("held")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(built("oqtoctl"));
        command
            .args(words)
            .current_dir(self.path("workspace"))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("OQTO_RUNNER", self.path("runner"));
        command
    }

    /// What `oqtoctl` prints, one JSON object a line.
    pub(crate) fn ctl(&self, words: &[&str]) -> Vec<Value> {
        let output = self.command(words).output().expect("oqtoctl is built");
        let said = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}{errors}");
        said.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// What the agent says to a prompt.
    pub(crate) fn run(&self, prompt: &str) -> String {
        texts(&self.ctl(&[&RUN[..], &["official", prompt]].concat()))
    }

    /// A prompt in a session that stays, whose events come one by one.
    pub(crate) fn start(&self, harness: &str, prompt: &str) -> Running<'_> {
        let mut command = self.command(&[&["run", "--keep"], &RUN[1..], &[harness, prompt]].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("oqtoctl is built");
        let says = BufReader::new(child.stdout.take().unwrap());
        let mut running = Running {
            bed: self,
            child,
            says,
            seen: Vec::new(),
            session: String::new(),
        };
        let created = running.until("session.created");
        running.session = created["session_id"].as_str().expect("a session").to_owned();
        running
    }
}

/// How a prompt is run; the harness follows.
const RUN: [&str; 5] = ["run", "--json", "--policy", "open-net", "--harness"];

/// A prompt that runs.
pub(crate) struct Running<'a> {
    bed: &'a Bed,
    child: Child,
    says: BufReader<ChildStdout>,
    seen: Vec<Value>,
    pub(crate) session: String,
}

impl Running<'_> {
    /// The next event of that kind.
    pub(crate) fn until(&mut self, kind: &str) -> Value {
        loop {
            let mut line = String::new();
            self.says.read_line(&mut line).unwrap();
            assert!(!line.is_empty(), "no {kind} came: {:?}", self.seen);
            let event: Value = serde_json::from_str(&line).unwrap();
            self.seen.push(event.clone());
            if event["event"] == kind {
                return event;
            }
        }
    }

    /// Answers what is asked next.
    pub(crate) fn answer(&mut self, how: &str) {
        let asked = self.until("agent.input_needed");
        let request = asked["request"]["request_id"]
            .as_str()
            .expect("a name")
            .to_owned();
        self.bed.ctl(&["answer", "--json", how, &self.session, &request]);
    }

    /// What was said until it is over, and why it is.
    pub(crate) fn end(mut self) -> (String, String) {
        let done = self.until("stream.done");
        self.child.wait().unwrap();
        (texts(&self.seen), done["reason"].as_str().unwrap().to_owned())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let Ok(text) = fs::read_to_string(self.path("state/oqto/runner/runner.json")) else {
            return;
        };
        let found: Value = serde_json::from_str(&text).unwrap_or_default();
        let pid = found["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        // One that has ended by itself is not there.
        let Some(runner) = pid
            .and_then(Pid::from_raw)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        else {
            return;
        };
        let _ = pidfd_send_signal(&runner, Signal::TERM);
        // It ends its sessions in good order; its directory goes after it.
        let _ = poll(&mut [PollFd::new(&runner, PollFlags::IN)], Some(&GOODBYE));
    }
}

/// A program of the house, beside this test's own.
pub(crate) fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_official-agent")).with_file_name(name);
    assert!(
        path.exists(),
        "{}: cargo build --workspace --all-features --bins",
        path.display()
    );
    path
}

pub(crate) fn texts(events: &[Value]) -> String {
    let deltas = events
        .iter()
        .filter(|event| event["event"] == "stream.text_delta");
    deltas.filter_map(|event| event["delta"].as_str()).collect()
}
