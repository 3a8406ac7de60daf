//! An operator's rules, as written and as meant.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oqto_protocol::id::{Digest, RunnerId};
use serde::Deserialize;

use super::release::Release;

/// The longest file of rules, bytes: a thousand runners with a digest each.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// What runners must be before they are given work: rules for all of them, under `[all]`, and for single ones, under
/// `[runner.ID]`. A rule of a single runner stands in the place of the one of that name for all.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Posture {
    #[serde(default)]
    all: Rules,
    #[serde(default)]
    runner: BTreeMap<RunnerId, Rules>,
}

/// Rules; one that is not there asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    pub(super) landlock_min: Option<i32>,
    pub(super) seccomp: Option<Required>,
    pub(super) layers: Option<BTreeSet<String>>,
    pub(super) sandbox: Option<Holds>,
    pub(super) binary: Option<Vec<Fingerprint>>,
    pub(super) version_min: Option<AtLeast>,
    pub(super) kernel_min: Option<AtLeast>,
    pub(super) policies: Option<BTreeMap<String, Fingerprint>>,
    pub(super) max_age: Option<Age>,
}

/// The only word that a layer can be asked for with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Required {
    Required,
}

/// The only word for the check as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Holds {
    Holds,
}

/// A digest with the name of its kind before it: `sha256:HEX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Fingerprint(pub(super) Digest);

/// A version that is good enough, and all later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct AtLeast(pub(super) Release);

/// A time: a number and `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Age(pub(super) Duration);

/// Why rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PostureError {
    /// The file cannot be read.
    #[error("cannot read the posture {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is too long.
    #[error("the posture {} is longer than {FILE_LEN_MAX} bytes", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// Others could change it.
    #[cfg(unix)]
    #[error("the posture {0} can be changed by other users (mode {mode:04o}); run: chmod go-w {0}", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not what it should be.
    #[error("the posture {} is malformed", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
}

impl Posture {
    /// Reads rules from TOML. A key that is not known is an error: a rule that is not understood must not be thought to
    /// hold.
    ///
    /// # Errors
    /// When it is not what it should be; `path` is named.
    pub fn parse(text: &str, path: impl Into<PathBuf>) -> Result<Self, PostureError> {
        toml::from_str(text).map_err(|source| PostureError::Malformed {
            path: path.into(),
            source: Box::new(source),
        })
    }

    /// Reads the rules of a file; none when there is no such file.
    ///
    /// # Errors
    /// When there is one and it cannot be used.
    pub fn read(path: &Path) -> Result<Option<Self>, PostureError> {
        let failed = |source| PostureError::Read {
            path: path.to_owned(),
            source,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
            if mode & 0o022 != 0 {
                let path = path.to_owned();
                return Err(PostureError::Exposed { path, mode });
            }
        }
        let mut text = String::new();
        file.take(FILE_LEN_MAX + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
        if text.len() as u64 > FILE_LEN_MAX {
            return Err(PostureError::TooLong {
                path: path.to_owned(),
            });
        }
        Self::parse(&text, path).map(Some)
    }

    /// Whether a runner is asked for anything at all.
    #[must_use]
    pub fn asks(&self, runner: &RunnerId) -> bool {
        self.rules(runner) != Rules::default()
    }

    /// How long a runner that was found to be as it should is believed on one connection; for ever if nothing says so.
    #[must_use]
    pub fn max_age(&self, runner: &RunnerId) -> Option<Duration> {
        self.rules(runner).max_age.map(|age| age.0)
    }

    /// The rules of one runner.
    pub(super) fn rules(&self, runner: &RunnerId) -> Rules {
        let all = self.all.clone();
        let Some(Rules {
            landlock_min,
            seccomp,
            layers,
            sandbox,
            binary,
            version_min,
            kernel_min,
            policies,
            max_age,
        }) = self.runner.get(runner).cloned()
        else {
            return all;
        };
        Rules {
            landlock_min: landlock_min.or(all.landlock_min),
            seccomp: seccomp.or(all.seccomp),
            layers: layers.or(all.layers),
            sandbox: sandbox.or(all.sandbox),
            binary: binary.or(all.binary),
            version_min: version_min.or(all.version_min),
            kernel_min: kernel_min.or(all.kernel_min),
            policies: policies.or(all.policies),
            max_age: max_age.or(all.max_age),
        }
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digest = text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
        digest
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no digest; write sha256: and 64 hex digits"))
    }
}

impl TryFrom<String> for AtLeast {
    type Error = super::release::NoRelease;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let seconds = || {
            let unit = match text.chars().last()? {
                's' => 1,
                'm' => 60,
                'h' => 3600,
                'd' => 24 * 3600,
                _ => return None,
            };
            let count: u64 = text.get(..text.len() - 1)?.parse().ok()?;
            count.checked_mul(unit).filter(|seconds| *seconds > 0)
        };
        let age = seconds().map(|seconds| Self(Duration::from_secs(seconds)));
        age.ok_or_else(|| format!("{text:?} is no time; write a number and s, m, h or d"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Posture, String> {
        Posture::parse(text, "posture.toml").map_err(|error| match error {
            PostureError::Malformed { source, .. } => source.to_string(),
            other => other.to_string(),
        })
    }

    #[test]
    fn what_is_not_understood_is_an_error_and_never_no_rule() {
        for (text, word) in [
            ("landlock_min = 4", "landlock_min"),
            ("[all]\nlandlok_min = 4", "landlok_min"),
            ("[all]\nseccomp = \"maybe\"", "maybe"),
            ("[all]\nsandbox = true", "sandbox"),
            ("[all]\nbinary = [\"abc\"]", "sha256:"),
            ("[all]\nversion_min = \"new\"", "is no version"),
            ("[all]\nmax_age = \"10\"", "is no time"),
            ("[all]\nmax_age = \"0s\"", "is no time"),
            ("[all]\nmax_age = \"99999999999999999999d\"", "is no time"),
            ("[runner.\"Not A Name\"]\nlandlock_min = 4", "runner"),
            ("[runner.r-1]\nlandlock = 4", "landlock"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(word), "{text}: {said}");
        }
    }

    #[test]
    fn a_rule_of_one_runner_stands_in_the_place_of_the_one_for_all() {
        let posture =
            parse("[all]\nlandlock_min = 6\nmax_age = \"10m\"\n[runner.r-1]\nlandlock_min = 3\n").unwrap();
        let (one, other) = ("r-1".parse().unwrap(), "r-2".parse().unwrap());
        assert_eq!(posture.rules(&one).landlock_min, Some(3));
        assert_eq!(posture.max_age(&one), Some(Duration::from_secs(600)));
        assert_eq!(posture.rules(&other).landlock_min, Some(6));
        let posture = parse("[runner.r-1]\nlandlock_min = 3\n").unwrap();
        assert!(posture.asks(&one) && !posture.asks(&other));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_change_or_that_cannot_be_read_is_no_file_without_rules() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("posture.toml");
        assert_eq!(Posture::read(&path).unwrap(), None);
        std::fs::write(&path, "[all]\nlandlock_min = 4\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(Posture::read(&path), Err(PostureError::Exposed { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Posture::read(&path).unwrap().is_some());
        std::fs::write(&path, [0xff]).unwrap();
        assert!(matches!(Posture::read(&path), Err(PostureError::Read { .. })));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(Posture::read(&path).is_err());
    }
}
