//! From a harness's line to the subscriber's event, at a thousand a second: the whole way against a bare pipe and a
//! shim alone, in turns.
//!
//! `cargo bench -p oqto-tests --bench latency [-- --quick]`
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use oqto_control::{Event, Session};
use oqto_runner::launch::{Arg, Launch};
use oqto_runner::shim::{self, Client, Kind, Notice, Order, TapeReader};
use oqto_tests::bench::{
    Effort, House, Plan, RunnerProgram, Spread, Table, generate_if_asked, now_ns, open_bed, ratio, run,
    stamp_of_delta, stamp_of_line,
};

const PER_SECOND: u32 = 1000;
const DELTA_LEN: usize = 100;
/// What the whole way may add at the 99th percentile.
const TARGET_US: f64 = 1000.0;

/// The first lines of a round meet cold caches and a path that is still being discovered.
const WARM_UP: usize = 200;

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
    let rounds = effort.of(1, 7);
    let plan = Plan {
        lines: effort.of(1500, 5000),
        per_second: Some(PER_SECOND),
        delta_len: DELTA_LEN,
    };
    let house = House::open(&program).await;
    let session = house.session().await;
    let (mut pipe, mut shim, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        pipe.push(through_pipe(plan));
        shim.push(through_shim(plan, program.path()).await);
        whole.push(through_everything(plan, &session).await);
    }
    session.close().await.expect("a session ends");
    house.close().await;

    println!(
        "agent line -> event, {PER_SECOND} a second, {DELTA_LEN}-byte deltas, us; medians of {rounds} rounds of {}",
        plan.lines - WARM_UP
    );
    let mut table = Table::new(["way", "p50", "p99", "p99.9 of all", "worst"]);
    for (name, rounds) in [("pipe", &pipe), ("shim", &shim), ("whole", &whole)] {
        let all = Spread::of(rounds.iter().flatten().copied());
        let figures = [
            middle(rounds, 0.5),
            middle(rounds, 0.99),
            all.percentile(0.999),
            all.max(),
        ];
        let [p50, p99, p999, worst] = figures.map(|figure| format!("{figure:.0}"));
        table.row([name.to_owned(), p50, p99, p999, worst]);
    }
    table.print();
    let (floor, figure) = (middle(&pipe, 0.99), middle(&whole, 0.99));
    let added = figure - floor;
    println!(
        "added at p50: {:.0} us; at p99: {added:.0} us, {} the pipe's; target {TARGET_US:.0} us: {}",
        middle(&whole, 0.5) - middle(&pipe, 0.5),
        ratio(figure, floor),
        if added <= TARGET_US { "met" } else { "missed" }
    );
}

/// The median over the rounds of each one's percentile.
fn middle(rounds: &[Vec<f64>], share: f64) -> f64 {
    Spread::of(
        rounds
            .iter()
            .map(|round| Spread::of(round.iter().copied()).percentile(share)),
    )
    .median()
}

fn us_since(stamp: u64) -> f64 {
    now_ns().saturating_sub(stamp) as f64 / 1e3
}

/// All samples of a round but the first.
fn warm(mut samples: Vec<f64>, plan: Plan) -> Vec<f64> {
    assert_eq!(samples.len(), plan.lines, "a line is missing or there twice");
    samples.split_off(WARM_UP)
}

fn through_pipe(plan: Plan) -> Vec<f64> {
    let exe = std::env::current_exe().expect("Linux");
    let mut generator = Command::new(exe)
        .args(["--print", &plan.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the generator starts");
    let mut samples = Vec::with_capacity(plan.lines);
    let mut lines = BufReader::new(generator.stdout.take().expect("piped"));
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).expect("a pipe") > 0 {
        line.pop();
        let stamp = stamp_of_line(&line, plan.delta_len).expect("our own line");
        samples.push(us_since(stamp));
        line.clear();
    }
    generator.wait().expect("our own child");
    warm(samples, plan)
}

async fn through_shim(plan: Plan, program: &Path) -> Vec<f64> {
    let bed = open_bed();
    let dir = bed.path().join("shim");
    let launch = Launch {
        program: std::env::current_exe().expect("Linux").into(),
        args: vec![Arg::Text("--print".into()), Arg::Text(plan.to_string().into())],
        env: Vec::new(),
        cwd: "/".into(),
    };
    let order = Order {
        launch,
        principal: None,
        watch: None,
        doorway: None,
    };
    let mut process = shim::start(program, &dir, &order).await.expect("a shim");
    let mut client = Client::connect(&dir).await.expect("our own shim");
    let mut tape = TapeReader::open(&dir, 0).expect("its tape");
    let mut samples = Vec::with_capacity(plan.lines);
    let mut partial = Vec::new();
    let mut until = client.greeting().tape_len;
    loop {
        while let Some(record) = tape.next(until).expect("a tape") {
            if record.kind == Kind::Out {
                partial.extend_from_slice(record.payload);
            }
        }
        let whole = partial
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        for line in partial[..whole]
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let stamp = stamp_of_line(line, plan.delta_len).expect("our own line");
            samples.push(us_since(stamp));
        }
        partial.drain(..whole);
        client.consumed(tape.offset(), tape.offset()).await;
        match client.next().await {
            Notice::Grown { len } => until = len,
            Notice::Exited { .. } => client.release().await,
            Notice::Gone => break,
            _ => {}
        }
    }
    process.wait().await.expect("our own child");
    warm(samples, plan)
}

async fn through_everything(plan: Plan, session: &Session) -> Vec<f64> {
    let mut samples = Vec::with_capacity(plan.lines);
    let from = session
        .prompt(plan.to_string())
        .await
        .expect("a session takes a prompt");
    let mut events = session.events_from(from).await.expect("a session is followed");
    while let Some(event) = events.next().await {
        match event.expect("events in order").event {
            // Who is behind for a moment gets several as one.
            Event::TextDelta(text) => {
                for delta in (0..text.delta.len()).step_by(plan.delta_len) {
                    let stamp = stamp_of_delta(&text.delta[delta..]).expect("our own delta");
                    samples.push(us_since(stamp));
                }
            }
            Event::StreamDone(_) => break,
            _ => {}
        }
    }
    warm(samples, plan)
}
