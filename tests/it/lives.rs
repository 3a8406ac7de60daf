//! What sessions survive, and what of them is left: runners that die, tapes that are damaged, peers that ask too much.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oqto_control::{CommandError, Event, Runner, Session, SessionConfig};
use oqto_protocol::command::{Command, GetStats, SessionClose, SessionCreate, SetSessionName};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::id::{CommandId, SessionId};
use oqto_protocol::reply::ReplyData;
use oqto_protocol::session::SessionState;
use oqto_tests::{Home, wait_until};

/// A pi that says it is there and begins every prompt, and answers nothing else. What it was told is in `heard`.
const MUTE_PI: &str = r#"#!/usr/bin/python3
import json, sys
heard = open("heard", "a")
def say(**words):
    print(json.dumps(words), flush=True)
for line in sys.stdin:
    heard.write(line)
    heard.flush()
    said = json.loads(line)
    if said["type"] == "get_state":
        say(type="response", id=said.get("id"), command="get_state", success=True, data={})
    if said["type"] == "prompt":
        say(type="response", id=said.get("id"), command="prompt", success=True)
        say(type="agent_start")
    if said["type"] == "set_session_name":
        say(type="response", id=said.get("id"), command="set_session_name", success=True)
"#;

fn exec(home: &Home) -> SessionConfig {
    SessionConfig {
        harness: "exec".to_owned(),
        cwd: Some(home.workspace().display().to_string()),
        ..SessionConfig::default()
    }
}

async fn mute_pi(home: &Home, runner: &Runner) -> Session {
    let config = SessionConfig {
        harness: "pi".to_owned(),
        policy: Some("open-net".to_owned()),
        ..exec(home)
    };
    let session = runner.create(config).await.unwrap();
    until(&session, SessionState::Idle).await;
    session
}

async fn until(session: &Session, wanted: SessionState) {
    for _ in 0..3000 {
        if session.state().await.unwrap().info.state == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the session did not become {wanted}");
}

fn session_dir(home: &Home, id: &SessionId) -> PathBuf {
    home.state().join("sessions").join(id.as_str())
}

fn code(error: &CommandError) -> FaultCode {
    match error {
        CommandError::Refused { source, .. } => source.0.code,
        other => panic!("{other:?}"),
    }
}

fn create(home: &Home) -> Command {
    Command::SessionCreate(SessionCreate {
        config: Box::new(exec(home)),
    })
}

#[tokio::test]
async fn a_command_that_no_tape_takes_is_refused_and_costs_nothing_else() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(exec(&home)).await.unwrap();
    let before = home.runner_pid();
    // The one is too long for the tape, the other becomes so when it is said to the harness.
    for message in ["x".repeat(20 << 20), "\u{1}".repeat(6 << 20)] {
        let refused = session.prompt(message).await.unwrap_err();
        assert_eq!(code(&refused), FaultCode::Limit, "{refused:?}");
    }
    session.prompt("true").await.unwrap();
    until(&session, SessionState::Idle).await;
    assert_eq!(home.runner_pid(), before);
    session.close().await.unwrap();
    control.close().await;
}

#[tokio::test]
async fn what_a_runner_left_half_made_is_removed_and_what_cannot_be_read_is_kept() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let [half, bare, damaged]: [SessionId; 3] = ["half", "bare", "damaged"].map(|name| name.parse().unwrap());
    runner.command(&bare, create(&home)).await.unwrap();
    runner.session(bare.clone()).close().await.unwrap();
    home.no_agents();
    fs::create_dir_all(session_dir(&home, &half).join("home")).unwrap();
    // As if it died before its shim had begun: an order that nobody took, and no tape.
    let shim = session_dir(&home, &bare).join("shim");
    wait_until("the shim to go", || (!shim.exists()).then_some(()));
    fs::create_dir_all(shim.join("0")).unwrap();
    fs::write(shim.join("0/launch.json"), "secret").unwrap();
    fs::create_dir(session_dir(&home, &damaged)).unwrap();
    fs::write(session_dir(&home, &damaged).join("session.json"), "{").unwrap();
    home.kill_runner();
    let runner = control.local().await.unwrap();
    assert!(!session_dir(&home, &half).exists());
    assert!(!shim.exists());
    runner.command(&half, create(&home)).await.unwrap();
    runner.session(half).close().await.unwrap();
    let refused = runner.command(&damaged, create(&home)).await.unwrap_err();
    assert_eq!(code(&refused), FaultCode::Exists, "{refused:?}");
    assert!(session_dir(&home, &damaged).join("session.json").exists());
    // It is in no list, so a human is told, and the log of a runner in the background begins with its start.
    let notes = runner.status().await.unwrap().notes;
    let said = |text: &str| text.contains("session damaged is left alone") && text.contains("session.json");
    assert!(notes.iter().any(|note| said(note)), "{notes:?}");
    let log = fs::read_to_string(home.state().join("runner.log")).unwrap();
    assert!(log.contains("session left alone"), "{log}");
    control.close().await;
}

#[tokio::test]
async fn a_damaged_tape_ends_its_session_aloud_and_leaves_nothing_running() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(exec(&home)).await.unwrap();
    session.prompt("sleep 1000").await.unwrap();
    let tape = session_dir(&home, session.id()).join("shim/0/tape");
    let zeros = vec![0; fs::read(&tape).unwrap().len()];
    let mut tape = fs::File::options().write(true).open(tape).unwrap();
    tape.write_all(&zeros).unwrap();
    home.kill_runner();
    let runner = control.local().await.unwrap();
    let mut events = runner.session(session.id().clone()).events().await.unwrap();
    let mut last = None;
    while let Some(envelope) = events.next().await {
        last = Some(envelope.unwrap().event);
    }
    assert!(
        matches!(&last, Some(Event::SessionClosed(closed)) if closed.reason.as_ref().unwrap().contains("tape"))
    );
    home.no_agents();
    control.close().await;
}

#[tokio::test]
async fn a_prompt_is_said_once_however_much_was_said_after_it() {
    let home = Home::new();
    home.configure_pi(&home.program("pi/pi", MUTE_PI));
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = mute_pi(&home, &runner).await;
    session.prompt("once").await.unwrap();
    // Many at once, which share their ways to the disk.
    let naming = (0..32).map(|first| {
        let (runner, id) = (runner.clone(), session.id().clone());
        async move {
            for n in (first..1100).step_by(32) {
                let name = Command::SetSessionName(SetSessionName { name: n.to_string() });
                runner.command(&id, name).await.unwrap();
            }
        }
    });
    naming.collect::<tokio::task::JoinSet<_>>().join_all().await;
    home.kill_runner();
    let runner = control.local().await.unwrap();
    let session = runner.session(session.id().clone());
    session.steer("now").await.unwrap();
    let heard = fs::read_to_string(home.workspace().join("heard")).unwrap();
    assert_eq!(heard.matches("\"once\"").count(), 1, "{}", heard.lines().count());
    session.close().await.unwrap();
    control.close().await;
}

#[tokio::test]
async fn a_harness_that_answers_nothing_can_still_be_closed() {
    let home = Home::new();
    home.configure_pi(&home.program("pi/pi", MUTE_PI));
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = mute_pi(&home, &runner).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (runner, id) = (runner.clone(), session.id().clone());
        waiting.spawn(async move { runner.command(&id, Command::GetStats(GetStats {})).await });
    }
    // Those past the bound are told so at once.
    let refused = waiting.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(code(&refused), FaultCode::Busy, "{refused:?}");
    let close = runner.command(session.id(), Command::SessionClose(SessionClose {}));
    // Before those that wait are told that the harness does not answer.
    tokio::time::timeout(Duration::from_secs(25), close)
        .await
        .unwrap()
        .unwrap();
    home.no_agents();
    control.close().await;
}

#[tokio::test]
async fn a_session_that_is_deleted_twice_at_once_is_gone_and_its_name_is_free() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(exec(&home)).await.unwrap();
    let (one, two) = tokio::join!(session.delete(), session.delete());
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert!(!Path::new(&session_dir(&home, session.id())).exists());
    runner.command(session.id(), create(&home)).await.unwrap();
    session.close().await.unwrap();
    control.close().await;
}

#[tokio::test]
async fn a_session_that_is_deleted_while_it_is_made_is_refused_or_gone_and_never_half_there() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    for n in 0..5 {
        let id: SessionId = format!("race-{n}").parse().unwrap();
        let session = runner.session(id.clone());
        let (made, deleted) = tokio::join!(runner.command(&id, create(&home)), async {
            tokio::time::sleep(Duration::from_millis(20 * n)).await;
            session.delete().await
        });
        made.unwrap();
        match deleted {
            Ok(()) => assert!(!session_dir(&home, &id).exists()),
            Err(error) => {
                assert!(
                    matches!(code(&error), FaultCode::Busy | FaultCode::NotFound),
                    "{error:?}"
                );
                session.delete().await.unwrap();
            }
        }
    }
    home.no_sessions();
    control.close().await;
}

#[tokio::test]
async fn closing_what_is_closed_is_done() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(exec(&home)).await.unwrap();
    let (one, two, three) = tokio::join!(session.close(), session.close(), session.close());
    for closed in [one, two, three] {
        closed.unwrap();
    }
    home.no_agents();
    session.close().await.unwrap();
    control.close().await;
}

#[tokio::test]
async fn what_was_said_in_a_session_that_is_over_is_counted_by_the_next_runner_too() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(exec(&home)).await.unwrap();
    session.prompt("echo hello").await.unwrap();
    until(&session, SessionState::Idle).await;
    session.close().await.unwrap();
    home.no_agents();
    let before = runner.sessions().await.unwrap();
    assert!(before[0].message_count > 0);
    home.kill_runner();
    let runner = control.local().await.unwrap();
    assert_eq!(
        runner.sessions().await.unwrap()[0].message_count,
        before[0].message_count
    );
    control.close().await;
}

#[tokio::test]
async fn more_than_half_of_all_places_can_be_taken() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let mut others = Vec::new();
    for _ in 0..40 {
        others.push(control.connect(runner.addr()).await.unwrap());
    }
    for other in &others {
        assert_eq!(other.status().await.unwrap().sessions, 0);
    }
    control.close().await;
}

/// Holds a runner's state as one that was killed while a thread of it waits for the disk: dead to whoever looks, with the
/// lock in its hand.
const HALF_DEAD: &str = r#"
import ctypes, fcntl, json, os, platform, sys, threading, time
state = sys.argv[1]
lock = open(state + "/lock")
fcntl.flock(lock, fcntl.LOCK_EX)
with open(state + "/runner.json") as file:
    said = json.load(file)
said["pid"] = os.getpid()
with open(state + "/runner.json", "w") as file:
    json.dump(said, file)
def last():
    time.sleep(3)
    os._exit(0)
threading.Thread(target=last).start()
exit_thread = {"x86_64": 60}.get(platform.machine(), 93)
ctypes.CDLL(None).syscall(exit_thread, 0)
"#;

#[tokio::test]
async fn a_runner_of_which_a_last_thread_is_not_dead_yet_is_waited_for() {
    let home = Home::new();
    let control = home.control();
    control.local().await.unwrap();
    home.kill_runner();
    let mut dying = std::process::Command::new("python3")
        .args(["-c", HALF_DEAD])
        .arg(home.state())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", dying.id());
    wait_until("its first thread to die", || {
        let status = fs::read_to_string(&status).unwrap();
        status.contains("\nState:\tZ").then_some(())
    });
    let runner = control.local().await.unwrap();
    assert_eq!(runner.status().await.unwrap().sessions, 0);
    assert!(dying.wait().unwrap().success());
    control.close().await;
}

/// Makes every event log of a home one whose host lost its power, and with it all but the first batch.
const LOSE_POWER: &str = r#"
import glob, sqlite3, sys
for path in glob.glob(sys.argv[1] + "/events/*/events.sqlite"):
    log = sqlite3.connect(path)
    log.execute("DELETE FROM batches WHERE last_seq > (SELECT min(last_seq) FROM batches)")
    log.execute("UPDATE store SET clean = 0, boot_id = 'before'")
    log.commit()
"#;

#[tokio::test]
async fn who_saw_events_that_the_host_lost_is_told_and_goes_on() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(exec(&home)).await.unwrap();
    session.prompt("true").await.unwrap();
    until(&session, SessionState::Idle).await;
    session.close().await.unwrap();
    home.no_agents();
    let seen = runner.sessions().await.unwrap()[0].cursor;
    assert!(home.stop().is_empty());
    let state = home.state();
    let lost = std::process::Command::new("python3")
        .args(["-c", LOSE_POWER])
        .arg(&state)
        .status();
    assert!(lost.unwrap().success());
    let runner = control.local().await.unwrap();
    let session = runner.session(session.id().clone());
    let mut events = session.events_from(seen).await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    let Event::StreamReset(reset) = first.event else {
        panic!("{first:?}")
    };
    assert_eq!(reset.epoch, seen.epoch + 1);
    assert!(reset.seq < seen.seq, "{reset:?} {seen:?}");
    assert_eq!(events.cursor().seq, reset.seq);
    assert!(events.next().await.is_none());
    control.close().await;
}

#[tokio::test]
async fn a_session_that_one_command_asks_for_several_times_is_made_once_and_each_is_told_so() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session: SessionId = "once".parse().unwrap();
    // As when the link is lost while it is made and the command is sent again.
    let ask = || runner.command_as(CommandId([7; 16]), &session, create(&home));
    let (first, second, third) = tokio::join!(ask(), ask(), ask());
    // What it is doing when each is answered is not the same.
    let made = [first, second, third].map(|answer| match answer.unwrap() {
        Some(ReplyData::Created(created)) => (created.session.session_id, created.session.created_at),
        other => panic!("{other:?}"),
    });
    assert_eq!((&made[1], &made[2]), (&made[0], &made[0]));
    assert_eq!(made[0].0, session);
    let other = runner.command(&session, create(&home)).await.unwrap_err();
    assert_eq!(code(&other), FaultCode::Exists, "{other:?}");
    runner.session(session).close().await.unwrap();
    control.close().await;
}
