//! The audit log of a real runner: what was asked of it is there, before and after it is killed, and what is done to it
//! is found.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use oqto_protocol::codec::decode_all;
use oqto_protocol::command::{Abort, Command, CommandEnvelope};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::frame::Kind;
use oqto_protocol::id::CommandId;
use oqto_protocol::query::{Answer, AuditTail, Query};
use oqto_tests::{Ended, Home, end, not_run};
use serde_json::Value;

use crate::stranger::{Stranger, control_papers, first_answer, frame, hello, next_frame, papers_of};

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
    let session = runner.create(home.exec()).await.unwrap();
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
async fn a_head_that_was_kept_elsewhere_finds_what_was_written_anew() {
    let home = Home::new();
    talk(&home, "first").await;
    assert_eq!(home.stop(), []);
    let kept = home.path("kept");
    fs::copy(home.state().join("audit/head"), &kept).unwrap();
    let all = records(&home);
    let checkpoint = said(&all, "audit.checkpoint")[0];
    let line = home.path("checkpoint");
    let text = fs::read_to_string(file(&home)).unwrap();
    let seq = checkpoint["seq"].as_u64().unwrap();
    fs::write(
        &line,
        text.lines().nth(usize::try_from(seq).unwrap() - 1).unwrap(),
    )
    .unwrap();
    let prompt = said(&all, "prompt")[0];
    let known = format!("{}:{}", prompt["seq"], prompt["hash"].as_str().unwrap());
    let words = |expected: &str| {
        let [kept, line] = [&kept, &line].map(|path| path.to_str().unwrap().to_owned());
        let words = ["verify", "--head", &kept, "--head", &line, "--expect", expected];
        audit(&home, &words)
    };
    assert!(words(&known).ok().starts_with("whole"));
    let found = words(&format!("{}:{}", prompt["seq"], "0".repeat(64)));
    assert_eq!(found.code, 1, "{}", found.text());

    // Who has the key begins the log anew, and all that is on this host agrees.
    fs::remove_dir_all(home.state().join("audit")).unwrap();
    talk(&home, "second").await;
    talk(&home, "third").await;
    assert_eq!(home.stop(), []);
    is_whole(&home);
    let found = words(&known);
    assert_eq!(found.code, 1, "{}", found.text());
    assert!(found.text().contains("was kept elsewhere"), "{}", found.text());
    let torn = home.path("torn");
    fs::write(&torn, "{\"seq\":7").unwrap();
    for (words, said) in [
        (["verify", "--expect", "7"], "64 digits"),
        (["verify", "--head", torn.to_str().unwrap()], "neither a copy"),
    ] {
        let refused = audit(&home, &words);
        assert!(refused.code > 1 && refused.err.contains(said), "{}", refused.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_follows_prints_what_comes() {
    let home = Home::new();
    talk(&home, "before").await;
    let mut command = home.environment(&home.runner_program());
    command.args(["audit", "tail", "--follow", "--json", "-n", "1", "--state-dir"]);
    let mut follower = command.arg(home.state()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let mut seq = next()["seq"].as_u64().unwrap();
    let session = talk(&home, "while it is read").await;
    loop {
        let record = next();
        seq += 1;
        assert_eq!(record["seq"], seq);
        if record["what"] == "session.close" && record["session"] == session.as_str() {
            break;
        }
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_reads_the_log_over_its_connection_and_nobody_else_does() {
    let home = Home::new();
    home.configure(
        "[[role]]\ncontrol = \"main\"\nrole = \"owner\"\n[[role]]\ncontrol = \"*\"\nrole = \"execute\"\n",
    );
    talk(&home, "before").await;
    let control = home.control();
    let runner = control.local().await.unwrap();
    let authority = control.authority().id().to_string();
    let dir = home.path("data/oqto/authority");
    let connected = async |papers| {
        let stranger = Stranger::of(&control, runner.addr()).with(papers);
        let connection = stranger.connect().await.unwrap();
        let (kind, _) = first_answer(&connection, &hello(1, 1)).await.unwrap();
        assert_eq!(kind, Kind::WELCOME);
        connection
    };
    let ask = frame(&Query::AuditTail(AuditTail { from: Some(1) }));
    let other = papers_of(&dir, &authority, &format!("oqto://{authority}/control/other"));
    let other = connected(other).await;
    let (kind, body) = first_answer(&other, &ask).await.unwrap();
    assert_eq!(kind, Kind::ANSWER);
    match decode_all::<Answer>(&body).unwrap() {
        Answer::Fault(fault) => assert_eq!(fault.code, FaultCode::Denied),
        answer => panic!("{answer:?}"),
    }

    let owner = connected(control_papers(&dir, &authority)).await;
    let (mut send, mut recv) = owner.open_bi().await.unwrap();
    send.write_all(&ask).await.unwrap();
    let mut seq = 0;
    let (mut names, mut got) = (Vec::new(), Vec::new());
    loop {
        let (kind, body) = next_frame(&mut recv, &mut got).await.unwrap();
        assert_eq!(kind, Kind::ANSWER);
        let Answer::AuditRecord(answer) = decode_all(&body).unwrap() else {
            panic!("no record")
        };
        let record = answer.record.value();
        seq += 1;
        assert_eq!(record["seq"], seq);
        names.push(record["what"].as_str().unwrap().to_owned());
        if record["what"] == "audit.tail" && record["outcome"] == "allowed" {
            // All that was there is read; what comes now comes by itself.
            runner
                .session("s-none".parse().unwrap())
                .abort()
                .await
                .unwrap_err();
        }
        if record["what"] == "abort" {
            break;
        }
    }
    assert!(names.contains(&"prompt".to_owned()));
    control.close().await;
}

/// What the journal itself makes of it, where there is one.
#[tokio::test(flavor = "multi_thread")]
async fn the_journal_has_what_the_log_has() {
    if !Path::new("/run/systemd/journal/socket").exists() {
        not_run(
            "the journal has what the audit log has",
            "systemd-journald does not run here",
        );
        return;
    }
    let home = Home::new();
    home.configure("[audit]\njournald = true\n");
    let session = talk(&home, "heard").await;
    assert_eq!(home.stop(), []);
    let mut command = std::process::Command::new("journalctl");
    assert_eq!(end(command.arg("--sync")).code, 0);
    let mut command = std::process::Command::new("journalctl");
    command.args(["-o", "cat", "--no-pager", "--output-fields=OQTO_AUDIT_RECORD"]);
    command.arg(format!("OQTO_AUDIT_SESSION={session}"));
    let heard = end(&mut command).ok();
    let all = records(&home);
    for record in all.iter().filter(|record| record["session"] == session.as_str()) {
        assert!(
            heard.contains(record["hash"].as_str().unwrap()),
            "{record}: {heard}"
        );
    }
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
    // Those of each minute, and these may have come in two.
    assert!(refused.len() <= 2, "{refused:?}");
    let counts = refused.iter().map(|record| record["count"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 20, "{refused:?}");
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
