//! What an agent is served of files and terminals, it is served inside the sandbox and nowhere else.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use oqto_tests::wait_until;
use serde_json::{Value, json};

use crate::bed::Bed;

/// An agent that asks for what it is told to.
struct Agent {
    child: Child,
    tell: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
}

impl Agent {
    fn start(bed: &Bed) -> Self {
        let script = include_str!("../tools/acp_fs_agent.py");
        bed.file("workspace/agent.py", script);
        let host = ["/run/oqto/oqto-runner", "acp-host", "--fs", "--terminal", "--"];
        let words = [&host[..], &["/usr/bin/python3", "agent.py"]].concat();
        let mut child = bed
            .command("workspace", &words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let tell = child.stdin.take();
        let says = BufReader::new(child.stdout.take().unwrap());
        Self { child, tell, says }
    }

    fn ask(&mut self, method: &str, params: &Value) -> Result<Value, Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let order = json!({ "puppet": { "say": [request] } });
        writeln!(self.tell.as_mut().unwrap(), "{order}").unwrap();
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        let got: Value = serde_json::from_str(&line).unwrap();
        let mut answer: Value = serde_json::from_str(got["got"].as_str().unwrap()).unwrap();
        match answer["error"].take() {
            Value::Null => Ok(answer["result"].take()),
            error => Err(error),
        }
    }

    /// What a shell in a terminal prints.
    fn sh(&mut self, script: &str) -> String {
        let made = self
            .ask("terminal/create", &json!({ "command": script }))
            .unwrap();
        self.ask("terminal/wait_for_exit", &made).unwrap();
        let output = self.ask("terminal/output", &made).unwrap();
        output["output"].as_str().unwrap().to_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.tell = None;
        let _ = self.child.wait();
    }
}

#[test]
fn files_are_served_as_far_as_the_sandbox_allows() {
    let bed = Bed::new();
    let secret = bed.file("secret", "hush");
    let beside = bed.path("beside");
    bed.file("workspace/mine", "seen");
    bed.sh("git init -q .").ok();
    symlink(&secret, bed.path("workspace/out")).unwrap();
    symlink(&beside, bed.path("workspace/new")).unwrap();
    let at = |name: &str| bed.workspace().join(name);
    let mut agent = Agent::start(&bed);
    let mine = agent.ask("fs/read_text_file", &json!({ "path": at("mine") }));
    assert_eq!(mine, Ok(json!({ "content": "seen" })));
    let made = json!({ "path": at("made"), "content": "written" });
    assert_eq!(agent.ask("fs/write_text_file", &made), Ok(json!({})));
    assert_eq!(fs::read_to_string(at("made")).unwrap(), "written");
    let out = ["/etc/shadow".into(), secret, at("out")];
    for path in &out {
        let said = agent.ask("fs/read_text_file", &json!({ "path": path }));
        let hidden = said.as_ref().map_or(true, |found| found["content"] == "");
        assert!(hidden, "{}: {said:?}", path.display());
    }
    let protected = [at(".git/hooks/pre-commit"), at(".git/config")];
    let outside = ["/etc/oqto-test".into(), "/run/oqto/oqto-runner".into()];
    for path in protected.iter().chain(&outside) {
        let params = json!({ "path": path, "content": "hostile" });
        let said = agent.ask("fs/write_text_file", &params);
        assert!(said.is_err(), "{}: {said:?}", path.display());
    }
    // Here stands a directory of the session's own, which ends with it.
    for path in [&beside, &at("new")] {
        let params = json!({ "path": path, "content": "hostile" });
        let _ = agent.ask("fs/write_text_file", &params);
    }
    drop(agent);
    assert!(!beside.exists());
    assert!(!at(".git/hooks/pre-commit").exists());
    assert_eq!(fs::read_to_string(bed.path("secret")).unwrap(), "hush");
}

#[test]
fn a_terminal_is_in_the_sandbox_and_ends_with_it() {
    let bed = Bed::new();
    let secret = bed.file("secret", "hush");
    let mut agent = Agent::start(&bed);
    let script = format!(
        "cat {}; touch ../beside /etc/x; id -u; readlink /proc/self/ns/pid",
        secret.display()
    );
    let said = agent.sh(&script);
    let ours = fs::read_link("/proc/self/ns/pid").unwrap();
    assert!(
        !said.contains("hush") && !said.contains(ours.to_str().unwrap()),
        "{said}"
    );
    assert!(
        said.contains("pid:[") && !said.lines().any(|line| line == "0"),
        "{said}"
    );
    assert!(!bed.path("beside").exists());
    let mark = format!("86399.{}", std::process::id());
    let left = json!({ "command": "setsid", "args": ["sleep", mark] });
    agent.ask("terminal/create", &left).unwrap();
    wait_until("the command to run", || runs(&mark).then_some(()));
    drop(agent);
    wait_until("the command to end", || (!runs(&mark)).then_some(()));
}

/// Whether a process of this host has that among its words.
fn runs(word: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok())
        .any(|words| words.split('\0').any(|found| found == word))
}
