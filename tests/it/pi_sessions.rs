//! pi's own sessions: gone on with, gone back to, branched, and had by one session at a time; and two of ours at once.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use oqto_control::{CommandError, Event, Session, SessionConfig};
use oqto_protocol::command::{Command, Fork, GetForkPoints, ListSessions, SessionNew, SessionSwitch};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::reply::ReplyData;
use oqto_tests::{Process, signal, wait_until};
use serde_json::Value;

use crate::pi_bed::PiBed;
use crate::watch::Watch;

/// What pi answers, as it came.
pub(crate) async fn asked(session: &Session, command: Command) -> Value {
    match session.command(command).await.unwrap() {
        Some(ReplyData::HarnessAnswer(answer)) => answer.answer.value(),
        other => panic!("{other:?}"),
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, CommandError>) -> Fault {
    match answer {
        Err(CommandError::Refused { source, .. }) => source.0,
        other => panic!("{other:?}"),
    }
}

async fn listed(session: &Session) -> Vec<String> {
    let answer = asked(session, Command::ListSessions(ListSessions {})).await;
    let sessions = answer["sessions"].as_array().unwrap().iter();
    sessions
        .map(|session| session["sessionId"].as_str().unwrap().to_owned())
        .collect()
}

async fn switch(session: &Session, to: &str) -> Result<Option<ReplyData>, CommandError> {
    let session_path = to.to_owned();
    session
        .command(Command::SessionSwitch(SessionSwitch { session_path }))
        .await
}

/// The prompts that pi's session has.
async fn prompts(session: &Session) -> Vec<String> {
    let answer = asked(session, Command::GetForkPoints(GetForkPoints {})).await;
    let points = answer["messages"].as_array().unwrap().iter();
    points
        .map(|point| point["text"].as_str().unwrap().to_owned())
        .collect()
}

/// A session file of pi in the workspace, where every session can reach it.
async fn a_shared_file(bed: &PiBed) -> PathBuf {
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "fake: say kept").await;
    session.close().await.unwrap();
    watch.closed().await;
    let text = std::fs::read_to_string(bed.session_file(&session)).unwrap();
    bed.home.file("workspace/shared.jsonl", &text)
}

fn going_on_with(bed: &PiBed, path: &str) -> SessionConfig {
    SessionConfig {
        continue_session: Some(path.to_owned()),
        ..bed.config()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pi_goes_to_another_of_its_sessions_that_is_there_and_to_nothing_else() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "fake: say one").await;
    session
        .command(Command::SessionNew(SessionNew { parent_session: None }))
        .await
        .unwrap();
    watch.prompt(&session, "fake: say two").await;
    let sessions = listed(&session).await;
    assert_eq!(sessions.len(), 2, "{sessions:?}");
    assert_eq!(prompts(&session).await, ["fake: say two"]);
    // The newest first.
    switch(&session, &sessions[1]).await.unwrap();
    assert_eq!(prompts(&session).await, ["fake: say one"]);
    bed.home.file("workspace/else.jsonl", "");
    let beside = bed.home.path("workspace/else.jsonl").display().to_string();
    let dotted = sessions[0].replace("/sessions/", "/sessions/../sessions/");
    for path in ["/etc/passwd", "/nowhere.jsonl", &beside, &dotted, ""] {
        assert_eq!(
            refused(switch(&session, path).await).code,
            FaultCode::NotFound,
            "{path}"
        );
    }
    assert_eq!(prompts(&session).await, ["fake: say one"]);
    watch.prompt(&session, "fake: say three").await;
    assert_eq!(prompts(&session).await, ["fake: say one", "fake: say three"]);
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pi_branches_off_an_earlier_prompt() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "fake: say one").await;
    watch.prompt(&session, "fake: say two").await;
    let answer = asked(&session, Command::GetForkPoints(GetForkPoints {})).await;
    let entry_id = answer["messages"][1]["entryId"].as_str().unwrap().to_owned();
    let forked = asked(&session, Command::Fork(Fork { entry_id })).await;
    assert_eq!(forked["text"], "fake: say two");
    watch.prompt(&session, "fake: say other").await;
    assert_eq!(prompts(&session).await, ["fake: say one", "fake: say other"]);
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_at_a_time_goes_on_with_a_session_of_pis() {
    let mut bed = PiBed::new().await;
    let path = a_shared_file(&bed).await;
    let linked = bed.home.path("workspace/link.jsonl");
    std::os::unix::fs::symlink(&path, &linked).unwrap();
    let (path, linked) = (path.display().to_string(), linked.display().to_string());
    // Two at once: neither sees the other before it asks.
    let (one, two) = tokio::join!(
        bed.runner.create(going_on_with(&bed, &path)),
        bed.runner.create(going_on_with(&bed, &linked)),
    );
    let (session, fault) = match (one, two) {
        (Ok(session), refusal) | (refusal, Ok(session)) => (session, refused(refusal)),
        other => panic!("{other:?}"),
    };
    assert_eq!(fault.code, FaultCode::Busy);
    assert!(fault.message.contains(session.id().as_str()), "{}", fault.message);
    assert_eq!(prompts(&session).await, ["fake: say kept"]);

    // The next runner knows it too.
    bed.home.kill_runner();
    bed.runner = bed.control.local().await.unwrap();
    let fault = refused(bed.runner.create(going_on_with(&bed, &path)).await);
    assert_eq!(fault.code, FaultCode::Busy);
    assert!(fault.message.contains(session.id().as_str()), "{}", fault.message);

    // What has ended has nothing.
    let session = bed.runner.session(session.id().clone());
    let mut watch = Watch::new(session.events().await.unwrap());
    session.close().await.unwrap();
    watch.closed().await;
    wait_until("the harness to be gone", || {
        bed.home.agents().is_empty().then_some(())
    });
    let next = bed.runner.create(going_on_with(&bed, &linked)).await.unwrap();
    assert_eq!(prompts(&next).await, ["fake: say kept"]);
    next.close().await.unwrap();
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_pis_is_gone_on_with_by_its_id_and_that_of_nobody_is_told_in_pis_words() {
    let bed = PiBed::new().await;
    // Where each of ours finds it: else each has its own.
    let kept = bed.home.directory("workspace/kept");
    let settings = serde_json::json!({ "sessionDir": kept });
    bed.home
        .file("harness-config/settings.json", &settings.to_string());
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "fake: say kept").await;
    session.close().await.unwrap();
    watch.closed().await;
    let file = std::fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
    let (_, id) = file
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .split_once('_')
        .unwrap();

    let next = bed.runner.create(going_on_with(&bed, id)).await.unwrap();
    let mut watch = Watch::new(next.events().await.unwrap());
    assert_eq!(prompts(&next).await, ["fake: say kept"]);
    // By whatever name: it is the same.
    for name in [id, &id[..id.len() - 1], file.to_str().unwrap()] {
        let fault = refused(bed.runner.create(going_on_with(&bed, name)).await);
        assert_eq!(fault.code, FaultCode::Busy, "{name}");
    }
    watch.prompt(&next, "fake: say more").await;
    let pi = wait_until("pi", || {
        let is_pi =
            |process: &Process| process.words.contains("--mode rpc") && process.words.contains("node");
        bed.home.agents().into_iter().find(is_pi)
    });
    signal(pi.pid, Signal::SIGKILL);
    watch
        .until("recovery", |event| matches!(event, Event::Recovered(_)))
        .await;
    watch
        .until("idle agent", |event| matches!(event, Event::AgentIdle(_)))
        .await;
    assert_eq!(prompts(&next).await, ["fake: say kept", "fake: say more"]);
    next.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();

    let nobody = bed.runner.create(going_on_with(&bed, "nobody")).await.unwrap();
    let mut watch = Watch::new(nobody.events().await.unwrap());
    watch.closed().await;
    let errors = watch.errors();
    assert!(
        errors.len() == 1 && errors[0].error.contains("No session found matching 'nobody'"),
        "{errors:?}"
    );
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pis_work_at_once_and_know_nothing_of_each_other() {
    let bed = PiBed::new().await;
    let (one, two) = tokio::join!(bed.session(), bed.session());
    let ((one, mut first), (two, mut second)) = (one, two);
    // Each waits for the other in the middle of its work.
    let meet = |mine: &str, other: &str| {
        format!("run touch {mine}; until test -e {other}; do sleep 0.02; done; echo this is {mine}")
    };
    tokio::join!(
        first.prompt(&one, meet("one", "two")),
        second.prompt(&two, meet("two", "one")),
    );
    assert!(first.answer().contains("this is one"), "{}", first.answer());
    assert!(second.answer().contains("this is two"), "{}", second.answer());
    bed.end(one, &mut first).await;
    bed.end(two, &mut second).await;
    bed.close().await;
}
