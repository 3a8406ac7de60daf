//! What is to be reached: secrets, files, sockets and a process outside, and protected paths inside.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use oqto_tests::Process;
use serde_json::{Value, json};

use crate::attempt::{Trait, write_scripts};
use crate::bed::{Bed, SOMEBODY, end, is_root, own};

/// Paths of the workspace that every policy protects, and that exist.
const PROTECTED: [&str; 13] = [
    ".git/hooks/pre-commit.sample",
    ".git/config.worktree",
    ".git/commondir",
    ".gitmodules",
    ".bashrc",
    ".envrc",
    ".vscode/tasks.json",
    ".claude/settings.json",
    ".mcp.json",
    ".cargo/config.toml",
    ".husky/pre-commit",
    ".oqto/sandbox.toml",
    "nested/.git/hooks/pre-commit.sample",
];

/// Protected paths that do not exist.
pub(crate) const APPEARING: [&str; 3] = [".idea", ".devcontainer.json", "mise.toml"];

/// The variable that holds the secret outside.
pub(crate) const VARIABLE: &str = "OQTO_BAIT";

/// The limits that are tried, small enough to be reached in a moment.
pub(crate) const LIMITS: [(&str, u64); 5] = [
    ("process_memory_mib", 1024),
    ("processes", 200),
    ("open_files", 256),
    ("file_size_mib", 16),
    ("tmp_mib", 64),
];

/// How long processes that are being ended may take to be gone; those that are left behind stay for much longer.
const MOMENT: Duration = Duration::from_secs(1);

/// Signal 9 in a set of signals, as `/proc` shows it.
const SIGKILL: u64 = 1 << 8;

/// What the kernel notes of a process that has begun to end.
const PF_EXITING: u32 = 4;

/// A bed with everything that an attempt might reach, for one run.
pub(crate) struct Bait {
    pub(crate) bed: Bed,
    pub(crate) secret: String,
    tmp: tempfile::TempDir,
    outside: Outside,
    shared: PathBuf,
}

/// The process outside.
struct Outside {
    child: Child,
    into: ChildStdin,
    out: BufReader<ChildStdout>,
}

impl Bait {
    /// Lays it out, for an agent under a policy with these traits.
    pub(crate) fn lay(traits: &BTreeSet<Trait>, runner: &Path) -> Self {
        let bed = Bed::within(&place());
        let secret = secret();
        let tmp = tempfile::Builder::new()
            .prefix("oqto-bait-")
            .tempdir_in("/tmp")
            .unwrap();
        own(tmp.path());
        fs::write(tmp.path().join("secret"), &secret).unwrap();
        own(&tmp.path().join("secret"));
        outside(&bed, &secret);
        workspace(&bed, &secret);
        let (outside, mut bait) = Outside::start(&bed, &secret, tmp.path());
        let shared = PathBuf::from(bait["ipc"]["shared"].as_str().unwrap());
        let more = json!({
            "workspace": bed.workspace(), "outside": bed.path("outside"), "tmp": tmp.path(), "home": "$HOME",
            "secret": bed.path("outside/.ssh/id"), "file": bed.path("outside/file"), "spare": bed.path("outside/spare"),
            "runner": runner, "setuid": is_root(), "variable": VARIABLE, "descriptors": [7, 9], "traits": traits,
            "limits": LIMITS.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        });
        bait.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        bed.file("workspace/bait.json", &bait.to_string());
        Self {
            bed,
            secret,
            tmp,
            outside,
            shared,
        }
    }

    /// The marks of the attempts that got out, found when everything inside has ended. What they left is taken away.
    pub(crate) fn marks(self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut note = |text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            let marks = text
                .split("escaped:")
                .skip(1)
                .filter_map(|rest| rest.split_once(';'));
            found.extend(marks.map(|(name, _)| name.to_owned()));
        };
        for process in left(&self.bed.path("")) {
            note(process.words.as_bytes());
            process.kill();
        }
        look(&self.bed.path("outside"), &mut note);
        look(self.tmp.path(), &mut note);
        note(&fs::read(&self.shared).unwrap_or_default());
        for name in PROTECTED.iter().chain(&APPEARING) {
            // A hook's or a file's directory, when it is one that only holds such.
            let top = name.split('/').next().unwrap();
            look(&self.bed.workspace().join(top), &mut note);
        }
        found.extend(self.outside.end());
        found
    }
}

impl Outside {
    fn start(bed: &Bed, secret: &str, tmp: &Path) -> (Self, Value) {
        let mut command = if is_root() {
            let id = SOMEBODY.to_string();
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "--inh-caps=-all",
                "--",
            ]);
            command.arg("/usr/bin/python3");
            command
        } else {
            Command::new("/usr/bin/python3")
        };
        command.arg("-B").arg(bed.path("workspace/attempts/outside.py"));
        command.arg(bed.path("outside")).arg(secret).arg(tmp);
        let command = command
            .current_dir(bed.path("outside"))
            .env(VARIABLE, secret)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let into = child.stdin.take().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let bait = serde_json::from_str(&line).unwrap();
        (Self { child, into, out }, bait)
    }

    /// What it saw of those inside.
    fn end(mut self) -> Vec<String> {
        self.into.write_all(b"done\n").unwrap();
        let mut said = String::new();
        self.out.read_to_string(&mut said).unwrap();
        assert!(
            self.child.wait().unwrap().success(),
            "what was to be reached was broken"
        );
        serde_json::from_str(&said).unwrap()
    }
}

/// Where beds are made: in no directory that a sandbox has one of its own of, since a policy gives those whole.
pub(crate) fn place() -> PathBuf {
    let named = std::env::var_os("OQTO_TEST_BEDS").map(PathBuf::from);
    let usual = || {
        if is_root() {
            "/home".into()
        } else {
            std::env::var_os("HOME").unwrap().into()
        }
    };
    let place: PathBuf = named.unwrap_or_else(usual);
    assert!(
        !["/tmp", "/var/tmp", "/dev/shm"]
            .iter()
            .any(|own| place.starts_with(own)),
        "beds cannot lie in {}: set OQTO_TEST_BEDS to a directory that is none for temporary files",
        place.display()
    );
    place
}

/// A text that nobody inside can guess.
fn secret() -> String {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut bytes)
        .unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Beside the workspace.
fn outside(bed: &Bed, secret: &str) {
    for name in [
        "outside",
        "outside/.ssh",
        "outside/home",
        "outside/state",
        "outside/state/oqto",
    ] {
        bed.directory(name);
    }
    for name in [".ssh/id", "spare", "state/oqto/key"] {
        bed.file(&format!("outside/{name}"), secret);
    }
    for name in [
        "file",
        "removable",
        "truncatable",
        "changeable",
        "home/.bashrc",
        "home/.profile",
    ] {
        bed.file(&format!("outside/{name}"), "the user's\n");
    }
    bed.file("outside/mappable", &"\0".repeat(4096));
}

/// Inside.
fn workspace(bed: &Bed, secret: &str) {
    let attempts = bed.directory("workspace/attempts");
    write_scripts(&attempts);
    for repository in ["workspace", "workspace/nested"] {
        bed.directory(repository);
        end(Command::new("git").args(["init", "-q"]).arg(bed.path(repository))).ok();
    }
    for name in PROTECTED {
        let path = bed.path("workspace").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = match name {
            ".oqto/sandbox.toml" => "description = \"of this workspace\"\n",
            ".git/commondir" => ".\n",
            _ => "",
        };
        fs::write(path, text).unwrap();
    }
    for name in ["masked", "masked-too"] {
        bed.directory(&format!("workspace/{name}"));
        bed.file(&format!("workspace/{name}/secret"), secret);
    }
    if is_root() {
        let owner = format!("{SOMEBODY}:{SOMEBODY}");
        end(Command::new("chown").args(["-R", &owner]).arg(bed.workspace())).ok();
        let program = bed.path("workspace/root-id");
        fs::copy("/usr/bin/id", &program).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o4755)).unwrap();
    }
}

/// The processes that attempts left behind. The kernel ends a process namespace after whoever waits for its first
/// process is told, so what is being ended is not left, and what is about to be gets a moment.
fn left(bed: &Path) -> Vec<Process> {
    let end = Instant::now() + MOMENT;
    loop {
        let mut found = Process::about(bed);
        found.retain(|process| process.words.contains("escaped:") && !is_ending(process));
        if found.is_empty() || Instant::now() > end {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process never runs a step of its own again: it was killed by force, or ends already.
fn is_ending(process: &Process) -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", process.pid)).unwrap_or_default();
    let status = read("status");
    let is_killed = status
        .lines()
        .filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")))
        .filter_map(|set| u64::from_str_radix(set.trim(), 16).ok())
        .any(|set| set & SIGKILL != 0);
    let stat = read("stat");
    let flags = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(6));
    is_killed
        || flags
            .and_then(|flags| flags.parse().ok())
            .is_some_and(|flags: u32| flags & PF_EXITING != 0)
}

/// Looks at every name and every file below a path, without following a link.
fn look(path: &Path, note: &mut impl FnMut(&[u8])) {
    note(path.as_os_str().as_encoded_bytes());
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return;
    };
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            look(&entry.unwrap().path(), note);
        }
    } else if metadata.is_file() {
        note(&fs::read(path).unwrap());
    }
}
