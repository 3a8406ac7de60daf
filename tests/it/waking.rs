//! What keeps a session asleep, what it says of that, and what wakes it: a pi of a few lines, which dies, is missing, or
//! is not what it was allowed to be.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use oqto_control::{CommandError, Control, Event, Runner, Session, SessionConfig};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::session::SessionState;
use oqto_tests::{Home, Process, end, signal, wait_until};

use crate::watch::Watch;

/// Says how it was started, and takes commands; it dies at once where its workspace has a file `broken`.
const PI: &str = r#"#!/usr/bin/python3
import json, os, sys
with open("starts", "a") as starts:
    print(os.environ.get("GREETING", "none"), *sys.argv, file=starts)
if os.path.exists("broken"):
    sys.exit("it is broken")
for line in sys.stdin:
    said = json.loads(line)
    data = {"sessionFile": os.path.expanduser("~/own.jsonl")} if said["type"] == "get_state" else {}
    print(json.dumps({"type": "response", "id": said.get("id"), "command": said["type"], "success": True, "data": data}), flush=True)
"#;

/// The policy of the sessions here.
const MINE: &str = "description = \"mine\"\nextends = \"open-net\"\n[env]\npass = [\"GREETING\"]\n";

struct Bed {
    control: Control,
    runner: Runner,
    home: Home,
}

impl Bed {
    async fn new() -> Self {
        let home = Home::new();
        let program = home.program("pi/pi", PI);
        let policies = home.path("policies");
        fs::create_dir(&policies).unwrap();
        fs::set_permissions(&policies, Permissions::from_mode(0o755)).unwrap();
        home.configure(&format!(
            "policy_dir = {policies:?}\n[harness.pi]\nprogram = {program:?}\nconfig_dir = {:?}\n",
            home.path("harness-config")
        ));
        let control = home.control();
        let bed = Self {
            runner: control.local().await.unwrap(),
            control,
            home,
        };
        bed.allow(MINE);
        bed
    }

    fn policy(&self) -> PathBuf {
        self.home.path("policies/mine.toml")
    }

    fn allow(&self, text: &str) {
        fs::write(self.policy(), text).unwrap();
        fs::set_permissions(self.policy(), Permissions::from_mode(0o644)).unwrap();
    }

    async fn session(&self, env: &[(&str, &str)]) -> (Session, Watch) {
        let config = SessionConfig {
            harness: "pi".to_owned(),
            cwd: Some(self.home.workspace().display().to_string()),
            policy: Some("mine".to_owned()),
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).into()))
                .collect(),
            ..SessionConfig::default()
        };
        let session = self.runner.create(config).await.unwrap();
        let watch = Watch::new(session.events().await.unwrap());
        let idle = async {
            while state(&session).await != SessionState::Idle {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), idle).await.unwrap();
        (session, watch)
    }

    fn pi(&self) -> Process {
        wait_until("pi", || {
            let is_pi =
                |process: &Process| process.words.contains("python3") && process.words.contains("pi/pi");
            self.home.agents().into_iter().rev().find(is_pi)
        })
    }

    fn kill_pi(&self) {
        let pi = self.pi();
        signal(pi.pid, Signal::SIGKILL);
        wait_until("pi to die", || (!pi.lives()).then_some(()));
    }

    async fn next_runner(&mut self, session: &Session) -> Session {
        self.home.kill_runner();
        self.runner = self.control.local().await.unwrap();
        self.runner.session(session.id().clone())
    }

    /// How pi was started, each time.
    fn starts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.home.path("workspace/starts")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    async fn close(self) {
        self.control.close().await;
        tokio::task::spawn_blocking(move || drop(self.home))
            .await
            .unwrap();
    }
}

async fn refused(session: &Session) -> Fault {
    match session.restart().await {
        Err(CommandError::Refused { source, .. }) => source.0,
        other => panic!("{other:?}"),
    }
}

async fn state(session: &Session) -> SessionState {
    session.state().await.unwrap().info.state
}

async fn wakes(session: &Session, watch: &mut Watch) {
    session.restart().await.unwrap();
    watch
        .until("recovery", |event| matches!(event, Event::Recovered(_)))
        .await;
    assert_eq!(state(session).await, SessionState::Idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_harness_that_dies_at_once_every_time_sleeps_in_the_end_and_wakes_when_it_is_mended() {
    let bed = Bed::new().await;
    let (session, mut watch) = bed.session(&[]).await;
    let broken = bed.home.file("workspace/broken", "");
    bed.kill_pi();
    for _ in 0..6 {
        let is_error = |event: &Event| matches!(event, Event::AgentError(_));
        let event = watch.until("error", is_error).await;
        assert!(
            matches!(&event, Event::AgentError(error) if error.recoverable),
            "{event:?}"
        );
    }
    let reason = watch.asleep().await;
    assert!(
        reason.contains("it is broken") && reason.contains("5 times"),
        "{reason}"
    );
    assert_eq!(state(&session).await, SessionState::Dormant);
    assert_eq!(bed.starts().len(), 6);
    bed.home.no_agents();
    fs::remove_file(broken).unwrap();
    wakes(&session, &mut watch).await;
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_sandbox_or_program_is_gone_sleeps_and_says_so_rather_than_come_back_otherwise() {
    let bed = Bed::new().await;
    let (session, mut watch) = bed.session(&[]).await;
    fs::remove_file(bed.policy()).unwrap();
    bed.kill_pi();
    let reason = watch.asleep().await;
    assert!(reason.contains("no policy mine"), "{reason}");
    let fault = refused(&session).await;
    assert!(fault.message.contains("no policy mine"), "{fault:?}");
    assert_eq!(state(&session).await, SessionState::Dormant);

    bed.allow("description = \"mine\"\nextends = \"nothing-that-is\"\n");
    let fault = refused(&session).await;
    assert_eq!(fault.code, FaultCode::Policy, "{fault:?}");

    bed.allow(MINE);
    let (program, away) = (bed.home.path("pi/pi"), bed.home.path("pi/away"));
    fs::rename(&program, &away).unwrap();
    let fault = refused(&session).await;
    assert_eq!(fault.code, FaultCode::NotFound, "{fault:?}");
    assert_eq!(state(&session).await, SessionState::Dormant);
    assert_eq!(bed.starts().len(), 1, "it ran");
    bed.home.no_agents();

    fs::rename(&away, &program).unwrap();
    wakes(&session, &mut watch).await;
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_variables_that_the_next_runner_does_not_know_asks_for_them() {
    let mut bed = Bed::new().await;
    let (session, _) = bed.session(&[("GREETING", "hush")]).await;
    let session = bed.next_runner(&session).await;
    let mut watch = Watch::new(session.events().await.unwrap());
    // What lives is not ended for a start that cannot be.
    let fault = refused(&session).await;
    assert_eq!(fault.code, FaultCode::Invalid);
    assert!(fault.message.contains("GREETING"), "{fault:?}");
    assert_eq!(state(&session).await, SessionState::Idle);

    bed.kill_pi();
    let reason = watch.asleep().await;
    assert!(
        reason.contains("GREETING") && reason.contains("session.restart"),
        "{reason}"
    );
    assert!(refused(&session).await.message.contains("GREETING"));
    let restart = ["restart", session.id().as_str(), "--env", "GREETING"];
    bed.home
        .run(&restart)
        .failed(125, &["cannot take the variable GREETING"]);
    assert_eq!(
        end(bed.home.ctl(&restart).env("GREETING", "hello")).code,
        0,
        "woken"
    );
    assert_eq!(state(&session).await, SessionState::Idle);
    let starts = bed.starts();
    assert!(
        starts.len() == 2 && starts[0].starts_with("hush ") && starts[1].starts_with("hello "),
        "{starts:?}"
    );
    // From here on this runner knows them.
    bed.kill_pi();
    watch
        .until(
            "the second recovery",
            |event| matches!(event, Event::Recovered(recovered) if !recovered.how.contains("request")),
        )
        .await;
    assert!(bed.starts()[2].starts_with("hello "));
    session.close().await.unwrap();
    watch.closed().await;
    for kept in [bed.home.state(), bed.home.path("data")] {
        let found = std::process::Command::new("grep")
            .args(["-rlE", "hush|hello"])
            .arg(kept)
            .output()
            .unwrap();
        assert!(found.stdout.is_empty(), "{found:?}");
    }
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_event_log_is_lost_goes_on_with_its_harnesss_own_memory() {
    let mut bed = Bed::new().await;
    let (over, mut watch) = bed.session(&[]).await;
    over.close().await.unwrap();
    watch.closed().await;
    let (session, mut watch) = bed.session(&[]).await;
    bed.kill_pi();
    watch
        .until("recovery", |event| matches!(event, Event::Recovered(_)))
        .await;
    let sessions = bed.home.state().join("sessions");
    let aside = sessions.join(session.id().as_str()).join("shim.damaged");
    fs::create_dir_all(aside.join("1")).unwrap();
    fs::write(aside.join("1/tape"), "of before").unwrap();
    bed.home.kill_runner();
    let log = fs::read_dir(bed.home.state().join("events")).unwrap().next();
    fs::write(
        log.unwrap().unwrap().path().join("events.sqlite"),
        vec![b'?'; 65536],
    )
    .unwrap();

    bed.runner = bed.control.local().await.unwrap();
    let session = bed.runner.session(session.id().clone());
    let mut watch = Watch::new(session.events().await.unwrap());
    let reason = watch.asleep().await;
    assert!(
        reason.contains("damaged") && reason.contains("set aside as"),
        "{reason}"
    );
    assert!(matches!(&watch.seen[0].event, Event::AgentError(error) if error.recoverable));
    bed.home.no_agents();
    assert_eq!(fs::read_to_string(aside.join("1/tape")).unwrap(), "of before");
    assert!(aside.join("1.1/tape").exists());
    wakes(&session, &mut watch).await;
    let starts = bed.starts();
    assert!(starts.last().unwrap().contains("own.jsonl"), "{starts:?}");
    // What was over before is over.
    let over = bed.runner.session(over.id().clone());
    assert_eq!(state(&over).await, SessionState::Closed);
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
    bed.close().await;
}
