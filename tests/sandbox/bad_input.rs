//! Policies that are none, and hosts that cannot hold them: each door says what is wrong and where, and starts nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use oqto_tests::not_run;

use crate::bed::{Bed, Ended, SOMEBODY, end, is_root, runner};

pub(crate) const DOORS: [&str; 3] = ["run", "check", "explain"];
pub(crate) const MINE: &str = "description = \"mine\"\nextends = \"workspace\"\n";

/// What is put in the place of a policy, and what is said of it.
type Wrong = (&'static str, fn(&Path), &'static [&'static str]);

/// Who opens a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Tester,
    /// Somebody without privileges: only root can be somebody else.
    Somebody,
}

impl Who {
    pub(crate) fn all() -> &'static [Self] {
        if is_root() {
            &[Self::Tester, Self::Somebody]
        } else {
            &[Self::Tester]
        }
    }

    /// Who is believed beside root.
    pub(crate) fn user(self) -> u32 {
        match self {
            Self::Tester => nix::unistd::geteuid().as_raw(),
            Self::Somebody => SOMEBODY,
        }
    }

    fn runner(self, bed: &Bed) -> Command {
        if self == Self::Tester {
            return Command::new(runner());
        }
        let copy = bed.path("oqto-runner");
        if !copy.exists() {
            fs::copy(runner(), &copy).unwrap();
        }
        let mut command = Command::new("setpriv");
        let id = SOMEBODY.to_string();
        command.args([
            "--reuid",
            &id,
            "--regid",
            &id,
            "--clear-groups",
            "--inh-caps=-all",
            "--",
        ]);
        command.arg(copy);
        command
    }
}

/// A door with the policy `mine` of a directory. `run` would leave a file in the workspace.
pub(crate) fn open(bed: &Bed, who: Who, door: &str, policies: &Path) -> Command {
    let mut command = who.runner(bed);
    command
        .args(["sandbox", door, "--policy", "mine", "--policy-dir"])
        .arg(policies);
    if door != "check" {
        command.arg("--cwd").arg(bed.workspace());
    }
    if door == "run" {
        command.args(["--", "touch", "ran"]);
    }
    command
}

#[track_caller]
pub(crate) fn refused(bed: &Bed, what: &str, ended: &Ended, words: &[&str]) {
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (125, ""),
        "{what}: {}",
        ended.err
    );
    for word in words {
        assert!(
            ended.err.contains(word),
            "{what}: {word:?} is not in: {}",
            ended.err
        );
    }
    assert!(ended.err.starts_with("oqto-runner: "), "{what}: {}", ended.err);
    assert!(!bed.workspace().join("ran").exists(), "{what}");
}

/// Asserts that every door refuses the policy and says these words.
#[track_caller]
fn refused_everywhere(bed: &Bed, what: &str, policies: &Path, words: &[&str]) {
    for door in DOORS {
        let ended = end(&mut open(bed, Who::Tester, door, policies));
        refused(bed, &format!("{what} ({door})"), &ended, words);
    }
}

#[test]
fn every_door_opens_for_a_policy_that_is_one() {
    for who in Who::all() {
        let bed = Bed::new();
        let policies = bed.policy("mine", MINE);
        for door in DOORS {
            let ended = end(&mut open(&bed, *who, door, &policies));
            assert_eq!(ended.code, 0, "{who:?} {door}: {}{}", ended.out, ended.err);
        }
        assert!(bed.workspace().join("ran").exists());
    }
}

#[test]
fn a_text_that_is_no_policy_is_named_with_its_line() {
    for (text, words) in [
        ("", &["mine.toml:1:", "description"][..]),
        ("description = \"d\"\nextends = \n", &["mine.toml:2:"]),
        ("description = \"d\"\n[filesystem\n", &["mine.toml:2:"]),
        (
            "description = \"d\"\n\ndescripton = \"d\"\n",
            &["mine.toml:3:", "did you mean description?"],
        ),
        ("description = \"d\"\n[filesystem]\nread = 3\n", &["mine.toml:3:"]),
        (
            "description = \"d\"\n[filesystem]\nread = [\"usr\"]\n",
            &["mine.toml:3:", "usr", "absolute"],
        ),
        (
            "description = \"d\"\n[filesystem]\nread = [\"/usr/../etc\"]\n",
            &["mine.toml:3:"],
        ),
        (
            "description = \"d\"\n[env]\npass = [\"A=B\"]\n",
            &["mine.toml:3:", "A=B"],
        ),
        (
            "description = \"d\"\n[network]\nmode = \"some\"\n",
            &["mine.toml:3:", "some"],
        ),
        (
            "description = \"d\"\n[network]\nmode = \"none\"\nconnect_tcp = [65536]\n",
            &["mine.toml:4:"],
        ),
        (
            "description = \"d\"\n[limits]\nprocesses = -1\n",
            &["mine.toml:3:"],
        ),
        (
            "description = \"d\"\n[layers]\nlandlock = \"no\"\n",
            &["mine.toml:3:", "if-available"],
        ),
        ("description = \"d\"\n", &["mine", "says nothing of the network"]),
        (
            "description = \"d\"\nextends = \"workspce\"\n",
            &["there is no policy workspce"],
        ),
        (
            "description = \"d\"\nextends = \"mine\"\n",
            &["mine → mine", "circle"],
        ),
        (
            "description = \"d\"\nextends = \"workspace\"\n[seccomp]\ngroups = [\"mount\"]\n",
            &["mine.toml:4:", "did you mean mounts?"],
        ),
        (
            "description = \"d\"\nextends = \"workspace\"\n[filesystem]\nread = [\"~/.ssh/id\"]\n",
            &["/.ssh/id cannot be given", "read-only.toml:"],
        ),
    ] {
        let bed = Bed::new();
        let policies = bed.policy("mine", text);
        refused_everywhere(&bed, text, &policies, words);
    }
}

#[test]
fn policies_that_extend_each_other_in_a_circle_are_named() {
    let bed = Bed::new();
    bed.policy("mine", "description = \"d\"\nextends = \"yours\"\n");
    let policies = bed.policy("yours", "description = \"d\"\nextends = \"mine\"\n");
    refused_everywhere(&bed, "a circle", &policies, &["mine → yours → mine", "circle"]);
}

#[test]
fn what_is_no_plain_text_of_a_policys_size_is_named() {
    let make: [Wrong; 7] = [
        (
            "no UTF-8",
            |path| fs::write(path, [b'#', 0xff, 0xfe]).unwrap(),
            &["mine.toml", "utf-8"],
        ),
        (
            "too long",
            |path| fs::write(path, "#".repeat(1024 * 1024 + 1)).unwrap(),
            &["mine.toml", "longer than 1048576 bytes"],
        ),
        (
            "a directory",
            |path| fs::create_dir(path).unwrap(),
            &["mine.toml", "no plain file"],
        ),
        (
            "a pipe",
            |path| mkfifo(path, Mode::S_IRWXU).unwrap(),
            &["mine.toml", "no plain file"],
        ),
        (
            "a link to nothing",
            |path| symlink("/nonexistent/policy", path).unwrap(),
            &["/nonexistent", "No such file"],
        ),
        (
            "a link to itself",
            |path| symlink(path, path).unwrap(),
            &["mine.toml", "too many"],
        ),
        (
            "a device",
            |path| symlink("/dev/zero", path).unwrap(),
            &["/dev/zero"],
        ),
    ];
    for (what, make, words) in make {
        let bed = Bed::new();
        let policies = bed.policy("mine", MINE);
        let file = policies.join("mine.toml");
        fs::remove_file(&file).unwrap();
        make(&file);
        if fs::symlink_metadata(&file).unwrap().is_file() {
            fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        }
        refused_everywhere(&bed, what, &policies, words);
    }
}

#[test]
fn a_directory_that_holds_no_policies_is_named() {
    let bed = Bed::new();
    let policies = bed.policy("mine", MINE);
    let words = &["No such file", "gone"];
    refused_everywhere(&bed, "no directory", &bed.path("gone"), words);
    let file = policies.join("mine.toml");
    refused_everywhere(&bed, "a file", &file, &["mine.toml", "Not a directory"]);
    bed.policy("Two words", MINE);
    let words = &["Two words.toml cannot be a policy", "letters a to z"];
    refused_everywhere(&bed, "a name", &policies, words);
    fs::remove_file(policies.join("Two words.toml")).unwrap();
    bed.policy("workspace", MINE);
    let words = &["would replace the shipped policy workspace"];
    refused_everywhere(&bed, "a shipped name", &policies, words);
}

#[test]
fn a_workspaces_own_policy_that_cannot_be_used_starts_nothing() {
    let make: [Wrong; 9] = [
        (
            "a link",
            |path| symlink("/etc/hostname", path).unwrap(),
            &["sandbox.toml", "a plain file, and no link"],
        ),
        (
            "a pipe",
            |path| mkfifo(path, Mode::S_IRWXU | Mode::S_IROTH).unwrap(),
            &["sandbox.toml", "a plain file, and no link"],
        ),
        (
            "a directory",
            |path| fs::create_dir(path).unwrap(),
            &["sandbox.toml", "a plain file, and no link"],
        ),
        (
            "too long",
            |path| fs::write(path, "#".repeat(256 * 1024 + 1)).unwrap(),
            &["sandbox.toml", "longer than 262144 bytes"],
        ),
        (
            "no UTF-8",
            |path| fs::write(path, [0xff]).unwrap(),
            &["sandbox.toml", "not UTF-8"],
        ),
        (
            "malformed",
            |path| fs::write(path, "[limits]\nprocesses = \n").unwrap(),
            &[".oqto/sandbox.toml:2:"],
        ),
        (
            "an unknown key",
            |path| fs::write(path, "[limits]\nproceses = 3\n").unwrap(),
            &[".oqto/sandbox.toml:2:", "did you mean processes?"],
        ),
        (
            "more to read",
            |path| fs::write(path, "[filesystem]\nread = [\"/srv\"]\n").unwrap(),
            &[
                ".oqto/sandbox.toml:2:",
                "read asks for /srv",
                "can only narrow it",
            ],
        ),
        (
            "a network",
            |path| fs::write(path, "[network]\nmode = \"host\"\n").unwrap(),
            &[
                ".oqto/sandbox.toml:2:",
                "mode asks for \"host\"",
                "offline.toml:",
                "can only narrow it",
            ],
        ),
    ];
    for (what, make, words) in make {
        let bed = Bed::new();
        let file = bed.directory("workspace/.oqto").join("sandbox.toml");
        make(&file);
        for door in ["run", "explain"] {
            let mut command = Command::new(runner());
            command
                .args(["sandbox", door, "--policy", "offline", "--cwd"])
                .arg(bed.workspace());
            if door == "run" {
                command.args(["--", "touch", "ran"]);
            }
            refused(&bed, &format!("{what} ({door})"), &end(&mut command), words);
        }
    }
}

#[test]
fn a_missing_layer_that_the_policy_requires_is_named_and_nothing_starts() {
    let bed = Bed::new();
    let policies = bed.policy("mine", &format!("{MINE}[layers]\ncgroup = \"required\"\n"));
    for door in ["run", "check"] {
        let mut command = open(&bed, Who::Tester, door, &policies);
        let ended = end(command.env("PATH", "/nonexistent"));
        let words = [
            "bubblewrap (bwrap) is not installed",
            "apt-get install bubblewrap",
        ];
        refused(&bed, door, &ended, &words);
    }
    let mut command = Command::new(runner());
    command
        .args(["sandbox", "run", "--json", "--cwd"])
        .arg(bed.workspace());
    let held = end(command.args(["--", "true"]));
    let layers: serde_json::Value = serde_json::from_str(&held.err).unwrap();
    let mut layers = layers.as_array().unwrap().iter();
    if layers.find(|layer| layer["layer"] == "cgroup").unwrap()["state"] == "enforced" {
        return not_run(
            "a required cgroup that the host does not give",
            "this host gives the tests one",
        );
    }
    for door in ["run", "check"] {
        let ended = end(&mut open(&bed, Who::Tester, door, &policies));
        refused(&bed, door, &ended, &["the layer cgroup failed", "cgroup"]);
    }
}

#[test]
fn words_that_are_no_policys_name_are_a_matter_of_usage() {
    for door in DOORS {
        for (option, name) in [("--policy", "../etc/x"), ("--policy", ""), ("--at-most", "A b")] {
            let mut command = Command::new(runner());
            command.args(["sandbox", door, option, name]);
            let ended = end(command.args((door == "run").then_some("true")));
            assert_eq!(ended.code, 2, "{door} {name}: {}", ended.err);
            assert!(ended.err.contains("a policy's name is"), "{door}: {}", ended.err);
        }
        let mut command = Command::new(runner());
        command.args(["sandbox", door, "--policy", "workspce"]);
        let ended = end(command
            .args((door == "run").then_some("true"))
            .current_dir("/tmp"));
        assert_eq!(ended.code, 125, "{door}: {}", ended.err);
    }
}
