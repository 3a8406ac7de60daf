//! Which harnesses a runner has, what each can do and what it needs to be started.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use oqto_protocol::session::Capability;

use super::definition::{Asks, BadDefinition, Definition, HarnessTable, Manner, Tongue};

/// The ready definitions, in the form of `runner.toml`.
const READY: &str = include_str!("ready.toml");

/// A harness that the runner has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Harness(Arc<Definition>);

/// The harnesses of a runner, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Harnesses(BTreeMap<String, Harness>);

/// A name that is no harness's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no harness is called {name:?}; there are {known}")]
pub struct UnknownHarness {
    name: String,
    known: String,
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
    /// The directory of files that it is shown and cannot change, as it is called there.
    pub shown_dir: &'a str,
}

/// What a harness needs to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Its arguments, without the program's own name.
    pub args: Vec<String>,
    /// Variables that it needs beside those of the policy.
    pub env: Vec<(String, String)>,
    /// Whether it keeps files of its own.
    pub private_dir: PrivateDir,
    /// Files that it is shown and cannot change, by their paths inside the sandbox.
    pub shown: Vec<Shown>,
}

/// A file that a harness is shown and cannot change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Where it is inside the sandbox.
    pub path: String,
    /// All of it.
    pub text: &'static str,
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

/// Where a harness keeps its own sessions, one file each, in directories of one below its private one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnSessions {
    /// The directory of those directories.
    pub below: &'static str,
    /// How the files' names end.
    pub suffix: &'static str,
}

impl Harnesses {
    /// The ready ones, as these tables change them and with those that they add.
    ///
    /// # Errors
    /// When a table says nothing that can be done.
    pub fn new(tables: BTreeMap<String, HarnessTable>) -> Result<Self, BadDefinition> {
        let mut it = Self(
            [Harness::pi(), Harness::exec()]
                .into_iter()
                .map(|harness| (harness.name().to_owned(), harness))
                .collect(),
        );
        // They are part of this program, and a test reads them.
        for (name, table) in toml::from_str::<BTreeMap<String, HarnessTable>>(READY).unwrap_or_default() {
            it.define(name, table)?;
        }
        for (name, table) in tables {
            it.define(name, table)?;
        }
        Ok(it)
    }

    fn define(&mut self, name: String, table: HarnessTable) -> Result<(), BadDefinition> {
        let ready = self.0.get(&name).map(Harness::definition);
        let definition = Definition::from_table(&name, ready, table, || self.names())?;
        self.0.insert(name, Harness(Arc::new(definition)));
        Ok(())
    }

    /// The harness of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, name: &str) -> Result<Harness, UnknownHarness> {
        self.0.get(name).cloned().ok_or_else(|| UnknownHarness {
            name: name.to_owned(),
            known: self.names(),
        })
    }

    /// Each of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Harness> {
        self.0.values()
    }

    fn names(&self) -> String {
        self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl Harness {
    /// The pi coding agent, over its RPC.
    #[must_use]
    pub fn pi() -> Self {
        let files = ["models.json", "auth.json", "settings.json"];
        Self(Arc::new(Definition {
            config_dir: Some("~/.pi/agent".into()),
            config_files: files.map(str::to_owned).to_vec(),
            tested: "0.74 to 0.87".parse().ok(),
            install: Some("npm install -g @earendil-works/pi-coding-agent@0.87.1".to_owned()),
            ..Definition::new("pi", Tongue::Pi, Some("pi"))
        }))
    }

    /// Each prompt is a shell command.
    #[must_use]
    pub fn exec() -> Self {
        Self(Arc::new(Definition::new("exec", Tongue::Exec, None)))
    }

    /// An agent that speaks the Agent Client Protocol, started as this program, put in this mode, and nothing else.
    #[must_use]
    pub fn acp(name: &str, program: &str, mode: Option<&str>) -> Self {
        Self(Arc::new(Definition {
            mode: mode.map(str::to_owned),
            ..Definition::new(name, Tongue::Acp, Some(program))
        }))
    }

    /// One that was started under this name and is spoken to like that, whatever is defined by now.
    #[must_use]
    pub fn spoken(name: &str, manner: Manner) -> Self {
        Self(Arc::new(Definition::spoken(name, manner)))
    }

    /// What it is.
    #[must_use]
    pub fn definition(&self) -> &Definition {
        &self.0
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it speaks.
    #[must_use]
    pub fn tongue(&self) -> Tongue {
        self.0.tongue
    }

    /// The same, made to ask before it acts, where it does that only when it is made to.
    #[must_use]
    pub fn made_to_ask(self) -> Self {
        match self.0.asks {
            Asks::WhenMade => Self(Arc::new(Definition {
                asks: Asks::Made,
                mode: self.0.asking_mode.clone().or_else(|| self.0.mode.clone()),
                ..(*self.0).clone()
            })),
            Asks::Yes | Asks::No | Asks::Made => self,
        }
    }

    /// Whether it ever asks before it acts.
    #[must_use]
    pub fn asks(&self) -> bool {
        matches!(self.0.asks, Asks::Yes | Asks::Made)
    }

    /// What it can do, before it said so itself.
    #[must_use]
    pub fn capabilities(&self) -> &'static [Capability] {
        match self.0.tongue {
            Tongue::Pi if self.asks() => super::pi::CAPABILITIES_ASKING,
            Tongue::Pi => super::pi::CAPABILITIES,
            Tongue::Exec => &[Capability::Abort],
            Tongue::Acp => super::acp::CAPABILITIES,
        }
    }

    /// Whether it says itself what it can do when it has started.
    #[must_use]
    pub fn says_capabilities(&self) -> bool {
        self.0.tongue == Tongue::Acp
    }

    /// Where it keeps its own sessions; `None` of one that says itself which it has.
    #[must_use]
    pub fn own_sessions(&self) -> Option<OwnSessions> {
        match self.0.tongue {
            Tongue::Pi => Some(super::pi::OWN_SESSIONS),
            Tongue::Exec | Tongue::Acp => None,
        }
    }

    /// Whether it reaches its model over the network.
    #[must_use]
    pub fn network(&self) -> Network {
        match self.0.tongue {
            Tongue::Exec => Network::Unused,
            Tongue::Pi | Tongue::Acp => Network::Needed,
        }
    }

    /// What it needs to be started.
    #[must_use]
    pub fn needs(&self, start: &Start<'_>) -> Needs {
        let mut args = match self.0.tongue {
            Tongue::Pi => super::pi::args(start),
            Tongue::Exec => vec!["exec-agent".to_owned()],
            Tongue::Acp => Vec::new(),
        };
        args.extend(self.0.args.iter().cloned());
        if let Some(model) = start.model {
            args.extend(self.0.model_args.iter().map(|arg| arg.replace("$MODEL", model)));
        }
        let mut env: BTreeMap<String, String> = match self.0.tongue {
            Tongue::Pi => super::pi::env(start),
            Tongue::Exec | Tongue::Acp => BTreeMap::new(),
        };
        let filled =
            |(name, value): (&String, &String)| (name.clone(), value.replace("$PRIVATE", start.private_dir));
        env.extend(self.0.env.iter().map(filled));
        let mut shown = Vec::new();
        if self.0.asks == Asks::Made && self.0.tongue == Tongue::Pi {
            let gate = super::pi::gate(start);
            // Last: no argument of a definition's takes them back.
            args.extend(super::pi::gate_args(&gate));
            shown.push(gate);
        }
        let is_exec = self.0.tongue == Tongue::Exec;
        Needs {
            args,
            env: env.into_iter().collect(),
            private_dir: if is_exec {
                PrivateDir::Unused
            } else {
                PrivateDir::Needed
            },
            shown,
        }
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

    fn with(text: &str) -> Result<Harnesses, String> {
        let tables = toml::from_str(text).map_err(|error: toml::de::Error| error.to_string())?;
        Harnesses::new(tables).map_err(|error| error.to_string())
    }

    #[test]
    fn the_ready_definitions_can_be_used() {
        let tables: BTreeMap<String, HarnessTable> = toml::from_str(READY).expect("TOML");
        let harnesses = Harnesses::new(BTreeMap::new()).expect("definitions");
        for name in tables.keys().map(String::as_str).chain(["pi", "exec"]) {
            harnesses.find(name).expect(name);
        }
    }

    #[test]
    fn an_unknown_harness_is_answered_with_the_known_ones() {
        let refused = with("").unwrap().find("emacs").expect_err("no such harness");
        assert!(
            refused
                .to_string()
                .starts_with(r#"no harness is called "emacs"; there are "#)
                && refused.to_string().contains("exec"),
            "{refused}"
        );
    }

    #[test]
    fn another_agent_is_a_few_lines() {
        let harnesses = with(
            "[mine]\ndialect = \"acp\"\nprogram = \"/opt/mine\"\nargs = [\"--acp\"]\n\
             env = { MINE_HOME = \"$PRIVATE/mine\" }\n",
        )
        .unwrap();
        let mine = harnesses.find("mine").unwrap();
        let needs = mine.needs(&Start {
            private_dir: "/p",
            ..Start::default()
        });
        assert_eq!(needs.args, ["--acp"]);
        assert_eq!(needs.env, [("MINE_HOME".to_owned(), "/p/mine".to_owned())]);
    }

    #[test]
    fn a_model_is_an_argument_where_the_definition_says_so_and_one_is_asked_for() {
        let gemini = with("").unwrap().find("gemini-cli").unwrap();
        let args = |model| {
            let start = Start {
                model,
                ..Start::default()
            };
            gemini.needs(&start).args
        };
        assert_eq!(args(None), ["--acp"]);
        assert_eq!(args(Some("gemini-2.5-pro")), ["--acp", "-m", "gemini-2.5-pro"]);
        // It is one argument, whatever it looks like.
        assert_eq!(args(Some("--yolo x")), ["--acp", "-m", "--yolo x"]);
    }

    #[test]
    fn a_definition_that_cannot_be_used_is_named() {
        for (text, said) in [
            ("[mine]\nprogram = \"/x\"\n", "none of this runner's"),
            ("[mine]\ndialect = \"acp\"\n", "harness.mine.program is missing"),
            ("[pi]\ndialect = \"acp\"\n", "cannot be changed"),
            ("[pi]\nprogram = \"bin/pi\"\n", "must be an absolute path"),
            ("[pi]\nconfig_dir = \"x\"\n", "must be an absolute path"),
            ("[pi]\nconfig_files = [\"a/../x\"]\n", "path of a file"),
            ("[pi]\nconfig_files = [\"/x\"]\n", "path of a file"),
            ("[pi]\npass = [\"A=B\"]\n", "names the variable"),
            ("[pi]\nserve = [\"fs\"]\n", "for agents of dialect acp"),
            ("[claude-agent-acp]\nserve = [\"net\"]\n", "unknown variant"),
            ("[pi]\ntested = \"new\"\n", "tested cannot be used"),
            (
                "[Mine]\ndialect = \"acp\"\nprogram = \"/x\"\n",
                "must have a name",
            ),
            ("[pi]\nprogam = \"/x\"\n", "unknown field"),
        ] {
            let error = with(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn pi_is_started_with_the_model_and_session_asked_for() {
        let needs = Harness::pi().needs(&Start {
            provider: Some("fake"),
            model: Some("fake-model"),
            continue_session: Some("abc"),
            private_dir: "/private",
            ..Start::default()
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

    #[test]
    fn a_pi_that_is_made_to_ask_is_shown_an_extension_and_loads_no_other() {
        let start = Start {
            shown_dir: "/shown",
            ..Start::default()
        };
        let asking = Harness::pi().made_to_ask();
        let needs = asking.needs(&start);
        assert_eq!(
            needs.args,
            [
                "--mode",
                "rpc",
                "--no-extensions",
                "--extension",
                "/shown/pi-gate.js"
            ]
        );
        assert_eq!(needs.shown[0].path, "/shown/pi-gate.js");
        assert!(asking.asks() && asking.capabilities().contains(&Capability::Permission));
        let left_alone = Harness::pi();
        assert!(!left_alone.asks() && left_alone.needs(&start).shown.is_empty());
        assert!(!left_alone.capabilities().contains(&Capability::Permission));
        // A tape is read again with what it was made with.
        let spoken = Harness::spoken("pi", asking.definition().manner());
        assert_eq!(spoken.definition().asks, Asks::Made);
    }

    #[test]
    fn an_agent_that_asks_only_in_another_mode_is_put_in_that_where_it_is_made_to() {
        let harnesses = with("").unwrap();
        let codex = harnesses.find("codex-acp").unwrap();
        assert_eq!(
            (codex.definition().mode.as_deref(), codex.asks()),
            (Some("agent-full-access"), false)
        );
        let asking = codex.made_to_ask();
        assert_eq!(
            (asking.definition().mode.as_deref(), asking.asks()),
            (Some("read-only"), true)
        );
        assert!(asking.needs(&Start::default()).shown.is_empty());
        let spoken = Harness::spoken("codex-acp", asking.definition().manner());
        assert!(spoken.asks() && spoken.definition().mode.as_deref() == Some("read-only"));
        // Who says that it never asks is believed.
        let never = with("[codex-acp]\nasks = false\n").unwrap();
        let never = never.find("codex-acp").unwrap().made_to_ask();
        assert_eq!(
            (never.definition().mode.as_deref(), never.asks()),
            (Some("agent-full-access"), false)
        );
        // One that is in that mode in any case asks in any case.
        let always = with("[codex-acp]\nmode = \"read-only\"\n").unwrap();
        assert!(always.find("codex-acp").unwrap().asks());
        let refused = with("[codex-acp]\nasks = true\nasking_mode = \"read-only\"\n").unwrap_err();
        assert!(
            refused.contains("harness.codex-acp has both asks and asking_mode"),
            "{refused}"
        );
        let refused = with("[pi]\nasking_mode = \"ask\"\n").unwrap_err();
        assert!(
            refused.contains("harness.pi.asking_mode is for agents of dialect acp"),
            "{refused}"
        );
    }

    #[test]
    fn an_agent_that_never_asks_says_so_in_its_table() {
        let harnesses = with("[mute]\ndialect = \"acp\"\nprogram = \"mute\"\nasks = false\n").unwrap();
        assert!(!harnesses.find("mute").unwrap().made_to_ask().asks());
        let refused = with("[pi]\nasks = true\n").unwrap_err();
        assert!(
            refused.contains("harness.pi.asks is for agents of dialect acp"),
            "{refused}"
        );
    }
}
