//! A sandboxed start of /bin/true against bubblewrap with the same arguments and nothing on top, in turns.
//!
//! `cargo bench -p oqto-tests --bench start [-- --quick]`
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use nix::unistd::User;
use oqto_runner::launch::{Arg, Launch, spawn};
use oqto_runner::policy::{AbsolutePath, Request, resolve};
use oqto_runner::sandbox::principal::Principal;
use oqto_runner::sandbox::probe::{Outer, bubblewrap};
use oqto_runner::sandbox::{Host, catalog, wrap};
use oqto_tests::bench::{Effort, RunnerProgram, Spread, Table, open_bed, ratio};

const TARGET: f64 = 1.25;
const TRUE: &str = "/bin/true";

/// Nobody starts a sandbox as root. A user whom the host knows, as it does who works on it: one that is missing in
/// /etc/passwd is looked up in vain in every other database, which takes milliseconds.
const SOMEBODY: &str = "backup";

fn main() -> ExitCode {
    let effort = Effort::asked();
    let words: Vec<String> = std::env::args().collect();
    if let Some(at) = words.iter().position(|word| word == "--in") {
        measure(effort, Path::new(&words[at + 1]));
        return ExitCode::SUCCESS;
    }
    // What is measured stands where an ordinary user can reach it, and runs as one.
    let program = RunnerProgram::ready();
    let bed = open_bed();
    let copy = |from: &Path, name: &str| {
        let to = bed.path().join(name);
        fs::copy(from, &to).expect("our own directory");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("our own file");
        to
    };
    copy(program.path(), "oqto-runner");
    let mut again = Command::new(copy(&std::env::current_exe().expect("Linux"), "bench"));
    again.arg("--in").arg(bed.path()).env("TMPDIR", bed.path());
    if effort == Effort::Smoke {
        again.arg("--quick");
    }
    for name in ["workspace", "home"] {
        fs::create_dir(bed.path().join(name)).expect("our own directory");
    }
    if nix::unistd::geteuid().is_root() {
        let found = User::from_name(SOMEBODY).expect("/etc/passwd");
        let user = found.expect("a user of every Debian");
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        for dir in ["", "workspace", "home"] {
            chown(bed.path().join(dir), Some(uid), Some(gid)).expect("root may");
        }
        again.uid(uid).gid(gid);
    }
    let ended = again.current_dir("/").status().expect("a copy of this program");
    ExitCode::from(u8::from(!ended.success()))
}

fn measure(effort: Effort, bed: &Path) {
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

fn by_hand(bed: &Path) -> f64 {
    timed(|| {
        let status = Command::new(bed.join("oqto-runner"))
            .args(["sandbox", "run", "--cwd"])
            .arg(bed.join("workspace"))
            .args(["--", TRUE])
            .stdin(Stdio::null())
            .status()
            .expect("it starts");
        assert!(status.success(), "{TRUE} failed in the sandbox");
    })
}

/// What starts /bin/true under the policy `workspace`, and the same without our own last stage.
fn launches(bed: &Path) -> (Launch, Launch) {
    let absolute = |path: PathBuf| AbsolutePath::try_from(path.as_path()).expect("a path of ours");
    let catalog = catalog(None).expect("the shipped policies");
    let workspace = bed.join("workspace");
    let principal = Principal::choose(None, &workspace).expect("an ordinary user");
    let request = Request {
        workspace: absolute(workspace.clone()),
        user_home: absolute(principal.home().to_owned()),
        session_home: absolute(bed.join("home")),
        read: Vec::new(),
        closed: Vec::new(),
        network_for: None,
        policy_at_most: None,
        workspace_file: None,
    };
    let name = "workspace".parse().expect("a shipped policy");
    let plan = resolve(&catalog, &name, &request).expect("the shipped policy fits");
    let env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    let host = Host {
        outer: Outer::Bubblewrap(bubblewrap(&env[&OsString::from("PATH")]).expect("bubblewrap")),
        runner_exe: bed.join("oqto-runner"),
        env,
        principal,
        cgroup: None,
        without: Default::default(),
    };
    let inner = Launch {
        program: TRUE.into(),
        args: Vec::new(),
        env: Vec::new(),
        cwd: workspace.into(),
    };
    let wrapped = wrap(&plan, inner, &host).expect("it can be wrapped").launch;
    let mut raw = wrapped.clone();
    let ours = raw.args.iter().position(|arg| *arg == Arg::Text("--".into()));
    raw.args.truncate(ours.expect("bubblewrap's own words end") + 1);
    raw.args.push(Arg::Text(TRUE.into()));
    (wrapped, raw)
}
