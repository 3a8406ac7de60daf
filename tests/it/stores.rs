//! Event logs are open while somebody uses them: what sessions that are over or asleep cost, and that nothing is different
//! for who reads them.

use std::fs;

use oqto_control::{Event, Runner, Session, SessionConfig};
use oqto_protocol::cursor::Cursor;
use oqto_protocol::session::SessionState;
use oqto_tests::{Home, Process, wait_until};

use crate::pi_bed::PiBed;
use crate::watch::Watch;

/// How many sessions there are, each in a workspace of its own.
const SESSIONS: usize = 50;

/// How many event logs may be open at once that nobody uses, and the one that is looked at.
const OPEN_MAX: usize = 17;

/// How many event logs a runner has open: each has a thread that writes.
fn open(home: &Home) -> usize {
    let tasks = format!("/proc/{}/task", home.runner_pid().unwrap());
    let names = fs::read_dir(tasks).unwrap();
    let names = names.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "log-write").count()
}

/// Waits until as many are open: a thread begins with the name of the one that made it, and ends after its log is closed.
fn until_open(home: &Home, count: usize) {
    wait_until(&format!("{count} event logs to be open"), || {
        (open(home) == count).then_some(())
    });
}

async fn said(home: &Home, runner: &Runner, at: usize) -> Session {
    let config = SessionConfig {
        harness: "exec".to_owned(),
        cwd: Some(home.directory(&format!("workspaces/{at}")).display().to_string()),
        ..SessionConfig::default()
    };
    let session = runner.create(config).await.unwrap();
    let mut watch = Watch::new(session.events_from(Cursor::default()).await.unwrap());
    session.prompt(format!("echo this is {at}")).await.unwrap();
    watch.rest().await;
    session.close().await.unwrap();
    watch.closed().await;
    session
}

/// That all of a session is there.
async fn is_whole(session: &Session, at: usize) {
    let mut watch = Watch::new(session.events_from(Cursor::default()).await.unwrap());
    watch.closed().await;
    watch.is_sound();
    let text = format!("{:?}", watch.seen);
    assert!(text.contains(&format!("this is {at}")), "{text}");
    let messages = session.messages(None, None).await.unwrap();
    assert_eq!(messages.messages, watch.messages());
    assert_eq!(session.state().await.unwrap().info.state, SessionState::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_over_keep_no_event_log_open_and_can_all_be_read() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let mut sessions = Vec::new();
    for at in 0..SESSIONS {
        sessions.push(said(&home, &runner, at).await);
        assert!(open(&home) <= OPEN_MAX, "{}", open(&home));
    }
    until_open(&home, 0);
    let listed = runner.sessions().await.unwrap();
    assert_eq!(listed.len(), SESSIONS);
    assert!(listed.iter().all(|session| session.state == SessionState::Closed
        && session.message_count > 0
        && session.cursor.seq > 0));
    assert_eq!(open(&home), 0);
    for (at, session) in sessions.iter().enumerate() {
        is_whole(session, at).await;
        assert!(open(&home) <= OPEN_MAX, "{}", open(&home));
    }
    assert_eq!(home.stop(), []);

    let runner = control.local().await.unwrap();
    assert_eq!(runner.sessions().await.unwrap(), listed);
    runner.status().await.unwrap();
    assert_eq!(open(&home), 0, "a runner that begins opens none");
    let session = runner.session(sessions[7].id().clone());
    is_whole(&session, 7).await;
    until_open(&home, 1);
    // What nobody has open is deleted all the same.
    for session in &listed {
        runner.session(session.session_id.clone()).delete().await.unwrap();
    }
    assert_eq!(runner.sessions().await.unwrap(), []);
    control.close().await;
    tokio::task::spawn_blocking(move || home.no_sessions())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_sleeps_keeps_no_event_log_open_and_goes_on_where_it_was() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    session.prompt("say hello").await.unwrap();
    watch.rest().await;
    // Whoever follows would have it woken.
    drop(watch);
    assert_eq!(bed.home.stop(), []);

    let runner = bed.control.local().await.unwrap();
    let listed = runner.sessions().await.unwrap();
    assert_eq!(listed[0].state, SessionState::Dormant);
    assert_eq!(open(&bed.home), 0, "a runner that begins opens none");
    let session = runner.session(session.id().clone());
    // Who reads finds all of it, also after it was let go again; who follows keeps it.
    for _ in 0..2 {
        let state = session.state().await.unwrap();
        assert_eq!(state.info, listed[0]);
        until_open(&bed.home, 1);
        until_open(&bed.home, 0);
    }
    let mut watch = Watch::new(session.events_from(Cursor::default()).await.unwrap());
    watch
        .until("sleep", |event| matches!(event, Event::SessionDormant(_)))
        .await;
    said(&bed.home, &runner, 0).await;
    // The one that is followed stays.
    until_open(&bed.home, 1);
    session.restart().await.unwrap();
    watch
        .until("idle agent", |event| matches!(event, Event::AgentIdle(_)))
        .await;
    session.prompt("run echo after").await.unwrap();
    watch.rest().await;
    // Killed while more was said than what is noted of its rest.
    let killed = Process {
        pid: bed.home.runner_pid().unwrap(),
        words: String::new(),
    };
    killed.kill();
    wait_until("the runner to die", || (!killed.lives()).then_some(()));
    let runner = bed.control.local().await.unwrap();
    let listed = runner.sessions().await.unwrap();
    assert_eq!(listed[0].state, SessionState::Idle);
    let session = runner.session(session.id().clone());
    bed.end(session, &mut watch).await;
    bed.close().await;
}
