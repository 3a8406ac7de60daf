//! Agents of others, the whole way: a real runner, its sandbox, and an agent made with the official crate or SDK; and the
//! same agent with the official client.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    ContentBlock, InitializeRequest, NewSessionRequest, PromptRequest, SessionNotification, SessionUpdate,
    TextContent,
};
use agent_client_protocol::{AcpAgent, Agent, Client, on_receive_notification};
use serde_json::Value;

/// Who runs the agents of root's runner here: they are never root.
const SOMEBODY: u32 = 61_234;

/// A private home with a runner of its own, which ends with it.
struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
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
        bed.file(
            "runner.toml",
            0o644,
            &format!("[harness.official]\ndialect = \"acp\"\nprogram = {agent:?}\n"),
        );
        let runner = format!(
            "#!/bin/sh\nexec {:?} \"$@\" --config {:?}\n",
            built("oqto-runner"),
            bed.path("runner.toml")
        );
        bed.file("runner", 0o755, &runner);
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, mode: u32, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
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
    fn ctl(&self, words: &[&str]) -> Vec<Value> {
        let output = self.command(words).output().expect("oqtoctl is built");
        let said = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}{errors}");
        said.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// What the agent says to a prompt.
    fn run(&self, prompt: &str) -> String {
        texts(&self.ctl(&[&RUN[..], &["official", prompt]].concat()))
    }

    /// A prompt in a session that stays, whose events come one by one.
    fn start(&self, harness: &str, prompt: &str) -> Running<'_> {
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
struct Running<'a> {
    bed: &'a Bed,
    child: Child,
    says: BufReader<ChildStdout>,
    seen: Vec<Value>,
    session: String,
}

impl Running<'_> {
    /// The next event of that kind.
    fn until(&mut self, kind: &str) -> Value {
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
    fn answer(&mut self, how: &str) {
        let asked = self.until("agent.input_needed");
        let request = asked["request"]["request_id"]
            .as_str()
            .expect("a name")
            .to_owned();
        self.bed.ctl(&["answer", "--json", how, &self.session, &request]);
    }

    /// What was said until it is over, and why it is.
    fn end(mut self) -> (String, String) {
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
        if let Some(pid) = found["pid"].as_i64() {
            let _ = Command::new("kill").arg(pid.to_string()).status();
            // It ends its sessions in good order; its directory goes after it.
            let until = Instant::now() + Duration::from_secs(30);
            while Path::new(&format!("/proc/{pid}")).exists() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// A program of the house, beside this test's own.
fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_official-agent")).with_file_name(name);
    assert!(
        path.exists(),
        "{}: cargo build --workspace --all-features --bins",
        path.display()
    );
    path
}

fn texts(events: &[Value]) -> String {
    let deltas = events
        .iter()
        .filter(|event| event["event"] == "stream.text_delta");
    deltas.filter_map(|event| event["delta"].as_str()).collect()
}

/// What the official client hears of the same agent.
async fn heard_by_the_official_client(prompt: &str) -> String {
    let agent = AcpAgent::from_str(env!("CARGO_BIN_EXE_official-agent")).unwrap();
    let heard = Arc::new(Mutex::new(String::new()));
    let hears = Arc::clone(&heard);
    Client
        .v1()
        .on_receive_notification(
            async move |said: SessionNotification, _: ConnectionTo<Agent>| {
                if let SessionUpdate::AgentMessageChunk(chunk) = said.update
                    && let ContentBlock::Text(text) = chunk.content
                {
                    hears.lock().unwrap().push_str(&text.text);
                }
                Ok(())
            },
            on_receive_notification!(),
        )
        .connect_with(agent, async |agent: ConnectionTo<Agent>| {
            let hello = InitializeRequest::new(ProtocolVersion::V1);
            agent.send_request(hello).block_task().await?;
            let session = agent
                .send_request(NewSessionRequest::new("/tmp"))
                .block_task()
                .await?;
            let blocks = vec![ContentBlock::Text(TextContent::new(prompt))];
            let asked = PromptRequest::new(session.session_id, blocks);
            agent.send_request(asked).block_task().await?;
            Ok(())
        })
        .await
        .unwrap();
    let heard = heard.lock().unwrap();
    heard.clone()
}

#[tokio::test]
async fn an_official_agent_says_the_same_to_us_and_to_the_official_client() {
    let bed = Bed::new();
    for prompt in ["say one two  three 日本語 \u{2028} end", "where"] {
        let ours = bed.run(prompt);
        assert_eq!(ours, heard_by_the_official_client(prompt).await);
        assert!(!ours.is_empty());
    }
}

#[test]
fn an_official_agent_is_allowed_and_refused_what_it_asks() {
    let bed = Bed::new();
    for (how, said) in [
        ("--yes", "allowed"),
        ("--no", "refused"),
        ("--cancel", "cancelled"),
    ] {
        let mut running = bed.start("official", "ask");
        running.answer(how);
        assert_eq!(running.end(), (said.to_owned(), "stop".to_owned()));
    }
}

#[test]
fn an_official_agent_is_stopped() {
    let bed = Bed::new();
    let mut running = bed.start("official", "wait");
    running.until("stream.text_delta");
    bed.ctl(&["abort", "--json", &running.session]);
    assert_eq!(running.end(), ("waiting".to_owned(), "aborted".to_owned()));
}

#[test]
fn an_official_agent_goes_on_with_its_session_in_another_process() {
    let bed = Bed::new();
    let running = bed.start("official", "where");
    let session = running.session.clone();
    assert_eq!(running.end().0, "the-first");
    bed.ctl(&["restart", "--json", &session]);
    // What it repeats of before is not told twice.
    let again = texts(&bed.ctl(&["prompt", "--json", &session, "where"]));
    assert_eq!(again, "the-first");
}

#[test]
fn the_example_of_the_official_sdk_does_all_of_its_turn() {
    let Some(agents) = std::env::var_os("OQTO_TEST_AGENTS").map(PathBuf::from) else {
        println!("NOT RUN: the example of the official SDK: OQTO_TEST_AGENTS names no agents");
        return;
    };
    let packages = agents.join("node_modules").canonicalize().unwrap();
    let bed = Bed::new();
    let text = format!(
        "[harness.example]\ndialect = \"acp\"\nprogram = {:?}\nargs = [{:?}]\nread = [{packages:?}]\n",
        packages.join("node/bin/node"),
        packages.join("acp-example/dist/examples/agent.js"),
    );
    bed.file("runner.toml", 0o644, &text);
    let mut running = bed.start("example", "hello");
    running.answer("--yes");
    let (said, reason) = running.end();
    assert_eq!(reason, "stop");
    assert!(said.starts_with("I'll help you with that"), "{said}");
    assert!(
        said.contains("Perfect! I've successfully updated the configuration"),
        "{said}"
    );
}
