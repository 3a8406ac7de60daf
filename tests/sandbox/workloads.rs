//! Work that agents do, which has to go on under every policy, with every layer: a wall that breaks it gets switched off.
//!
//! Each is a script of `workloads/`, whose last lines say what it has to say.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use oqto_tests::not_run;

use crate::attempt::Trait;
use crate::bait::place;
use crate::bed::{Bed, end, is_root, runner};
use crate::escapes::traits;

/// A script, and the programs that it needs.
struct Workload {
    file: &'static str,
    text: &'static str,
    needs: &'static [&'static str],
}

macro_rules! workload {
    ($file:literal, $($needs:literal),*) => {
        Workload { file: $file, text: include_str!(concat!("workloads/", $file)), needs: &[$($needs),*] }
    };
}

const WORKLOADS: [Workload; 23] = [
    workload!("archives.sh", "tar", "gzip", "xz", "zip", "unzip"),
    workload!("build.sh", "make", "cc"),
    workload!("children.py", "python3"),
    workload!("crate.sh", "cargo", "cc"),
    workload!("devices.sh", "od"),
    workload!("identity.sh", "getent", "locale"),
    workload!("jobs.sh", "bash", "timeout", "setsid"),
    workload!("libraries.py", "python3"),
    workload!("loopback.py", "python3"),
    workload!("loopback6.py", "python3", "IPv6"),
    workload!("package.sh", "node", "npm"),
    workload!("pipes.sh", "mkfifo"),
    workload!("repository.sh", "git"),
    workload!("sockets.py", "python3"),
    workload!("stores.py", "python3"),
    workload!("table.sh", "ps", "top", "pgrep"),
    workload!("terminal.sh", "script"),
    workload!("terminals.py", "python3"),
    workload!("threads.py", "python3"),
    workload!("tree.sh", "flock"),
    workload!("watching.py", "python3"),
    workload!("work.mjs", "node"),
    workload!("wal.sh", "sqlite3"),
];

impl Workload {
    /// What it has to say: the comment at its end.
    fn says(&self) -> String {
        let mark = if self.file.ends_with(".mjs") { "//" } else { "#" };
        let (_, said) = self.text.split_once(&format!("{mark} says:\n")).unwrap();
        let line = |line: &str| line.strip_prefix(mark).unwrap().trim_start().to_owned() + "\n";
        said.lines().map(line).collect()
    }

    fn program(&self) -> &'static [&'static str] {
        match self.file.rsplit_once('.').unwrap().1 {
            "py" => &["/usr/bin/python3", "-B"],
            "mjs" => &["node"],
            _ => &["sh", "-eu"],
        }
    }

    /// What it needs and this host lacks.
    fn lacks(&self, toolchain: Option<&Path>) -> Option<&'static str> {
        let has = |need: &str| match need {
            "IPv6" => TcpListener::bind("[::1]:0").is_ok(),
            "cargo" => toolchain.is_some(),
            program => ["/usr/local/bin", "/usr/bin", "/bin"]
                .iter()
                .any(|place| Path::new(place).join(program).exists()),
        };
        self.needs.iter().copied().find(|need| !has(need))
    }
}

/// A toolchain of Rust that the agent's user can read, if there is one: the tester's own may lie in a home that is closed
/// to others, so it is linked, or else copied, to the bed.
fn toolchain(bed: &Bed) -> Option<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let from = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    if !from.join("bin/cargo").exists() {
        return None;
    }
    if !is_root() {
        return Some(from);
    }
    let to = bed.path("toolchain");
    for name in ["bin", "lib"] {
        link(&from.join(name), &to.join(name));
    }
    Some(to)
}

fn link(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            link(&from.join(&name), &to.join(&name));
        }
    } else if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap();
    }
}

/// Runs every one in a directory of its own, in the workspace or, where that cannot be written, in its home.
fn goes_on(policy: &str) {
    let bed = Bed::within(&place());
    let toolchain = toolchain(&bed);
    let scripts = bed.directory("workspace/scripts");
    for workload in &WORKLOADS {
        fs::write(scripts.join(workload.file), workload.text).unwrap();
    }
    let read: Vec<&PathBuf> = toolchain.iter().collect();
    let text = format!("description = \"d\"\nextends = \"{policy}\"\n[filesystem]\nread = {read:?}\n");
    let policies = bed.policy("tried", &text);
    let place = if traits(&policy.parse().unwrap()).contains(&Trait::ReadOnly) {
        "$HOME".to_owned()
    } else {
        bed.workspace().display().to_string()
    };

    let mut faults = BTreeMap::new();
    for workload in &WORKLOADS {
        if let Some(need) = workload.lacks(toolchain.as_deref()) {
            not_run(
                &format!("workload {} under {policy}", workload.file),
                &format!("this host has no {need}"),
            );
            continue;
        }
        let mut command = Command::new(runner());
        command
            .args(["sandbox", "run", "--policy", "tried", "--policy-dir"])
            .arg(&policies);
        let script = format!(
            "export TOOLCHAIN={}; cd \"{place}\"; mkdir for-{1}; cd for-{1}; exec {2} '{3}'",
            toolchain.as_deref().unwrap_or(Path::new("none")).display(),
            workload.file,
            workload.program().join(" "),
            scripts.join(workload.file).display(),
        );
        let ended = end(command
            .arg("--cwd")
            .arg(bed.workspace())
            .args(["--", "sh", "-c", &script]));
        if (ended.code, &ended.out) != (0, &workload.says()) {
            faults.insert(
                workload.file,
                format!("ended with {}\n{}\n{}", ended.code, ended.out, ended.err),
            );
        }
    }
    let faults: String = faults
        .iter()
        .map(|(file, said)| format!("== {policy}: {file} {said}"))
        .collect();
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn work_goes_on_under_offline() {
    goes_on("offline");
}

#[test]
fn work_goes_on_under_open_net() {
    goes_on("open-net");
}

#[test]
fn work_goes_on_under_read_only() {
    goes_on("read-only");
}

#[test]
fn work_goes_on_under_strict() {
    goes_on("strict");
}

#[test]
fn work_goes_on_under_workspace() {
    goes_on("workspace");
}

#[test]
fn a_terminal_given_to_the_program_is_usable() {
    let bed = Bed::new();
    let run = bed.command(
        "workspace",
        &["sh", "-c", "test -t 0 && stty size >/dev/null && echo terminal"],
    );
    let words: Vec<&str> = run.get_args().map(|word| word.to_str().unwrap()).collect();
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("{} {}", run.get_program().to_str().unwrap(), words.join(" "));
    let out = end(Command::new("script").args(["-qec", &line, "/dev/null"])).ok();
    assert_eq!(out.trim(), "terminal");
}
