//! How sessions do and how they end: what is told of their processes, what becomes of a harness that is silent, and of
//! one that does not go.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use oqto_control::{Control, Event, Runner, Session, SessionConfig};
use oqto_protocol::event::ProcessHealth;
use oqto_protocol::id::SessionId;
use oqto_protocol::session::SessionState;
use oqto_tests::{Home, Process, signal, wait_until};

use crate::watch::Watch;

/// How long a harness may take to be gone once it is told: to leave, to be asked by SIGTERM, to be killed; and then
/// some on a busy machine.
const GONE_MAX: Duration = Duration::from_secs(20);

/// A pi that takes every prompt and then says nothing. It stops when it is told to, and what it does about its end the
/// words say that stand where `ENDING` does.
const SILENT_PI: &str = r#"#!/usr/bin/python3
import json, os, signal, sys, time
def say(*all):
    # In one piece: what is said in two may be heard with a pause between.
    print("".join(json.dumps(words) + "\n" for words in all), end="", flush=True)
def answer(said, **more):
    return dict(type="response", id=said.get("id"), command=said["type"], success=True, **more)
def bye(*_):
    open("bye", "w")
    os._exit(0)
ENDING
for line in sys.stdin:
    said = json.loads(line)
    if said["type"] == "get_state":
        say(answer(said, data={}))
    if said["type"] == "prompt":
        say(answer(said), dict(type="agent_start"))
    if said["type"] == "abort":
        say(answer(said), dict(type="agent_end", messages=[]))
STAYING
"#;

struct Bed {
    control: Control,
    runner: Runner,
    home: Home,
}

impl Bed {
    async fn new(health: &str) -> Self {
        Self::with_pi("", "", health).await
    }

    /// A bed whose pi does this about signals, and this when its input has ended.
    async fn with_pi(ending: &str, staying: &str, health: &str) -> Self {
        let home = Home::new();
        let text = SILENT_PI.replace("ENDING", ending).replace("STAYING", staying);
        home.program("pi/pi", &text);
        configure(&home, health);
        let control = home.control();
        let runner = control.local().await.unwrap();
        Self {
            control,
            runner,
            home,
        }
    }

    async fn session(&self, harness: &str) -> (Session, Watch) {
        let config = SessionConfig {
            harness: harness.to_owned(),
            cwd: Some(self.home.workspace().display().to_string()),
            policy: (harness == "pi").then(|| "open-net".to_owned()),
            ..SessionConfig::default()
        };
        let session = self.runner.create(config).await.unwrap();
        let watch = Watch::new(session.events().await.unwrap());
        (session, watch)
    }

    /// The next word of the runner on a session's processes that is like this.
    async fn heartbeat(&self, id: &SessionId, is_it: impl Fn(&ProcessHealth) -> bool) -> ProcessHealth {
        let mut telemetry = self.runner.telemetry().await.unwrap();
        let beat = async {
            loop {
                let envelope = telemetry.recv().await.unwrap();
                assert_eq!(envelope.seq, None, "telemetry is not kept");
                match envelope.event {
                    Event::Heartbeat(beat) if envelope.session_id == *id && is_it(&beat.process) => {
                        return beat.process;
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), beat).await.unwrap()
    }

    /// Kills the runner and connects with the next one.
    async fn next_runner(&mut self) {
        let runner = self.runner_process();
        runner.kill();
        wait_until("the runner to die", || (!runner.lives()).then_some(()));
        self.runner = self.control.local().await.unwrap();
    }

    fn runner_process(&self) -> Process {
        Process {
            pid: self.home.runner_pid().unwrap(),
            words: String::new(),
        }
    }

    fn shim(&self) -> Process {
        let agents = self.home.agents();
        let is_shim = |process: &&Process| process.words.starts_with("oqto-runner shim");
        agents.iter().find(is_shim).unwrap().clone()
    }

    fn tape(&self, id: &SessionId) -> PathBuf {
        self.home
            .state()
            .join("sessions")
            .join(id.as_str())
            .join("shim/0/tape")
    }

    /// Waits until everything of every session is gone, which may take so long.
    #[track_caller]
    fn gone_since(&self, told: Instant) {
        self.home.no_agents();
        let took = told.elapsed();
        assert!(took < GONE_MAX, "it took {took:?}");
    }
}

fn configure(home: &Home, health: &str) {
    home.configure(&format!(
        "[harness.pi]\nprogram = {:?}\nconfig_dir = {:?}\n[health]\n{health}\n",
        home.path("pi/pi"),
        home.path("harness-config")
    ));
}

/// The next note whose text has these words.
async fn note(watch: &mut Watch, words: &str) -> String {
    let event = watch
        .until(
            words,
            |event| matches!(event, Event::Notify(note) if note.message.contains(words)),
        )
        .await;
    match event {
        Event::Notify(note) => note.message,
        other => panic!("{other:?}"),
    }
}

fn notes(watch: &Watch, words: &str) -> usize {
    watch.count(|event| matches!(event, Event::Notify(note) if note.message.contains(words)))
}

#[tokio::test]
async fn what_the_processes_of_a_session_use_is_told_and_not_kept() {
    let bed = Bed::new("heartbeat_s = 1").await;
    let (session, mut watch) = bed.session("exec").await;
    // What it took to start may be in the first words.
    let idle = bed
        .heartbeat(session.id(), |process| {
            process.cpu_pct.is_some_and(|pct| pct < 20.0)
        })
        .await;
    assert!(idle.alive && idle.rss_bytes.unwrap() > 100_000, "{idle:?}");
    let first = Process {
        pid: i32::try_from(idle.pid.unwrap()).unwrap(),
        words: String::new(),
    };
    let parent = fs::read_to_string(format!("/proc/{}/stat", first.pid)).unwrap();
    let parent: i32 = parent
        .rsplit_once(") ")
        .unwrap()
        .1
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(parent, bed.shim().pid);
    // What runs with nobody for a parent is the session's too.
    let busy = "setsid sh -c 'while :; do :; done' >/dev/null 2>&1 & python3 -c '\nblock = bytearray(b\"x\" * (64 << 20))\nimport time; time.sleep(1000)'";
    session.prompt(busy).await.unwrap();
    let busy = bed
        .heartbeat(session.id(), |process| {
            process.cpu_pct.is_some_and(|pct| pct > 20.0)
        })
        .await;
    let large = bed
        .heartbeat(session.id(), |process| process.rss_bytes.unwrap() > 64 << 20)
        .await;
    assert_eq!((busy.pid, large.pid), (idle.pid, idle.pid));
    assert!(busy.uptime_s >= idle.uptime_s);
    session.close().await.unwrap();
    watch.closed().await;
    assert_eq!(watch.count(|event| matches!(event, Event::Heartbeat(_))), 0);
    assert!(!first.lives());
    bed.home.no_agents();
    bed.control.close().await;
}

#[tokio::test]
async fn a_silence_is_told_once_and_nothing_is_done_about_it_by_itself() {
    let mut bed = Bed::new("silent_warn_s = 1").await;
    let (session, mut watch) = bed.session("pi").await;
    session.prompt("work").await.unwrap();
    let told = note(&mut watch, "has said nothing").await;
    assert!(told.starts_with("pi has said nothing for "), "{told}");
    let seen = |tape: &[u8]| tape.windows(8).filter(|at| at == b"\"silent\"").count();
    assert_eq!(seen(&fs::read(bed.tape(session.id())).unwrap()), 1);
    // The next runner sees the same silence, later, and the session knows it already. Had it lasted as long as before, the
    // shim would know the note.
    configure(&bed.home, "silent_warn_s = 2");
    bed.next_runner().await;
    wait_until("the next runner to see the silence", || {
        (seen(&fs::read(bed.tape(session.id())).unwrap()) == 2).then_some(())
    });
    let session = bed.runner.session(session.id().clone());
    assert_eq!(session.state().await.unwrap().info.state, SessionState::Streaming);
    session.abort().await.unwrap();
    let mut watch = Watch::new(session.events().await.unwrap());
    watch.rest().await;
    assert_eq!(notes(&watch, "has said nothing"), 1);
    session.close().await.unwrap();
    bed.home.no_agents();
    bed.control.close().await;
}

#[tokio::test]
async fn a_harness_that_waits_is_not_silent() {
    let bed = Bed::new("silent_warn_s = 1\nheartbeat_s = 1").await;
    let (session, mut watch) = bed.session("pi").await;
    // Nobody told it to do anything, for far longer than a silence is.
    for _ in 0..4 {
        bed.heartbeat(session.id(), |process| process.alive).await;
    }
    session.prompt("work").await.unwrap();
    note(&mut watch, "has said nothing").await;
    assert_eq!(notes(&watch, "has said nothing"), 1);
    let working = watch
        .seen
        .iter()
        .position(|it| matches!(it.event, Event::AgentWorking(_)));
    let silent = watch
        .seen
        .iter()
        .position(|it| matches!(it.event, Event::Notify(_)));
    assert!(working.unwrap() < silent.unwrap());
    session.close().await.unwrap();
    bed.home.no_agents();
    bed.control.close().await;
}

#[tokio::test]
async fn a_silent_harness_that_uses_its_processor_is_said_to() {
    let bed = Bed::new("heartbeat_s = 1\nsilent_warn_s = 4").await;
    let (session, mut watch) = bed.session("exec").await;
    session.prompt("while :; do :; done").await.unwrap();
    let told = note(&mut watch, "has said nothing").await;
    assert!(
        told.contains("% of a processor, so it may well be at work"),
        "{told}"
    );
    session.close().await.unwrap();
    bed.home.no_agents();
    bed.control.close().await;
}

#[tokio::test]
async fn a_silent_harness_is_told_to_stop_where_the_configuration_says_so() {
    let bed = Bed::new("silent_warn_s = 1\nsilent_act = \"abort\"\nsilent_act_s = 2").await;
    let (session, mut watch) = bed.session("pi").await;
    session.prompt("work").await.unwrap();
    note(&mut watch, "It is told to stop").await;
    watch.rest().await;
    assert_eq!(notes(&watch, "has said nothing"), 2);
    assert_eq!(session.state().await.unwrap().info.state, SessionState::Idle);
    session.close().await.unwrap();
    bed.home.no_agents();
    bed.control.close().await;
}

#[tokio::test]
async fn a_silent_harness_is_killed_where_the_configuration_says_so() {
    let bed = Bed::new("silent_warn_s = 0\nsilent_act = \"restart\"\nsilent_act_s = 1").await;
    let (session, mut watch) = bed.session("exec").await;
    session.prompt("sleep 1000").await.unwrap();
    note(&mut watch, "It is killed").await;
    // This harness has nothing that it could go on with.
    watch.closed().await;
    assert_eq!(watch.count(|event| matches!(event, Event::AgentError(_))), 1);
    assert_eq!(notes(&watch, "has said nothing"), 1);
    bed.home.no_agents();
    bed.control.close().await;
}

/// The reason for which a session was closed, told when it was over.
async fn reason(mut watch: Watch) -> String {
    watch.closed().await;
    match watch.seen.pop().unwrap().event {
        Event::SessionClosed(closed) => closed.reason.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_harness_that_stays_when_its_input_ends_is_asked_by_a_signal() {
    let (ending, staying) = ("signal.signal(signal.SIGTERM, bye)", "while True: time.sleep(1)");
    let bed = Bed::with_pi(ending, staying, "").await;
    let (session, watch) = bed.session("pi").await;
    session.prompt("work").await.unwrap();
    let told = Instant::now();
    session.close().await.unwrap();
    let reason = reason(watch).await;
    assert!(reason.starts_with("closed on request; pi "), "{reason}");
    // Only the signal makes it say so, whether or not it is gone soon enough then.
    assert!(bed.home.workspace().join("bye").exists());
    bed.gone_since(told);
    bed.control.close().await;
}

fn is_stopped(process: &Process) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid));
    status.is_ok_and(|status| status.contains("\nState:\tT (stopped)\n"))
}

#[tokio::test]
async fn a_harness_that_hears_nothing_is_killed() {
    let deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)";
    let stopped = "
signal.signal(signal.SIGTERM, bye)
if os.fork() == 0:
    while not os.path.exists('stop'): time.sleep(0.01)
    os.kill(os.getppid(), signal.SIGSTOP); os._exit(0)";
    for ending in [deaf, stopped] {
        let bed = Bed::with_pi(ending, "while True: time.sleep(1)", "").await;
        let (session, watch) = bed.session("pi").await;
        session.prompt("work").await.unwrap();
        if ending == stopped {
            bed.home.file("workspace/stop", "");
            wait_until("pi to be stopped", || {
                let agents = bed.home.agents();
                agents.iter().any(is_stopped).then_some(())
            });
        }
        let told = Instant::now();
        session.close().await.unwrap();
        let reason = reason(watch).await;
        assert!(reason.ends_with("killed since it did not go"), "{reason}");
        bed.gone_since(told);
        bed.control.close().await;
    }
}

#[tokio::test]
async fn what_a_shim_is_told_to_end_is_on_its_tape_with_a_runner() {
    let bed = Bed::new("").await;
    let (session, watch) = bed.session("exec").await;
    session
        .prompt("trap 'echo over; exit 3' TERM; echo begun; sleep 1000 & wait")
        .await
        .unwrap();
    let shim = bed.shim();
    let told = Instant::now();
    signal(shim.pid, Signal::SIGTERM);
    let reason = reason(watch).await;
    assert!(reason.starts_with("exec ended"), "{reason}");
    bed.gone_since(told);
    bed.control.close().await;
}

#[tokio::test]
async fn what_a_shim_is_told_to_end_is_told_by_the_next_runner_where_there_is_none() {
    let mut bed = Bed::new("").await;
    let (session, mut watch) = bed.session("exec").await;
    session
        .prompt("trap 'echo over; exit 3' TERM; echo begun; sleep 1000 & wait")
        .await
        .unwrap();
    let delta = |event: &Event| matches!(event, Event::ToolProgress(_) | Event::TextDelta(_));
    watch.until("the program's first words", delta).await;
    let (runner, shim) = (bed.runner_process(), bed.shim());
    runner.kill();
    wait_until("the runner to die", || (!runner.lives()).then_some(()));
    let told = Instant::now();
    signal(shim.pid, Signal::SIGTERM);
    bed.gone_since(told);
    bed.runner = bed.control.local().await.unwrap();
    let session = bed.runner.session(session.id().clone());
    let reason = reason(Watch::new(session.events().await.unwrap())).await;
    // How it ended is known, so its end is on the tape.
    let known = ["exec ended with exit code ", "exec was ended by signal "];
    assert!(known.iter().any(|known| reason.starts_with(known)), "{reason}");
    bed.control.close().await;
}

#[tokio::test]
async fn a_host_that_shuts_down_leaves_nothing_and_every_end_is_told() {
    let mut bed = Bed::with_pi(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "while True: time.sleep(1)",
        "",
    )
    .await;
    let mut ids = Vec::new();
    for harness in ["exec", "pi", "exec", "pi"] {
        let (session, _) = bed.session(harness).await;
        session.prompt("sleep 1000").await.unwrap();
        ids.push((harness, session.id().clone()));
    }
    let runner = bed.runner_process();
    let told = Instant::now();
    // To every process, and to the runner in the middle of them.
    let mut all = bed.home.agents();
    all.insert(all.len() / 2, runner.clone());
    for process in &all {
        signal(process.pid, Signal::SIGTERM);
    }
    wait_until("the runner to end", || (!runner.lives()).then_some(()));
    bed.gone_since(told);
    bed.runner = bed.control.local().await.unwrap();
    for (harness, id) in ids {
        let mut events = bed.runner.session(id.clone()).events().await.unwrap();
        if harness == "exec" {
            let mut last = None;
            while let Some(envelope) = events.next().await {
                last = Some(envelope.unwrap().event);
            }
            assert!(matches!(last, Some(Event::SessionClosed(_))), "{last:?}");
        }
    }
    bed.control.close().await;
}
