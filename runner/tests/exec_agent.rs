//! The exec harness's agent against a real shell.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

struct Agent {
    child: Child,
    orders: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
}

impl Agent {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_oqto-runner"))
            .arg("exec-agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let orders = child.stdin.take();
        let says = BufReader::new(child.stdout.take().expect("piped"));
        let mut agent = Self { child, orders, says };
        assert_eq!(agent.next(), json!({ "ready": {} }));
        agent
    }

    fn order(&mut self, order: &Value) {
        let orders = self.orders.as_mut().expect("open");
        writeln!(orders, "{order}").expect("the agent reads");
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("the agent writes");
        serde_json::from_str(&line).expect("one JSON object a line")
    }

    /// Everything from here to the end of the run, which is the last.
    fn run(&mut self, text: &str) -> Vec<Value> {
        self.order(&json!({ "run": { "id": "a", "text": text } }));
        assert_eq!(self.next(), json!({ "started": { "id": "a" } }));
        self.rest()
    }

    fn rest(&mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        while lines
            .last()
            .is_none_or(|line: &Value| line.get("ended").is_none())
        {
            lines.push(self.next());
        }
        lines
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn joined(lines: &[Value], stream: &str) -> String {
    lines
        .iter()
        .filter_map(|line| line.get(stream)?.as_str())
        .collect()
}

#[test]
fn output_and_exit_code_of_a_command_are_passed_on() {
    let mut agent = Agent::start();
    let lines = agent.run("echo one; echo two >&2; read x || echo empty; exit 7");
    assert_eq!(joined(&lines, "out"), "one\nempty\n");
    assert_eq!(joined(&lines, "err"), "two\n");
    assert_eq!(lines.last(), Some(&json!({ "ended": { "id": "a", "code": 7 } })));
}

#[test]
fn a_long_output_arrives_whole_with_no_character_cut() {
    let mut agent = Agent::start();
    let lines = agent.run("i=0; while [ $i -lt 20000 ]; do echo '日本語 🦀 café'; i=$((i+1)); done");
    assert_eq!(joined(&lines, "out"), "日本語 🦀 café\n".repeat(20_000));
    assert!(lines.iter().all(|line| line.get("out_b64").is_none()));
}

#[test]
fn bytes_that_are_no_text_travel_as_base64() {
    let mut agent = Agent::start();
    let lines = agent.run(r"printf '\377\376'");
    assert_eq!(joined(&lines, "out_b64"), "//4=");
}

#[test]
fn a_process_left_behind_that_holds_the_pipes_does_not_hold_the_end() {
    let mut agent = Agent::start();
    let begun = Instant::now();
    let lines = agent.run("sleep 30 & echo done");
    assert_eq!(joined(&lines, "out"), "done\n");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_abort_ends_even_what_ignores_it_and_the_agent_goes_on() {
    let mut agent = Agent::start();
    agent.order(&json!({ "run": { "id": "a", "text": "trap '' TERM; echo up; while :; do sleep 1; done" } }));
    assert_eq!(agent.next(), json!({ "started": { "id": "a" } }));
    assert_eq!(agent.next(), json!({ "out": "up\n" }));
    agent.order(&json!({ "abort": {} }));
    assert_eq!(
        agent.rest().last(),
        Some(&json!({ "ended": { "id": "a", "signal": 9 } }))
    );
    assert_eq!(
        agent.run("exit 0").last(),
        Some(&json!({ "ended": { "id": "a", "code": 0 } }))
    );
}

#[test]
fn an_abort_is_obeyed_while_nobody_reads_the_output() {
    let mut agent = Agent::start();
    agent.order(&json!({ "run": { "id": "a", "text": "exec yes" } }));
    agent.order(&json!({ "abort": {} }));
    assert_eq!(
        agent.rest().last(),
        Some(&json!({ "ended": { "id": "a", "signal": 15 } }))
    );
}

#[test]
fn a_second_command_is_refused_while_one_runs() {
    let mut agent = Agent::start();
    agent.order(&json!({ "run": { "id": "a", "text": "sleep 30" } }));
    assert_eq!(agent.next(), json!({ "started": { "id": "a" } }));
    agent.order(&json!({ "run": { "id": "b", "text": "true" } }));
    assert_eq!(
        agent.next(),
        json!({ "refused": { "id": "b", "error": "another command runs" } })
    );
}

#[test]
fn the_end_of_its_input_ends_the_agent_and_what_runs() {
    let mut agent = Agent::start();
    agent.order(&json!({ "run": { "id": "a", "text": "sleep 30" } }));
    assert_eq!(agent.next(), json!({ "started": { "id": "a" } }));
    agent.orders = None;
    assert_eq!(
        agent.rest().last(),
        Some(&json!({ "ended": { "id": "a", "signal": 15 } }))
    );
    assert!(agent.child.wait().expect("a child").success());
}
