//! `oqtoctl` as a process, against a test runner that plays a session.

use std::fs;
use std::io::Read as _;
use std::process::{Command, Output, Stdio};

use oqto_control::Control;
use oqto_control::protocol::codec::Json;
use oqto_control::protocol::command::Command as Told;
use oqto_control::protocol::cursor::Cursor;
use oqto_control::protocol::event::{
    AgentError, AgentIdle, AgentWorking, DoneReason, Event, Numbered, Phase, ProgressMode, StreamDone,
    TextDelta, ToolEnd, ToolProgress,
};
use oqto_control::protocol::fault::{Fault, FaultCode};
use oqto_control::protocol::id::{Digest, MessageId};
use oqto_control::protocol::policy::PolicyInfo;
use oqto_control::protocol::query::{Answer, Policies, Query, SessionList};
use oqto_control::protocol::reply::{Accepted, Created, Reply, ReplyData};
use oqto_control::protocol::session::{SessionInfo, SessionState};
use oqto_control::{Envelope, Options};
use tempfile::TempDir;

use crate::support::{Ask, Reaction, TestRunner, event, frames, subscribed, welcome};

struct Bench {
    dir: TempDir,
    _runner: TestRunner,
}

impl Bench {
    /// A running private runner with one session, whose events are these.
    fn new(events: Vec<Event>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::open(Options::under(dir.path().join("data/oqto"))).unwrap();
        let runner = TestRunner::start(control.authority(), move |_, ask| match ask {
            Ask::Hello(_) => Reaction::Begin(welcome("r-1")),
            Ask::Query(query) => Reaction::Answer(frames([answer(query)])),
            Ask::Command(command) => Reaction::Answer(frames([reply(command)])),
            Ask::Subscribe(_) => {
                let events = events.iter().zip(1..).map(|(event, seq)| numbered(seq, event));
                Reaction::Begin([subscribed(1, 0, 1, 9), frames(events)].concat())
            }
        });
        let state = dir.path().join("state/oqto/runner");
        fs::create_dir_all(&state).unwrap();
        let (at, pid) = (runner.at.address, std::process::id());
        let record = format!(r#"{{"runner_id":"r-1","address":"{at}","pid":{pid}}}"#);
        fs::write(state.join("runner.json"), record).unwrap();
        Self { dir, _runner: runner }
    }

    fn oqtoctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oqtoctl"));
        command
            .args(args)
            .env_clear()
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .env("XDG_DATA_HOME", self.dir.path().join("data"))
            .env("XDG_STATE_HOME", self.dir.path().join("state"))
            .env("OQTO_RUNNER", "/bin/false")
            .stdin(Stdio::null());
        command
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = self.oqtoctl(args);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }
}

fn numbered(seq: u64, what: &Event) -> Numbered {
    Numbered {
        event: what.clone(),
        ..event(1, seq)
    }
}

fn session() -> SessionInfo {
    SessionInfo {
        session_id: "s-1".parse().unwrap(),
        state: SessionState::Idle,
        harness: "pi".to_owned(),
        cwd: "/w".to_owned(),
        policy: "workspace".to_owned(),
        title: Some("\x1b]0;x\x07title".to_owned()),
        created_at: 7,
        cursor: Cursor { epoch: 1, seq: 1 },
        message_count: 0,
        model: None,
        labels: Default::default(),
    }
}

fn answer(query: &Query) -> Answer {
    match query {
        Query::RunnerSessions(_) => Answer::SessionList(SessionList {
            sessions: vec![session()],
        }),
        Query::PolicyList(_) => {
            let info = |name: &str| PolicyInfo {
                name: name.to_owned(),
                description: String::new(),
                digest: Digest([0; 32]),
            };
            Answer::Policies(Policies {
                policies: vec![info("workspace"), info("readonly")],
            })
        }
        other => Answer::Fault(Fault::new(FaultCode::Unsupported, other.name())),
    }
}

fn reply(command: &oqto_control::protocol::command::CommandEnvelope) -> Reply {
    let cmd = command.command.name();
    match &command.command {
        Told::SessionCreate(create) if create.config.policy.as_deref() == Some("workspce") => Reply::refused(
            command.id,
            cmd,
            Fault::new(FaultCode::Policy, "there is no policy workspce"),
        ),
        Told::SessionCreate(_) => Reply::done(
            command.id,
            cmd,
            Some(ReplyData::Created(Created { session: session() })),
        ),
        Told::Prompt(_) => {
            let cursor = Cursor { epoch: 1, seq: 1 };
            Reply::done(command.id, cmd, Some(ReplyData::Accepted(Accepted { cursor })))
        }
        _ => Reply::done(command.id, cmd, None),
    }
}

fn idle() -> Event {
    Event::AgentIdle(AgentIdle {})
}

fn working() -> Event {
    Event::AgentWorking(AgentWorking {
        phase: Phase::Generating,
        detail: None,
    })
}

fn done(reason: DoneReason) -> Event {
    Event::StreamDone(StreamDone { reason })
}

fn text(delta: &str) -> Event {
    let (message_id, delta) = (MessageId::numbered(1), delta.to_owned());
    Event::TextDelta(TextDelta {
        message_id,
        delta,
        content_index: 0,
    })
}

fn wrote(json: &str) -> Event {
    Event::ToolProgress(ToolProgress {
        tool_call_id: "c-1".to_owned(),
        name: "exec".to_owned(),
        partial_output: Json::parse(json).unwrap(),
        mode: ProgressMode::More,
    })
}

fn ended(json: &str) -> Event {
    Event::ToolEnd(ToolEnd {
        tool_call_id: "c-1".to_owned(),
        name: "exec".to_owned(),
        output: Json::parse(json).unwrap(),
        is_error: false,
        duration_ms: None,
    })
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[tokio::test]
async fn a_run_shows_the_answer_and_closes_the_session() {
    let bench = Bench::new(vec![
        idle(),
        working(),
        text("Hello \x1b[31mthere"),
        done(DoneReason::Stop),
        idle(),
    ]);
    let output = bench.run(&["run", "hello"]).await;
    assert_eq!(stdout(&output), "Hello [31mthere\n");
    assert_eq!(
        stderr(&output),
        "session s-1 is closed; oqtoctl messages s-1 shows it again\n"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn an_agents_error_is_exit_code_1() {
    let error = AgentError {
        error: "no key".to_owned(),
        recoverable: true,
        phase: None,
    };
    let bench = Bench::new(vec![idle(), working(), Event::AgentError(error)]);
    let output = bench.run(&["run", "--keep", "hello"]).await;
    assert_eq!((stdout(&output), output.status.code()), ("✗ no key\n", Some(1)));
}

#[tokio::test]
async fn json_is_one_canonical_event_a_line_and_nothing_else() {
    let events = vec![idle(), working(), text("Hi"), done(DoneReason::Stop), idle()];
    let bench = Bench::new(events.clone());
    let output = bench.run(&["run", "--json", "hello"]).await;
    let shown: Vec<Event> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str::<Envelope>(line).unwrap().event)
        .collect();
    assert_eq!(shown, events);
    assert_eq!(stderr(&output), "");
}

#[tokio::test]
async fn exec_ends_as_its_program_and_passes_its_bytes_through() {
    let events = |end: &str| {
        vec![
            idle(),
            working(),
            wrote(r#"{"stdout":"out\u001b[1m\n"}"#),
            wrote(r#"{"stderr":"err\n"}"#),
            wrote(r#"{"stdout_base64":"/wA="}"#),
            ended(end),
            done(DoneReason::Stop),
            idle(),
        ]
    };
    for (end, code) in [
        (r#"{"exit_code":0}"#, 0),
        (r#"{"exit_code":42}"#, 42),
        (r#"{"signal":9}"#, 137),
    ] {
        let output = Bench::new(events(end)).run(&["exec", "--", "make"]).await;
        assert_eq!(output.stdout, b"out\x1b[1m\n\xff\0");
        assert_eq!((stderr(&output), output.status.code()), ("err\n", Some(code)));
    }
}

#[tokio::test]
async fn a_name_that_is_nearly_right_is_answered_with_the_right_one() {
    let bench = Bench::new(Vec::new());
    let output = bench.run(&["run", "--policy", "workspce", "hello"]).await;
    assert_eq!(
        stderr(&output),
        "oqtoctl: cannot create a session: the runner refused session.create: there is no policy workspce\n\
         hint: did you mean workspace?\n"
    );
    assert_eq!(output.status.code(), Some(125));
}

#[tokio::test]
async fn a_workspace_that_is_not_there_is_said_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_oqtoctl"))
        .args(["exec", "--cwd", "nowhere", "--", "ls"])
        .env_clear()
        .env("XDG_CONFIG_HOME", dir.path())
        .env("XDG_DATA_HOME", dir.path())
        .env("XDG_STATE_HOME", dir.path())
        .env("OQTO_RUNNER", "/bin/false")
        .output()
        .unwrap();
    let wanted = "oqtoctl: cannot use the workspace nowhere: No such file or directory (os error 2)\n";
    assert_eq!((stderr(&output), output.status.code()), (wanted, Some(125)));
    assert!(!dir.path().join("oqto/runner").exists());
}

#[tokio::test]
async fn sessions_are_found_by_the_beginning_of_their_id_and_listed_without_escapes() {
    let bench = Bench::new(Vec::new());
    let output = bench.run(&["sessions"]).await;
    assert_eq!(
        stdout(&output),
        "SESSION  STATE  HARNESS  POLICY     WORKSPACE  TITLE\n\
         s-1      idle   pi       workspace  /w         ]0;xtitle\n"
    );
    let output = bench.run(&["--json", "close", "s"]).await;
    assert_eq!(stdout(&output), "{\"done\":true,\"session_id\":\"s-1\"}\n");
    let output = bench.run(&["close", "x"]).await;
    assert_eq!(output.status.code(), Some(125));
    assert!(
        stderr(&output).starts_with("oqtoctl: cannot find session x"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn a_reader_that_has_enough_ends_it_quietly() {
    let events = vec![
        idle(),
        working(),
        text(&"x\n".repeat(100_000)),
        done(DoneReason::Stop),
        idle(),
    ];
    let bench = Bench::new(events);
    let mut command = bench.oqtoctl(&["run", "--json", "hello"]);
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 10];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut first).unwrap();
        drop(stdout);
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    assert_eq!((stderr(&output), output.status.code()), ("", Some(0)));
}

#[tokio::test]
async fn ctrl_c_stops_the_work_and_a_second_one_closes_the_session() {
    let bench = Bench::new(vec![idle(), working(), text("busy\n")]);
    let mut command = bench.oqtoctl(&["run", "hello"]);
    let code = tokio::task::spawn_blocking(move || {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let interrupt = format!("kill -INT {}", child.id());
        let interrupt = || {
            let sent = Command::new("sh").args(["-c", &interrupt]).status().unwrap();
            assert!(sent.success());
        };
        // Each is sent when the one before has shown: nothing is left to time.
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        stdout.read_exact(&mut [0; 5]).unwrap();
        interrupt();
        stderr.read_exact(&mut [0; 8]).unwrap();
        interrupt();
        child.wait().unwrap().code()
    });
    assert_eq!(code.await.unwrap(), Some(130));
}

#[tokio::test]
async fn a_wrong_command_line_is_exit_code_2() {
    let bench = Bench::new(Vec::new());
    for args in [&["rum"][..], &["attach", "s-1", "--from", "0"], &["run"]] {
        assert_eq!(bench.run(args).await.status.code(), Some(2), "{args:?}");
    }
}
