//! How a program ended.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output, Stdio};

use oqto_protocol::event::Envelope;

/// What a program that has ended left.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, as a shell has it.
    pub code: i32,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: String,
}

impl Ended {
    /// Its output as text.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    /// Its output as text, which is worth something only if it ended well.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", String::from_utf8_lossy(&self.out), self.err);
        String::from_utf8(self.out).unwrap()
    }

    /// Asserts that it failed with `code` and said each of `words`.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in: {}", self.err);
        }
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output
                .status
                .code()
                .or_else(|| output.status.signal().map(|signal| 128 + signal))
                .unwrap(),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a program to its end, with an empty standard input.
///
/// # Panics
/// When it cannot be run.
pub fn end(command: &mut Command) -> Ended {
    command.stdin(Stdio::null()).output().unwrap().into()
}

/// The events that a program printed with `--json`, in their order.
///
/// # Panics
/// When a line is no event.
#[must_use]
pub fn events(text: &str) -> Vec<Envelope> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
