//! Sandboxes made by the library's own functions, for what the doors never do, or never do so slowly.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;

use nix::unistd::{Gid, Uid};
use oqto_runner::launch::{Arg, Launch, spawn};
use oqto_runner::policy::{AbsolutePath, Catalog, Plan, Request, resolve};
use oqto_runner::sandbox::principal::Principal;
use oqto_runner::sandbox::report::{self, Layer, Report};
use oqto_runner::sandbox::{Host, ViewError, WrapError, probe, wrap};

use crate::bed::{Bed, SOMEBODY, is_root, runner};

struct ByHand {
    bed: Bed,
    host: Host,
}

impl ByHand {
    fn new() -> Self {
        let bed = Bed::new();
        bed.directory("home");
        bed.directory("given");
        let path = std::env::var_os("PATH").unwrap();
        let configured = is_root().then(|| (Uid::from_raw(SOMEBODY), Gid::from_raw(SOMEBODY)));
        // Where everybody can reach it.
        let runner_exe = bed.path("oqto-runner");
        fs::copy(runner(), &runner_exe).unwrap();
        let host = Host {
            outer: probe::Outer::Bubblewrap(probe::bubblewrap(&path).unwrap()),
            runner_exe,
            shown: Default::default(),
            env: Default::default(),
            principal: Principal::choose(configured, &bed.workspace()).unwrap(),
            cgroup: None,
            without: Default::default(),
        };
        Self { bed, host }
    }

    /// One that root too can start as itself, since it is not about whose it is.
    fn of_anybody() -> Self {
        let mut by_hand = Self::new();
        if is_root() {
            by_hand.host.without.insert(Layer::Privileges);
            // It has no capability that would let it write what is somebody else's.
            fs::set_permissions(by_hand.bed.path("home"), fs::Permissions::from_mode(0o777)).unwrap();
        }
        by_hand
    }

    fn plan(&self) -> Plan {
        let path = |path: &Path| AbsolutePath::try_from(path).unwrap();
        let request = Request {
            workspace: path(&self.bed.workspace()),
            user_home: path(Path::new("/nonexistent")),
            session_home: path(&self.bed.path("home")),
            read: vec![path(&self.bed.path("given"))],
            closed: Vec::new(),
            network_for: None,
            policy_at_most: None,
            workspace_file: None,
        };
        resolve(&Catalog::shipped(), &"workspace".parse().unwrap(), &request).unwrap()
    }

    /// A program that leaves a file in its home.
    fn wrap(&self, plan: &Plan) -> Result<Launch, WrapError> {
        let inner = Launch {
            program: "/bin/sh".into(),
            args: ["-c", "echo ran >\"$HOME/ran\""]
                .map(|word| Arg::Text(word.into()))
                .into(),
            env: Vec::new(),
            cwd: self.bed.workspace().into_os_string(),
        };
        wrap(plan, inner, &self.host).map(|wrapped| wrapped.launch)
    }

    fn wrapped(&self) -> Launch {
        self.wrap(&self.plan()).unwrap()
    }

    fn reports(&self, launch: &Launch) -> (Option<i32>, Vec<Report>) {
        let mut spawned = spawn(launch, Stdio::null(), Stdio::null(), Stdio::inherit()).unwrap();
        let lines = report::read(File::from(spawned.report.take().unwrap())).unwrap();
        (spawned.child.wait().unwrap().code(), lines)
    }

    fn ran(&self) -> bool {
        self.bed.path("home/ran").exists()
    }
}

#[test]
fn a_sandbox_that_root_started_as_itself_refuses_to_go_on() {
    if !is_root() {
        return;
    }
    let by_hand = ByHand::new();
    let (code, lines) = by_hand.reports(&by_hand.wrapped());
    assert_eq!(code, Some(125));
    assert!(
        matches!(&lines[..], [Report::Failed { layer: Layer::Privileges, error }] if error.contains("root")),
        "{lines:?}"
    );
}

#[test]
fn a_sandbox_that_lacks_a_namespace_refuses_to_go_on() {
    let by_hand = ByHand::new();
    for (option, kind) in [
        ("--unshare-net\0", "network"),
        ("--unshare-uts\0", "uts"),
        ("--unshare-ipc\0", "ipc"),
    ] {
        let mut launch = by_hand.wrapped();
        let Some(Arg::Data(options)) = launch.args.get_mut(1) else {
            panic!("the options come second")
        };
        let text = String::from_utf8(options.clone()).unwrap();
        let hostname = "--hostname\0sandbox\0";
        *options = text.replace(option, "").replace(hostname, "").into_bytes();
        let (code, lines) = by_hand.reports(&launch);
        assert_eq!(code, Some(125), "{lines:?}");
        let [
            Report::Failed {
                layer: Layer::Namespaces,
                error,
            },
        ] = &lines[..]
        else {
            panic!("{lines:?}")
        };
        assert!(error.contains(kind), "{error}");
    }
}

/// What becomes of a path that the plan names, between the plan and the start.
type Vanishing = (&'static str, fn(&Bed));

const VANISHING: [Vanishing; 6] = [
    ("the workspace is gone", |bed| {
        fs::remove_dir(bed.workspace()).unwrap();
    }),
    ("the workspace is a file", |bed| {
        fs::remove_dir(bed.workspace()).unwrap();
        bed.file("workspace", "");
    }),
    ("the workspace is a link to what is closed", |bed| {
        bed.directory("secret");
        fs::remove_dir(bed.workspace()).unwrap();
        symlink("secret", bed.workspace()).unwrap();
    }),
    ("the workspace is another directory", |bed| {
        fs::rename(bed.workspace(), bed.path("was")).unwrap();
        bed.directory("workspace");
    }),
    ("the home is gone", |bed| {
        fs::remove_dir(bed.path("home")).unwrap();
    }),
    ("something readable is gone", |bed| {
        fs::remove_dir(bed.path("given")).unwrap();
    }),
];

#[test]
fn a_program_that_nothing_happens_to_runs() {
    let by_hand = ByHand::of_anybody();
    let (code, lines) = by_hand.reports(&by_hand.wrapped());
    assert_eq!(code, Some(0), "{lines:?}");
    assert!(matches!(&lines[..], [Report::Confined { .. }]), "{lines:?}");
    assert!(by_hand.ran());
}

#[test]
fn a_path_that_vanishes_between_the_plan_and_the_wrapping_is_an_error() {
    for (what, vanish) in &VANISHING[..3] {
        let by_hand = ByHand::of_anybody();
        let plan = by_hand.plan();
        vanish(&by_hand.bed);
        let source = match by_hand.wrap(&plan) {
            Err(WrapError::View { source }) => source,
            other => panic!("{what}: {:?}", other.map(|_| ())),
        };
        assert!(
            matches!(&source, ViewError::NotADirectory { path } if *path == by_hand.bed.workspace()),
            "{what}: {source}"
        );
    }
    let by_hand = ByHand::of_anybody();
    let plan = by_hand.plan();
    fs::remove_dir(by_hand.bed.path("home")).unwrap();
    let error = by_hand.wrap(&plan).map(|_| ()).unwrap_err();
    assert!(matches!(error, WrapError::View { .. }), "{error}");
}

#[test]
fn a_path_that_vanishes_between_the_wrapping_and_the_start_ends_the_start() {
    for (what, vanish) in VANISHING {
        let by_hand = ByHand::of_anybody();
        let launch = by_hand.wrapped();
        vanish(&by_hand.bed);
        let (code, lines) = by_hand.reports(&launch);
        assert_ne!(code, Some(0), "{what}: {lines:?}");
        assert!(
            !lines.iter().any(|line| matches!(line, Report::Confined { .. })),
            "{what}: {lines:?}"
        );
        assert!(!by_hand.ran(), "{what}");
    }
}
