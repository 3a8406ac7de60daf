//! The host of an agent of the Agent Client Protocol, with a real agent behind it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// The longest line that a runner takes, and the host holds.
const LINE_MAX: usize = 16 * 1024 * 1024;

struct Host {
    child: Child,
    tell: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
    asked: u64,
}

impl Host {
    fn start() -> Self {
        Self::serving(&["--fs", "--terminal"])
    }

    fn serving(options: &[&str]) -> Self {
        let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tools/acp_fs_agent.py");
        let mut child = Command::new(env!("CARGO_BIN_EXE_oqto-runner"))
            .arg("acp-host")
            .args(options)
            .args(["--", "python3"])
            .arg(agent)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let tell = child.stdin.take();
        let says = BufReader::new(child.stdout.take().expect("piped"));
        Self {
            child,
            tell,
            says,
            asked: 0,
        }
    }

    fn tell(&mut self, line: &str) {
        let tell = self.tell.as_mut().expect("open");
        writeln!(tell, "{line}").expect("the host reads");
    }

    /// Makes the agent do that.
    fn puppet(&mut self, order: &Value) {
        self.tell(&json!({ "puppet": order }).to_string());
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("the host writes");
        assert_eq!(line.pop(), Some('\n'), "{line}");
        line
    }

    /// What the agent was told that it does not know.
    fn got(&mut self) -> String {
        let line: Value = serde_json::from_str(&self.line()).expect("JSON");
        line["got"].as_str().expect("what it got").to_owned()
    }

    /// Makes the agent send a request; its answer comes later.
    fn send(&mut self, method: &str, params: &Value) -> u64 {
        self.asked += 1;
        let request = json!({ "jsonrpc": "2.0", "id": self.asked, "method": method, "params": params });
        self.puppet(&json!({ "say": [request] }));
        self.asked
    }

    /// The next answer that the agent gets.
    fn answer(&mut self) -> Value {
        serde_json::from_str(&self.got()).expect("JSON")
    }

    /// Makes the agent ask, and gives what it was answered.
    fn ask(&mut self, method: &str, params: &Value) -> Result<Value, Value> {
        let id = self.send(method, params);
        let mut answer = self.answer();
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(id)));
        match answer["error"].take() {
            Value::Null => Ok(answer["result"].take()),
            error => Err(error),
        }
    }

    fn create(&mut self, params: &Value) -> String {
        let made = self.ask("terminal/create", params).expect("a terminal");
        made["terminalId"].as_str().expect("an id").to_owned()
    }

    fn sh(&mut self, script: &str) -> Value {
        let terminal = self.create(&json!({ "command": "/bin/sh", "args": ["-c", script] }));
        json!({ "terminalId": terminal })
    }

    /// What a command printed until it ended.
    fn output_of(&mut self, params: &Value) -> String {
        let terminal = json!({ "terminalId": self.create(params) });
        assert!(self.ask("terminal/wait_for_exit", &terminal).is_ok());
        let output = self.ask("terminal/output", &terminal).expect("output");
        output["output"].as_str().expect("text").to_owned()
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a child")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.tell = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code(refused: &Value) -> i64 {
    refused["code"].as_i64().expect("a code")
}

#[test]
fn what_is_no_request_for_it_passes_unchanged_in_both_directions() {
    let mut host = Host::start();
    for line in [
        "{\"jsonrpc\" : \"2.0\",\"result\":{\"x\":\"fs/\"},\"id\":3}",
        "no JSON at all \u{2028} \r",
        "",
    ] {
        if let Ok(Value::Object(_)) = serde_json::from_str(line) {
            host.tell(line);
            assert_eq!(host.got(), line);
        }
        host.puppet(&json!({ "say": [line] }));
        assert_eq!(host.line(), line);
    }
    for line in [
        // Not served, not a request, not an id to be kept, not what it seems, and not one line of JSON.
        json!({ "id": 1, "method": "fs/delete", "params": {} }).to_string(),
        json!({ "method": "fs/read_text_file", "params": { "path": "/etc/passwd" } }).to_string(),
        json!({ "id": "x".repeat(257), "method": "fs/read_text_file", "params": {} }).to_string(),
        json!({ "id": 1, "method": "x", "params": { "method": "fs/read_text_file" } }).to_string(),
        "{\"id\":1,\"method\":\"fs/read_text_file\",\"method\":\"fs/read_text_file\"}".to_owned(),
        "\"fs/read_text_file\" {".to_owned(),
    ] {
        host.puppet(&json!({ "say": [line] }));
        assert_eq!(host.line(), line);
    }
}

#[test]
fn what_is_not_asked_for_is_not_served() {
    let request = json!({ "id": 1, "method": "fs/read_text_file", "params": { "path": "/etc/passwd" } });
    let mut host = Host::serving(&["--terminal"]);
    host.puppet(&json!({ "say": [request] }));
    assert_eq!(host.line(), request.to_string());
    let request = json!({ "id": 1, "method": "terminal/create", "params": { "command": "true" } });
    let mut host = Host::serving(&["--fs"]);
    host.puppet(&json!({ "say": [request] }));
    assert_eq!(host.line(), request.to_string());
}

#[test]
fn a_line_longer_than_a_runner_takes_reaches_it_whole() {
    let mut host = Host::start();
    let long = "x".repeat(LINE_MAX + 100_000);
    // What looks like a request at the end of it is none.
    let request = json!({ "id": 1, "method": "fs/read_text_file", "params": { "path": "/etc/passwd" } });
    host.puppet(&json!({ "raw": long }));
    host.puppet(&json!({ "say": [format!("{request}")] }));
    assert!(host.line() == format!("{long}{request}"));
    assert!(
        host.ask("fs/read_text_file", &json!({ "path": "/etc/passwd" }))
            .is_ok()
    );
}

#[test]
fn a_line_of_half_that_is_held_and_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("big");
    let content = "ab\u{1F980}\n".repeat(LINE_MAX / 20);
    let mut host = Host::start();
    let written = host.ask("fs/write_text_file", &json!({ "path": path, "content": content }));
    assert_eq!(written, Ok(json!({})));
    assert!(fs::read_to_string(&path).expect("a file") == content);
    let found = host
        .ask("fs/read_text_file", &json!({ "path": path }))
        .expect("read");
    assert!(found["content"] == content);
}

#[test]
fn lines_of_a_file_are_counted_from_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("f");
    fs::write(&path, "one\ntwo\r\nthree").expect("writable");
    let mut host = Host::start();
    for (line, limit, expected) in [
        (json!(null), json!(null), "one\ntwo\r\nthree"),
        (json!(1), json!(1), "one\n"),
        (json!(2), json!(1), "two\r\n"),
        (json!(2), json!(null), "two\r\nthree"),
        (json!(3), json!(9), "three"),
        (json!(4), json!(1), ""),
        (json!(1), json!(0), ""),
    ] {
        let params = json!({ "sessionId": "s", "path": path, "line": line, "limit": limit });
        let found = host.ask("fs/read_text_file", &params);
        assert_eq!(found, Ok(json!({ "content": expected })), "{params}");
    }
}

#[test]
fn a_write_replaces_what_was_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("f");
    let mut host = Host::start();
    for content in ["a long text\n", "short", ""] {
        let written = host.ask("fs/write_text_file", &json!({ "path": path, "content": content }));
        assert_eq!(written, Ok(json!({})));
        assert_eq!(fs::read_to_string(&path).expect("a file"), content);
    }
}

#[test]
fn what_cannot_be_served_is_refused_by_the_codes_of_the_protocol() {
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("binary");
    fs::write(&binary, [0xff, 0xfe]).expect("writable");
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    symlink(&fifo, dir.path().join("link")).expect("a link");
    let mut host = Host::start();
    for (method, params, expected) in [
        ("fs/read_text_file", json!({ "path": "relative" }), -32602),
        ("fs/read_text_file", json!({}), -32602),
        ("fs/read_text_file", json!({ "path": "/x", "line": -1 }), -32602),
        (
            "fs/read_text_file",
            json!({ "path": dir.path().join("none") }),
            -32002,
        ),
        ("fs/read_text_file", json!({ "path": dir.path() }), -32603),
        ("fs/read_text_file", json!({ "path": binary }), -32603),
        ("fs/read_text_file", json!({ "path": fifo }), -32603),
        (
            "fs/read_text_file",
            json!({ "path": dir.path().join("link") }),
            -32603,
        ),
        ("fs/read_text_file", json!({ "path": "/dev/zero" }), -32603),
        (
            "fs/write_text_file",
            json!({ "path": "x", "content": "" }),
            -32602,
        ),
        (
            "fs/write_text_file",
            json!({ "path": fifo, "content": "" }),
            -32603,
        ),
        (
            "fs/write_text_file",
            json!({ "path": dir.path(), "content": "" }),
            -32603,
        ),
        (
            "terminal/create",
            json!({ "command": "/no/such", "args": ["x"] }),
            -32002,
        ),
        (
            "terminal/create",
            json!({ "command": "true", "cwd": "relative" }),
            -32602,
        ),
        ("terminal/create", json!({}), -32602),
        ("terminal/output", json!({ "terminalId": "terminal-7" }), -32002),
        ("terminal/wait_for_exit", json!({ "terminalId": "7" }), -32002),
        ("terminal/kill", json!({ "terminalId": "" }), -32002),
        ("terminal/release", json!({ "terminalId": 7 }), -32602),
    ] {
        let refused = host.ask(method, &params).expect_err(method);
        assert_eq!(code(&refused), expected, "{method} {params}: {refused}");
    }
}

#[test]
fn more_text_than_is_given_at_once_is_refused_and_its_lines_are_given() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("f");
    let line = "x".repeat(1023) + "\n";
    fs::write(&path, line.repeat(20 * 1024)).expect("writable");
    let sparse = dir.path().join("sparse");
    fs::File::create(&sparse)
        .and_then(|file| file.set_len(1 << 40))
        .expect("a file");
    let mut host = Host::start();
    for params in [json!({ "path": path }), json!({ "path": sparse, "line": 2 })] {
        assert_eq!(
            code(&host.ask("fs/read_text_file", &params).expect_err("too long")),
            -32603
        );
    }
    let params = json!({ "path": path, "line": 20 * 1024, "limit": 1 });
    assert_eq!(
        host.ask("fs/read_text_file", &params),
        Ok(json!({ "content": line }))
    );
}

#[test]
fn a_terminal_keeps_output_and_exit_code_until_it_is_released() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut host = Host::start();
    let terminal = host.create(&json!({
        "command": "/bin/sh", "args": ["-c", "pwd; echo $OF_US >&2; exit 7"], "cwd": dir.path(),
        "env": [{ "name": "OF_US", "value": "set" }], "outputByteLimit": null,
    }));
    let terminal = json!({ "sessionId": "s", "terminalId": terminal });
    let exit = json!({ "exitCode": 7, "signal": null });
    assert_eq!(host.ask("terminal/wait_for_exit", &terminal), Ok(exit.clone()));
    let expected = json!({
        "output": format!("{}\nset\n", dir.path().display()), "truncated": false, "exitStatus": exit,
    });
    assert_eq!(host.ask("terminal/output", &terminal), Ok(expected.clone()));
    assert_eq!(host.ask("terminal/kill", &terminal), Ok(json!({})));
    assert_eq!(host.ask("terminal/output", &terminal), Ok(expected));
    assert_eq!(host.ask("terminal/release", &terminal), Ok(json!({})));
    assert_eq!(
        code(&host.ask("terminal/output", &terminal).expect_err("gone")),
        -32002
    );
}

#[test]
fn a_command_without_arguments_is_a_line_for_the_shell() {
    let mut host = Host::start();
    let line = json!({ "command": "echo one | tr o 0", "args": [] });
    assert_eq!(host.output_of(&line), "0ne\n");
}

#[test]
fn a_command_hears_its_signals() {
    let mut host = Host::start();
    let blocked = host.output_of(&json!({ "command": "grep", "args": ["SigBlk", "/proc/self/status"] }));
    assert_eq!(blocked, "SigBlk:\t0000000000000000\n");
}

#[test]
fn of_a_long_output_the_end_is_kept() {
    let mut host = Host::start();
    let script = "i=0; while [ $i -lt 5000 ]; do echo 日本語🦀$i; i=$((i+1)); done";
    let terminal =
        host.create(&json!({ "command": "/bin/sh", "args": ["-c", script], "outputByteLimit": 50 }));
    let terminal = json!({ "terminalId": terminal });
    assert!(host.ask("terminal/wait_for_exit", &terminal).is_ok());
    let output = host.ask("terminal/output", &terminal).expect("output");
    assert_eq!(output["truncated"], true);
    let kept = output["output"].as_str().expect("text");
    assert!(
        kept.len() <= 50 && kept.ends_with("\n日本語🦀4998\n日本語🦀4999\n"),
        "{kept}"
    );
}

#[test]
fn whoever_waits_holds_up_nobody_else() {
    let mut host = Host::start();
    let terminal =
        host.sh("read x < /dev/null; trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.01; done");
    let waits = host.send("terminal/wait_for_exit", &terminal);
    let also = host.send("terminal/wait_for_exit", &terminal);
    loop {
        let output = host.ask("terminal/output", &terminal).expect("output");
        assert_eq!(output["exitStatus"], Value::Null);
        if output["output"] == "up\n" {
            break;
        }
    }
    host.puppet(&json!({ "say": [{ "method": "$/cancel_request", "params": { "requestId": also } }] }));
    let cancelled = host.answer();
    assert_eq!(
        (&cancelled["id"], code(&cancelled["error"])),
        (&json!(also), -32800)
    );
    assert_eq!(host.ask("terminal/kill", &terminal), Ok(json!({})));
    let ended = host.answer();
    assert_eq!(ended["id"], json!(waits));
    // On a busy host it may get no turn between the question and the kill.
    let ends = [
        json!({ "exitCode": 3, "signal": null }),
        json!({ "exitCode": null, "signal": "SIGKILL" }),
    ];
    assert!(ends.contains(&ended["result"]), "{ended}");
    // A cancellation of what is not ours is the runner's to hear.
    let cancel = json!({ "method": "$/cancel_request", "params": { "requestId": 99 } });
    host.puppet(&json!({ "say": [cancel] }));
    assert_eq!(host.line(), cancel.to_string());
}

#[test]
fn a_kill_ends_even_what_ignores_it_with_all_that_it_started() {
    let mut host = Host::start();
    let terminal = host.sh("trap '' TERM; sleep 300 & echo $!; while :; do sleep 0.01; done");
    let grandchild = loop {
        let output = host.ask("terminal/output", &terminal).expect("output");
        if let Some(pid) = output["output"].as_str().and_then(|text| text.strip_suffix('\n')) {
            break pid.parse().expect("a number");
        }
    };
    assert_eq!(host.ask("terminal/kill", &terminal), Ok(json!({})));
    let ended = host.ask("terminal/wait_for_exit", &terminal);
    assert_eq!(ended, Ok(json!({ "exitCode": null, "signal": "SIGKILL" })));
    gone(grandchild);
}

/// Waits for the end of a process that somebody else reaps.
fn gone(pid: i32) {
    while kill(Pid::from_raw(pid), None).is_ok() && !is_zombie(pid) {
        std::thread::yield_now();
    }
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn terminals_are_bounded_and_a_released_one_makes_room() {
    let mut host = Host::start();
    let first = host.sh("exec sleep 300");
    for _ in 1..32 {
        host.sh("exec sleep 300");
    }
    let refused = host
        .ask("terminal/create", &json!({ "command": "true" }))
        .expect_err("too many");
    assert_eq!(code(&refused), -32603);
    let waits = host.send("terminal/wait_for_exit", &first);
    assert_eq!(host.ask("terminal/release", &first), Ok(json!({})));
    assert_eq!(host.answer()["id"], waits);
    host.create(&json!({ "command": "true" }));
}

#[test]
fn an_agent_that_does_not_read_is_answered_when_it_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("f");
    let content = "x".repeat(1024 * 1024);
    fs::write(&path, &content).expect("writable");
    let mut host = Host::start();
    let asked: Vec<Value> = (0..40)
        .map(|id| json!({ "id": id, "method": "fs/read_text_file", "params": { "path": path } }))
        .collect();
    host.puppet(&json!({ "say": asked, "deaf": 0.3 }));
    for id in 0..40 {
        let answer = host.answer();
        assert_eq!(answer["id"], id);
        assert!(answer["result"]["content"] == content);
    }
}

#[test]
fn the_agent_is_not_read_while_the_runner_does_not_read() {
    let mut host = Host::start();
    let lines: Vec<String> = (0..40_000)
        .map(|number| format!("{number} {}", "x".repeat(50)))
        .collect();
    host.puppet(&json!({ "say": lines }));
    // An answer does not wait for the runner.
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("f");
    for line in &lines {
        assert_eq!(&host.line(), line);
    }
    let written = host.ask("fs/write_text_file", &json!({ "path": path, "content": "after" }));
    assert_eq!(written, Ok(json!({})));
}

#[test]
fn the_end_of_its_input_is_the_end_of_the_agents() {
    let mut host = Host::start();
    host.tell = None;
    assert_eq!(host.wait().code(), Some(0));
}

#[test]
fn it_ends_as_its_agent_with_all_that_it_said() {
    let mut host = Host::start();
    host.puppet(&json!({ "say": ["last"], "raw": "and a piece", "exit": 9 }));
    assert_eq!(host.wait().code(), Some(9));
    let mut rest = String::new();
    host.says.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "last\nand a piece");
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let mut host = Host::start();
        host.puppet(&json!({ "exit": -(signal as i32) }));
        assert_eq!(host.wait().signal(), Some(signal as i32));
    }
}

#[test]
fn the_end_of_the_agent_ends_its_terminals() {
    let mut host = Host::start();
    let terminal = host.sh("echo $$; exec sleep 300");
    let pid = loop {
        let output = host.ask("terminal/output", &terminal).expect("output");
        if let Some(pid) = output["output"].as_str().and_then(|text| text.strip_suffix('\n')) {
            break pid.parse().expect("a number");
        }
    };
    host.puppet(&json!({ "exit": 0 }));
    assert_eq!(host.wait().code(), Some(0));
    gone(pid);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let ended = Command::new(env!("CARGO_BIN_EXE_oqto-runner"))
        .args(["acp-host", "--fs", "--", "/no/such/agent"])
        .output()
        .expect("the binary is built");
    assert!(!ended.status.success());
    assert!(String::from_utf8_lossy(&ended.stderr).contains("cannot start /no/such/agent"));
}
