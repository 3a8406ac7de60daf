//! What a harness is, as a few lines of TOML say it: the ready ones of this runner, and those of `runner.toml`, which
//! change a ready one or make another.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::version::{BadTested, Tested};

/// How long a harness's name may be, in bytes: it stands in every list of sessions.
const NAME_LEN_MAX: usize = 64;

/// Which dialect a harness speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tongue {
    /// The RPC of pi.
    Pi,
    /// The Agent Client Protocol.
    Acp,
    /// Ours: each prompt is a shell command.
    Exec,
}

/// One that a table may name: what speaks ours is part of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Named {
    Pi,
    Acp,
}

impl From<Named> for Tongue {
    fn from(named: Named) -> Self {
        match named {
            Named::Pi => Self::Pi,
            Named::Acp => Self::Acp,
        }
    }
}

/// Which of the client's methods of the Agent Client Protocol an agent is served. Whoever serves them is in the sandbox
/// with it, and can do there what it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serve {
    /// Reading and writing of files.
    pub fs: bool,
    /// Commands in terminals.
    pub terminal: bool,
}

/// One word of the key `serve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Served {
    Fs,
    Terminal,
}

/// Whether a harness asks before it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asks {
    /// It does, by itself.
    Yes,
    /// It never does.
    No,
    /// Where it is made to.
    WhenMade,
    /// It is made to.
    Made,
}

impl Asks {
    /// What is so of a dialect, where nothing else is said.
    fn of(tongue: Tongue) -> Self {
        match tongue {
            Tongue::Pi => Self::WhenMade,
            Tongue::Acp => Self::Yes,
            Tongue::Exec => Self::No,
        }
    }
}

/// What a harness is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// What it speaks.
    pub tongue: Tongue,
    /// Its program's name on the path; none where the runner itself is it.
    pub program: Option<String>,
    /// Where that is; without it the path is searched.
    pub program_path: Option<PathBuf>,
    /// The program's arguments.
    pub args: Vec<String>,
    /// Those that follow where a session asks for a model; `$MODEL` in them is that.
    pub model_args: Vec<String>,
    /// Variables that it always gets; `$PRIVATE` in them is its private directory.
    pub env: BTreeMap<String, String>,
    /// Variables that a session may give it beside those of the policy: where its provider is, and the key.
    pub pass: Vec<String>,
    /// What of the host it has to read beside its program, absolute paths.
    pub read: Vec<PathBuf>,
    /// Where the user's configuration of it is: absolute, or `~/` and where it is below the home of whom it runs as.
    pub config_dir: Option<PathBuf>,
    /// Which files of it each session's private directory begins with, by the paths that they have in both.
    pub config_files: Vec<String>,
    /// In which mode it is put before its first prompt: the one that asks before it acts.
    pub mode: Option<String>,
    /// What of the protocol's files and terminals it is served.
    pub serve: Serve,
    /// In which way of its own it is told who its user is, where it asks for that.
    pub auth_method: Option<String>,
    /// Whether it asks before it acts.
    pub asks: Asks,
    /// In which mode it is put instead where it is made to ask.
    pub asking_mode: Option<String>,
    /// The versions that it was tested in.
    pub tested: Option<Tested>,
    /// How to get it, one line for a shell.
    pub install: Option<String>,
}

/// How a harness is spoken to: all of its definition that the tape of its session is read with. It is kept with the session,
/// whose tape must mean the same whatever the configuration says by then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manner {
    tongue: Tongue,
    #[serde(default)]
    model_args: Vec<String>,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    serve: Serve,
    #[serde(default)]
    auth_method: Option<String>,
    /// Those of before that was kept were spoken to as their dialect is.
    #[serde(default)]
    asks: Option<Asks>,
}

/// A table `[harness.NAME]`: what it does not say stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HarnessTable {
    dialect: Option<Named>,
    program: Option<String>,
    args: Option<Vec<String>>,
    model_args: Option<Vec<String>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    pass: Option<Vec<String>>,
    read: Option<Vec<PathBuf>>,
    config_dir: Option<PathBuf>,
    config_files: Option<Vec<String>>,
    mode: Option<String>,
    serve: Option<Vec<Served>>,
    auth_method: Option<String>,
    asks: Option<bool>,
    asking_mode: Option<String>,
    tested: Option<String>,
    install: Option<String>,
}

/// A table that says nothing that can be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDefinition {
    /// The name cannot be one.
    #[error("harness.{name} must have a name of 1 to {NAME_LEN_MAX} of a-z, 0-9, - and _")]
    Name {
        /// Which.
        name: String,
    },
    /// It is none of the ready ones, and does not say what it speaks.
    #[error(
        "harness.{name} is none of this runner's ({known}); to define another say dialect = \"acp\" and its program"
    )]
    Unknown {
        /// Which.
        name: String,
        /// Those that are there.
        known: String,
    },
    /// It says what it speaks and not what it is.
    #[error("harness.{name}.program is missing: what is to be started?")]
    NoProgram {
        /// Which.
        name: String,
    },
    /// A ready one speaks what it speaks.
    #[error("harness.{name}.dialect cannot be changed; define another harness, with a name of its own")]
    Dialect {
        /// Which.
        name: String,
    },
    /// Only agents of one protocol ask by themselves.
    #[error("harness.{name}.{key} is for agents of dialect acp; remove it")]
    Asks {
        /// Which.
        name: String,
        /// Which key of it.
        key: &'static str,
    },
    /// One that has a mode for asking asks where it is put in that.
    #[error(
        "harness.{name} has both asks and asking_mode; remove asks, or asking_mode if it asks in each mode or in none"
    )]
    AsksAndMode {
        /// Which.
        name: String,
    },
    /// Only one protocol has methods to serve.
    #[error("harness.{name}.serve is for agents of dialect acp; remove it")]
    Serve {
        /// Which.
        name: String,
    },
    /// A path that would mean another place at each start.
    #[error("harness.{name}.{key} is {path}, it must be an absolute path")]
    Relative {
        /// Which.
        name: String,
        /// Which key of it.
        key: &'static str,
        /// What it says.
        path: PathBuf,
    },
    /// A file's path that leads out of its directory.
    #[error("harness.{name}.config_files has {file:?}, it must be the path of a file below config_dir")]
    File {
        /// Which.
        name: String,
        /// What it says.
        file: String,
    },
    /// What cannot be the name of a variable.
    #[error("harness.{name} names the variable {variable:?}; names have letters, digits and _")]
    Variable {
        /// Which.
        name: String,
        /// What it says.
        variable: String,
    },
    /// Not a range of versions.
    #[error("harness.{name}.tested cannot be used")]
    Tested {
        /// Which.
        name: String,
        /// What is wrong with it.
        source: BadTested,
    },
}

impl Serve {
    /// Whether it is served anything.
    #[must_use]
    pub fn any(self) -> bool {
        self.fs || self.terminal
    }
}

impl Definition {
    /// A harness of this name that is nothing but its dialect and its program.
    pub(super) fn new(name: &str, tongue: Tongue, program: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            tongue,
            program: program.map(str::to_owned),
            program_path: None,
            args: Vec::new(),
            model_args: Vec::new(),
            env: BTreeMap::new(),
            pass: Vec::new(),
            read: Vec::new(),
            config_dir: None,
            config_files: Vec::new(),
            mode: None,
            serve: Serve::default(),
            auth_method: None,
            asks: Asks::of(tongue),
            asking_mode: None,
            tested: None,
            install: None,
        }
    }

    /// One of this name that is spoken to like that; it cannot be started.
    pub(super) fn spoken(name: &str, manner: Manner) -> Self {
        let Manner {
            tongue,
            model_args,
            mode,
            serve,
            auth_method,
            asks,
        } = manner;
        Self {
            model_args,
            mode,
            serve,
            auth_method,
            asks: asks.unwrap_or(Asks::of(tongue)),
            ..Self::new(name, tongue, None)
        }
    }

    /// How it is spoken to.
    #[must_use]
    pub fn manner(&self) -> Manner {
        Manner {
            tongue: self.tongue,
            model_args: self.model_args.clone(),
            mode: self.mode.clone(),
            serve: self.serve,
            auth_method: self.auth_method.clone(),
            asks: Some(self.asks),
        }
    }

    /// What a table makes of `ready`, or of nothing.
    pub(super) fn from_table(
        name: &str,
        ready: Option<&Self>,
        table: HarnessTable,
        known: impl Fn() -> String,
    ) -> Result<Self, BadDefinition> {
        let named = || name.to_owned();
        let HarnessTable {
            dialect,
            program,
            args,
            model_args,
            env,
            pass,
            read,
            config_dir,
            config_files,
            mode,
            serve,
            auth_method,
            asks,
            asking_mode,
            tested,
            install,
        } = table;
        let mut it = match (ready, dialect.map(Tongue::from)) {
            (Some(ready), None) => ready.clone(),
            (Some(ready), Some(dialect)) if ready.tongue == dialect => ready.clone(),
            (Some(_), Some(_)) => return Err(BadDefinition::Dialect { name: named() }),
            (None, None) => {
                return Err(BadDefinition::Unknown {
                    name: named(),
                    known: known(),
                });
            }
            (None, Some(dialect)) => {
                check_name(name)?;
                if program.is_none() {
                    return Err(BadDefinition::NoProgram { name: named() });
                }
                Self::new(name, dialect, None)
            }
        };
        if let Some(program) = program {
            if program.contains('/') {
                it.program_path = Some(absolute(name, "program", program.clone().into())?);
                it.program.get_or_insert(program);
            } else {
                it.program = Some(program);
            }
        }
        it.env.extend(env);
        replace(&mut it.args, args);
        replace(&mut it.model_args, model_args);
        replace(&mut it.pass, pass);
        if let Some(read) = read {
            it.read = read
                .into_iter()
                .map(|path| absolute(name, "read", path))
                .collect::<Result<_, _>>()?;
        }
        if let Some(dir) = config_dir {
            it.config_dir = Some(match dir.starts_with("~") {
                true => dir,
                false => absolute(name, "config_dir", dir)?,
            });
        }
        replace(&mut it.config_files, config_files);
        it.mode = mode.or(it.mode);
        if let Some(served) = serve {
            it.serve = Serve {
                fs: served.contains(&Served::Fs),
                terminal: served.contains(&Served::Terminal),
            };
        }
        it.auth_method = auth_method.or(it.auth_method);
        let key = match (&asking_mode, asks) {
            (Some(_), _) => "asking_mode",
            (None, Some(_)) => "asks",
            (None, None) => "",
        };
        if !key.is_empty() && it.tongue != Tongue::Acp {
            return Err(BadDefinition::Asks { name: named(), key });
        }
        if asking_mode.is_some() && asks.is_some() {
            return Err(BadDefinition::AsksAndMode { name: named() });
        }
        if asking_mode.is_some() {
            (it.asks, it.asking_mode) = (Asks::WhenMade, asking_mode);
        }
        // One that is in that mode in any case asks in any case.
        if it.asking_mode.is_some() && it.mode == it.asking_mode {
            it.asks = Asks::Yes;
        }
        if let Some(asks) = asks {
            it.asks = if asks { Asks::Yes } else { Asks::No };
        }
        it.install = install.or(it.install);
        if let Some(text) = tested {
            let parsed = text.parse().map_err(|source| BadDefinition::Tested {
                name: named(),
                source,
            })?;
            it.tested = Some(parsed);
        }
        it.check()?;
        Ok(it)
    }

    fn check(&self) -> Result<(), BadDefinition> {
        let name = || self.name.clone();
        if self.serve.any() && self.tongue != Tongue::Acp {
            return Err(BadDefinition::Serve { name: name() });
        }
        let is_variable = |it: &&String| {
            !it.is_empty()
                && !it.starts_with(|c: char| c.is_ascii_digit())
                && it.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if let Some(bad) = self.env.keys().chain(&self.pass).find(|it| !is_variable(it)) {
            return Err(BadDefinition::Variable {
                name: name(),
                variable: bad.clone(),
            });
        }
        let is_plain = |file: &&String| !file.split('/').any(|part| matches!(part, "" | "." | ".."));
        match self.config_files.iter().find(|file| !is_plain(file)) {
            Some(file) => Err(BadDefinition::File {
                name: name(),
                file: file.clone(),
            }),
            None => Ok(()),
        }
    }
}

fn replace<T>(old: &mut Vec<T>, new: Option<Vec<T>>) {
    if let Some(new) = new {
        *old = new;
    }
}

fn check_name(name: &str) -> Result<(), BadDefinition> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if (1..=NAME_LEN_MAX).contains(&name.len()) && name.chars().all(plain) {
        Ok(())
    } else {
        Err(BadDefinition::Name {
            name: name.to_owned(),
        })
    }
}

fn absolute(name: &str, key: &'static str, path: PathBuf) -> Result<PathBuf, BadDefinition> {
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(BadDefinition::Relative {
            name: name.to_owned(),
            key,
            path,
        })
    }
}
