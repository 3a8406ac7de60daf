//! The runner's configuration: a [`Document`] as written becomes a [`Config`] as meant.
//!
//! Unknown keys are errors, and a file that cannot be read stops the start: it never means the default.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::unistd::{Gid, Uid, User};
use serde::Deserialize;

use super::dial::{BadTarget, Target};
use super::health::{BadHealth, HealthDocument};
use super::recording::{AuditDocument, BadAudit};
use super::roles::{BadRole, RoleDocument, Roles};
use crate::audit;
use crate::event_log::Retention;
use crate::harness::{BadDefinition, HarnessTable, Harnesses};
use crate::policy::PolicyName;
use crate::sandbox::OwnershipError;
use crate::supervisor::HealthSettings;

/// Sessions that may live at once, where the configuration says nothing: each is two processes and an agent.
const SESSIONS_MAX_DEFAULT: u32 = 64;

/// The most sessions that may be configured: each takes descriptors, of which a process has few.
const SESSIONS_MAX_LIMIT: u32 = 4096;

/// The least that the events of a workspace may be bounded to, bytes: a message of the longest kind, as an event and as
/// a message, and room to go on.
const STORE_LEN_LEAST: u64 = 128 * 1024 * 1024;

/// How many controls a runner dials: each has a link that takes a place and a window of memory.
const DIAL_MAX: usize = 16;

/// The longest configuration file, bytes.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// What the runner is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: Listen,
    /// The controls that it dials.
    pub dial: Vec<Target>,
    /// Where it keeps its identity, its sessions and their events.
    pub state_dir: PathBuf,
    /// Where policies beside the shipped ones are.
    pub policy_dir: Option<PathBuf>,
    /// The policy that no session may go beyond.
    pub policy_at_most: Option<PolicyName>,
    /// As whom harnesses run when the runner is root.
    pub principal: Option<(Uid, Gid)>,
    /// How many sessions may live at once.
    pub sessions_max: NonZeroU32,
    /// How long events are kept that somebody else has.
    pub retention: Retention,
    /// The harnesses that there are.
    pub harnesses: Harnesses,
    /// How the health of sessions is looked after.
    pub health: HealthSettings,
    /// Which control may do what where.
    pub roles: Roles,
    /// How the audit log is kept.
    pub audit: audit::Settings,
}

/// Where a runner listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// At an address; port 0 takes a free one.
    At(SocketAddr),
    /// Nowhere: it dials.
    Nowhere,
}

/// A text that is no such place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("listen is \"{0}\", it must be ADDRESS:PORT, such as 0.0.0.0:7442, or none")]
pub struct BadListen(String);

impl FromStr for Listen {
    type Err = BadListen;

    fn from_str(text: &str) -> Result<Self, BadListen> {
        match text {
            "none" => Ok(Self::Nowhere),
            _ => text.parse().map(Self::At).map_err(|_| BadListen(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = BadListen;

    fn try_from(text: String) -> Result<Self, BadListen> {
        text.parse()
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    listen: Option<Listen>,
    #[serde(default)]
    dial: Vec<String>,
    state_dir: Option<PathBuf>,
    policy_dir: Option<PathBuf>,
    policy_at_most: Option<PolicyName>,
    principal: Option<String>,
    sessions_max: Option<u32>,
    #[serde(default)]
    events: EventsDocument,
    #[serde(default)]
    harness: BTreeMap<String, HarnessTable>,
    #[serde(default)]
    health: HealthDocument,
    #[serde(default)]
    role: Vec<RoleDocument>,
    #[serde(default)]
    audit: AuditDocument,
}

/// What is said of keeping events.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsDocument {
    /// How much the events of one workspace may take, bytes.
    store_len_max: Option<u64>,
    /// How long an acknowledged event is kept, days.
    age_max_days: Option<u32>,
}

/// What the command line says over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Where to listen.
    pub listen: Option<Listen>,
    /// Whom to dial; when anybody, nobody of the file.
    pub dial: Vec<Target>,
    /// Where to keep things.
    pub state_dir: Option<PathBuf>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else could change it, and with it where policies are.
    #[error("the configuration cannot be believed")]
    Ownership(#[from] OwnershipError),
    /// It is longer than a configuration is.
    #[error("the configuration {path} is longer than {FILE_LEN_MAX} bytes")]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// It is not TOML, or has a key or value that means nothing. The cause names line and key.
    #[error("cannot use the configuration {path}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Box<toml::de::Error>,
    },
    /// A path that is not absolute would mean another place at each start.
    #[error("{key} in the configuration is {path}, it must be an absolute path")]
    Relative {
        /// Which key.
        key: String,
        /// What it says.
        path: PathBuf,
    },
    /// No such user.
    #[error("principal in the configuration is {name}: there is no such user on this host")]
    NoUser {
        /// What it says.
        name: String,
    },
    /// Harnesses never run as root.
    #[error("principal in the configuration is {name}, which is root: harnesses never run as root")]
    RootPrincipal {
        /// What it says.
        name: String,
    },
    /// The user database failed.
    #[error("cannot look up user {name}")]
    Lookup {
        /// Whom.
        name: String,
        /// Why not.
        source: nix::Error,
    },
    /// Zero or too many.
    #[error("sessions_max in the configuration is {value}, it must be 1 to {SESSIONS_MAX_LIMIT}")]
    SessionsMax {
        /// What it says.
        value: u32,
    },
    /// A key of `[health]` says nothing that can be done.
    #[error("cannot use the table [health] of the configuration")]
    Health(#[from] BadHealth),
    /// A table `[[role]]` says nothing that can be done.
    #[error("cannot use a table [[role]] of the configuration")]
    Role(#[from] BadRole),
    /// A key of `[audit]` says nothing that can be done.
    #[error("cannot use the table [audit] of the configuration")]
    Audit(#[from] BadAudit),
    /// Too small to hold what may come at once.
    #[error(
        "events.store_len_max in the configuration is {value}, it must be at least {STORE_LEN_LEAST}: twice the longest \
         message, and room to go on"
    )]
    StoreLen {
        /// What it says.
        value: u64,
    },
    /// An event would be gone when it comes.
    #[error("events.age_max_days in the configuration is 0, it must be at least 1")]
    AgeMax,
    /// A table `[harness.…]` says nothing that can be done.
    #[error("cannot use a table [harness.…] of the configuration")]
    Harness(#[from] BadDefinition),
    /// Not a place.
    #[error("dial in the configuration has {text}")]
    Dial {
        /// What it says.
        text: String,
        /// Why it is none.
        source: BadTarget,
    },
    /// Too many.
    #[error("{count} controls are to be dialled, and a runner dials at most {DIAL_MAX}")]
    DialMany {
        /// How many.
        count: usize,
    },
    /// Nobody could ever talk to it.
    #[error("this runner neither listens nor dials: give it a place to listen, or a control to dial")]
    Unreachable,
    /// Neither told nor to be guessed.
    #[error("no home directory is known; give --state-dir")]
    NoHome,
}

impl Config {
    /// Reads the file at `path`, or where configurations are by default when there is one.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn load(path: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let document = match path {
            Some(path) => read(path)?,
            None => match default_path() {
                Some(path) => read_if_there(&path)?,
                None => Document::default(),
            },
        };
        Self::from_document(document, overrides)
    }

    fn from_document(document: Document, overrides: Overrides) -> Result<Self, ConfigError> {
        let Document {
            listen,
            dial,
            state_dir,
            policy_dir,
            policy_at_most,
            principal,
            sessions_max,
            events,
            harness,
            health,
            role,
            audit,
        } = document;
        let listen = overrides
            .listen
            .or(listen)
            .unwrap_or(Listen::At(SocketAddr::from(([127, 0, 0, 1], 0))));
        let dial = if overrides.dial.is_empty() {
            targets(dial)?
        } else {
            overrides.dial
        };
        if dial.len() > DIAL_MAX {
            return Err(ConfigError::DialMany { count: dial.len() });
        }
        if listen == Listen::Nowhere && dial.is_empty() {
            return Err(ConfigError::Unreachable);
        }
        let state_dir = match overrides.state_dir.or(state_dir) {
            Some(dir) => dir,
            None => default_state_dir().ok_or(ConfigError::NoHome)?,
        };
        let value = sessions_max.unwrap_or(SESSIONS_MAX_DEFAULT);
        let sessions_max = NonZeroU32::new(value)
            .filter(|max| max.get() <= SESSIONS_MAX_LIMIT)
            .ok_or(ConfigError::SessionsMax { value })?;
        absolute("state_dir", Some(&state_dir))?;
        absolute("policy_dir", policy_dir.as_deref())?;
        let principal = principal.map(|name| look_up(&name)).transpose()?;
        Ok(Self {
            listen,
            dial,
            state_dir,
            policy_dir,
            policy_at_most,
            principal,
            sessions_max,
            retention: retention(&events)?,
            harnesses: Harnesses::new(harness)?,
            health: health.try_into()?,
            roles: role.try_into()?,
            audit: audit.try_into()?,
        })
    }
}

/// Each control once: two links to one would be two of everything.
fn targets(texts: Vec<String>) -> Result<Vec<Target>, ConfigError> {
    let mut targets = Vec::new();
    for text in texts {
        let target = text
            .parse()
            .map_err(|source| ConfigError::Dial { text, source })?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    Ok(targets)
}

fn retention(events: &EventsDocument) -> Result<Retention, ConfigError> {
    let EventsDocument {
        store_len_max,
        age_max_days,
    } = events;
    let len_max = store_len_max.unwrap_or(Retention::DEFAULT.len_max);
    if len_max < STORE_LEN_LEAST {
        return Err(ConfigError::StoreLen { value: len_max });
    }
    let age_max_ms = match age_max_days {
        Some(0) => return Err(ConfigError::AgeMax),
        Some(days) => u64::from(*days) * 24 * 60 * 60 * 1000,
        None => Retention::DEFAULT.age_max_ms,
    };
    Ok(Retention { len_max, age_max_ms })
}

fn absolute(key: &str, path: Option<&Path>) -> Result<(), ConfigError> {
    match path {
        Some(path) if !path.is_absolute() => Err(ConfigError::Relative {
            key: key.to_owned(),
            path: path.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// A mistyped user is told at the start, not at the first session.
fn look_up(name: &str) -> Result<(Uid, Gid), ConfigError> {
    let user = User::from_name(name)
        .map_err(|source| ConfigError::Lookup {
            name: name.to_owned(),
            source,
        })?
        .ok_or_else(|| ConfigError::NoUser {
            name: name.to_owned(),
        })?;
    if user.uid.is_root() {
        return Err(ConfigError::RootPrincipal {
            name: name.to_owned(),
        });
    }
    Ok((user.uid, user.gid))
}

fn read(path: &Path) -> Result<Document, ConfigError> {
    let read_error = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let bytes = crate::sys::read_bounded(path, FILE_LEN_MAX).map_err(read_error)?;
    // After reading, so that one that is not there is said to be just that: whoever cannot change it could not before.
    crate::sandbox::ownership::owned(path)?;
    let bytes = bytes.ok_or_else(|| ConfigError::TooLong {
        path: path.to_owned(),
    })?;
    let text = String::from_utf8(bytes).map_err(|e| read_error(io::Error::other(e)))?;
    toml::from_str(&text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// One that nobody wrote says nothing. One that is there and cannot be reached is an error: it may say who may do what.
fn read_if_there(path: &Path) -> Result<Document, ConfigError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Document::default()),
        _ => read(path),
    }
}

fn is_root() -> bool {
    crate::sys::effective_uid() == 0
}

fn default_path() -> Option<PathBuf> {
    if is_root() {
        return Some(PathBuf::from("/etc/oqto/runner.toml"));
    }
    Some(
        directories::BaseDirs::new()?
            .config_dir()
            .join("oqto/runner.toml"),
    )
}

/// Root's harnesses run as somebody else, who could not pass through root's home: its state is the system's.
fn default_state_dir() -> Option<PathBuf> {
    if is_root() {
        return Some(PathBuf::from("/var/lib/oqto/runner"));
    }
    Some(directories::BaseDirs::new()?.state_dir()?.join("oqto/runner"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runner.toml");
        std::fs::write(&path, text).unwrap();
        let overrides = Overrides {
            state_dir: Some("/s".into()),
            ..Overrides::default()
        };
        Config::load(Some(&path), overrides).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", cause.unwrap_or_default())
        })
    }

    #[test]
    fn an_unknown_key_names_its_line() {
        let error = config("sessions_max = 3\nsesions_max = 4\n").unwrap_err();
        assert!(
            error.contains("line 2") && error.contains("sesions_max"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_there_and_cannot_be_reached_is_not_one_that_nobody_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runner.toml");
        assert!(read_if_there(&path).is_ok());
        std::os::unix::fs::symlink("/no-such-directory/runner.toml", &path).unwrap();
        let error = read_if_there(&path).map(drop).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }), "{error:?}");
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = read_if_there(&file.join("runner.toml")).map(drop).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }), "{error:?}");
    }

    #[test]
    fn values_that_mean_nothing_are_refused() {
        for (text, word) in [
            ("sessions_max = 0", "sessions_max"),
            ("policy_dir = \"here\"", "absolute"),
            ("policy_at_most = \"Work Space\"", "policy's name"),
            ("principal = \"root\"", "never run as root"),
            ("principal = \"no-such-user-here\"", "no such user"),
            ("[harness.pie]\nprogram = \"/x\"", "pie"),
            ("[harness.pi]\nprogramm = \"/x\"", "programm"),
            ("listen = \"nowhere\"", "listen"),
            ("listen = \"none\"", "neither listens nor dials"),
            ("dial = [\"control\"]", "HOST:PORT"),
            ("dial = \"control:1\"", "dial"),
            ("[health]\nheartbeat_s = 0", "heartbeat_s"),
            ("[health]\nsilent_act = \"sulk\"", "silent_act"),
            ("[events]\nstore_len_max = 134217727", "events.store_len_max"),
            ("[events]\nage_max_days = 0", "events.age_max_days"),
            ("[events]\nage_max = 3", "age_max"),
            ("[audit]\nkeep_bytes = 268435455", "keep_bytes"),
            ("[audit]\nat_bound = \"forget\"", "forget"),
            ("[audit]\nsyslog = \"dev/log\"", "dev/log"),
            ("[audit]\njournal = true", "journal"),
            ("[[role]]\nrole = \"read\"", "control"),
            ("[[role]]\ncontrol = \"ci\"", "role"),
            ("[[role]]\ncontrol = \"C I\"\nrole = \"read\"", "C I"),
            ("[[role]]\ncontrol = \"*\"\nrole = \"king\"", "king"),
            ("[[role]]\ncontrol = \"*\"\nrole = \"x-unknown-9\"", "x-unknown-9"),
            (
                "[[role]]\ncontrol = \"*\"\nrole = \"read\"\nworkspace = \"work\"",
                "work",
            ),
            (
                "[[role]]\ncontrol = \"*\"\nrole = \"read\"\nworkspace = \"~/x\"",
                "from the root",
            ),
            (
                "[[role]]\ncontrol = \"*\"\nrole = \"read\"\nworkspaces = \"/x\"",
                "workspaces",
            ),
        ] {
            let error = config(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let config = config("").unwrap();
        assert!(matches!(config.listen, Listen::At(at) if at.ip().is_loopback()));
        assert_eq!(config.dial, []);
        assert_eq!(config.sessions_max.get(), SESSIONS_MAX_DEFAULT);
        assert_eq!(config.retention, Retention::DEFAULT);
    }

    #[test]
    fn how_long_events_are_kept_is_what_the_file_says() {
        let config = config("[events]\nstore_len_max = 134217728\nage_max_days = 2\n").unwrap();
        let Retention { len_max, age_max_ms } = config.retention;
        assert_eq!((len_max, age_max_ms), (128 << 20, 172_800_000));
    }

    #[test]
    fn a_missing_file_stops_the_start() {
        let error = Config::load(Some(Path::new("/no/such/runner.toml")), Overrides::default()).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }));
    }
}
