//! Nothing is left of a session, however it ends: no process, mount, socket, control group or file that is not meant to stay.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use oqto_control::{Runner, Session, SessionConfig};
use oqto_protocol::id::SessionId;
use oqto_protocol::session::SessionState;
use oqto_tests::{Home, Process, built, end, is_root, not_run, signal, wait_until};

/// Leaves behind what an agent could: a job of the shell, one that hangs up with nobody, and one that has forgotten
/// everything: its parents, its session, its directory, its environment and its files.
const DAEMONS: &str = r#"
sleep 1000 &
nohup sleep 1000 >/dev/null 2>&1 &
setsid env -i /usr/bin/python3 -c '
import os, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
open("forked", "w")
os.chdir("/")
os.closerange(0, 64)
time.sleep(1000)'
mkfifo pipe
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/tmp/own.sock")'
touch begun
exec sleep 1000
"#;

/// What may stay in a session's directory once it is over: what `docs/ARCHITECTURE.md` says.
const STAYS: [&str; 2] = ["home", "session.json"];

/// What there is on the host of one session, as far as the host shows it.
struct Traces {
    /// The process namespace that everything of the session is in.
    namespace: PathBuf,
    /// As long as this is open no other namespace has its name.
    _open: fs::File,
    session: SessionId,
}

impl Traces {
    /// Those of a session in which [`DAEMONS`] has done its work.
    fn of(home: &Home, session: &SessionId) -> Self {
        wait_until("the daemons to be there", || {
            let there = ["begun", "forked"].map(|name| home.workspace().join(name).exists());
            (there == [true, true]).then_some(())
        });
        let sleeping = home
            .agents()
            .into_iter()
            .find(|process| process.words.starts_with("sleep"));
        let sleeping = sleeping.unwrap().pid;
        let traces = Self {
            _open: fs::File::open(format!("/proc/{sleeping}/ns/pid")).unwrap(),
            namespace: namespace(sleeping).unwrap(),
            session: session.clone(),
        };
        assert!(traces.processes().len() >= 5, "{:?}", traces.processes());
        traces
    }

    /// Everything that runs in the session's process namespace, whatever it has forgotten.
    fn processes(&self) -> Vec<i32> {
        let numbers = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        numbers
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| namespace(*pid).as_ref() == Some(&self.namespace))
            .collect()
    }

    /// Waits until every process is gone, then looks for whatever else there could be.
    #[track_caller]
    fn are_gone(&self, home: &Home) {
        wait_until("everything in the sandbox to end", || {
            self.processes().is_empty().then_some(())
        });
        home.no_agents();
        let dir = home.dir().to_str().unwrap();
        for list in ["/proc/self/mountinfo", "/proc/net/unix"] {
            let text = fs::read_to_string(list).unwrap();
            let left: Vec<_> = text.lines().filter(|line| line.contains(dir)).collect();
            assert_eq!(left, Vec::<&str>::new(), "{list}");
        }
        // The runner removes it when it knows of the end.
        wait_until("the control groups to go", || {
            let groups = below(Path::new("/sys/fs/cgroup"), |path| {
                path.is_dir() && path.to_string_lossy().contains(self.session.as_str())
            });
            groups.is_empty().then_some(())
        });
        assert!(!Path::new("/tmp/own.sock").exists());
        let session = home.state().join("sessions").join(self.session.as_str());
        let shim = session.join("shim");
        wait_until("the shim's directory to go", || (!shim.exists()).then_some(()));
        if session.exists() {
            // Its record may just be written anew, which is a file beside it until it is synced.
            wait_until("nothing but what stays", || {
                let names: BTreeSet<_> = fs::read_dir(&session)
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect();
                (names == STAYS.map(str::to_owned).into()).then_some(())
            });
        }
        let sockets = below(&home.state(), |path| {
            path.symlink_metadata()
                .is_ok_and(|found| found.file_type().is_socket())
        });
        assert_eq!(sockets, Vec::<PathBuf>::new());
    }
}

fn namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// Every path below a directory that is so.
fn below(dir: &Path, is_so: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = left.pop() {
        // What goes away meanwhile is not there.
        for entry in fs::read_dir(&dir).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(path.clone());
            }
            if is_so(&path) {
                found.push(path);
            }
        }
    }
    found
}

fn config(home: &Home) -> SessionConfig {
    SessionConfig {
        harness: "exec".to_owned(),
        cwd: Some(home.workspace().display().to_string()),
        ..SessionConfig::default()
    }
}

/// A session with daemons in it.
async fn busy(home: &Home, runner: &Runner) -> (Session, Traces) {
    let session = runner.create(config(home)).await.unwrap();
    session.prompt(DAEMONS).await.unwrap();
    let traces = Traces::of(home, session.id());
    (session, traces)
}

/// The processes of a session that somebody could kill.
enum Victim {
    Runner,
    Shim,
    /// bubblewrap, outside.
    Launcher,
    /// bubblewrap, as the first process inside.
    Init,
    Harness,
}

impl Victim {
    /// Kills it and waits until it is gone.
    fn kill(&self, home: &Home) {
        let process = self.find(home);
        signal(process.pid, Signal::SIGKILL);
        wait_until("the victim to die", || (!process.lives()).then_some(()));
    }

    fn find(&self, home: &Home) -> Process {
        match self {
            Self::Runner => Process {
                pid: home.runner_pid().unwrap(),
                words: String::new(),
            },
            Self::Shim => agent(home, "oqto-runner shim"),
            Self::Launcher => child(&Self::Shim.find(home)),
            Self::Init => child(&Self::Launcher.find(home)),
            Self::Harness => agent(home, "/run/oqto/oqto-runner exec-agent"),
        }
    }
}

fn agent(home: &Home, words: &str) -> Process {
    let agents = home.agents();
    let found = agents.iter().find(|process| process.words.starts_with(words));
    found.unwrap_or_else(|| panic!("no {words}: {agents:#?}")).clone()
}

/// The only child of a process.
fn child(of: &Process) -> Process {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", of.pid)).unwrap();
    let words = format!("child of {}", of.words);
    let pid = children
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("{words}: {children:?}"));
    Process { pid, words }
}

async fn after(victims: &[Victim]) {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let (session, traces) = busy(&home, &runner).await;
    for victim in victims {
        victim.kill(&home);
    }
    let runner_died = victims.iter().any(|victim| matches!(victim, Victim::Runner));
    let harness_died = victims.iter().any(|victim| !matches!(victim, Victim::Runner));
    let runner = if runner_died {
        control.local().await.unwrap()
    } else {
        runner
    };
    if !harness_died {
        runner.session(session.id().clone()).close().await.unwrap();
    }
    traces.are_gone(&home);
    control.close().await;
}

#[tokio::test]
async fn a_session_that_is_closed_leaves_nothing() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let (session, traces) = busy(&home, &runner).await;
    session.close().await.unwrap();
    traces.are_gone(&home);
    session.delete().await.unwrap();
    assert!(!home.state().join("sessions").join(session.id().as_str()).exists());
    control.close().await;
}

#[tokio::test]
async fn a_session_that_is_deleted_leaves_nothing() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let (session, traces) = busy(&home, &runner).await;
    session.delete().await.unwrap();
    traces.are_gone(&home);
    home.no_sessions();
    control.close().await;
}

#[tokio::test]
async fn a_harness_that_is_killed_leaves_nothing() {
    after(&[Victim::Harness]).await;
}

#[tokio::test]
async fn a_shim_that_is_killed_leaves_nothing() {
    after(&[Victim::Shim]).await;
}

#[tokio::test]
async fn a_launcher_that_is_killed_leaves_nothing() {
    after(&[Victim::Launcher]).await;
}

#[tokio::test]
async fn a_sandbox_whose_first_process_is_killed_leaves_nothing() {
    after(&[Victim::Init]).await;
}

#[tokio::test]
async fn a_runner_that_is_killed_leaves_nothing_that_the_next_one_cannot_end() {
    after(&[Victim::Runner]).await;
}

#[tokio::test]
async fn a_runner_and_then_its_shim_that_are_killed_leave_nothing() {
    after(&[Victim::Runner, Victim::Shim]).await;
}

#[tokio::test]
async fn a_shim_and_then_its_runner_that_are_killed_leave_nothing() {
    after(&[Victim::Shim, Victim::Runner]).await;
}

#[tokio::test]
async fn a_harness_and_then_its_runner_that_are_killed_leave_nothing() {
    after(&[Victim::Harness, Victim::Runner]).await;
}

#[tokio::test]
async fn a_runner_that_is_told_to_stop_leaves_nothing() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let (_session, traces) = busy(&home, &runner).await;
    assert_eq!(home.stop(), []);
    traces.are_gone(&home);
    assert!(!home.state().join("runner.json").exists());
    control.close().await;
}

#[tokio::test]
async fn a_shim_that_hangs_is_ended_with_all_it_runs_by_the_next_runner() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let (session, traces) = busy(&home, &runner).await;
    let shim = Victim::Shim.find(&home);
    signal(shim.pid, Signal::SIGSTOP);
    Victim::Runner.kill(&home);
    let runner = control.local().await.unwrap();
    traces.are_gone(&home);
    assert!(!shim.lives());
    let told = runner.session(session.id().clone()).state().await.unwrap();
    assert_eq!(told.info.state, SessionState::Closed);
    control.close().await;
}

#[tokio::test]
async fn a_shim_that_hangs_is_ended_with_all_it_runs_when_it_does_not_answer() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let (session, traces) = busy(&home, &runner).await;
    let shim = Victim::Shim.find(&home);
    signal(shim.pid, Signal::SIGSTOP);
    let refused = session.abort().await.unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
    traces.are_gone(&home);
    assert!(!shim.lives());
    let told = session.state().await.unwrap();
    assert_eq!(told.info.state, SessionState::Closed);
    control.close().await;
}

#[tokio::test]
async fn a_shim_that_hangs_over_a_damaged_tape_is_ended_too() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let (_session, traces) = busy(&home, &runner).await;
    let shim = Victim::Shim.find(&home);
    // It can neither hear that it may go nor see that its program has ended, and its tape says nothing sensible.
    let tape = home
        .state()
        .join("sessions")
        .join(traces.session.as_str())
        .join("shim/0/tape");
    signal(shim.pid, Signal::SIGSTOP);
    let zeros = vec![0; fs::read(&tape).unwrap().len()];
    fs::write(&tape, zeros).unwrap();
    Victim::Runner.kill(&home);
    control.local().await.unwrap();
    wait_until("the shim to be ended", || (!shim.lives()).then_some(()));
    wait_until("everything in the sandbox to end", || {
        traces.processes().is_empty().then_some(())
    });
    home.no_agents();
    control.close().await;
}

#[test]
fn an_interrupt_of_oqtoctl_leaves_nothing() {
    let home = Home::new();
    let mut child = home
        .ctl(&["exec", "--", "sh", "-c", DAEMONS])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("a session", || {
        home.workspace().join("begun").exists().then_some(())
    });
    let sessions = fs::read_dir(home.state().join("sessions")).unwrap();
    let id = sessions
        .last()
        .unwrap()
        .unwrap()
        .file_name()
        .into_string()
        .unwrap();
    let traces = Traces::of(&home, &id.parse().unwrap());
    signal(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    child.wait().unwrap();
    traces.are_gone(&home);
}

/// Set for the test that runs in a mount namespace of its own.
const INSIDE: &str = "OQTO_TEST_IN_SMALL_FILE_SYSTEM";

/// A mount that the host sees would be one of every process, so the test runs once more where nobody else sees it. The
/// small file system lies outside of the home, of which it would else make everything here a part.
#[test]
fn a_full_disk_keeps_no_session_from_ending() {
    let name = "a_full_disk_keeps_no_session_from_ending";
    if !is_root() {
        return not_run(name, "only root can mount a file system for other users' agents");
    }
    let small = tempfile::Builder::new()
        .prefix("oqto-small-")
        .tempdir_in("/tmp")
        .unwrap();
    let script = "mount -t tmpfs -o size=16m,mode=755 tmpfs \"$0\" && exec \"$@\"";
    let mut outer = Command::new("unshare");
    outer
        .args(["--mount", "--propagation", "private", "--", "sh", "-c", script])
        .arg(small.path());
    outer.arg(std::env::current_exe().unwrap());
    outer.args([
        "--exact",
        "--ignored",
        "--nocapture",
        "leaks::inside_a_small_file_system",
    ]);
    outer.env(INSIDE, small.path());
    let ended = end(&mut outer);
    assert!(
        ended.code == 0 && ended.text().contains("1 passed"),
        "{}{}",
        ended.text(),
        ended.err
    );
}

#[tokio::test]
#[ignore = "the inner half of a_full_disk_keeps_no_session_from_ending, which runs it"]
async fn inside_a_small_file_system() {
    let small = PathBuf::from(std::env::var_os(INSIDE).unwrap());
    let home = Home::new();
    fs::remove_dir(home.path("state")).unwrap();
    std::os::unix::fs::symlink(&small, home.path("state")).unwrap();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let (session, traces) = busy(&home, &runner).await;
    let talking = runner.create(config(&home)).await.unwrap();
    talking
        .prompt("while :; do echo word; sleep 0.01; done")
        .await
        .unwrap();
    // Until nothing goes in any more.
    let full = fs::write(small.join("ballast"), vec![1; 64 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    wait_until("a human to be told", || {
        home.run(&["status"])
            .ok()
            .contains("cannot be written")
            .then_some(())
    });
    // What it says of itself is kept, so that a reader can go on from there.
    let told = talking.state().await.unwrap().info.cursor;
    let mut events = talking.events_from(told).await.unwrap();
    // It is refused where it cannot be recorded, which a few bytes of room decide; the agent goes either way.
    let _refused = session.close().await;
    wait_until("everything in the sandbox to end", || {
        traces.processes().is_empty().then_some(())
    });
    fs::remove_file(small.join("ballast")).unwrap();
    let next = events.next().await.unwrap().unwrap();
    assert_eq!(next.seq, Some(told.seq + 1));
    talking.close().await.unwrap();
    traces.are_gone(&home);
    control.close().await;
}

#[test]
fn a_run_without_a_daemon_that_is_killed_leaves_a_home_that_the_next_one_removes() {
    let home = Home::new();
    // A place for temporary files of its own, for whoever programs run as.
    let tmp = home.directory("tmp");
    let run = |script: &str| {
        let mut command = home.environment(&built("oqto-runner"));
        command
            .env("TMPDIR", &tmp)
            .args(["sandbox", "run", "--", "sh", "-c", script]);
        command
    };
    let homes = || -> Vec<PathBuf> {
        fs::read_dir(&tmp)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    };
    let mut child = run("touch $HOME/kept begun; exec sleep 1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the program to begin", || {
        home.workspace().join("begun").exists().then_some(())
    });
    // One that runs keeps its home.
    assert_eq!(end(&mut run("true")).code, 0);
    assert_eq!(homes().len(), 1);
    signal(i32::try_from(child.id()).unwrap(), Signal::SIGKILL);
    child.wait().unwrap();
    home.no_agents();
    assert_eq!(homes().len(), 1);
    // What others put there stays.
    fs::create_dir(tmp.join("oqto-run-planted")).unwrap();
    std::os::unix::fs::symlink(home.workspace(), tmp.join("oqto-run-link")).unwrap();
    assert_eq!(end(&mut run("true")).code, 0);
    let mut left: Vec<_> = homes()
        .iter()
        .map(|path| path.file_name().unwrap().to_owned())
        .collect();
    left.sort();
    let planted = if is_root() {
        vec!["oqto-run-link", "oqto-run-planted"]
    } else {
        vec!["oqto-run-link"]
    };
    assert_eq!(left, planted);
    assert!(home.workspace().join("begun").exists());
}
