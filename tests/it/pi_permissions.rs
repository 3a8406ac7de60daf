//! Real pi, made to ask before it acts: answered by people, by rules, by the clock, and by what ends it.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use oqto_control::{CommandError, Control, Event, Runner, Session, SessionConfig};
use oqto_protocol::command::{Command, SessionNew, Shell};
use oqto_protocol::event::{PermissionKind, PermissionRequest, ResolvedBy, ToolEnd};
use oqto_protocol::session::Capability;
use oqto_tests::{Home, Model, Process, agents, end, not_run, signal, wait_until};
use serde_json::Value;

use crate::watch::Watch;

struct Bed {
    control: Control,
    runner: Runner,
    _model: Option<Model>,
    // The home last: it fails the test if anything still runs.
    home: Home,
}

/// A policy with these permissions.
fn policy(permissions: &str) -> String {
    format!("description = \"d\"\nextends = \"open-net\"\n[permissions]\n{permissions}\n")
}

impl Bed {
    /// Real pi, and policies by their names and what each says of permissions.
    async fn new(policies: &[(&str, &str)]) -> Self {
        Self::of(&agents().bin().join("pi"), policies).await
    }

    /// The same with this pi.
    async fn of(pi: &Path, policies: &[(&str, &str)]) -> Self {
        let home = Home::new();
        let model = Model::start(home.dir());
        home.file("harness-config/models.json", &model.for_pi());
        Self::with(home, pi, policies, Some(model)).await
    }

    async fn with(home: Home, program: &Path, policies: &[(&str, &str)], model: Option<Model>) -> Self {
        fs::create_dir(home.path("policies")).unwrap();
        for (name, permissions) in policies {
            fs::write(home.path(&format!("policies/{name}.toml")), policy(permissions)).unwrap();
        }
        home.configure(&format!(
            "policy_dir = {:?}\n[harness.pi]\nprogram = {program:?}\nconfig_dir = {:?}\n",
            home.path("policies"),
            home.path("harness-config")
        ));
        let control = home.control();
        let runner = control.local().await.unwrap();
        Self {
            control,
            runner,
            _model: model,
            home,
        }
    }

    async fn session(&self, policy: &str) -> (Session, Watch) {
        let config = SessionConfig {
            harness: "pi".to_owned(),
            cwd: Some(self.home.workspace().display().to_string()),
            policy: Some(policy.to_owned()),
            provider: Some("fake".to_owned()),
            model: Some("fake-model".to_owned()),
            ..SessionConfig::default()
        };
        let session = self.runner.create(config).await.unwrap();
        let watch = Watch::new(session.events().await.unwrap());
        (session, watch)
    }

    fn is_there(&self, name: &str) -> bool {
        self.home.workspace().join(name).exists()
    }

    /// What of permissions is in the audit log.
    fn records(&self) -> Vec<Value> {
        let mut command = self.home.environment(&self.home.runner_program());
        command
            .args(["audit", "export", "--state-dir"])
            .arg(self.home.state());
        let text = end(&mut command).ok();
        let records = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.filter(|record| record["what"] == "permission").collect()
    }

    async fn close(self) {
        self.control.close().await;
        // Ending the home waits for processes, which must not hold up the runtime.
        tokio::task::spawn_blocking(move || drop(self.home))
            .await
            .unwrap();
    }
}

/// What the tool was that a request is about: its name, kind and targets.
fn about(request: &PermissionRequest) -> (String, Option<String>, Vec<String>) {
    let tool = request.tool.clone().unwrap();
    (tool.name, tool.kind, tool.targets)
}

/// The tools that failed, by what they gave.
fn failures(watch: &Watch) -> Vec<String> {
    let ends = watch.seen.iter().filter_map(|envelope| match &envelope.event {
        Event::ToolEnd(ToolEnd {
            is_error: true,
            output,
            ..
        }) => Some(output.text().to_owned()),
        _ => None,
    });
    ends.collect()
}

async fn close(session: Session, watch: &mut Watch) {
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn pi_asks_before_each_tool_and_does_what_is_allowed_and_nothing_else() {
    let bed = Bed::new(&[("p", "timeout_s = 77")]).await;
    let (session, mut watch) = bed.session("p").await;
    session
        .prompt("fake: shell touch made ;; write not-made.txt hi || say done")
        .await
        .unwrap();
    let request = watch.permission().await;
    assert_eq!(
        about(&request),
        (
            "bash".to_owned(),
            Some("execute".to_owned()),
            vec!["touch made".to_owned()]
        )
    );
    assert_eq!(request.timeout, Some(77_000));
    assert!(!bed.is_there("made"));
    session.allow(&request.request_id).await.unwrap();
    let end = watch.resolved().await;
    assert_eq!(
        (end.by, end.decision),
        (Some(ResolvedBy::Answer), Some(PermissionKind::AllowOnce))
    );
    let request = watch.permission().await;
    assert_eq!(
        about(&request),
        (
            "write".to_owned(),
            Some("edit".to_owned()),
            vec!["not-made.txt".to_owned()]
        )
    );
    session.refuse(&request.request_id).await.unwrap();
    watch.rest().await;
    assert!(bed.is_there("made") && !bed.is_there("not-made.txt"));
    let failures = failures(&watch);
    assert!(
        failures.len() == 1 && failures[0].contains("was not allowed and did nothing"),
        "{failures:?}"
    );
    let status = session.state().await.unwrap();
    assert!(status.capabilities.contains(&Capability::Permission));

    // What the user runs is not asked about, and what makes pi ask cannot be changed from inside.
    let shell = |command: &str| {
        Command::Shell(Shell {
            command: command.to_owned(),
            apart: false,
        })
    };
    let tamper = "for it in 'echo >' 'rm -f' 'mv -t /tmp'; do sh -c \"$it /run/oqto/pi-gate.js\" && touch tampered; done; touch mine";
    session.command(shell(tamper)).await.unwrap();
    wait_until("the user's command", || bed.is_there("mine").then_some(()));
    assert!(!bed.is_there("tampered"));

    // In another session of its own pi asks as before.
    let new = Command::SessionNew(SessionNew { parent_session: None });
    session.command(new).await.unwrap();
    session
        .prompt("fake: shell touch later || say done")
        .await
        .unwrap();
    let request = watch.permission().await;
    session.refuse(&request.request_id).await.unwrap();
    watch.rest().await;
    assert!(!bed.is_there("later"));
    close(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_answer_for_pi_without_anybody_and_are_on_record() {
    let rules = "allow = [\"execute:echo *\", \"edit:$WORKSPACE/src\"]\ndeny = [\"execute:rm *\"]\notherwise = \"deny\"";
    let bed = Bed::new(&[("p", rules)]).await;
    bed.home.directory("workspace/src");
    let (session, mut watch) = bed.session("p").await;
    session
        .prompt(
            "fake: shell echo one ;; shell echo two; rm x ;; write src/a text ;; write src/../b text ;; \
             read /etc/passwd || say done",
        )
        .await
        .unwrap();
    let wanted = [
        (true, "execute:echo *"),
        (false, "execute:rm *"),
        (true, "edit:$WORKSPACE/src"),
        (false, "otherwise"),
        (false, "otherwise"),
    ];
    for (allow, rule) in wanted {
        let end = watch.resolved().await;
        assert_eq!(
            (
                end.by,
                end.decision == Some(PermissionKind::AllowOnce),
                end.rule.as_deref()
            ),
            (Some(ResolvedBy::Rule), allow, Some(rule))
        );
    }
    watch.rest().await;
    assert!(bed.is_there("src/a") && !bed.is_there("b"));
    assert_eq!(failures(&watch).len(), 3);
    let records = bed.records();
    let outcomes: Vec<_> = records.iter().map(|record| &record["outcome"]).collect();
    assert_eq!(
        outcomes,
        wanted.map(|(allow, _)| if allow { "allowed" } else { "refused" })
    );
    assert!(
        records[1]["detail"].as_str().unwrap().contains("echo two; rm x"),
        "{records:#?}"
    );
    close(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_of_pis_that_nobody_answers_is_refused_in_time_and_an_abort_ends_one_that_is_open() {
    let bed = Bed::new(&[("short", "timeout_s = 1"), ("long", "timeout_s = 77")]).await;
    let (session, mut watch) = bed.session("short").await;
    session
        .prompt("fake: shell touch made || say done")
        .await
        .unwrap();
    let end = watch.resolved().await;
    assert_eq!(
        (end.by, end.decision),
        (Some(ResolvedBy::Timeout), Some(PermissionKind::RejectOnce))
    );
    watch.rest().await;
    assert_eq!(bed.records()[0]["reason"], "timeout");
    close(session, &mut watch).await;

    let (session, mut watch) = bed.session("long").await;
    session
        .prompt("fake: shell touch made ;; shell touch made || say done")
        .await
        .unwrap();
    let request = watch.permission().await;
    session.abort().await.unwrap();
    let end = watch.resolved().await;
    assert_eq!(
        (end.request_id, end.by),
        (request.request_id, Some(ResolvedBy::Abort))
    );
    watch.rest().await;
    assert!(!bed.is_there("made"));
    // It is spoken to as before.
    session
        .prompt("fake: shell touch made || say done")
        .await
        .unwrap();
    let request = watch.permission().await;
    session.allow(&request.request_id).await.unwrap();
    watch.rest().await;
    assert!(bed.is_there("made"));
    close(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pi_that_is_killed_in_its_question_did_nothing_and_asks_anew_when_it_goes_on() {
    let bed = Bed::new(&[("p", "otherwise = \"ask\"")]).await;
    let (session, mut watch) = bed.session("p").await;
    session
        .prompt("fake: shell touch made || say done")
        .await
        .unwrap();
    let lost = watch.permission().await;
    let pi = wait_until("pi", || {
        let is_pi =
            |process: &Process| process.words.contains("--mode rpc") && process.words.contains("node");
        bed.home.agents().into_iter().find(is_pi)
    });
    signal(pi.pid, Signal::SIGKILL);
    let end = watch.resolved().await;
    assert_eq!(
        (&end.request_id, end.decision),
        (&lost.request_id, None),
        "{end:?}"
    );
    watch
        .until("recovery", |event| matches!(event, Event::Recovered(_)))
        .await;
    assert!(session.allow(&lost.request_id).await.is_err(), "nobody asks that");
    session
        .prompt("fake: shell touch made || say done")
        .await
        .unwrap();
    let request = watch.permission().await;
    assert_ne!(request.request_id, lost.request_id);
    assert!(!bed.is_there("made"));
    session.allow(&request.request_id).await.unwrap();
    watch.rest().await;
    assert!(bed.is_there("made"));
    close(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_pi_asks_too_and_does_so_in_each_of_its_sessions() {
    let Some(pi) = agents().old_pi() else {
        return not_run("pi 0.74 asks", "it is not installed beside the other agents");
    };
    let bed = Bed::of(&pi, &[("p", "allow = [\"edit\"]")]).await;
    let (session, mut watch) = bed.session("p").await;
    session
        .prompt("fake: write made.txt hi ;; shell touch not-made || say done")
        .await
        .unwrap();
    assert_eq!(watch.resolved().await.by, Some(ResolvedBy::Rule));
    let request = watch.permission().await;
    session.refuse(&request.request_id).await.unwrap();
    watch.rest().await;
    assert!(bed.is_there("made.txt") && !bed.is_there("not-made"));
    let new = Command::SessionNew(SessionNew { parent_session: None });
    session.command(new).await.unwrap();
    session
        .prompt("fake: shell touch not-made || say done")
        .await
        .unwrap();
    watch.permission().await;
    session.abort().await.unwrap();
    watch.rest().await;
    assert!(!bed.is_there("not-made"));
    close(session, &mut watch).await;
    bed.close().await;
}

/// Answers whatever it is told, and knows nothing of extensions.
const NO_PI: &str = r#"#!/usr/bin/python3
import json, sys
for line in sys.stdin:
    said = json.loads(line)
    open("said", "a").write(said["type"] + "\n")
    print(json.dumps({"type": "response", "id": said.get("id"), "command": said["type"], "success": True, "data": {}}), flush=True)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_pi_that_was_not_made_to_ask_takes_no_prompt() {
    let home = Home::new();
    let program = home.program("pi/pi", NO_PI);
    let bed = Bed::with(home, &program, &[("p", "otherwise = \"allow\"")], None).await;
    let (session, mut watch) = bed.session("p").await;
    assert!(matches!(
        session.prompt("hello").await,
        Err(CommandError::Refused { .. })
    ));
    let is_error = |event: &Event| matches!(event, Event::AgentError(_));
    let event = watch.until("error", is_error).await;
    assert!(
        matches!(&event, Event::AgentError(error) if error.error.contains("without the extension that makes it ask")),
        "{event:?}"
    );
    watch.closed().await;
    let said = fs::read_to_string(bed.home.workspace().join("said")).unwrap();
    assert!(!said.contains("prompt"), "{said}");
    watch.is_sound();
    bed.close().await;
}

/// Settings by which a workspace puts something before each command.
const STEERING: &str = r#"{"shellCommandPrefix": "touch steered"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_does_not_make_another_command_of_what_was_allowed() {
    let bed = Bed::new(&[("p", "allow = [\"execute:touch *\"]")]).await;
    bed.home.directory("workspace/.pi");
    bed.home.file("workspace/.pi/settings.json", STEERING);
    let (session, mut watch) = bed.session("p").await;
    session
        .prompt("fake: shell touch made || say done")
        .await
        .unwrap();
    watch.rest().await;
    assert!(bed.is_there("made") && !bed.is_there("steered"));
    close(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_pi_that_would_run_another_command_than_it_asks_about_takes_no_prompt() {
    let Some(pi) = agents().old_pi() else {
        return not_run(
            "pi 0.74 is held by no workspace's shell",
            "it is not installed beside the other agents",
        );
    };
    let bed = Bed::of(&pi, &[("p", "allow = [\"execute:touch *\"]")]).await;
    bed.home.directory("workspace/.pi");
    bed.home.file("workspace/.pi/settings.json", STEERING);
    let (session, mut watch) = bed.session("p").await;
    assert!(
        session
            .prompt("fake: shell touch made || say done")
            .await
            .is_err()
    );
    let is_error = |event: &Event| matches!(event, Event::AgentError(_));
    let event = watch.until("error", is_error).await;
    assert!(
        matches!(&event, Event::AgentError(error) if error.error.contains("shellCommandPrefix")),
        "{event:?}"
    );
    watch.closed().await;
    assert!(!bed.is_there("made") && !bed.is_there("steered"));
    watch.is_sound();
    bed.close().await;
}
