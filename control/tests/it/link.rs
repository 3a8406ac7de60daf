//! A link that is lost: who dials again, how often, and who is told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oqto_control::protocol::query::{Answer, SessionList};
use oqto_control::{
    CommandError, ConnectError, Control, LinkState, Mark, Options, QueryError, Runner, Update,
};
use tempfile::TempDir;

use crate::support::{Ask, Reaction, TestRunner, event, frames, subscribed, welcome};

struct Bench {
    _dir: TempDir,
    control: Control,
    runner: TestRunner,
    /// While it is set, nobody who comes is welcomed, and who asks something is hung up on.
    deaf: Arc<AtomicBool>,
    dials: Arc<AtomicUsize>,
}

/// A runner that can be made deaf.
fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(Options::under(dir.path().join("oqto"))).unwrap();
    let (deaf, dials) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_deaf, count) = (Arc::clone(&deaf), Arc::clone(&dials));
    let runner = TestRunner::start(control.authority(), move |_, ask| {
        if matches!(ask, Ask::Hello(_)) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        match ask {
            _ if is_deaf.load(Ordering::SeqCst) => Reaction::HangUp,
            Ask::Hello(_) => Reaction::Begin(welcome("r-1")),
            Ask::Query(_) => Reaction::Answer(frames([Answer::SessionList(SessionList {
                sessions: Vec::new(),
            })])),
            Ask::Subscribe(_) => Reaction::Begin([subscribed(1, 0, 1, 1), frames([event(1, 1)])].concat()),
            Ask::Command(_) => Reaction::HangUp,
        }
    });
    Bench {
        _dir: dir,
        control,
        runner,
        deaf,
        dials,
    }
}

/// Breaks the link.
async fn lose(bench: &Bench, runner: &Runner) {
    bench.runner.hang_up();
    let mut link = runner.link();
    link.wait_for(|state| !state.is_connected()).await.unwrap();
}

#[tokio::test]
async fn a_runner_that_does_not_answer_is_left_alone_then_probed_once_and_found_again() {
    let bench = bench();
    let runner = bench.control.connect(bench.runner.at.clone()).await.unwrap();
    let mut events = runner.session("s-1".parse().unwrap()).events().await.unwrap();
    events.next().await.unwrap().unwrap();
    let mut link = runner.link();
    bench.deaf.store(true, Ordering::SeqCst);
    lose(&bench, &runner).await;
    // Somebody needs it: the reader of the events.
    let reading = tokio::spawn(async move { events.next().await });
    link.wait_for(|state| matches!(state, LinkState::Open { .. }))
        .await
        .unwrap();
    let dialled = bench.dials.load(Ordering::SeqCst);
    assert_eq!(dialled, 1 + 5, "the first, and five that failed");
    // Whoever comes now is told at once, why and until when, and makes nobody dial.
    let refused = runner.sessions().await.unwrap_err();
    let QueryError::Connect(ConnectError::Open { retry_in, source }) = &refused else {
        panic!("{refused:?}")
    };
    assert!(
        *retry_in <= Duration::from_secs(2) && source.is_some(),
        "{refused:?}"
    );
    let refused = runner.session("s-1".parse().unwrap()).abort().await.unwrap_err();
    assert!(
        matches!(refused, CommandError::Connect(ConnectError::Open { .. })),
        "{refused:?}"
    );
    assert_eq!(bench.dials.load(Ordering::SeqCst), dialled);
    // One probe; when it fails, the circuit is open again for longer.
    link.wait_for(|state| matches!(state, LinkState::HalfOpen { .. }))
        .await
        .unwrap();
    link.wait_for(|state| matches!(state, LinkState::Open { .. }))
        .await
        .unwrap();
    assert_eq!(bench.dials.load(Ordering::SeqCst), dialled + 1);
    // When the next succeeds, everything is as before.
    bench.deaf.store(false, Ordering::SeqCst);
    link.wait_for(LinkState::is_connected).await.unwrap();
    assert_eq!(bench.dials.load(Ordering::SeqCst), dialled + 2);
    assert_eq!(runner.sessions().await.unwrap(), []);
    reading.abort();
}

#[tokio::test]
async fn nobody_dials_for_a_runner_that_nobody_needs() {
    let bench = bench();
    let runner = bench.control.connect(bench.runner.at.clone()).await.unwrap();
    let mut link = runner.link();
    bench.deaf.store(true, Ordering::SeqCst);
    lose(&bench, &runner).await;
    // The command was given up: its dialling ends with it.
    link.wait_for(|state| matches!(state, LinkState::Lost))
        .await
        .unwrap();
    let dialled = bench.dials.load(Ordering::SeqCst);
    bench.deaf.store(false, Ordering::SeqCst);
    tokio::time::timeout(Duration::from_millis(300), link.changed())
        .await
        .unwrap_err();
    assert_eq!(bench.dials.load(Ordering::SeqCst), dialled);
    // Who needs it has it dialled.
    assert_eq!(runner.sessions().await.unwrap(), []);
    assert!(link.borrow().is_connected());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_is_lost_at_once_comes_back_within_its_budget() {
    const FLEET: usize = 100;
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(Options::under(dir.path().join("oqto"))).unwrap();
    let (lost, redials) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let (is_lost, log) = (Arc::clone(&lost), Arc::clone(&redials));
    let test_runner = TestRunner::start(control.authority(), move |_, ask| match ask {
        Ask::Hello(_) => {
            if is_lost.load(Ordering::SeqCst) {
                log.lock().unwrap().push(Instant::now());
            }
            Reaction::Begin(welcome("r-1"))
        }
        Ask::Subscribe(_) if is_lost.load(Ordering::SeqCst) => Reaction::Begin(subscribed(1, 1, 1, 1)),
        Ask::Subscribe(_) => Reaction::Begin([subscribed(1, 0, 1, 1), frames([event(1, 1)])].concat()),
        Ask::Query(_) | Ask::Command(_) => Reaction::HangUp,
    });
    let mut runners = Vec::new();
    let mut reading = Vec::new();
    for _ in 0..FLEET {
        let runner = control.connect(test_runner.at.clone()).await.unwrap();
        let mut events = runner.session("s-1".parse().unwrap()).events().await.unwrap();
        events.next().await.unwrap().unwrap();
        reading.push(tokio::spawn(async move {
            loop {
                let update = events.update().await.unwrap().unwrap();
                if let Update::Mark(Mark::Reconnected { .. }) = update {
                    return events;
                }
            }
        }));
        runners.push(runner);
    }
    lost.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    test_runner.hang_up();
    let mut needed = Vec::new();
    for reading in reading {
        needed.push(reading.await.unwrap());
    }
    let redials = redials.lock().unwrap().clone();
    assert_eq!(redials.len(), FLEET, "one dial a runner");
    let took = redials[FLEET - 1] - begun;
    // Thirty-two at once, the others 20 ms apart.
    assert!(took >= Duration::from_millis(20) * (100 - 32), "{took:?}");
}
