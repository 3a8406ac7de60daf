//! The door inside the sandbox: makes the attempts and prints what came of each.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::attempt::{Answer, all};
use super::bait::Bait;

/// The name of the door.
pub(super) const DOOR: &str = "check-inside";

/// What the door is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    pub(super) bait: Bait,
    /// The attempts to make, by name.
    pub(super) attempts: Vec<String>,
}

/// What came of one attempt.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) answer: Answer,
}

/// Makes the attempts that the only word names, and prints a line of JSON for each as soon as it is made: should one
/// end this process, the lines before it are there, and those that are missing count against the sandbox.
#[must_use]
pub fn inside(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let order = words.next().filter(|_| words.next().is_none());
    let order = order.and_then(|word| serde_json::from_str::<Order>(word.to_str()?).ok());
    let Some(Order { bait, attempts }) = order else {
        // Without a reader of standard error there is nobody to tell.
        let _ = writeln!(
            io::stderr(),
            "oqto-runner: {DOOR} is started by sandbox check only"
        );
        return ExitCode::from(2);
    };
    let mut out = io::stdout().lock();
    for attempt in all().filter(|attempt| attempts.iter().any(|name| name == attempt.name)) {
        let line = Line {
            name: attempt.name.to_owned(),
            answer: (attempt.attempt)(&bait),
        };
        let Ok(mut text) = serde_json::to_vec(&line) else {
            return ExitCode::FAILURE;
        };
        text.push(b'\n');
        if out.write_all(&text).and_then(|()| out.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
