//! An agent that asks to be allowed something, in a real sandbox: answered by people, by rules, by the clock, and by what
//! ends it; and what of that is on record.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;

use oqto_control::{Control, Runner, Session, SessionConfig};
use oqto_protocol::event::{PermissionKind, ResolvedBy};
use oqto_protocol::message::Content;
use oqto_tests::{Home, end, wait_until};
use serde_json::Value;

use crate::watch::Watch;

const AGENT: &str = include_str!("../tools/acp_agent.py");

struct Bed {
    _control: Control,
    runner: Runner,
    // The home last: it fails the test if anything still runs.
    home: Home,
}

/// A home with the agent, and a policy `p` with these permissions.
fn home(permissions: &str) -> Home {
    let home = Home::new();
    let agent = home.program("agent/acp_agent.py", AGENT);
    fs::create_dir(home.path("policies")).unwrap();
    let policy = format!("description = \"d\"\nextends = \"open-net\"\n[permissions]\n{permissions}\n");
    fs::write(home.path("policies/p.toml"), policy).unwrap();
    home.configure(&format!(
        "policy_dir = {:?}\n[harness.scripted]\ndialect = \"acp\"\nprogram = {agent:?}\n",
        home.path("policies")
    ));
    home
}

impl Bed {
    async fn new(permissions: &str) -> Self {
        let home = home(permissions);
        let control = home.control();
        let runner = control.local().await.unwrap();
        Self {
            _control: control,
            runner,
            home,
        }
    }

    async fn session(&self) -> (Session, Watch) {
        let config = SessionConfig {
            harness: "scripted".to_owned(),
            cwd: Some(self.home.workspace().display().to_string()),
            policy: Some("p".to_owned()),
            ..SessionConfig::default()
        };
        let session = self.runner.create(config).await.unwrap();
        let watch = Watch::new(session.events().await.unwrap());
        (session, watch)
    }

    /// What of permissions is in the audit log.
    fn records(&self) -> Vec<Value> {
        records(&self.home)
    }
}

fn records(home: &Home) -> Vec<Value> {
    let mut command = home.environment(&home.runner_program());
    command.args(["audit", "export", "--state-dir"]).arg(home.state());
    let text = end(&mut command).ok();
    let records = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(|record| record["what"] == "permission").collect()
}

/// All that the agent said.
fn said(watch: &Watch) -> String {
    let messages = watch.messages();
    let parts = messages.iter().flat_map(|message| &message.parts);
    let texts = parts.filter_map(|part| match &part.content {
        Content::Text(text) => Some(text.text.as_str()),
        _ => None,
    });
    texts.collect()
}

async fn close(session: Session, watch: &mut Watch) {
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_allows_one_thing_and_refuses_another() {
    let bed = Bed::new("timeout_s = 77").await;
    let (session, mut watch) = bed.session().await;
    session
        .prompt("ask execute echo hi > made\nask execute touch not-made\nsay done")
        .await
        .unwrap();
    let request = watch.permission().await;
    let tool = request.tool.unwrap();
    assert_eq!(
        (tool.kind.as_deref(), tool.targets.as_slice()),
        (Some("execute"), ["echo hi > made".to_owned()].as_slice())
    );
    assert_eq!(request.timeout, Some(77_000));
    assert!(!bed.home.path("workspace/made").exists());
    session.allow(&request.request_id).await.unwrap();
    let end = watch.resolved().await;
    assert_eq!(
        (end.by, end.decision),
        (Some(ResolvedBy::Answer), Some(PermissionKind::AllowOnce))
    );
    let request = watch.permission().await;
    session.refuse(&request.request_id).await.unwrap();
    assert_eq!(watch.resolved().await.decision, Some(PermissionKind::RejectOnce));
    assert!(
        session.allow(&request.request_id).await.is_err(),
        "it is answered"
    );
    watch.rest().await;
    assert!(bed.home.path("workspace/made").exists() && !bed.home.path("workspace/not-made").exists());
    assert!(
        said(&watch).contains("left touch not-made: opt-no"),
        "{}",
        said(&watch)
    );
    assert!(
        bed.records().is_empty(),
        "what people answer is recorded as their commands"
    );
    close(session, &mut watch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_answer_without_anybody_and_are_on_record() {
    let bed = Bed::new("allow = [\"execute:echo *\", \"edit:$WORKSPACE/src\"]\ndeny = [\"execute:rm *\"]\notherwise = \"deny\"").await;
    let (session, mut watch) = bed.session().await;
    bed.home.directory("workspace/src");
    let inside = bed.home.workspace().join("src/a");
    session
        .prompt(format!(
            "ask execute echo one\nask execute echo two; rm x\nask execute ls\nask edit {}\nask edit src/../b",
            inside.display()
        ))
        .await
        .unwrap();
    let mut decisions = Vec::new();
    for _ in 0..5 {
        let end = watch.resolved().await;
        assert_eq!(end.by, Some(ResolvedBy::Rule));
        decisions.push((
            end.decision.unwrap() == PermissionKind::AllowOnce,
            end.rule.unwrap(),
        ));
    }
    let wanted = [
        (true, "execute:echo *"),
        (false, "execute:rm *"),
        (false, "otherwise"),
        (true, "edit:$WORKSPACE/src"),
        (false, "otherwise"),
    ];
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(allow, rule)| (*allow, (*rule).to_owned()))
        .collect();
    assert_eq!(decisions, wanted);
    watch.rest().await;
    assert!(inside.exists() && !bed.home.path("workspace/b").exists());
    assert!(said(&watch).contains("ran echo one: one"), "{}", said(&watch));
    let records = bed.records();
    assert_eq!(records.len(), 5, "{records:#?}");
    for (record, (allow, rule)) in records.iter().zip(&wanted) {
        assert_eq!(record["outcome"], if *allow { "allowed" } else { "refused" });
        assert_eq!(record["reason"], "rule");
        assert_eq!(record["session"], session.id().as_str());
        assert!(
            record["detail"]
                .as_str()
                .unwrap()
                .contains(&format!("rule {rule}")),
            "{record}"
        );
        assert!(record["command"].is_string() && record["arguments"].is_string());
    }
    close(session, &mut watch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nobody_answers_is_refused_in_time() {
    let bed = Bed::new("timeout_s = 1").await;
    let (session, mut watch) = bed.session().await;
    session.prompt("ask execute touch made\nsay on").await.unwrap();
    let end = watch.resolved().await;
    assert_eq!(
        (end.by, end.decision),
        (Some(ResolvedBy::Timeout), Some(PermissionKind::RejectOnce))
    );
    watch.rest().await;
    assert!(
        said(&watch).contains("left touch made: opt-no\non"),
        "{}",
        said(&watch)
    );
    let records = bed.records();
    assert_eq!(records.len(), 1);
    assert_eq!(
        (&records[0]["reason"], &records[0]["outcome"]),
        (&"timeout".into(), &"refused".into())
    );
    close(session, &mut watch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_are_asked_at_once_and_abort_ends_what_is_open() {
    let bed = Bed::new("").await;
    let (session, mut watch) = bed.session().await;
    session.prompt("both touch a ; touch b").await.unwrap();
    let (first, second) = (watch.permission().await, watch.permission().await);
    assert_ne!(first.request_id, second.request_id);
    session.allow(&second.request_id).await.unwrap();
    assert_eq!(watch.resolved().await.request_id, second.request_id);
    wait_until("the second to be done", || {
        bed.home.path("workspace/b").exists().then_some(())
    });
    session.abort().await.unwrap();
    let end = watch.resolved().await;
    assert_eq!(
        (end.request_id.as_str(), end.by),
        (first.request_id.as_str(), Some(ResolvedBy::Abort))
    );
    watch.rest().await;
    assert!(!bed.home.path("workspace/a").exists());
    close(session, &mut watch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_survives_the_runner_and_is_answered_by_the_next_one() {
    let bed = Bed::new("allow = [\"execute:echo *\"]").await;
    let (session, mut watch) = bed.session().await;
    session
        .prompt("ask execute echo one\nask execute touch made\nsay done")
        .await
        .unwrap();
    assert_eq!(watch.resolved().await.by, Some(ResolvedBy::Rule));
    let request = watch.permission().await;
    // What the policy says now is of no interest to a session that was made before.
    fs::write(
        bed.home.path("policies/p.toml"),
        "description = \"d\"\nextends = \"open-net\"\n[permissions]\notherwise = \"deny\"\n",
    )
    .unwrap();
    // Nor whether its harness is still defined.
    bed.home
        .configure(&format!("policy_dir = {:?}\n", bed.home.path("policies")));
    bed.home.kill_runner();
    assert_eq!(
        session.state().await.unwrap().pending_request.as_deref(),
        Some(request.request_id.as_str())
    );
    session.allow(&request.request_id).await.unwrap();
    watch.rest().await;
    assert!(bed.home.path("workspace/made").exists());
    assert_eq!(
        bed.records().len(),
        1,
        "what was decided once is not decided again"
    );
    close(session, &mut watch).await;
}

/// Runs a program on a terminal of its own, types what it is given when it shows something, and writes what it showed.
const TERMINAL: &str = r#"
import os, pty, sys, select, time
typed = [tuple(pair.split("=>", 1)) for pair in sys.argv[1].split("\x1f")]
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
seen, begin = b"", 0
while True:
    try:
        more = os.read(fd, 65536)
    except OSError:
        break
    if not more:
        break
    seen += more
    while typed and typed[0][0].encode() in seen[begin:]:
        begin = seen.index(typed[0][0].encode(), begin) + len(typed[0][0])
        os.write(fd, typed.pop(0)[1].encode().decode("unicode_escape").encode())
_, status = os.waitpid(pid, 0)
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(status))
"#;

/// What `oqtoctl run` shows on a terminal on which this is typed whenever that is shown, and its exit code.
fn on_terminal(home: &Home, prompt: &str, typed: &[(&str, &str)]) -> (String, i32) {
    let typed: Vec<String> = typed
        .iter()
        .map(|(shown, keys)| format!("{shown}=>{keys}"))
        .collect();
    let ctl = home.ctl(&[]);
    let mut command = home.environment("/usr/bin/python3".as_ref());
    command
        .args(["-c", TERMINAL, &typed.join("\u{1f}")])
        .arg(ctl.get_program());
    command.args(["run", "--harness", "scripted", "--policy", "p", prompt]);
    command.env("NO_COLOR", "1");
    let ended = end(&mut command);
    (String::from_utf8_lossy(&ended.out).into_owned(), ended.code)
}

#[test]
fn on_a_terminal_a_question_is_asked_in_place() {
    let home = home("deny = [\"execute:rm *\"]");
    let prompt =
        "ask execute touch first\nask execute touch second\nask execute rm x\nask execute touch third";
    let typed = [
        ("May it: Bash touch first", "y\\n"),
        ("May it: Bash touch second", "\\n"),
        ("May it: Bash touch third", "what\\n"),
        // What is typed ahead of a question answers nothing: so this waits for it to be put again.
        ("y allows it this time", ""),
        ("[y/N or a number", "2\\n"),
    ];
    let (seen, code) = on_terminal(&home, prompt, &typed);
    assert_eq!(code, 0, "{seen}");
    let there = |name: &str| home.path(&format!("workspace/{name}")).exists();
    assert!(there("first") && !there("second") && there("third"), "{seen}");
    assert!(
        seen.contains("1. Always") && seen.contains("[y/N or a number, refused in "),
        "{seen}"
    );
    assert!(
        seen.contains("→ allowed by somebody's answer")
            && seen.contains("→ refused by the rule execute:rm *"),
        "{seen}"
    );
    assert!(seen.contains("y allows it this time"), "{seen}");
    home.no_agents();
}

#[test]
fn ctrl_c_at_a_question_refuses_it_and_stops_the_work() {
    let home = home("");
    let (seen, code) = on_terminal(
        &home,
        "ask execute touch made\nask execute touch more",
        &[("refused in", "\\x03")],
    );
    assert_eq!(code, 130, "{seen}");
    assert!(!home.path("workspace/made").exists() && !home.path("workspace/more").exists());
    assert!(seen.contains("over, the work was stopped"), "{seen}");
    home.no_agents();
}

#[test]
fn without_a_terminal_the_question_says_how_to_answer_it() {
    let home = home("");
    let mut running = home
        .ctl(&[
            "run",
            "--harness",
            "scripted",
            "--policy",
            "p",
            "ask execute touch made",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = running.stdout.take().unwrap();
    let mut seen = String::new();
    let how = loop {
        let mut bytes = [0; 4096];
        let len = stdout.read(&mut bytes).unwrap();
        assert!(len > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..len]));
        if let Some(line) = seen
            .lines()
            .find(|line| line.trim().starts_with("oqtoctl answer"))
            .filter(|line| line.ends_with('…'))
        {
            break line.trim().to_owned();
        }
    };
    let words: Vec<&str> = how.split(' ').collect();
    let answered = home.run(&["answer", words[2], words[3], "--yes"]);
    assert_eq!(answered.code, 0, "{answered:?}");
    stdout.read_to_string(&mut seen).unwrap();
    assert!(running.wait().unwrap().success(), "{seen}");
    assert!(home.path("workspace/made").exists());
    home.no_agents();
}
