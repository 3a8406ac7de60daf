//! A sandboxed start of /bin/true against bubblewrap with the same arguments and nothing on top, in turns.
//!
//! `cargo bench -p oqto-tests --bench start [-- --quick]`
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use oqto_runner::launch::{Arg, Launch, spawn};
use oqto_tests::bench::{Bed, Effort, Spread, Table, ratio};

const TARGET: f64 = 1.25;
const TRUE: &str = "/bin/true";

fn main() -> ExitCode {
    let effort = Effort::asked();
    match Bed::asked() {
        Some(bed) => measure(effort, &bed),
        None => return Bed::make(effort),
    }
    ExitCode::SUCCESS
}

fn measure(effort: Effort, bed: &Bed) {
    let rounds = effort.of(20, 300);
    let (wrapped, raw) = launches(bed);
    let mut took: [Vec<f64>; 4] = Default::default();
    // The first of each reads files that the others then find in memory.
    for round in 0..=rounds {
        let figures = [bare(), launched(&raw), launched(&wrapped), by_hand(bed)];
        if round > 0 {
            for (took, figure) in took.iter_mut().zip(figures) {
                took.push(figure);
            }
        }
    }
    println!("start and end of {TRUE}, ms; {rounds} rounds in turns");
    let mut table = Table::new(["way", "median", "p90", "to raw bubblewrap"]);
    let spreads = took.map(Spread::of);
    let floor = spreads[1].median();
    let names = [
        "no sandbox",
        "raw bubblewrap, same arguments",
        "oqto's launch (+ landlock, seccomp, limits, checks)",
        "oqto-runner sandbox run",
    ];
    for (name, spread) in names.into_iter().zip(&spreads) {
        table.row([
            name.to_owned(),
            format!("{:.2}", spread.median()),
            format!("{:.2}", spread.percentile(0.9)),
            ratio(spread.median(), floor),
        ]);
    }
    table.print();
    let figure = spreads[2].median() / floor;
    let met = |figure: f64| if figure <= TARGET { "met" } else { "missed" };
    let whole = spreads[3].median() / floor;
    println!(
        "target {TARGET:.2}x: launch {}, sandbox run {}",
        met(figure),
        met(whole)
    );
}

/// Milliseconds.
fn timed(run: impl FnOnce()) -> f64 {
    let began = Instant::now();
    run();
    began.elapsed().as_secs_f64() * 1e3
}

fn bare() -> f64 {
    timed(|| {
        let status = Command::new(TRUE).env_clear().status().expect("it starts");
        assert!(status.success(), "{TRUE} failed");
    })
}

fn launched(launch: &Launch) -> f64 {
    timed(|| {
        let mut spawned =
            spawn(launch, Stdio::null(), Stdio::inherit(), Stdio::inherit()).expect("it starts");
        if let Some(report) = spawned.report.take() {
            let mut said = String::new();
            File::from(report).read_to_string(&mut said).expect("a pipe");
            assert!(said.contains("confined"), "not confined: {said}");
        }
        let status = spawned.child.wait().expect("our own child");
        assert!(status.success(), "{TRUE} failed in the sandbox");
    })
}

fn by_hand(bed: &Bed) -> f64 {
    timed(|| {
        let status = Command::new(bed.runner())
            .args(["sandbox", "run", "--cwd"])
            .arg(bed.workspace())
            .args(["--", TRUE])
            .stdin(Stdio::null())
            .status()
            .expect("it starts");
        assert!(status.success(), "{TRUE} failed in the sandbox");
    })
}

/// What starts /bin/true under the policy `workspace`, and the same without our own last stage.
fn launches(bed: &Bed) -> (Launch, Launch) {
    let wrapped = bed.wrapped(TRUE, Vec::new());
    let mut raw = wrapped.clone();
    let ours = raw.args.iter().position(|arg| *arg == Arg::Text("--".into()));
    raw.args.truncate(ours.expect("bubblewrap's own words end") + 1);
    raw.args.push(Arg::Text(TRUE.into()));
    (wrapped, raw)
}
