//! A place to try a sandbox in: a directory with a workspace that a harness may have.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oqto_tests::built;

/// A user that no host has.
pub(crate) const SOMEBODY: u32 = 61_234;

pub(crate) struct Bed {
    above: tempfile::TempDir,
}

pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Its output, which is worth something only if it ended well.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::within(Path::new("/tmp"))
    }

    pub(crate) fn within(directory: &Path) -> Self {
        let above = tempfile::Builder::new()
            .prefix("oqto-bed-")
            .tempdir_in(directory)
            .unwrap();
        fs::set_permissions(above.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let bed = Self { above };
        bed.directory("workspace");
        bed
    }

    /// Makes a directory of the harness's user.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        own(&path);
        path
    }

    /// Makes a file of the harness's user.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        own(&path);
        path
    }

    /// Makes a policy of whoever runs the test, who alone is believed, and gives its directory.
    pub(crate) fn policy(&self, name: &str, text: &str) -> PathBuf {
        let directory = self.path("policies");
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let file = directory.join(format!("{name}.toml"));
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        directory
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.above.path().join(name)
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.path("workspace")
    }

    /// `sandbox run` in the workspace.
    pub(crate) fn command(&self, policy: &str, words: &[&str]) -> Command {
        let mut command = Command::new(runner());
        command
            .args(["sandbox", "run", "--policy", policy, "--cwd"])
            .arg(self.workspace())
            .arg("--")
            .args(words);
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        end(&mut self.command("workspace", words))
    }

    pub(crate) fn sh(&self, script: &str) -> Ended {
        self.run(&["sh", "-c", script])
    }

    pub(crate) fn python(&self, script: &str) -> Ended {
        self.run(&["/usr/bin/python3", "-c", script])
    }

    /// Every path in the workspace.
    pub(crate) fn tree(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut left = vec![self.workspace()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                left.extend(entry.file_type().unwrap().is_dir().then(|| entry.path()));
                found.push(entry.path());
            }
        }
        found.sort();
        found
    }
}

pub(crate) fn end(command: &mut Command) -> Ended {
    end_from(command, Stdio::null())
}

/// Runs a program to its end with that as its standard input.
pub(crate) fn end_from(command: &mut Command, input: impl Into<Stdio>) -> Ended {
    let output = command.stdin(input).output().unwrap();
    Ended {
        code: output
            .status
            .code()
            .unwrap_or_else(|| 128 + output.status.signal().unwrap()),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The program, which cargo puts one directory above the tests.
pub(crate) fn runner() -> PathBuf {
    built("oqto-runner")
}

/// The program that can leave layers out.
pub(crate) fn weak() -> PathBuf {
    built("oqto-weak-sandbox")
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Gives a path to the harness's user.
pub(crate) fn own(path: &Path) {
    if is_root() {
        chown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    }
}
