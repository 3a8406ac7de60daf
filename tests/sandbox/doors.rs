//! What the doors answer.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oqto_runner::policy::AbsolutePath;
use oqto_runner::sandbox::principal::Principal;
use oqto_runner::sandbox::reachable_exe;

use crate::bed::{Bed, SOMEBODY, end, is_root, runner};

#[test]
fn the_exit_code_is_the_programs_own() {
    let bed = Bed::new();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$", 137),
        ("kill -15 $$", 143),
    ] {
        assert_eq!(bed.sh(script).code, code, "{script}");
    }
    for (program, code) in [("no-such-program", 127), ("/etc/passwd", 126)] {
        let ended = bed.run(&[program]);
        assert_eq!(ended.code, code, "{}", ended.err);
        assert!(ended.err.contains(program), "{}", ended.err);
    }
}

#[test]
fn whoever_stops_it_stops_everything_inside_and_no_home_is_left() {
    let bed = Bed::new();
    let homes = bed.directory("homes");
    let script = "setsid sh -c 'echo there; exec sleep 1000' & wait";
    let mut command = bed.command("workspace", &["sh", "-c", script]);
    let mut run = command
        .env("TMPDIR", &homes)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(run.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    assert_eq!(fs::read_dir(&homes).unwrap().count(), 1);
    kill(Pid::from_raw(run.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(137));
    assert_eq!(fs::read_dir(&homes).unwrap().count(), 0);
    // The end of the pipe comes when nothing inside holds it any more.
    assert_eq!(out.read_to_string(&mut String::new()).unwrap(), 0);
}

#[test]
fn what_was_enforced_is_said_layer_by_layer() {
    let bed = Bed::new();
    let mut command = Command::new(runner());
    command
        .args(["sandbox", "run", "--json", "--cwd"])
        .arg(bed.workspace())
        .args(["--", "true"]);
    let ended = end(&mut command);
    let layers: serde_json::Value = serde_json::from_str(&ended.err).unwrap();
    let names: Vec<_> = layers
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["layer"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "namespaces",
            "mounts",
            "privileges",
            "cgroup",
            "limits",
            "landlock",
            "seccomp",
            "self-test"
        ]
    );
    assert!(
        layers
            .as_array()
            .unwrap()
            .iter()
            // A host that delegates no cgroup is no reason to refuse, and the report says so.
            .all(|layer| layer["state"] == "enforced" || layer["layer"] == "cgroup"),
        "{layers}"
    );
}

#[test]
fn a_workspace_that_is_more_than_a_project_is_refused() {
    for workspace in ["/usr", "/etc", "/proc", "/no/such/directory"] {
        let mut command = Command::new(runner());
        let ended = end(command.args(["sandbox", "run", "--cwd", workspace, "--", "true"]));
        assert_eq!(ended.code, 125, "{workspace}: {}", ended.err);
    }
}

#[test]
fn root_does_not_run_in_a_workspace_of_roots() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let ended = end(Command::new(runner())
        .args(["sandbox", "run", "--cwd"])
        .arg(directory.path())
        .args(["--", "true"]));
    assert_eq!(ended.code, 125);
    assert!(
        ended.err.contains("belongs to root") && ended.err.contains("name a user as principal"),
        "{}",
        ended.err
    );
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_line() {
    let bed = Bed::new();
    let text = "description = \"d\"\nextends = \"workspace\"\n[filesystem]\nraed = []\n";
    let policies = bed.policy("mine", text);
    let file = policies.join("mine.toml");
    let mut command = Command::new(runner());
    command
        .args(["sandbox", "run", "--policy", "mine", "--policy-dir"])
        .arg(policies);
    let ended = end(command.arg("--cwd").arg(bed.workspace()).args(["--", "true"]));
    assert_eq!(ended.code, 125);
    assert!(
        ended.err.contains(&format!("{}:4:", file.display())),
        "{}",
        ended.err
    );
    assert!(ended.err.contains("did you mean read?"), "{}", ended.err);
}

#[test]
fn a_policy_of_the_operator_is_enforced() {
    let bed = Bed::new();
    bed.directory("shared");
    bed.file("shared/data", "given");
    let shared = bed.path("shared").display().to_string();
    let text = format!(
        "description = \"d\"\nextends = \"workspace\"\n[filesystem]\nread = [\"{shared}\"]\nmask = [\"$WORKSPACE/hidden\"]\n\
         [limits]\nopen_files = 99\n"
    );
    let policies = bed.policy("mine", &text);
    bed.directory("workspace/hidden");
    bed.file("workspace/hidden/secret", "hush");
    let script = "cat ../shared/data; echo; echo x > ../shared/data; ls -A hidden; mv hidden seen; ulimit -n";
    let mut command = Command::new(runner());
    command
        .args(["sandbox", "run", "--policy", "mine", "--policy-dir"])
        .arg(policies);
    let ended = end(command
        .arg("--cwd")
        .arg(bed.workspace())
        .args(["--", "sh", "-c", script]));
    assert_eq!(ended.out, "given\n99\n", "{}", ended.err);
    assert_eq!(fs::read_to_string(bed.path("shared/data")).unwrap(), "given");
}

#[test]
fn without_bubblewrap_nothing_runs_and_the_way_to_get_it_is_said() {
    let bed = Bed::new();
    let ended = end(bed.command("workspace", &["true"]).env("PATH", "/nonexistent"));
    assert_eq!(ended.code, 125);
    assert!(ended.err.contains("apt-get install bubblewrap"), "{}", ended.err);
    let ended = end(Command::new(runner()).arg("doctor").env("PATH", "/nonexistent"));
    assert_eq!(ended.code, 1);
    assert!(
        ended.out.contains("MISSING namespaces") && ended.out.contains("apt-get"),
        "{}",
        ended.out
    );
}

#[test]
fn the_policies_and_the_runners_own_are_out_of_reach_whatever_a_policy_says() {
    let bed = Bed::new();
    // Writable for the program, and in a way in which the policies in it are still believed.
    fs::create_dir_all(bed.path("given/policies")).unwrap();
    fs::set_permissions(bed.path("given"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(bed.path("given/policies"), fs::Permissions::from_mode(0o755)).unwrap();
    bed.directory("given/state");
    bed.directory("given/state/oqto");
    bed.file("given/state/oqto/key", "hush");
    let given = bed.path("given").display().to_string();
    let text = format!("description = \"d\"\nextends = \"workspace\"\n[filesystem]\nwrite = [\"{given}\"]\n");
    fs::write(bed.path("given/policies/mine.toml"), &text).unwrap();
    let script = "cd ../given && touch fine; cat policies/mine.toml state/oqto/key; touch policies/x state/oqto/x; \
                  mv policies was; mv state was; ls -A policies state/oqto";
    let mut command = Command::new(runner());
    command
        .args(["sandbox", "run", "--policy", "mine", "--policy-dir"])
        .arg(bed.path("given/policies"))
        .env("XDG_STATE_HOME", bed.path("given/state"));
    let ended = end(command
        .arg("--cwd")
        .arg(bed.workspace())
        .args(["--", "sh", "-c", script]));
    assert_eq!(ended.out, "policies:\n\nstate/oqto:\n", "{}", ended.err);
    assert!(bed.path("given/fine").exists());
    assert_eq!(
        fs::read_to_string(bed.path("given/policies/mine.toml")).unwrap(),
        text
    );
}

#[test]
fn a_bubblewrap_that_the_program_could_have_put_there_is_not_run() {
    let bed = Bed::new();
    bed.directory("workspace/bin");
    let planted = bed.file("workspace/bin/bwrap", "#!/bin/sh\necho planted\n");
    fs::set_permissions(&planted, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", planted.parent().unwrap().display());
    let ended = end(bed.command("workspace", &["true"]).env("PATH", path));
    assert_eq!((ended.code, ended.out.as_str()), (125, ""));
    assert!(ended.err.contains("workspace/bin/bwrap lies in"), "{}", ended.err);
}

#[test]
fn a_directory_as_a_standard_stream_is_refused() {
    let bed = Bed::new();
    let outside = File::open(bed.directory("outside")).unwrap();
    let mut command = bed.command("workspace", &["echo", "in"]);
    let ended = command.stdin(outside).output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), ended.stdout.len()), (Some(125), 0), "{err}");
    assert!(err.contains("standard stream 0 is a directory"), "{err}");
}

#[test]
fn the_doctor_finds_every_layer_here() {
    let ended = end(Command::new(runner()).args(["doctor", "--json"]));
    let findings: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let findings = findings["layers"].as_array().unwrap();
    let layers: Vec<_> = findings
        .iter()
        .map(|found| found["layer"].as_str().unwrap())
        .collect();
    assert_eq!(layers, ["namespaces", "landlock", "seccomp", "cgroup", "records"]);
    for found in findings {
        // What is missing comes with the step that gives it.
        assert_eq!(found["usable"] == false, found["step"].is_string(), "{found}");
        let required = found["layer"] != "cgroup" && found["layer"] != "records";
        assert_eq!(found["need"] == "required", required, "{found}");
        assert!(!required || found["usable"] == true, "{found}");
    }
    assert_eq!(ended.code, 0, "{findings:?}");
}

#[test]
fn the_doctor_says_how_to_get_a_harness_that_is_missing_and_is_content_without() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let script = file("node_modules/mine/cli", "#!/bin/sh\n");
    file(
        "node_modules/mine/package.json",
        r#"{"version": "3.1.0", "bin": "cli"}"#,
    );
    let config = file(
        "runner.toml",
        &format!("[harness.mine]\ndialect = \"acp\"\nprogram = {script:?}\ntested = \"2\"\n"),
    );
    let doctor = |words: &[&str]| {
        let mut command = Command::new(runner());
        end(command
            .args(["doctor", "--config"])
            .arg(&config)
            .args(words)
            .env("PATH", "/usr/bin:/bin"))
    };
    let ended = doctor(&["--json"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let found: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let harnesses = found["harnesses"].as_array().unwrap();
    let named = |name: &str| harnesses.iter().find(|harness| harness["name"] == name).unwrap();
    assert_eq!(named("mine")["version"], "3.1.0");
    assert!(
        named("mine")["warning"]
            .as_str()
            .unwrap()
            .contains("none of the versions")
    );
    let problem = named("opencode")["problem"].as_str().unwrap();
    assert!(
        problem.contains("to get it: npm install -g opencode-ai@"),
        "{problem}"
    );
    let text = doctor(&[]).out;
    assert!(text.contains("\nok      mine 3.1.0 (tested: 2): "), "{text}");
    assert!(text.contains("\nabsent  opencode "), "{text}");

    fs::write(&config, "[harness.mine]\nprogram = \"x\"\n").unwrap();
    let ended = doctor(&[]);
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("MISSING configuration: "), "{}", ended.out);
}

#[test]
fn a_user_without_privileges_gets_the_same_sandbox() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let copy = bed.path("oqto-runner");
    fs::copy(runner(), &copy).unwrap();
    let user = SOMEBODY.to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .arg(copy);
    let ended = end(command
        .args(["sandbox", "run", "--cwd"])
        .arg(bed.workspace())
        .args(["--", "id", "-u"]));
    assert_eq!(ended.ok(), format!("{user}\n"));
}

#[test]
fn a_program_in_a_directory_that_only_root_may_enter_is_copied_once() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let closed = bed.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let exe = closed.join("program");
    fs::write(&exe, "program").unwrap();
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o755)).unwrap();
    let principal = Principal::choose(None, &bed.workspace()).unwrap();
    let copies = bed.path("copies");
    let copy: PathBuf = reachable_exe(&exe, &principal, &copies, &[]).unwrap();
    // What is copied is what runs, not what the path may lead to by now.
    assert!(fs::read(&copy).unwrap() == fs::read("/proc/self/exe").unwrap());
    assert_eq!(reachable_exe(&exe, &principal, &copies, &[]).unwrap(), copy);
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 1);
    assert_eq!(
        reachable_exe(Path::new("/bin/sh"), &principal, &copies, &[]).unwrap(),
        Path::new("/bin/sh")
    );
    let writable = [AbsolutePath::try_from(Path::new("/bin")).unwrap().into()];
    assert_eq!(
        reachable_exe(Path::new("/bin/sh"), &principal, &copies, &writable).unwrap(),
        copy,
        "a program that the session may write is not run by its own path"
    );
    fs::set_permissions(&copies, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(
        reachable_exe(&exe, &principal, &copies, &[]).is_err(),
        "a directory that anybody can write holds no program of ours"
    );
}

#[test]
fn a_start_that_runs_out_of_descriptors_ends() {
    let bed = Bed::new();
    for words in [&["run", "--cwd", "W", "--", "true"][..], &["check"]] {
        // So few that bubblewrap itself fails half-way, while its child waits for it.
        for files in ["8", "10", "12"] {
            let mut command = Command::new("timeout");
            command
                .args([
                    "-s",
                    "KILL",
                    "30",
                    "sh",
                    "-c",
                    "ulimit -n $1; shift; exec \"$@\"",
                    "sh",
                    files,
                ])
                .arg(runner())
                .arg("sandbox");
            for word in words {
                match *word {
                    "W" => command.arg(bed.workspace()),
                    word => command.arg(word),
                };
            }
            let ended = end(&mut command);
            assert_ne!(ended.code, 137, "sandbox {words:?} hangs with {files} files");
        }
    }
}
