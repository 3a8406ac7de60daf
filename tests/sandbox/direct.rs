//! Without namespaces: a host without bubblewrap, and a policy that allows to do without.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use oqto_tests::wait_until;

use crate::bed::{Bed, Ended, SOMEBODY, end, is_root, runner};

const PATH: &str = "PATH=/usr/bin:/bin; ";

/// A policy of the bed's own beside the shipped ones, and a `PATH` with nothing in it.
fn command(bed: &Bed, policy: &str, words: &[&str]) -> Command {
    let text = "description = \"alone\"\nextends = \"BASE\"\n[layers]\nnamespaces = \"if-available\"\n";
    bed.policy("alone-workspace", &text.replace("BASE", "workspace"));
    let policies = bed.policy("alone-open-net", &text.replace("BASE", "open-net"));
    let mut command = Command::new(runner());
    command
        .env("PATH", &policies)
        .args(["sandbox", "run", "--json", "--policy", policy, "--policy-dir"])
        .arg(policies)
        .arg("--cwd")
        .arg(bed.workspace())
        .arg("--")
        .args(words);
    command
}

fn sh(bed: &Bed, script: &str) -> Ended {
    let script = format!("{PATH}{script}");
    end(&mut command(bed, "alone-workspace", &["/bin/sh", "-c", &script]))
}

/// A program of the harness's user outside, with a secret in its environment.
struct Outside(Child);

impl Outside {
    fn new() -> Self {
        let mut command = Command::new("/usr/bin/setpriv");
        if is_root() {
            let user = SOMEBODY.to_string();
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        }
        let child = command
            .args(["/bin/sleep", "1000"])
            .env("SECRET", "hush")
            .spawn()
            .unwrap();
        let name = format!("/proc/{}/comm", child.id());
        wait_until("setpriv became sleep", || {
            (fs::read_to_string(&name).unwrap() == "sleep\n").then_some(())
        });
        Self(child)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn programs_work_and_the_report_says_what_is_missing() {
    let bed = Bed::new();
    let ended = sh(
        &bed,
        "id -u; echo made >made; cat made; expr 6 '*' 7; mktemp | grep -c \"^$HOME/tmp/\"; \
         python3 -c 'import subprocess; print(subprocess.run([\"echo\", \"sub\"], capture_output=True).stdout)'",
    );
    let user = if is_root() {
        SOMEBODY
    } else {
        nix::unistd::geteuid().as_raw()
    };
    assert_eq!(
        ended.out,
        format!("{user}\nmade\n42\n1\nb'sub\\n'\n"),
        "{}",
        ended.err
    );
    let report: serde_json::Value = serde_json::from_str(ended.err.lines().next().unwrap()).unwrap();
    let state = |name: &str| {
        let mut layers = report.as_array().unwrap().iter();
        layers.find(|layer| layer["layer"] == name).unwrap()["state"].clone()
    };
    for missing in ["namespaces", "mounts"] {
        assert_eq!(state(missing), "absent");
    }
    for held in ["privileges", "limits", "landlock", "seccomp", "self-test"] {
        assert_eq!(state(held), "enforced");
    }
}

#[test]
fn files_outside_are_neither_read_nor_written() {
    let bed = Bed::new();
    let secret = bed.file("secret", "hush");
    let writable = bed.directory("elsewhere");
    let script = format!(
        "cat {secret}; cat /proc/self/root{secret}; ln -s {secret} link; cat link; ln {secret} hard; cat hard; \
         echo x >{elsewhere}/planted; echo x >/tmp/oqto-planted-$$; mv {secret} taken; ls {above}; cat /etc/shadow; \
         echo done",
        secret = secret.display(),
        elsewhere = writable.display(),
        above = writable.parent().unwrap().display(),
    );
    let ended = sh(&bed, &script);
    assert_eq!(ended.out, "done\n", "{}", ended.err);
    assert_eq!(fs::read_to_string(secret).unwrap(), "hush");
    assert_eq!(fs::read_dir(writable).unwrap().count(), 0);
}

#[test]
fn other_processes_of_the_user_are_out_of_reach() {
    let bed = Bed::new();
    let outside = Outside::new();
    let pid = outside.0.id();
    let script = format!(
        "import os, signal\n\
         def tried(what, go):\n\
         \x20   try: go(); print('REACHED', what)\n\
         \x20   except OSError as error: print(what, error.errno)\n\
         tried('signal', lambda: os.kill({pid}, signal.SIGTERM))\n\
         tried('environ', lambda: open('/proc/{pid}/environ').read())\n\
         tried('mem', lambda: open('/proc/{pid}/mem', 'rb+'))\n\
         tried('fd', lambda: os.listdir('/proc/{pid}/fd'))\n\
         tried('root', lambda: os.listdir('/proc/{pid}/root/'))\n\
         import resource\n\
         tried('limits', lambda: resource.prlimit({pid}, resource.RLIMIT_NOFILE, (3, 3)))\n"
    );
    let mut command = command(&bed, "alone-workspace", &["/usr/bin/python3", "-c", &script]);
    let ended = end(&mut command);
    assert_eq!(
        ended.out, "signal 1\nenviron 13\nmem 13\nfd 13\nroot 13\nlimits 1\n",
        "{}",
        ended.err
    );
}

#[test]
fn no_socket_and_no_kernel_surface_is_left() {
    let bed = Bed::new();
    let script = "import ctypes, errno, socket\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):\n\
         \x20   try: socket.socket(family); print('REACHED', family)\n\
         \x20   except OSError as error: assert error.errno == errno.EPERM, error\n\
         one, other = socket.socketpair(); one.send(b'pair'); print(other.recv(4).decode())\n\
         calls = {'unshare': (272, 0x10000000), 'ptrace': (101, 0), 'bpf': (321, 0), 'shmget': (29, 0, 4096, 0o1600),\n\
         \x20   'mount': (165, 0), 'keyctl': (250, 0), 'io_uring_setup': (425, 1), 'mq_open': (240, 0)}\n\
         for name, words in calls.items():\n\
         \x20   assert libc.syscall(*words) == -1 and ctypes.get_errno() == errno.EPERM, name\n\
         print('done')\n";
    if std::env::consts::ARCH != "x86_64" {
        oqto_tests::not_run(
            "no_socket_and_no_kernel_surface_is_left",
            "its numbers are those of x86_64",
        );
        return;
    }
    let ended = end(&mut command(
        &bed,
        "alone-workspace",
        &["/usr/bin/python3", "-c", script],
    ));
    assert_eq!(ended.out, "pair\ndone\n", "{}", ended.err);
}

#[test]
fn what_cannot_be_held_alone_does_not_start() {
    let bed = Bed::new();
    let refused = |policy: &str, why: &str| {
        let ended = end(&mut command(&bed, policy, &["/bin/touch", "ran"]));
        assert_eq!(ended.code, 125, "{}", ended.err);
        assert!(ended.err.contains(why), "{}", ended.err);
        assert!(!bed.workspace().join("ran").exists());
    };
    refused("workspace", "bubblewrap (bwrap) is not installed");
    refused(
        "alone-open-net",
        "without namespaces there is no session with a network",
    );
    bed.directory("workspace/.git/hooks");
    refused(
        "alone-workspace",
        ".git/hooks is protected and lies below something writable",
    );
}

#[test]
fn the_program_ends_with_whoever_started_it() {
    let bed = Bed::new();
    let script = format!("{PATH}echo $$; exec sleep 1000");
    let mut started = command(&bed, "alone-workspace", &["/bin/sh", "-c", &script]);
    let mut child = started.stdout(Stdio::piped()).spawn().unwrap();
    let mut pid = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut pid)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let status = format!("/proc/{}/status", pid.trim());
    wait_until("the program dies with its starter", || {
        // Whoever adopts it may take its time to bury it.
        let status = fs::read_to_string(Path::new(&status)).unwrap_or_default();
        (status.is_empty() || status.contains("State:\tZ")).then_some(())
    });
}

#[test]
fn a_bubblewrap_that_a_session_may_have_made_is_not_even_tried() {
    let bed = Bed::new();
    // Where the planted program could write, whoever runs it.
    let ran = bed.directory("out").join("ran");
    bed.directory("workspace/bin");
    let planted = bed.file(
        "workspace/bin/bwrap",
        &format!("#!/bin/sh\necho ran >>{}\nexit 1\n", ran.display()),
    );
    fs::set_permissions(&planted, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = command(&bed, "alone-workspace", &["/bin/true"]);
    let ended = end(command.env("PATH", bed.path("workspace/bin")));
    assert!(!ran.exists(), "it ran outside of the sandbox: {}", ended.err);
    assert_eq!(ended.code, 125, "{}", ended.err);
    assert!(ended.err.contains("may be anything by now"), "{}", ended.err);
}

#[test]
fn nothing_goes_on_after_the_program_has_ended() {
    let bed = Bed::new();
    let ended = sh(&bed, "setsid sleep 1000 >/dev/null 2>&1 & echo $!");
    assert_eq!(ended.code, 0, "{}", ended.err);
    // Without namespaces the number is the host's.
    let process = Path::new("/proc").join(ended.out.trim());
    assert!(!process.exists(), "{} still runs", process.display());
}

#[test]
fn what_its_user_was_given_to_inherit_is_given_up() {
    if !is_root() {
        return oqto_tests::not_run(
            "what_its_user_was_given_to_inherit_is_given_up",
            "only root can give somebody a capability",
        );
    }
    let bed = Bed::new();
    let copy = bed.path("oqto-runner");
    fs::copy(runner(), &copy).unwrap();
    let inner = command(
        &bed,
        "alone-workspace",
        &["/bin/grep", "Cap[IPE]", "/proc/self/status"],
    );
    let user = SOMEBODY.to_string();
    let mut outer = Command::new("/usr/bin/setpriv");
    outer
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(["--inh-caps", "+wake_alarm", "--ambient-caps", "+wake_alarm", "--"])
        .arg(copy)
        .args(inner.get_args());
    let path = inner
        .get_envs()
        .find_map(|(name, value)| value.filter(|_| name == "PATH"));
    let ended = end(outer.env("PATH", path.unwrap()));
    // Without namespaces it cannot look at itself, so that it started at all is the proof: what is left is an error.
    assert!(
        !ended.err.contains("capabilities CapInh are not empty"),
        "{}",
        ended.err
    );
    assert!(
        ended.err.contains("no capabilities, no new privileges"),
        "{}",
        ended.err
    );
}
