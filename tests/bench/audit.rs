//! What it costs that a command is recorded before it is done: two commands that find no session, of which one needs a
//! record and the other does not, in turns, at a thousand a second and as fast as they go.
//!
//! `cargo bench -p oqto-tests --bench audit [-- --quick]`
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oqto_control::{Runner, Session};
use oqto_tests::bench::{
    Effort, House, RunnerProgram, Spread, Table, cpu_s, generate_if_asked, open_bed, ratio, run,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const PER_SECOND: u32 = 1000;
/// How many commands are under way where they go as fast as they can.
const AT_ONCE: usize = 64;
/// What a record may cost at a thousand commands a second.
const TARGET: f64 = 1.05;
/// As long as a record of a command.
const RECORD_LEN: usize = 480;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `get_state`, which only tells how things stand.
    Unrecorded,
    /// `abort`, which is on disk before it is looked at.
    Recorded,
}

/// What one round showed.
struct Round {
    latencies_us: Vec<f64>,
    /// How many were answered in a second while a thousand were asked.
    kept_up: f64,
    /// Processor time of the runner for each command, microseconds.
    cpu_us: f64,
    /// How many were answered in a second as fast as they went.
    fastest: f64,
}

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
    let rounds = effort.of(3, 9);
    let count = effort.of(2000, 10_000);
    let house = House::open(&program).await;
    let mut found: [Vec<Round>; 2] = Default::default();
    // The first of each meets cold caches.
    for at in 0..=rounds {
        for (way, found) in [Way::Unrecorded, Way::Recorded].into_iter().zip(&mut found) {
            let round = round(&house.runner, house.pid(), way, count).await;
            if at > 0 {
                found.push(round);
            }
        }
    }
    house.close().await;

    println!("commands that find no session; medians of {rounds} rounds of {count} in turns");
    let mut table = Table::new([
        "",
        "a second",
        "p50 us",
        "p99 us",
        "cpu us",
        "a second, 64 at once",
    ]);
    for (name, rounds) in ["not recorded", "recorded"].into_iter().zip(&found) {
        table.row([
            name.to_owned(),
            format!("{:.0}", middle(rounds, |round| round.kept_up)),
            format!("{:.0}", middle(rounds, |round| latency(round, 0.5))),
            format!("{:.0}", middle(rounds, |round| latency(round, 0.99))),
            format!("{:.0}", middle(rounds, |round| round.cpu_us)),
            format!("{:.0}", middle(rounds, |round| round.fastest)),
        ]);
    }
    table.print();
    let synced = synced();
    println!(
        "one record written and synced alone, us: p50 {:.0}, p99 {:.0}",
        synced.median(),
        synced.percentile(0.99)
    );
    let [without, with] = &found;
    let cost = middle(without, |round| round.kept_up) / middle(with, |round| round.kept_up);
    println!(
        "commands answered at {PER_SECOND} a second: {cost:.3}x fewer, target {TARGET}x: {}; processor {}, p50 {}",
        if cost <= TARGET { "met" } else { "missed" },
        ratio(
            middle(with, |round| round.cpu_us),
            middle(without, |round| round.cpu_us)
        ),
        ratio(
            middle(with, |round| latency(round, 0.5)),
            middle(without, |round| latency(round, 0.5))
        ),
    );
}

fn latency(round: &Round, share: f64) -> f64 {
    Spread::of(round.latencies_us.iter().copied()).percentile(share)
}

fn middle(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    Spread::of(rounds.iter().map(figure)).median()
}

async fn ask(session: &Session, way: Way) {
    let is_found = match way {
        Way::Unrecorded => session.state().await.is_ok(),
        Way::Recorded => session.abort().await.is_ok(),
    };
    assert!(!is_found, "there is no such session");
}

async fn round(runner: &Runner, pid: u32, way: Way, count: u32) -> Round {
    let session = runner.session("s-none".parse().expect("a name"));
    let (begin, cpu) = (Instant::now(), cpu_s(pid));
    let mut asked = JoinSet::new();
    for at in 0..count {
        let due = begin + Duration::from_secs(1) * at / PER_SECOND;
        tokio::time::sleep_until(due.into()).await;
        let session = session.clone();
        asked.spawn(async move {
            let asked = Instant::now();
            ask(&session, way).await;
            asked.elapsed().as_secs_f64() * 1e6
        });
    }
    let latencies_us = asked.join_all().await;
    let kept_up = f64::from(count) / begin.elapsed().as_secs_f64();
    let cpu_us = (cpu_s(pid) - cpu) * 1e6 / f64::from(count);

    let begin = Instant::now();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut asked = JoinSet::new();
    for _ in 0..count {
        let place = room.clone().acquire_owned().await.expect("never closed");
        let session = session.clone();
        asked.spawn(async move {
            ask(&session, way).await;
            drop(place);
        });
    }
    asked.join_all().await;
    Round {
        latencies_us,
        kept_up,
        cpu_us,
        fastest: f64::from(count) / begin.elapsed().as_secs_f64(),
    }
}

/// What the disk takes for one record, with nothing around it.
fn synced() -> Spread {
    let bed = open_bed();
    let file = File::create(bed.path().join("synced")).expect("our own directory");
    let line = [b'x'; RECORD_LEN];
    Spread::of((0..500).map(|at| {
        let begin = Instant::now();
        file.write_all_at(&line, at * RECORD_LEN as u64).expect("room");
        file.sync_data().expect("a disk");
        begin.elapsed().as_secs_f64() * 1e6
    }))
}
