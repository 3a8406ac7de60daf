//! How fast a log on disk reaches a subscriber, beside quinn and nothing else with the same settings.
//!
//! `cargo bench -p oqto-tests --bench replay [-- --quick]`
//!
//! Four ways in turns, each between two processes. The log: a runner reads a session's events from its disk, the
//! library of the control hands them out. Memory: a runner that is nothing but its transport sends the same frames from memory, and
//! the library hands them out. Raw: the same frames in the same writes, read and not looked at.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use oqto_control::{Cursor, Event, Session};
use oqto_tests::bench::{
    Bare, Effort, Frames, House, Plan, Raw, RunnerProgram, Spread, Table, bare_if_asked, cpu_s,
    generate_if_asked, ratio, run, session_of,
};

const DELTA_LEN: usize = 100;
/// Of what raw quinn carries.
const TARGET: f64 = 0.5;

fn main() -> ExitCode {
    if let Some(code) = generate_if_asked().or_else(bare_if_asked) {
        return code;
    }
    let effort = Effort::asked();
    let program = RunnerProgram::ready();
    run(measure(effort, program));
    ExitCode::SUCCESS
}

/// One way, and what its rounds gave.
struct Way {
    name: &'static str,
    /// The process that sends.
    server: u32,
    seconds: Vec<f64>,
    server_s: f64,
    client_s: f64,
    /// Frames that the last round's events came in.
    frames: usize,
}

impl Way {
    fn new(name: &'static str, server: u32) -> Self {
        Self {
            name,
            server,
            seconds: Vec::new(),
            server_s: 0.0,
            client_s: 0.0,
            frames: 0,
        }
    }

    async fn round(&mut self, read: impl Future<Output = (usize, f64)>) {
        let (server, client) = (cpu_s(self.server), cpu_s(std::process::id()));
        let (frames, seconds) = read.await;
        self.server_s += cpu_s(self.server) - server;
        self.client_s += cpu_s(std::process::id()) - client;
        self.frames = frames;
        self.seconds.push(seconds);
    }
}

async fn measure(effort: Effort, program: RunnerProgram) {
    let rounds = effort.of(3, 15);
    let plan = Plan {
        lines: effort.of(100_000, 1_000_000),
        per_second: None,
        delta_len: DELTA_LEN,
    };
    let frames_len = Frames::of(plan).len();
    let (house, bare, raw) = (House::open(&program).await, Bare::open().await, Raw::open().await);
    let session = house.session().await;
    fill(&session, plan).await;
    let mut ways = [
        Way::new("raw quinn, not looked at", raw.pid()),
        Way::new("from memory to the library", bare.pid()),
        Way::new("from the log to the library", house.pid()),
    ];
    let in_memory = bare.runner.session(session_of(plan));
    for _ in 0..rounds {
        let [by_raw, by_memory, by_log] = &mut ways;
        by_raw
            .round(async {
                let (len, seconds) = raw.read(plan).await;
                assert_eq!(len, frames_len, "bytes are missing");
                (plan.lines, seconds)
            })
            .await;
        by_memory.round(replay(plan, &in_memory)).await;
        by_log.round(replay(plan, &session)).await;
    }
    session.close().await.expect("a session ends");
    house.close().await;
    bare.close().await;
    raw.close().await;
    report(&ways, plan, frames_len, rounds);
}

fn report(ways: &[Way; 3], plan: Plan, frames_len: usize, rounds: usize) {
    println!(
        "{} events of {DELTA_LEN} bytes, {frames_len} bytes of frames, medians of {rounds} rounds",
        plan.lines
    );
    let mut table = Table::new([
        "way",
        "MB/s of log covered",
        "events/s covered",
        "",
        "frames/event",
        "CPU s per million: sender",
        "reader",
    ]);
    let events = (plan.lines * rounds) as f64;
    let floor = Spread::of(ways[0].seconds.iter().copied()).median();
    let mut last = 0.0;
    for way in ways {
        let seconds = Spread::of(way.seconds.iter().copied()).median();
        last = floor / seconds;
        table.row([
            way.name.to_owned(),
            format!("{:.0}", frames_len as f64 / seconds / 1e6),
            format!("{:.0}", plan.lines as f64 / seconds),
            ratio(floor, seconds),
            format!("{:.3}", way.frames as f64 / plan.lines as f64),
            format!("{:.2}", way.server_s / events * 1e6),
            format!("{:.2}", way.client_s / events * 1e6),
        ]);
    }
    table.print();
    let met = if last >= TARGET { "met" } else { "missed" };
    println!("the log against raw quinn: {last:.2}x, target {TARGET:.2}x: {met}");
}

/// Has a session say a plan, so that it is in its log.
async fn fill(session: &Session, plan: Plan) {
    let from = session.state().await.expect("a session answers").info.cursor;
    let mut events = session.events_from(from).await.expect("a session is followed");
    session
        .prompt(plan.to_string())
        .await
        .expect("a session takes a prompt");
    while let Some(event) = events.next().await {
        if let Event::StreamDone(_) = event.expect("events in order").event {
            return;
        }
    }
    panic!("the session ended");
}

/// Reads all that a session said: how many frames its deltas came in, and how long it took from the answered
/// subscription to the last delta.
async fn replay(plan: Plan, session: &Session) -> (usize, f64) {
    let mut events = session
        .events_from(Cursor::default())
        .await
        .expect("a session is followed");
    let began = Instant::now();
    let (mut frames, mut count) = (0, 0);
    while let Some(event) = events.next().await {
        if let Event::TextDelta(text) = event.expect("events in order").event {
            frames += 1;
            count += text.delta.len() / DELTA_LEN;
            if count == plan.lines {
                return (frames, began.elapsed().as_secs_f64());
            }
        }
    }
    panic!("{count} of {} events came", plan.lines);
}
