//! The audit log of a real runner: what was asked of it is there, before and after it is killed, and what is done to it
//! is found.

use std::fs;
use std::path::PathBuf;

use oqto_control::SessionConfig;
use oqto_protocol::command::{Abort, Command, CommandEnvelope};
use oqto_protocol::frame::Kind;
use oqto_protocol::id::CommandId;
use oqto_tests::{Ended, Home, end};
use serde_json::Value;

use crate::stranger::{Stranger, control_papers, first_answer, frame, hello};

/// `oqto-runner audit` with these words.
fn audit(home: &Home, words: &[&str]) -> Ended {
    let mut command = home.environment(&home.runner_program());
    command
        .arg("audit")
        .args(words)
        .arg("--state-dir")
        .arg(home.state());
    end(&mut command)
}

#[track_caller]
fn is_whole(home: &Home) {
    let said = audit(home, &["verify"]).ok();
    assert!(said.starts_with("whole: records 1 to "), "{said}");
}

/// All records, the oldest first.
fn records(home: &Home) -> Vec<Value> {
    let text = audit(home, &["export"]).ok();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn said<'a>(records: &'a [Value], what: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["what"] == what).collect()
}

/// The newest file of the log.
fn file(home: &Home) -> PathBuf {
    let entries = fs::read_dir(home.state().join("audit")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some());
    paths.sort();
    paths.pop().unwrap()
}

async fn talk(home: &Home, secret: &str) -> String {
    let control = home.control();
    let runner = control.local().await.unwrap();
    let config = SessionConfig {
        harness: "exec".to_owned(),
        cwd: Some(home.workspace().display().to_string()),
        ..SessionConfig::default()
    };
    let session = runner.create(config).await.unwrap();
    session.prompt(format!("echo {secret}")).await.unwrap();
    let _events = session.events().await.unwrap();
    session.state().await.unwrap();
    session.close().await.unwrap();
    let id = session.id().to_string();
    control.close().await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_runner_is_in_its_audit_log_without_what_was_said() {
    let home = Home::new();
    let session = talk(&home, "a-word-of-mine").await;
    let all = records(&home);
    for what in ["session.create", "prompt", "subscribe", "session.close"] {
        let found = said(&all, what);
        assert!(!found.is_empty(), "{what}: {all:#?}");
        let record = found[0];
        assert_eq!(record["outcome"], "allowed");
        assert_eq!(record["session"], session.as_str());
        assert!(record["control"].is_string() && record["authority"].is_string());
        assert_eq!(record["arguments"].as_str().unwrap().len(), 64);
    }
    assert!(said(&all, "session.create")[0]["policy"].is_string());
    assert!(said(&all, "prompt")[0]["command"].is_string());
    assert!(said(&all, "connection.open")[0]["address"].is_string());
    assert_eq!(
        said(&all, "get_state"),
        Vec::<&Value>::new(),
        "it only asks how things stand"
    );
    let text = fs::read_to_string(file(&home)).unwrap();
    assert!(
        !text.contains("a-word-of-mine"),
        "what was said is only there as a digest"
    );

    let tail = audit(&home, &["tail", "-n", "3"]).ok();
    assert_eq!(tail.lines().count(), 3);
    assert!(
        tail.contains("session.close") && tail.contains(&session),
        "{tail}"
    );
    let json = audit(&home, &["tail", "--json", "-n", "1"]).ok();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), all[all.len() - 1]);
    let ocsf = audit(&home, &["export", "--format", "ocsf"]).ok();
    let classes: Vec<Value> = ocsf
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(classes.len(), all.len());
    let created = classes
        .iter()
        .find(|event| event["api"]["operation"] == "session.create")
        .unwrap();
    assert_eq!(
        (&created["class_uid"], &created["type_uid"], &created["status_id"]),
        (&6003.into(), &600_301.into(), &1.into())
    );
    is_whole(&home);
    assert_eq!(home.stop(), []);
    let all = records(&home);
    assert_eq!(said(&all, "audit.stop").len(), 1);
    is_whole(&home);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_whole_after_kill_9_and_whatever_is_done_to_it_is_named() {
    let home = Home::new();
    talk(&home, "before").await;
    let before = records(&home);
    home.kill_runner();
    let whole = audit(&home, &["verify", "--json"]).ok();
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(whole["whole"], true);
    let after = records(&home);
    assert!(after.starts_with(&before), "what was acknowledged is there");
    talk(&home, "after").await;
    assert_eq!(home.stop(), []);
    let all = records(&home);
    assert!(all.starts_with(&after));
    assert_eq!(said(&all, "audit.start").len(), 2);
    is_whole(&home);

    let path = file(&home);
    let text = fs::read(&path).unwrap();
    let prompt = said(&all, "prompt")[0]["seq"].as_u64().unwrap();
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let at = usize::try_from(prompt).unwrap() - 1;
    let mut changed = text.clone();
    changed[lines[..at].concat().len() + 20] ^= 4;
    let mut removed = lines.clone();
    removed.remove(at);
    let cut = lines[..lines.len() - 1].concat();
    for (tampered, name) in [
        (changed, format!("record {prompt} was changed")),
        (
            removed.concat(),
            format!("records {prompt} to {prompt} are missing"),
        ),
        (cut, format!("it ends with record {}", all.len() - 1)),
    ] {
        fs::write(&path, tampered).unwrap();
        let found = audit(&home, &["verify"]);
        assert_eq!(found.code, 1, "{}{}", found.text(), found.err);
        assert!(found.text().contains(&name), "{}", found.text());
        // What is not as it was left is not gone on with.
        let started = home.run(&["status"]);
        assert_ne!(started.code, 0, "{}", started.text());
        assert!(started.err.contains("audit verify"), "{}", started.err);
    }
    fs::write(&path, text).unwrap();
    is_whole(&home);
    assert!(home.run(&["status"]).ok().contains("runner"));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_one_record_however_many_come() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    runner.status().await.unwrap();
    for _ in 0..20 {
        Stranger::of(&control, runner.addr()).turned_away().await;
    }
    control.close().await;
    assert_eq!(home.stop(), []);
    let all = records(&home);
    let refused: Vec<_> = said(&all, "connection.open")
        .into_iter()
        .filter(|record| record["outcome"] == "refused")
        .collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["count"], 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_recorded_with_its_reason() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    runner.status().await.unwrap();
    let authority = control.authority().id().to_string();
    let papers = control_papers(&home.path("data/oqto/authority"), &authority);
    let connection = Stranger::of(&control, runner.addr())
        .with(papers)
        .connect()
        .await
        .unwrap();
    let (kind, _) = first_answer(&connection, &hello(1, 1)).await.unwrap();
    assert_eq!(kind, Kind::WELCOME);
    let misled = CommandEnvelope {
        id: CommandId([7; 16]),
        session_id: "s-none".parse().unwrap(),
        runner_id: Some("r-elsewhere".parse().unwrap()),
        command: Command::Abort(Abort {}),
        on_behalf_of: None,
    };
    let (kind, _) = first_answer(&connection, &frame(&misled)).await.unwrap();
    assert_eq!(kind, Kind::REPLY);
    let all = records(&home);
    let refused = said(&all, "abort");
    assert_eq!(refused.len(), 1, "{all:#?}");
    assert_eq!(refused[0]["outcome"], "refused");
    assert_eq!(refused[0]["reason"], "not_found");
    assert_eq!(refused[0]["command"], "07".repeat(16));
    assert_eq!(refused[0]["authority"], authority.as_str());
    control.close().await;
}
