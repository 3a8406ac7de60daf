//! What an idle runner and an idle shim hold in memory, and what each further idle session adds.
//!
//! `cargo bench -p oqto-tests --bench memory [-- --quick]`
#![forbid(unsafe_code)]

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use oqto_control::{Event, Session};
use oqto_tests::bench::{Effort, House, Plan, RunnerProgram, Table, children, generate_if_asked, tree};

const RUNNER_TARGET_KB: u64 = 12 * 1024;
const SHIM_TARGET_KB: u64 = 2 * 1024;
/// What an idle session may take of a host's memory, all of it but the harness itself.
const SESSION_TARGET_KB: u64 = 3 * 1024;

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
    runtime.block_on(async {
        measure(effort, &program).await;
        measure_sessions(effort, &program).await;
    });
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
    let [shim] = children(house.pid())[..] else {
        panic!("one session has one shim");
    };
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

/// What each of several idle sessions takes: the runner's growth, the shim, the sandbox's own processes; the harness
/// apart, since it is somebody else's. A page that several processes share counts once in the sum of their PSS.
async fn measure_sessions(effort: Effort, program: &RunnerProgram) {
    let mut table = Table::new([
        "KB per idle session: PSS (private dirty)",
        "runner's growth",
        "shim",
        "bubblewrap",
        "all of it",
        "target",
        "",
        "harness",
    ]);
    for &count in effort.of(&[1, 10][..], &[1, 10, 100][..]) {
        let house = House::open(program).await;
        tokio::time::sleep(SETTLE).await;
        let before = Held::by(house.pid());
        let mut sessions = Vec::new();
        for _ in 0..count {
            sessions.push(house.session().await);
        }
        tokio::time::sleep(SETTLE).await;
        let shims = children(house.pid());
        assert_eq!(shims.len(), count, "every session has one shim");
        let below = shims.iter().flat_map(|&shim| tree(shim).split_off(1));
        let (sandbox, harnesses): (Vec<u32>, Vec<u32>) = below.partition(|&pid| name(pid) == "bwrap");
        let after = Held::by(house.pid());
        // The runner's program is shared with every shim, so its share of it shrinks: that is part of the truth.
        let growth = [
            after.pss as f64 - before.pss as f64,
            after.dirty as f64 - before.dirty as f64,
        ];
        let parts = [growth, sum(&shims), sum(&sandbox)];
        let all = [0, 1].map(|kind| parts.iter().map(|part| part[kind]).sum::<f64>());
        let each = |[pss, private]: [f64; 2]| {
            let count = count as f64;
            format!("{:.0} ({:.0})", pss / count, private / count)
        };
        let met = all[0] <= (SESSION_TARGET_KB as usize * count) as f64;
        table.row([
            format!("{count} sessions"),
            each(parts[0]),
            each(parts[1]),
            each(parts[2]),
            each(all),
            SESSION_TARGET_KB.to_string(),
            if met { "met" } else { "missed" }.to_owned(),
            each(sum(&harnesses)),
        ]);
        for session in sessions {
            session.close().await.expect("a session ends");
        }
        house.close().await;
    }
    table.print();
}

/// PSS and private dirty memory of all of them, in KB.
fn sum(pids: &[u32]) -> [f64; 2] {
    let held: Vec<Held> = pids.iter().map(|&pid| Held::by(pid)).collect();
    let pss: u64 = held.iter().map(|held| held.pss).sum();
    let dirty: u64 = held.iter().map(|held| held.dirty).sum();
    [pss as f64, dirty as f64]
}

fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).expect("a process that lives");
    name.trim_end().to_owned()
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
