//! What a session is told: the records of its tape, and that time has passed.

use std::fmt;

use oqto_protocol::command::CommandEnvelope;
use oqto_protocol::fault::Fault;
use oqto_protocol::policy::LayerReport;
use serde::{Deserialize, Serialize};

use super::fact::Fact;

/// What a session is told.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A tape begins: the harness was started.
    Begun,
    /// The harness printed this; cut anywhere.
    Out(&'a [u8]),
    /// The harness wrote this to its standard error; cut anywhere.
    Err(&'a [u8]),
    /// A command that stands on the tape.
    Command(&'a CommandEnvelope),
    /// What the sandbox's last stage said before it became the harness.
    Report(&'a Report),
    /// What was seen of the session from outside, as a note on the tape says.
    Seen(&'a Fact),
    /// The harness's process has ended.
    Exited(ExitStatus),
    /// The tape cannot be read any further, for this reason. Not on the tape.
    Lost(&'a str),
    /// The harness's processes were gone when a runner came, for this reason. Not on the tape.
    Left(&'a str),
    /// The harness that was to be started again was not. Not on the tape.
    NotStarted(&'a NotStarted),
    /// The clock has reached [`super::Session::poll_timeout`], as a note on the tape says where there is a tape: what
    /// was overdue when is a part of what happened, and a clock that is put back must not change it.
    Deadline,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl ExitStatus {
    /// What a launcher or a shell adds to the signal that ended a program, when it ends with a code itself.
    const CODE_OF_SIGNAL: i32 = 128;

    /// The signal that ended the process, or that its code says to have ended what it ran. No signal has the number 0
    /// or less.
    pub(super) fn signal(self) -> i32 {
        match self {
            Self::Signal(signal) => signal,
            Self::Code(code) => code - Self::CODE_OF_SIGNAL,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// Why a harness was not started again.
#[derive(Clone, Debug, PartialEq)]
pub enum NotStarted {
    /// It may not be, or cannot, as things are: somebody has to change something first.
    Refused(Fault),
    /// It came to nothing this time.
    Failed(String),
}

/// What the sandbox's last stage says before it becomes the harness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The kernel accepted every layer that the policy names.
    Confined {
        /// Each layer.
        layers: Vec<LayerReport>,
    },
    /// A layer could not be made, and nothing was started.
    Failed {
        /// Which.
        layer: String,
        /// Why.
        error: String,
    },
}

/// Bytes that are no report.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox's report is malformed")]
pub struct BadReport(#[source] serde_json::Error);

impl Report {
    /// Reads a report as it stands on the tape.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadReport> {
        serde_json::from_slice(bytes).map_err(BadReport)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_reports_of_the_last_stage_are_read() {
        let confined = br#"{"confined":{"layers":[{"layer":"seccomp","state":"enforced","detail":null}]}}"#;
        assert!(matches!(Report::parse(confined), Ok(Report::Confined { layers }) if layers.len() == 1));
        let failed = br#"{"failed":{"layer":"landlock","error":"not supported"}}"#;
        assert!(matches!(Report::parse(failed), Ok(Report::Failed { layer, .. }) if layer == "landlock"));
        assert!(Report::parse(b"{}").is_err());
    }
}
