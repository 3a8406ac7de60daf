//! How many events a second go the whole way, from a harness that prints as fast as it can to the subscriber.
//!
//! `cargo bench -p oqto-tests --bench throughput [-- --quick]`
#![forbid(unsafe_code)]

use std::io::Read as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use oqto_control::{Event, Session};
use oqto_tests::bench::{
    Effort, House, Plan, RunnerProgram, Spread, Table, generate_if_asked, now_ns, ratio, stamp_of_delta,
};

const DELTA_LEN: usize = 100;
const TARGET: f64 = 200_000.0;

fn main() -> ExitCode {
    if let Some(code) = generate_if_asked() {
        return code;
    }
    let effort = Effort::asked();
    let program = RunnerProgram::ready();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure(effort, &program));
    ExitCode::SUCCESS
}

async fn measure(effort: Effort, program: &RunnerProgram) {
    let rounds = effort.of(3, 15);
    let plan = Plan {
        lines: effort.of(50_000, 500_000),
        per_second: None,
        delta_len: DELTA_LEN,
    };
    let house = House::open(program).await;
    let session = house.session().await;
    let (mut pipe, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        pipe.push(through_pipe(plan));
        whole.push(through_everything(plan, &session).await);
    }
    session.close().await.expect("a session ends");
    house.close().await;

    println!(
        "harness -> subscriber, {DELTA_LEN}-byte deltas, {rounds} rounds of {}",
        plan.lines
    );
    let mut table = Table::new(["way", "events/s, median", "worst", "best"]);
    let (pipe, whole) = (Spread::of(pipe), Spread::of(whole));
    for (name, rates) in [("pipe, not even split into lines", &pipe), ("whole", &whole)] {
        let cell = |rate: f64| format!("{rate:.0}");
        table.row([
            name.to_owned(),
            cell(rates.median()),
            cell(rates.min()),
            cell(rates.max()),
        ]);
    }
    table.print();
    println!(
        "target {TARGET:.0}: {}; the pipe alone is {}",
        if whole.median() >= TARGET { "met" } else { "missed" },
        ratio(pipe.median(), whole.median())
    );
}

fn through_pipe(plan: Plan) -> f64 {
    let exe = std::env::current_exe().expect("Linux");
    let mut generator = Command::new(exe)
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

/// From the time when the first line was printed to the time when the last event was there.
async fn through_everything(plan: Plan, session: &Session) -> f64 {
    let from = session.state().await.expect("a session answers").info.cursor;
    let mut events = session.events_from(from).await.expect("a session is followed");
    session
        .prompt(plan.to_string())
        .await
        .expect("a session takes a prompt");
    let (mut count, mut began, mut ended) = (0, 0, 0);
    while let Some(event) = events.next().await {
        match event.expect("events in order").event {
            Event::TextDelta(text) => {
                if count == 0 {
                    began = stamp_of_delta(&text.delta).expect("our own delta");
                }
                count += text.delta.len() / DELTA_LEN;
                if count == plan.lines {
                    ended = now_ns();
                }
            }
            Event::StreamDone(_) => break,
            _ => {}
        }
    }
    assert_eq!(count, plan.lines, "an event is missing or there twice");
    plan.lines as f64 / ((ended - began) as f64 / 1e9)
}
