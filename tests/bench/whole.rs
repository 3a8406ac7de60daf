//! How many events a second go the whole way, from harnesses that print as fast as they can to the subscribers of all of
//! them, and what each process pays for it.
//!
//! `cargo bench -p oqto-tests --bench whole [-- --quick]`
#![forbid(unsafe_code)]

use std::io::Read as _;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use oqto_control::{Cursor, Event, Session};
use oqto_tests::bench::{
    Effort, House, Plan, RunnerProgram, Spread, Table, children, cpu_s, generate_if_asked, now_ns, ratio,
    run, stamp_of_delta, this_program, tree,
};
use tokio::task::JoinSet;

const DELTA_LEN: usize = 100;
const TARGET: f64 = 500_000.0;

fn main() -> ExitCode {
    if let Some(code) = generate_if_asked() {
        return code;
    }
    let effort = Effort::asked();
    let program = RunnerProgram::ready();
    run(measure(effort, program));
    ExitCode::SUCCESS
}

async fn measure(effort: Effort, program: RunnerProgram) {
    let rounds = effort.of(3, 15);
    let lines = effort.of(100_000, 1_000_000);
    println!("harness -> subscriber, {DELTA_LEN}-byte deltas, {rounds} rounds of {lines}");
    let mut table = Table::new([
        "sessions",
        "events/s, median",
        "worst",
        "best",
        "pipe alone",
        "",
        "frames/event",
        "CPU s per million: runner",
        "shims",
        "control",
        "harnesses",
    ]);
    let mut verdicts = Vec::new();
    for count in [1, 10, 100] {
        let plan = Plan {
            lines: lines / count,
            per_second: None,
            delta_len: DELTA_LEN,
        };
        let house = House::open(&program).await;
        let mut sessions = Vec::new();
        for _ in 0..count {
            sessions.push(house.session().await);
        }
        let (mut pipe, mut whole, mut cost) = (Vec::new(), Vec::new(), Cost::default());
        let mut frames = 0;
        for _ in 0..rounds {
            pipe.push(through_pipe(Plan { lines, ..plan }));
            let before = Cost::by(house.pid());
            let (rate, read) = through_everything(plan, &sessions).await;
            cost.add(before, Cost::by(house.pid()));
            whole.push(rate);
            frames += read;
        }
        for session in sessions {
            session.close().await.expect("a session ends");
        }
        house.close().await;
        let (pipe, whole) = (Spread::of(pipe), Spread::of(whole));
        let events = (plan.lines * count * rounds) as f64;
        let rate = |rate: f64| format!("{rate:.0}");
        let per_million = |seconds: f64| format!("{:.2}", seconds / events * 1e6);
        table.row([
            count.to_string(),
            rate(whole.median()),
            rate(whole.min()),
            rate(whole.max()),
            rate(pipe.median()),
            ratio(whole.median(), pipe.median()),
            format!("{:.2}", frames as f64 / events),
            per_million(cost.runner),
            per_million(cost.shims),
            per_million(cost.control),
            per_million(cost.harnesses),
        ]);
        let met = if whole.median() >= TARGET { "met" } else { "missed" };
        verdicts.push(format!("{count}: {met}"));
    }
    table.print();
    println!("target {TARGET:.0} events/s: {}", verdicts.join(", "));
}

/// Processor seconds.
#[derive(Clone, Copy, Default)]
struct Cost {
    runner: f64,
    shims: f64,
    /// This process, with its own end of the measurement.
    control: f64,
    /// What the shims started: the sandbox's and the harnesses themselves.
    harnesses: f64,
}

impl Cost {
    fn by(runner: u32) -> Self {
        let shims = children(runner);
        let below = shims.iter().flat_map(|&shim| tree(shim).split_off(1));
        Self {
            runner: cpu_s(runner),
            shims: shims.iter().map(|&shim| cpu_s(shim)).sum(),
            control: cpu_s(std::process::id()),
            harnesses: below.map(cpu_s).sum(),
        }
    }

    fn add(&mut self, before: Self, after: Self) {
        self.runner += after.runner - before.runner;
        self.shims += after.shims - before.shims;
        self.control += after.control - before.control;
        self.harnesses += after.harnesses - before.harnesses;
    }
}

fn through_pipe(plan: Plan) -> f64 {
    let mut generator = this_program()
        .args(["--print", &plan.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the generator starts");
    let mut out = generator.stdout.take().expect("piped");
    let mut room = vec![0; 64 * 1024];
    let mut began = None;
    let mut newlines = 0;
    loop {
        let len = out.read(&mut room).expect("a pipe");
        began.get_or_insert_with(Instant::now);
        if len == 0 {
            break;
        }
        newlines += room[..len].iter().filter(|&&byte| byte == b'\n').count();
    }
    generator.wait().expect("our own child");
    assert_eq!(newlines, plan.lines, "a line is missing");
    plan.lines as f64 / began.expect("it printed").elapsed().as_secs_f64()
}

/// What one session's subscriber saw.
struct Seen {
    /// When the first line was printed and when the last event was there, nanoseconds.
    began: u64,
    ended: u64,
    /// Frames that held the events: fewer where neighbours were merged.
    frames: usize,
}

/// Events a second, from the time when the first line of all was printed to the time when the last event was there; and
/// how many frames they came in.
async fn through_everything(plan: Plan, sessions: &[Session]) -> (f64, usize) {
    let mut following = JoinSet::new();
    for session in sessions {
        let from = session.state().await.expect("a session answers").info.cursor;
        following.spawn(follow(plan, session.clone(), from));
    }
    let seen = following.join_all().await;
    let began = seen.iter().map(|seen| seen.began).min().expect("a session");
    let ended = seen.iter().map(|seen| seen.ended).max().expect("a session");
    let rate = (plan.lines * sessions.len()) as f64 / ((ended - began) as f64 / 1e9);
    (rate, seen.iter().map(|seen| seen.frames).sum())
}

async fn follow(plan: Plan, session: Session, from: Cursor) -> Seen {
    let mut events = session.events_from(from).await.expect("a session is followed");
    session
        .prompt(plan.to_string())
        .await
        .expect("a session takes a prompt");
    let mut seen = Seen {
        began: 0,
        ended: 0,
        frames: 0,
    };
    let mut count = 0;
    while let Some(event) = events.next().await {
        match event.expect("events in order").event {
            Event::TextDelta(text) => {
                if count == 0 {
                    seen.began = stamp_of_delta(&text.delta).expect("our own delta");
                }
                seen.frames += 1;
                count += text.delta.len() / DELTA_LEN;
                if count == plan.lines {
                    seen.ended = now_ns();
                }
            }
            Event::StreamDone(_) => break,
            _ => {}
        }
    }
    assert_eq!(count, plan.lines, "an event is missing or there twice");
    seen
}
