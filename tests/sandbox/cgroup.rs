//! A group of the kernel's for each run: born inside, ended as a whole, nothing left. Needs root and a mounted cgroup v2,
//! in which it makes a group to be given away.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use oqto_tests::{not_run, wait_until};

use crate::bed::{Bed, SOMEBODY, end, is_root, runner, weak};

/// A group that belongs to the harness's user, as systemd delegates one.
struct Delegated {
    path: PathBuf,
}

impl Delegated {
    /// `None`, and said, where this host has no place to make it in.
    fn new(test: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(mounted) = mounted.filter(|_| is_root()) else {
            not_run(test, "needs root and a mounted cgroup v2");
            return None;
        };
        let root = Path::new(mounted.split(' ').nth(4).unwrap());
        let path = root.join(format!("oqto-test-{}-{test}", std::process::id()));
        fs::create_dir(&path).unwrap();
        for name in ["", "cgroup.procs", "cgroup.subtree_control"] {
            chown(path.join(name), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        }
        Some(Self { path })
    }

    /// A program in this group, run by the harness's user.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        let user = SOMEBODY.to_string();
        // Once a group limits others nothing can be put into it; systemd too starts a service in a group below then
        // (DelegateSubgroup=oqto-runner).
        let below = self.path.join("oqto-runner");
        let group = if below.exists() { &below } else { &self.path };
        command
            .args([
                "-c",
                "echo 0 >\"$1/cgroup.procs\" || exit 99; shift; exec setpriv \"$@\"",
                "sh",
            ])
            .arg(group)
            .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"])
            .arg(program);
        command
    }

    /// The groups of runs that are there.
    fn runs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.path)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries
            .filter(|path| {
                path.file_name()
                    .unwrap()
                    .to_string_lossy()
                    .starts_with("oqto-run-")
            })
            .collect()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        for group in self
            .runs()
            .into_iter()
            .chain([self.path.join("oqto-runner"), self.path.clone()])
        {
            let _ = fs::remove_dir(group);
        }
    }
}

fn processes(group: &Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Starts a shell that says "here" and waits for a line.
fn waiting(mut command: Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command
        .args(["--", "sh", "-c", "echo here; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "here\n");
    (child, out)
}

fn sandbox_run(bed: &Bed, group: &Delegated, program: &Path) -> Command {
    let mut command = group.command(program);
    command.args(["sandbox", "run", "--cwd"]).arg(bed.workspace());
    command
}

#[test]
fn a_program_is_born_in_a_group_of_its_own_which_goes_with_it() {
    let Some(group) = Delegated::new("born") else {
        return;
    };
    let bed = Bed::new();
    let (mut child, _out) = waiting(sandbox_run(&bed, &group, &runner()));
    let runs = group.runs();
    let [run] = &runs[..] else {
        panic!("one run has one group: {runs:?}");
    };
    // bubblewrap's two processes and the shell; the runner itself is beside them.
    assert!(processes(run).len() >= 2, "{:?}", processes(run));
    assert!(!processes(run).contains(&child.id()));
    assert_eq!(processes(&group.path.join("oqto-runner")), [child.id()]);
    assert!(processes(&group.path).is_empty());
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(group.runs(), Vec::<PathBuf>::new());
}

#[test]
fn what_a_program_leaves_behind_ends_with_its_group() {
    let Some(group) = Delegated::new("behind") else {
        return;
    };
    let bed = Bed::new();
    let mut command = group.command(&weak());
    // Without namespaces of processes nothing else would end it.
    command
        .args(["--without", "namespaces", "--policy", "workspace", "--cwd"])
        .arg(bed.workspace())
        .args([
            "--",
            "sh",
            "-c",
            "setsid sh -c 'echo $$ >left; exec sleep 1000' </dev/null >/dev/null 2>&1 & \
             until [ -s left ]; do :; done",
        ]);
    assert!(command.status().unwrap().success());
    let left = fs::read_to_string(bed.workspace().join("left")).unwrap();
    // Whoever adopted it may take its time to bury it.
    let status = fs::read_to_string(format!("/proc/{}/status", left.trim())).unwrap_or_default();
    assert!(status.is_empty() || status.contains("State:\tZ"), "{status}");
    assert_eq!(group.runs(), Vec::<PathBuf>::new());
}

#[test]
fn the_group_of_a_run_that_was_killed_goes_with_the_next_run() {
    let Some(group) = Delegated::new("killed") else {
        return;
    };
    let bed = Bed::new();
    let (mut child, _out) = waiting(sandbox_run(&bed, &group, &runner()));
    let abandoned = group.runs();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(group.runs(), abandoned);
    wait_until("the sandbox dies with its starter", || {
        processes(&abandoned[0]).is_empty().then_some(())
    });
    let mut again = sandbox_run(&bed, &group, &runner());
    assert!(again.args(["--", "true"]).status().unwrap().success());
    assert_eq!(group.runs(), Vec::<PathBuf>::new());
}

#[test]
fn the_group_of_a_process_that_had_the_same_number_is_in_nobodys_way() {
    let Some(group) = Delegated::new("number") else {
        return;
    };
    let bed = Bed::new();
    let mut command = group.command(Path::new("/bin/sh"));
    command
        .args(["-c", "mkdir \"$0/oqto-run-$$\" && exec \"$@\""])
        .arg(&group.path)
        .arg(runner());
    command
        .args(["sandbox", "run", "--json", "--cwd"])
        .arg(bed.workspace());
    let ended = end(command.args(["--", "true"]));
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("a group of its own"), "{}", ended.err);
    assert_eq!(group.runs(), Vec::<PathBuf>::new());
}

#[test]
fn the_doctor_looks_at_the_group_and_leaves_it_as_it_is() {
    let Some(group) = Delegated::new("doctor") else {
        return;
    };
    // Not with the home of who runs the test, where somebody else cannot even look for a configuration.
    let ended = end(group.command(&runner()).arg("doctor").env("HOME", "/nonexistent"));
    assert_eq!(ended.code, 0, "{}", ended.out);
    let path = group.path.display();
    let can = format!("ok      cgroup: {path} can be divided, limits: memory, pids, cpu\n");
    let cannot = format!("absent  cgroup: the cgroup {path} has no controller");
    assert!(
        ended.out.contains(&can) || ended.out.contains(&cannot),
        "{}",
        ended.out
    );
    assert!(!group.path.join("oqto-runner").exists());
}

#[test]
fn a_group_limits_the_session_as_a_whole() {
    let Some(group) = Delegated::new("limits") else {
        return;
    };
    let there = fs::read_to_string(group.path.join("cgroup.controllers")).unwrap();
    let missing: Vec<&str> = ["memory", "pids", "cpu"]
        .into_iter()
        .filter(|name| !there.split_whitespace().any(|known| known == *name))
        .collect();
    if !missing.is_empty() {
        let why = format!("this host's cgroup v2 has no controller {}", missing.join(", "));
        not_run("a_group_limits_the_session_as_a_whole", &why);
        return;
    }
    let bed = Bed::new();
    let text = "description = \"small\"\nextends = \"workspace\"\n[limits]\nmemory_mib = 128\ncpu_percent = 50\n\
                processes = 40\n[layers]\ncgroup = \"required\"\n";
    let policies = bed.policy("small", text);
    let small = || {
        let mut command = sandbox_run(&bed, &group, &runner());
        command.args(["--policy", "small", "--policy-dir"]).arg(&policies);
        command
    };
    let (mut child, _out) = waiting(small());
    let run = group.runs().pop().unwrap();
    let read = |name: &str| fs::read_to_string(run.join(name)).unwrap().trim().to_owned();
    let names = [
        "memory.max",
        "memory.swap.max",
        "memory.oom.group",
        "pids.max",
        "cpu.max",
    ];
    assert_eq!(names.map(read), ["134217728", "0", "1", "40", "50000 100000"]);
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(child.wait().unwrap().success());
    // Together they are too large, and neither is by itself: the session ends as a whole.
    let hog = "import time; held = b'x' * (80 << 20); time.sleep(100)";
    let script = format!("python3 -c \"{hog}\" & python3 -c \"{hog}\"; wait");
    let ended = end(small().args(["--", "sh", "-c", &script]));
    assert_eq!(ended.code, 137, "{}", ended.err);
    assert_eq!(group.runs(), Vec::<PathBuf>::new());
}
