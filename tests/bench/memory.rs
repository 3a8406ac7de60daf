//! What an idle runner and an idle shim hold in memory.
//!
//! `cargo bench -p oqto-tests --bench memory [-- --quick]`
#![forbid(unsafe_code)]

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use oqto_control::{Event, Session};
use oqto_tests::bench::{Effort, House, Plan, RunnerProgram, Table, generate_if_asked};

const RUNNER_TARGET_KB: u64 = 12 * 1024;
const SHIM_TARGET_KB: u64 = 2 * 1024;

/// After what was asked of it, a process is idle.
const SETTLE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    if let Some(code) = generate_if_asked() {
        return code;
    }
    let effort = Effort::asked();
    let program = RunnerProgram::ready();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure(effort, &program));
    ExitCode::SUCCESS
}

async fn measure(effort: Effort, program: &RunnerProgram) {
    let mut table = Table::new(["idle", "VmRSS KB", "PSS KB", "private dirty KB", "target KB", ""]);
    let mut row = |name: &str, held: Held, target: u64| {
        let met = if held.rss <= target { "met" } else { "missed" };
        let Held { rss, pss, dirty } = held;
        table.row([
            name.to_owned(),
            rss.to_string(),
            pss.to_string(),
            dirty.to_string(),
            target.to_string(),
            met.to_owned(),
        ]);
    };
    let house = House::open(program).await;
    tokio::time::sleep(SETTLE).await;
    row(
        "runner, one control connected",
        Held::by(house.pid()),
        RUNNER_TARGET_KB,
    );
    let session = house.session().await;
    tokio::time::sleep(SETTLE).await;
    let shim = shim_of(house.pid());
    row(
        "runner with an idle session",
        Held::by(house.pid()),
        RUNNER_TARGET_KB,
    );
    row("shim of a fresh session", Held::by(shim), SHIM_TARGET_KB);
    let lines = effort.of(2_000, 20_000);
    run(&session, lines, Some(1000)).await;
    tokio::time::sleep(SETTLE).await;
    row(
        "runner after a run at 1,000 events/s",
        Held::by(house.pid()),
        RUNNER_TARGET_KB,
    );
    row("its shim", Held::by(shim), SHIM_TARGET_KB);
    run(&session, 10 * lines, None).await;
    tokio::time::sleep(SETTLE).await;
    row("runner after a flood", Held::by(house.pid()), RUNNER_TARGET_KB);
    row("its shim", Held::by(shim), SHIM_TARGET_KB);
    session.close().await.expect("a session ends");
    tokio::time::sleep(SETTLE).await;
    row(
        "runner after the session ended",
        Held::by(house.pid()),
        RUNNER_TARGET_KB,
    );
    house.close().await;
    table.print();
}

async fn run(session: &Session, lines: usize, per_second: Option<u32>) {
    let from = session.state().await.expect("a session answers").info.cursor;
    let mut events = session.events_from(from).await.expect("a session is followed");
    let plan = Plan {
        lines,
        per_second,
        delta_len: 100,
    };
    session
        .prompt(plan.to_string())
        .await
        .expect("a session takes a prompt");
    while let Some(event) = events.next().await {
        if let Event::StreamDone(_) = event.expect("events in order").event {
            break;
        }
    }
}

/// What a process holds, in KB.
#[derive(Clone, Copy)]
struct Held {
    rss: u64,
    pss: u64,
    dirty: u64,
}

impl Held {
    fn by(pid: u32) -> Self {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process that lives");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that lives");
        Self {
            rss: field(&status, "VmRSS:"),
            pss: field(&rollup, "Pss:"),
            dirty: field(&rollup, "Private_Dirty:"),
        }
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("the kernel says it")
}

/// The runner's only child.
fn shim_of(runner: u32) -> u32 {
    let children = fs::read_dir(format!("/proc/{runner}/task")).expect("a process that lives");
    let children: Vec<u32> = children
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|pids| {
            pids.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect();
    let [shim] = children[..] else {
        panic!("one session has one shim, and there are {}", children.len());
    };
    shim
}
