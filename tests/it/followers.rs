//! Many follow one session: each gets all of it in order, who does not read costs the others nothing, and who sends what
//! it does not finish costs a bounded amount.

use std::time::Duration;

use nix::sys::signal::Signal;
use oqto_control::{Control, Envelope, Event, Events, Runner, Session, SessionConfig};
use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::{Numbered, Transient};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::frame::{Frame, Kind};
use oqto_protocol::query::{Query, RunnerStatus};
use oqto_protocol::stream::Subscribe;
use oqto_tests::{Home, signal, wait_until};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use crate::stranger::{Stranger, control_papers, fault, first_answer, frame, hello, open};
use crate::watch::Watch;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many follow a session at once.
const FOLLOWERS: usize = 100;

struct House {
    control: Control,
    runner: Runner,
    home: Home,
}

impl House {
    async fn new() -> Self {
        Self::configured("").await
    }

    async fn configured(runner: &str) -> Self {
        let home = Home::new();
        home.configure(runner);
        let control = home.control();
        let runner = control.local().await.unwrap();
        Self {
            control,
            runner,
            home,
        }
    }

    async fn session(&self) -> Session {
        let config = SessionConfig {
            harness: "exec".to_owned(),
            cwd: Some(self.home.workspace().to_str().unwrap().to_owned()),
            ..SessionConfig::default()
        };
        self.runner.create(config).await.unwrap()
    }

    /// A program that waits until it is told to go on, and then says so much.
    async fn talker(&self, lines: usize) -> Session {
        let session = self.session().await;
        let script = format!(
            "while ! test -e go; do sleep 0.01; done; for n in $(seq {lines}); do echo line $n of the talk; done"
        );
        session.prompt(script).await.unwrap();
        session
    }

    /// One with good papers who lets little come that it does not read.
    async fn acquaintance(&self, window: u32) -> quinn::Connection {
        let authority = self.control.authority().id().to_string();
        let papers = control_papers(&self.home.path("data/oqto/authority"), &authority);
        let mut stranger = Stranger::of(&self.control, self.runner.addr()).with(papers);
        stranger.window = Some(window);
        stranger.connect().await.unwrap()
    }

    /// As [`House::acquaintance`], and was welcomed.
    async fn stranger(&self) -> quinn::Connection {
        let connection = self.acquaintance(16 * 1024).await;
        let (kind, _) = first_answer(&connection, &hello(1, 1)).await.unwrap();
        assert_eq!(kind, Kind::WELCOME);
        connection
    }

    /// Lets it talk, closes it when it has said all, and gives what each follower saw.
    async fn follow(&self, session: &Session, followers: Vec<Events>) -> Vec<Vec<Envelope>> {
        let reading: Vec<_> = followers
            .into_iter()
            .map(|events| tokio::spawn(all(events)))
            .collect();
        self.home.file("workspace/go", "");
        let mut watch = Watch::new(session.events_from(Cursor::default()).await.unwrap());
        watch
            .until("end of the talk", |event| matches!(event, Event::StreamDone(_)))
            .await;
        session.close().await.unwrap();
        let mut seen = Vec::new();
        for reading in reading {
            seen.push(reading.await.unwrap());
        }
        std::fs::remove_file(self.home.path("workspace/go")).unwrap();
        seen
    }

    async fn end(self) {
        self.control.close().await;
        let home = self.home;
        tokio::task::spawn_blocking(move || drop(home)).await.unwrap();
    }
}

/// Reads to the end of the session; each event goes on right behind the one before.
async fn all(mut events: Events) -> Vec<Envelope> {
    let mut seen = Vec::new();
    let mut last = 0;
    while let Some(event) = tokio::time::timeout(PATIENCE, events.next()).await.unwrap() {
        let event = event.unwrap();
        let seq = event.seq.unwrap();
        assert_eq!(event.first_seq.unwrap_or(seq), last + 1);
        last = seq;
        seen.push(event);
    }
    seen
}

/// What was said, whatever it was cut into, and the last number.
fn said(events: &[Envelope]) -> (String, u64) {
    let pieces = events.iter().filter_map(|envelope| match &envelope.event {
        Event::ToolProgress(progress) => progress.partial_output.value()["stdout"]
            .as_str()
            .map(str::to_owned),
        _ => None,
    });
    (pieces.collect(), events.last().unwrap().seq.unwrap())
}

/// The last number of a subscription's frames; each event goes on right behind the one before.
fn numbers(told: &[u8]) -> u64 {
    let (_, mut rest) = Frame::split(told, usize::MAX).unwrap().unwrap();
    let mut last = 0;
    while let Some((frame, behind)) = Frame::split(rest, usize::MAX).unwrap() {
        let event: Numbered = frame.body().unwrap();
        assert_eq!(event.first_seq.unwrap_or(event.seq), last + 1);
        (last, rest) = (event.seq, behind);
    }
    last
}

async fn followers(session: &Session, count: usize) -> Vec<Events> {
    let mut followers = Vec::new();
    for _ in 0..count {
        followers.push(session.events_from(Cursor::default()).await.unwrap());
    }
    followers
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_does_not_read_costs_a_hundred_others_nothing() {
    let house = House::new().await;
    let lines = 4000;
    let whole: String = (1..=lines).map(|n| format!("line {n} of the talk\n")).collect();
    let session = house.talker(lines).await;
    let stranger = house.stranger().await;
    let (mut up, mut down) = open(&stranger).await.unwrap();
    let subscribe = frame(&Subscribe {
        session_id: session.id().clone(),
        cursor: Cursor::default(),
        max_frame: 0,
        on_behalf_of: None,
    });
    up.write_all(&subscribe).await.unwrap();
    // The others have all of it, to the end of the session, before it reads a byte.
    let following = followers(&session, FOLLOWERS - 1).await;
    let seen = house.follow(&session, following).await;
    for events in &seen {
        assert_eq!(said(events), (whole.clone(), said(&seen[0]).1));
    }
    // It was behind all the time, and gets all of it when it reads at last.
    let told = tokio::time::timeout(PATIENCE, down.read_to_end(16 << 20))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(numbers(&told), said(&seen[0]).1);
    house.end().await;
}

/// How many sessions tell every second how they do.
const TELLING: usize = 32;

/// How much of what is told a peer lets come that does not read it, bytes: some twenty heartbeats.
const TELEMETRY_WINDOW: u32 = 1024;

/// How many heartbeats may be on their way to one who does not read: what a runner keeps for it, and what is less than
/// one in every twenty bytes of the window.
const BEATS_MAX: usize = 256 + TELEMETRY_WINDOW as usize / 20;

/// Reads heartbeats up to one of this time or a later, and what of a frame came behind it; when each was sent.
async fn beats(down: &mut quinn::RecvStream, got: &mut Vec<u8>, until: u64) -> Vec<u64> {
    let mut beats = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let len = tokio::time::timeout(PATIENCE, down.read(&mut piece))
            .await
            .unwrap();
        got.extend_from_slice(&piece[..len.unwrap().unwrap()]);
        while let Some((frame, rest)) = Frame::split(got, usize::MAX).unwrap() {
            if frame.kind != Kind::WELCOME {
                let beat: Transient = frame.body().unwrap();
                beats.push(beat.ts);
            }
            *got = rest.to_vec();
        }
        if beats.last().is_some_and(|at| *at >= until) {
            return beats;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn telemetry_that_is_not_read_is_dropped_and_events_beside_it_are_whole() {
    let house = House::configured("[health]\nheartbeat_s = 1\n").await;
    let session = house.talker(500).await;
    let mut others = Vec::new();
    for _ in 1..TELLING {
        others.push(house.session().await);
    }
    let mut told = house.runner.telemetry().await.unwrap();
    let stranger = house.acquaintance(TELEMETRY_WINDOW).await;
    let (mut hello_up, mut telemetry) = open(&stranger).await.unwrap();
    hello_up.write_all(&hello(1, 1)).await.unwrap();
    let mut got = Vec::new();
    let first = *beats(&mut telemetry, &mut got, 0).await.last().unwrap();
    // From here on it does not read, while another hears more than can wait for it.
    let mut heard = Vec::new();
    while heard.len() < 2 * BEATS_MAX {
        match tokio::time::timeout(PATIENCE, told.recv()).await.unwrap() {
            Ok(beat) if beat.ts > first => heard.push(beat),
            // It is telemetry here too: who comes late to it misses some.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let (mut up, mut down) = open(&stranger).await.unwrap();
    let subscribe = frame(&Subscribe {
        session_id: session.id().clone(),
        cursor: Cursor::default(),
        max_frame: 0,
        on_behalf_of: None,
    });
    up.write_all(&subscribe).await.unwrap();
    let following = tokio::spawn(async move { down.read_to_end(16 << 20).await });
    let seen = house.follow(&session, followers(&session, 1).await).await;
    let told = tokio::time::timeout(PATIENCE, following).await.unwrap();
    assert_eq!(
        numbers(&told.unwrap().unwrap()),
        said(&seen[0]).1,
        "no event is dropped"
    );
    // What is read at last is what was kept for it, the newest among it.
    let last = heard.last().unwrap().ts;
    let late = beats(&mut telemetry, &mut got, last).await;
    let kept = late.iter().filter(|at| **at > first && **at <= last).count();
    assert!(
        kept < BEATS_MAX && kept < heard.len(),
        "{kept} of {}",
        heard.len()
    );
    assert!(late.is_sorted(), "{late:?}");
    // Not all at once when the runner stops, which it has its time for.
    let mut closing: JoinSet<_> = others
        .into_iter()
        .map(|other| async move { other.close().await })
        .collect();
    while let Some(closed) = closing.join_next().await {
        closed.unwrap().unwrap();
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runners_that_make_room_one_after_the_other_end_no_stream_of_a_session_that_says_nothing() {
    let house = House::new().await;
    let session = house.talker(5).await;
    let mut watch = Watch::new(session.events_from(Cursor::default()).await.unwrap());
    watch
        .until("work", |event| matches!(event, Event::AgentWorking(_)))
        .await;
    let following = tokio::spawn(async move {
        watch
            .until("end of the talk", |event| matches!(event, Event::StreamDone(_)))
            .await;
        watch
    });
    for _ in 0..8 {
        let runner = house.home.runner_pid().expect("a runner");
        signal(runner, Signal::SIGUSR2);
        // The follower brings the next one.
        wait_until("the next runner", || {
            house.home.runner_pid().filter(|next| *next != runner)
        });
        house.runner.status().await.unwrap();
        session.state().await.unwrap();
    }
    house.home.file("workspace/go", "");
    let mut watch = following.await.unwrap();
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controls_follow_one_session_to_the_same_end() {
    let house = House::new().await;
    let session = house.talker(500).await;
    let other = house.home.control();
    let beside = other.connect(house.runner.addr()).await.unwrap();
    let beside = beside.session(session.id().clone());
    let following = vec![
        session.events_from(Cursor::default()).await.unwrap(),
        beside.events_from(Cursor::default()).await.unwrap(),
    ];
    let seen = house.follow(&session, following).await;
    assert_eq!(said(&seen[0]), said(&seen[1]));
    other.close().await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_frames_that_never_end_cost_a_bounded_amount_and_hold_up_no_short_one() {
    let house = House::new().await;
    let pid = house.home.runner_pid().expect("a runner");
    let stranger = house.stranger().await;
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = resident();
    let mut frame_begun = u32::try_from(oqto_protocol::bounds::FRAME_LEN_MAX)
        .unwrap()
        .to_le_bytes()
        .to_vec();
    frame_begun.extend(Kind::COMMAND.0.to_le_bytes());
    frame_begun.resize(512 * 1024, 0);
    let mut sending = JoinSet::new();
    for _ in 0..200 {
        let (stranger, bytes) = (stranger.clone(), frame_begun.clone());
        sending.spawn(async move {
            let (mut up, mut down) = open(&stranger).await.unwrap();
            // Who is refused is told while it still sends.
            let _stopped = up.write_all(&bytes).await;
            down.read_to_end(4096).await.unwrap()
        });
    }
    // One has room and four wait for it; the others are told.
    for _ in 0..195 {
        let answer = tokio::time::timeout(PATIENCE, sending.join_next()).await.unwrap();
        let answer = answer.unwrap().unwrap();
        let (Frame { kind, body }, _) = Frame::split(&answer, usize::MAX).unwrap().unwrap();
        assert_eq!(fault(kind, body).code, FaultCode::Busy);
    }
    let (kind, _) = first_answer(&stranger, &frame(&Query::RunnerStatus(RunnerStatus {})))
        .await
        .unwrap();
    assert_eq!(kind, Kind::ANSWER);
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB");
    sending.abort_all();
    house.end().await;
}
