//! What a runner's sandbox said of itself, as far as rules look at it.

use oqto_protocol::id::Digest;
use serde::Deserialize;

/// The longest report that is read, bytes: sixty attempts make ten thousand.
const REPORT_LEN_MAX: usize = 1024 * 1024;

/// A check of a runner's sandbox: what was tried from inside, and what held.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SandboxCheck {
    /// Whether everything that the policy forbids was stopped.
    pub holds: bool,
    /// The policy.
    pub policy: String,
    /// The digest of the program that made the sandbox, as it makes every session's.
    pub binary: Digest,
    /// The version of landlock's interface that the kernel has.
    #[serde(default)]
    pub landlock_abi: Option<i32>,
    /// What became of each layer.
    pub layers: Vec<LayerFound>,
    /// What was tried.
    pub(super) attempts: Vec<Attempt>,
}

/// One layer of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LayerFound {
    /// Its name, as `oqto-runner sandbox check` has it.
    pub layer: String,
    /// `enforced`, or why not.
    pub state: String,
    /// More, for people.
    pub detail: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Attempt {
    pub(super) name: String,
    forbidden: bool,
    #[serde(default)]
    stopped_by: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    check: Option<SandboxCheck>,
    #[serde(default)]
    error: Option<String>,
}

impl SandboxCheck {
    /// Reads a report; where there is none, why not, in words for people.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        if text.len() > REPORT_LEN_MAX {
            return Err(format!("the report has more than {REPORT_LEN_MAX} bytes"));
        }
        match serde_json::from_str(text) {
            Ok(Said {
                check: Some(check), ..
            }) => Ok(check),
            Ok(Said {
                error: Some(error), ..
            }) => Err(error),
            Ok(Said { .. }) => Err("the report says nothing".to_owned()),
            Err(error) => Err(format!("the report cannot be read: {error}")),
        }
    }

    /// The names of what was forbidden and not stopped.
    pub fn not_stopped(&self) -> impl Iterator<Item = &str> {
        let failed = |attempt: &&Attempt| attempt.forbidden && attempt.stopped_by.is_none();
        self.attempts
            .iter()
            .filter(failed)
            .map(|attempt| attempt.name.as_str())
    }

    /// How many things were tried that the policy forbids.
    #[must_use]
    pub fn tried(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.forbidden).count()
    }

    /// What became of a layer, if it is named.
    #[must_use]
    pub fn layer(&self, name: &str) -> Option<&LayerFound> {
        self.layers.iter().find(|layer| layer.layer == name)
    }
}

impl LayerFound {
    /// Whether the kernel accepted it.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.state == "enforced"
    }
}
