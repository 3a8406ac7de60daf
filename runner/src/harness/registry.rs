//! Which harnesses there are, what each can do and what it needs to be started.

use std::fmt;
use std::str::FromStr;

use oqto_protocol::session::Capability;

/// A harness that the runner knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Harness {
    /// The pi coding agent, over its RPC.
    Pi,
    /// Each prompt is a shell command.
    Exec,
}

/// A name that is no harness's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no harness is called {name:?}; there are {}", Harness::ALL.map(Harness::name).join(", "))]
pub struct UnknownHarness {
    name: String,
}

/// What of a session's configuration its harness is started with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start<'a> {
    /// Whose model.
    pub provider: Option<&'a str>,
    /// Which model.
    pub model: Option<&'a str>,
    /// The harness's own session to go on with.
    pub continue_session: Option<&'a str>,
    /// The harness's private directory, as it is called inside the sandbox.
    pub private_dir: &'a str,
}

/// What a harness needs to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The program.
    pub program: Program,
    /// Its arguments, without the program's own name.
    pub args: Vec<String>,
    /// Variables that it needs beside those of the policy.
    pub env: Vec<(String, String)>,
    /// Whether it reaches its model over the network.
    pub network: Network,
    /// Whether it keeps files of its own.
    pub private_dir: PrivateDir,
}

/// Which program a harness is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The one of this name on the path.
    Named(&'static str),
    /// The runner itself, by another door.
    Ourselves,
}

/// Whether a harness reaches its model over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// It does nothing without.
    Needed,
    /// It has no use for it.
    Unused,
}

/// Whether a harness keeps files of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrivateDir {
    /// In a writable directory of each session's own: what it writes there would change every other session.
    Needed,
    /// No.
    Unused,
}

impl Harness {
    /// Every harness.
    pub const ALL: [Self; 2] = [Self::Pi, Self::Exec];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pi => "pi",
            Self::Exec => "exec",
        }
    }

    /// What it can do.
    #[must_use]
    pub fn capabilities(self) -> &'static [Capability] {
        match self {
            // Not `switch_session`: pi makes an empty session of a path that is not there and calls it a success.
            Self::Pi => &[
                Capability::Abort,
                Capability::Steer,
                Capability::FollowUp,
                Capability::Compact,
                Capability::SetModel,
                Capability::CycleModel,
                Capability::SetThinkingLevel,
                Capability::CycleThinkingLevel,
                Capability::Thinking,
                Capability::Images,
                Capability::Resume,
                Capability::Fork,
                Capability::NewSession,
                Capability::AutoCompaction,
                Capability::AutoRetry,
                Capability::SessionName,
                Capability::Commands,
                Capability::Models,
                Capability::Stats,
            ],
            Self::Exec => &[Capability::Abort],
        }
    }

    /// What it needs to be started.
    #[must_use]
    pub fn needs(self, start: &Start<'_>) -> Needs {
        match self {
            Self::Pi => pi_needs(start),
            Self::Exec => Needs {
                program: Program::Ourselves,
                args: vec!["exec-agent".to_owned()],
                env: Vec::new(),
                network: Network::Unused,
                private_dir: PrivateDir::Unused,
            },
        }
    }
}

fn pi_needs(start: &Start<'_>) -> Needs {
    let mut args = vec!["--mode".to_owned(), "rpc".to_owned()];
    let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
    match (start.provider, start.model) {
        (Some(provider), Some(model)) => option("--model", format!("{provider}/{model}")),
        (Some(provider), None) => option("--provider", provider.to_owned()),
        (None, Some(model)) => option("--model", model.to_owned()),
        (None, None) => {}
    }
    if let Some(session) = start.continue_session {
        option("--session", session.to_owned());
    }
    let env = [
        ("PI_CODING_AGENT_DIR", start.private_dir),
        // What pi asks the network at its start (updates, packages, telemetry); its model is not meant by it.
        ("PI_OFFLINE", "1"),
        ("PI_SKIP_VERSION_CHECK", "1"),
    ];
    Needs {
        program: Program::Named("pi"),
        args,
        env: env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        network: Network::Needed,
        private_dir: PrivateDir::Needed,
    }
}

impl FromStr for Harness {
    type Err = UnknownHarness;

    fn from_str(name: &str) -> Result<Self, UnknownHarness> {
        Self::ALL
            .into_iter()
            .find(|harness| harness.name() == name)
            .ok_or_else(|| UnknownHarness {
                name: name.to_owned(),
            })
    }
}

impl fmt::Display for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_harness_is_answered_with_the_known_ones() {
        let refused = "emacs".parse::<Harness>().expect_err("no such harness");
        assert_eq!(
            refused.to_string(),
            r#"no harness is called "emacs"; there are pi, exec"#
        );
    }

    #[test]
    fn pi_is_started_with_the_model_and_session_asked_for() {
        let needs = Harness::Pi.needs(&Start {
            provider: Some("fake"),
            model: Some("fake-model"),
            continue_session: Some("abc"),
            private_dir: "/private",
        });
        assert_eq!(
            needs.args,
            ["--mode", "rpc", "--model", "fake/fake-model", "--session", "abc"]
        );
        assert_eq!(
            needs.env[0],
            ("PI_CODING_AGENT_DIR".to_owned(), "/private".to_owned())
        );
    }
}
