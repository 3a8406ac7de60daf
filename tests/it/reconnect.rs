//! Streams and commands outlive what carries them: a runner that is killed, replaced or started again, and the program
//! that reads.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use oqto_control::{Envelope, Event, Events, Mark, Session, Update};
use oqto_tests::{Home, Process, end, example, signal, wait_until};

/// The first port that everybody may have.
const UNPRIVILEGED: u32 = 1024;

/// Writes numbers; between two stretches it waits until it is let on.
fn stretches(count: u32) -> String {
    (0..count)
        .map(|n| {
            let (from, to) = (n * 50 + 1, n * 50 + 50);
            format!(
                "for n in $(seq {from} {to}); do echo $n; done; touch at-{n}; \
                 while ! test -e go-{n}; do sleep 0.01; done; "
            )
        })
        .chain(["exit 7".to_owned()])
        .collect()
}

fn numbers(to: u32) -> String {
    (1..=to).map(|n| format!("{n}\n")).collect()
}

/// Waits until a file is there.
fn wait_for(home: &Home, name: &str) {
    wait_until(name, || home.path("workspace").join(name).exists().then_some(()));
}

/// Kills the runner by force and waits until it is gone.
fn kill(home: &Home) -> i32 {
    let pid = home.runner_pid().expect("a runner");
    let runner = Process {
        pid,
        words: String::new(),
    };
    runner.kill();
    wait_until("the runner to die", || (!runner.lives()).then_some(()));
    pid
}

/// Waits until another runner than this one is there.
fn another(home: &Home, than: i32) {
    wait_until("another runner", || {
        home.runner_pid().filter(|pid| *pid != than).map(drop)
    });
}

/// What a program wrote, in the order of the events.
fn output(events: &[Envelope]) -> String {
    let pieces = events.iter().filter_map(|envelope| match &envelope.event {
        Event::ToolProgress(progress) => progress.partial_output.value()["stdout"]
            .as_str()
            .map(str::to_owned),
        _ => None,
    });
    pieces.collect()
}

/// That no number is missing and none comes twice.
#[track_caller]
fn assert_whole(events: &[Envelope]) {
    let mut next = 1;
    for envelope in events {
        assert_eq!(envelope.first_seq.or(envelope.seq), Some(next), "{envelope:?}");
        next = envelope.seq.unwrap() + 1;
    }
}

/// Reads until the program's run is done.
async fn until_done(events: &mut Events) -> Vec<Envelope> {
    let mut told = Vec::new();
    while !matches!(
        told.last().map(|envelope: &Envelope| &envelope.event),
        Some(Event::StreamDone(_))
    ) {
        told.push(events.next().await.expect("more events").unwrap());
    }
    told
}

#[test]
fn a_runner_that_is_killed_again_and_again_in_mid_stream_costs_oqtoctl_nothing_but_time() {
    let home = Home::new();
    let mut running = home
        .ctl(&["exec", "--local", "--", "sh", "-c", &stretches(4)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(running.stdout.take().unwrap());
    let mut said = String::new();
    for n in 0..4 {
        wait_for(&home, &format!("at-{n}"));
        // Some of it was seen by then, and some is on its way.
        shown.read_line(&mut said).unwrap();
        let killed = kill(&home);
        home.file(&format!("workspace/go-{n}"), "");
        another(&home, killed);
    }
    shown.read_to_string(&mut said).unwrap();
    let ended = running.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(7));
    assert_eq!(said, numbers(200));
    let err = String::from_utf8_lossy(&ended.stderr);
    // A busy machine may take as long to start a runner as is worth a line.
    let outage = ["the link to the runner is lost", "the runner is back after"];
    let mut others = err
        .lines()
        .filter(|line| !outage.iter().any(|words| line.contains(words)));
    assert_eq!(others.next(), None, "{err}");
    home.no_agents();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_stream_go_on_under_another_build_of_the_runner() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let mut followed = Vec::new();
    for n in 0..5 {
        let session = runner.create(home.exec()).await.unwrap();
        let events = session.events().await.unwrap();
        let script = stretches(2).replace("at-", &format!("at-{n}-"));
        session.prompt(format!("sh -c '{script}'")).await.unwrap();
        followed.push((session, events));
    }
    for n in 0..5 {
        wait_for(&home, &format!("at-{n}-0"));
    }
    // The old build still runs; who starts the next gets the new one.
    let build = fs::read_to_string(home.runner_program()).unwrap();
    let marker = home.path("another-build");
    let text = build.replace("exec ", &format!("touch {marker:?}\nexec "));
    let beside = home.program("runner.new", &text);
    fs::rename(beside, home.runner_program()).unwrap();
    kill(&home);
    for name in ["go-0", "go-1"] {
        home.file(&format!("workspace/{name}"), "");
    }
    for (session, mut events) in followed {
        let told = until_done(&mut events).await;
        assert_whole(&told);
        assert_eq!(output(&told), numbers(100));
        session.close().await.unwrap();
    }
    assert!(marker.exists(), "the new build was never started");
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waits_for_its_answer_when_the_runner_dies_is_answered_by_the_next() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(home.exec()).await.unwrap();
    session.prompt("echo once >> said; sleep 1000").await.unwrap();
    for _ in 0..5 {
        // It may be sent before, in and after the death: in each case it is answered once.
        let (told, _) = tokio::join!(
            session.state(),
            tokio::task::spawn_blocking({
                let pid = home.runner_pid().unwrap();
                move || signal(pid, Signal::SIGKILL)
            })
        );
        assert_eq!(told.unwrap().info.session_id, *session.id());
    }
    wait_for(&home, "said");
    assert_eq!(fs::read_to_string(home.path("workspace/said")).unwrap(), "once\n");
    session.close().await.unwrap();
    home.no_agents();
    control.close().await;
}

/// A runner of this home at an address that stays, started by nobody's library.
fn serve(home: &Home) -> Child {
    let mut serve = home.environment(&home.runner_program());
    serve
        .args(["serve", "--state-dir"])
        .arg(home.state())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = serve.spawn().unwrap();
    wait_until("the runner to listen", || {
        (home.runner_pid() == i32::try_from(child.id()).ok()).then_some(())
    });
    child
}

/// An address that nobody else gets while its runner is away: the kernel gives out ports of its range alone.
fn lasting_address() -> SocketAddr {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u32 = range.split_whitespace().next().unwrap().parse().unwrap();
    // Tests that run beside this one begin elsewhere.
    let own = std::process::id();
    let below = (0..first - UNPRIVILEGED).map(|n| UNPRIVILEGED + (own + n) % (first - UNPRIVILEGED));
    below
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap())))
        .find(|address| UdpSocket::bind(address).is_ok())
        .expect("a free port")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_elsewhere_that_is_started_again_tells_that_the_old_link_is_gone() {
    let home = Home::new();
    let address = lasting_address();
    home.configure(&format!("listen = \"{address}\"\n"));
    let control = home.control();
    let local = control.local().await.unwrap();
    // As one would whose runner is not on this machine.
    let runner = control.connect(local.addr()).await.unwrap();
    assert_eq!(runner.addr().address, address);
    local.close();
    let session = runner.create(home.exec()).await.unwrap();
    let mut events = session.events().await.unwrap();
    session.prompt(format!("sh -c '{}'", stretches(1))).await.unwrap();
    wait_for(&home, "at-0");
    kill(&home);
    let mut served = serve(&home);
    home.file("workspace/go-0", "");
    let back = Instant::now();
    let mut lost_after = None;
    let mut told = Vec::new();
    let mut marks = Vec::new();
    loop {
        match events.update().await.expect("more events").unwrap() {
            Update::Mark(mark) => {
                if mark == Mark::Lost {
                    lost_after.get_or_insert(back.elapsed());
                }
                marks.push(mark);
            }
            Update::Event(event) => {
                let is_end = matches!(event.event, Event::StreamDone(_));
                told.push(event);
                if is_end {
                    break;
                }
            }
        }
    }
    // By silence it would have been known after ten seconds.
    let took = lost_after.expect("the old link is gone");
    assert!(took < Duration::from_secs(9), "{took:?}: {marks:?}");
    assert_whole(&told);
    assert_eq!(output(&told), numbers(50));
    session.close().await.unwrap();
    home.no_agents();
    control.close().await;
    signal(i32::try_from(served.id()).unwrap(), Signal::SIGTERM);
    served.wait().unwrap();
}

#[test]
fn whoever_interrupts_while_the_runner_is_out_of_reach_leaves_at_once() {
    let home = Home::new();
    let running = home
        .ctl(&["exec", "--", "sh", "-c", "touch begun; sleep 1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&home, "begun");
    let build = fs::read_to_string(home.runner_program()).unwrap();
    let broken = home.program("runner.new", "#!/bin/sh\necho no library >&2\nexit 1\n");
    fs::rename(broken, home.runner_program()).unwrap();
    kill(&home);
    // It says once that it tries again, and why it does not get on.
    let mut running = running;
    let mut notes = BufReader::new(running.stderr.take().unwrap());
    let mut line = String::new();
    notes.read_line(&mut line).unwrap();
    assert!(
        line.contains("trying again") && line.contains("no library"),
        "{line}"
    );
    signal(i32::try_from(running.id()).unwrap(), Signal::SIGINT);
    assert_eq!(running.wait().unwrap().code(), Some(130));
    line.clear();
    notes.read_to_string(&mut line).unwrap();
    assert!(line.contains("oqtoctl attach s-"), "{line}");
    let session = line.rsplit(' ').next().unwrap().trim();
    // Its agent did not notice.
    assert!(
        home.agents()
            .iter()
            .any(|process| process.words.contains("sleep 1000"))
    );
    home.program("runner.new", &build);
    fs::rename(home.path("runner.new"), home.runner_program()).unwrap();
    assert_eq!(home.run(&["close", session]).code, 0);
    home.no_agents();
}

/// The numbers that the history of a session holds, in order.
fn kept(dir: &Path, session: &Session) -> Vec<u64> {
    let path = dir.join(session.runner().id().as_str());
    let text = fs::read_to_string(path.join(format!("{}.jsonl", session.id()))).unwrap_or_default();
    // A crash may have cut the last line off.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let events = whole
        .lines()
        .map(|line| serde_json::from_str::<Envelope>(line).unwrap());
    let mut next = 1;
    let numbers = events.map(|event| {
        assert_eq!(event.first_seq.or(event.seq), Some(next));
        next = event.seq.unwrap() + 1;
        event.seq.unwrap()
    });
    numbers.collect()
}

fn keep(home: &Home, history: &Path, session: &Session) -> Command {
    let mut command = home.environment(&example("keep"));
    command
        .arg(history)
        .arg(session.id().as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_that_is_killed_in_mid_stream_goes_on_behind_what_its_store_has() {
    let home = Home::new();
    let history = home.path("history");
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(home.exec()).await.unwrap();
    // It writes until it is told to end: some of it is always on its way.
    let script = "n=0; while ! test -e end; do n=$((n+1)); echo $n; sleep 0.002; done";
    session.prompt(format!("sh -c '{script}'")).await.unwrap();
    let mut before = 0;
    for _ in 0..5 {
        let mut keeper = keep(&home, &history, &session).spawn().unwrap();
        let mut told = BufReader::new(keeper.stdout.take().unwrap()).lines();
        // What is handed out goes on behind what the store has.
        let first: u64 = told.next().unwrap().unwrap().parse().unwrap();
        assert!(first > before, "{first} {before}");
        wait_until("more to be kept", || {
            (kept(&history, &session).last() > Some(&(before + 20))).then_some(())
        });
        keeper.kill().unwrap();
        keeper.wait().unwrap();
        before = *kept(&history, &session).last().unwrap();
    }
    home.file("workspace/end", "");
    session.close().await.unwrap();
    let ended = tokio::task::block_in_place(|| end(&mut keep(&home, &history, &session)));
    assert_eq!(ended.code, 0, "{ended:?}");
    let newest = session.state().await.unwrap().info.cursor.seq;
    assert_eq!(kept(&history, &session).last(), Some(&newest));
    control.close().await;
}
