//! Sessions of which nothing runs and that can be woken, with real pi.

use oqto_control::{CommandError, Event};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::session::SessionState;
use oqto_tests::{Process, wait_until};

use crate::pi_bed::PiBed;
use crate::watch::Watch;

/// Makes every tape one that began in an earlier boot of the host.
const EARLIER_BOOT: &str = r#"
import glob, json, sqlite3, sys
for path in glob.glob(sys.argv[1] + "/events/*/events.sqlite"):
    log = sqlite3.connect(path)
    for session, mark in log.execute("SELECT session, mark FROM marks").fetchall():
        mark = json.loads(mark)
        mark["boot_id"] = "earlier"
        log.execute("UPDATE marks SET mark = ? WHERE session = ?", (json.dumps(mark).encode(), session))
    log.commit()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_told_to_stop_leaves_sessions_that_wake_with_all_they_knew() {
    let mut bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    session.prompt("say hello").await.unwrap();
    watch.rest().await;
    let left = bed.home.stop();
    assert!(
        left.iter().all(|process| !process.words.contains("oqto-runner")),
        "{left:?}"
    );
    bed.runner = bed.control.local().await.unwrap();
    let session = bed.runner.session(session.id().clone());
    let listed = bed.runner.sessions().await.unwrap();
    assert_eq!(listed[0].state, SessionState::Dormant);
    assert_eq!(bed.runner.status().await.unwrap().sessions, 0);
    let mut watch = Watch::new(session.events().await.unwrap());
    assert!(watch.asleep().await.contains("stopped"));
    let count = session.messages(None, None).await.unwrap().messages.len();
    assert!(count >= 2, "{count}");
    match session.prompt("say hello").await {
        Err(CommandError::Refused { source, .. }) => {
            assert_eq!(source.0.code, FaultCode::WrongState, "{source}");
            assert!(source.0.message.contains("session.restart"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    assert!(bed.home.agents().is_empty());
    session.restart().await.unwrap();
    assert_eq!(session.state().await.unwrap().info.state, SessionState::Idle);
    watch
        .until("recovery", |event| matches!(event, Event::Recovered(_)))
        .await;
    session.prompt("run echo after").await.unwrap();
    watch.rest().await;
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_boot_of_the_host_a_session_sleeps_until_it_is_woken_or_closed() {
    let mut bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    session.prompt("say hello").await.unwrap();
    watch.rest().await;
    bed.home.kill_runner();
    for shim in bed.home.agents() {
        shim.kill();
    }
    wait_until("everything to die", || bed.home.agents().is_empty().then_some(()));
    let patched = std::process::Command::new("python3")
        .args(["-c", EARLIER_BOOT])
        .arg(bed.home.state())
        .status();
    assert!(patched.unwrap().success());
    bed.runner = bed.control.local().await.unwrap();
    let session = bed.runner.session(session.id().clone());
    let mut watch = Watch::new(session.events().await.unwrap());
    assert!(watch.asleep().await.contains("host was started again"));
    // It sleeps on, whoever looks after it.
    bed.home.kill_runner();
    bed.runner = bed.control.local().await.unwrap();
    let session = bed.runner.session(session.id().clone());
    let state = session.state().await.unwrap().info.state;
    assert_eq!(state, SessionState::Dormant);
    session.close().await.unwrap();
    let mut watch = Watch::new(session.events().await.unwrap());
    watch.closed().await;
    watch.is_sound();
    let listed = bed.runner.sessions().await.unwrap();
    assert_eq!(listed[0].state, SessionState::Closed);
    match session.restart().await {
        Err(CommandError::Refused { source, .. }) => {
            assert_eq!(source.0.code, FaultCode::WrongState, "{source}");
        }
        other => panic!("a closed session was woken: {other:?}"),
    }
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_dies_anywhere_in_a_recovery_finds_its_way() {
    let mut bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    session.prompt("say hello").await.unwrap();
    watch.rest().await;
    let id = session.id().clone();
    for wait_ms in [0, 100, 250, 400, 700, 1500] {
        let harness = wait_until("pi", || {
            let is_pi = |process: &Process| process.words.contains("--mode rpc");
            bed.home.agents().into_iter().rev().find(is_pi)
        });
        harness.kill();
        tokio::time::sleep(std::time::Duration::from_millis(wait_ms)).await;
        bed.home.kill_runner();
        bed.runner = bed.control.local().await.unwrap();
        let session = bed.runner.session(id.clone());
        let idle = async {
            while session.state().await.unwrap().info.state != SessionState::Idle {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(90), idle)
            .await
            .unwrap();
        // Each round is one death and no more, so that it never has enough of them.
        session.restart().await.unwrap();
    }
    let session = bed.runner.session(id);
    let mut watch = Watch::new(session.events().await.unwrap());
    for _ in 0..6 {
        watch
            .until("recovery", |event| matches!(event, Event::Recovered(_)))
            .await;
    }
    session.prompt("run echo after").await.unwrap();
    watch.rest().await;
    bed.end(session, &mut watch).await;
    bed.close().await;
}
