//! The policies known by name.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::allow::AllowGroups;
use super::document::{DocumentError, Policy};
use super::seccomp::Groups;

/// Names a policy. Safe as a file name: 1 to 64 bytes of `[a-z0-9-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyName(String);

/// A text that names no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a policy's name is 1 to 64 letters a to z, digits and dashes")]
pub struct BadName;

impl PolicyName {
    const LEN_MAX: usize = 64;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PolicyName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        match text.len() {
            1..=Self::LEN_MAX if text.bytes().all(plain) => Ok(Self(text.to_owned())),
            _ => Err(BadName),
        }
    }
}

impl TryFrom<String> for PolicyName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<PolicyName> for String {
    fn from(name: PolicyName) -> Self {
        name.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The policies and the groups of system calls that sessions of this runner may name.
///
/// Texts are parsed when a policy is asked for: a session pays for the policies it uses and no others.
#[derive(Clone, Debug)]
pub struct Catalog {
    texts: BTreeMap<PolicyName, Text>,
    groups: Parsed<Groups>,
    allow: Parsed<AllowGroups>,
}

#[derive(Clone, Debug)]
struct Text {
    file: String,
    text: String,
}

/// A file that is part of this program, and what it says once somebody asked.
#[derive(Clone, Debug)]
struct Parsed<T> {
    file: &'static str,
    text: &'static str,
    meant: OnceLock<T>,
}

impl<T> Parsed<T> {
    fn meant(&self, parse: impl FnOnce(&str, &str) -> Result<T, DocumentError>) -> Result<&T, CatalogError> {
        if let Some(meant) = self.meant.get() {
            return Ok(meant);
        }
        let meant = parse(self.file, self.text).map_err(|source| CatalogError::Groups { source })?;
        Ok(self.meant.get_or_init(|| meant))
    }
}

/// Why a policy cannot be had by its name.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// No policy has that name.
    #[error("there is no policy {name}; there are {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: PolicyName,
        /// What there is.
        known: Vec<String>,
    },
    /// A policy would replace one that is shipped, and whoever reads its name could no longer know what it says.
    #[error("{file} would replace the shipped policy {name}; give it another name and extend it")]
    Shipped {
        /// The name that is taken.
        name: PolicyName,
        /// Where it is said again.
        file: String,
    },
    /// The text of the policy is wrong.
    #[error("policy {name} cannot be used")]
    Document {
        /// Which policy.
        name: PolicyName,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// The text of the groups of system calls is wrong.
    #[error("the groups of system calls cannot be used")]
    Groups {
        /// What is wrong with them.
        source: DocumentError,
    },
}

impl Catalog {
    /// The policies that are part of this program.
    ///
    /// # Panics
    ///
    /// Never: the names are constants, which a test parses.
    #[must_use]
    pub fn shipped() -> Self {
        let texts = SHIPPED.iter().map(|(name, text)| {
            let name: PolicyName = name.parse().expect("shipped names are plain");
            let file = format!("{name}.toml");
            (
                name,
                Text {
                    file,
                    text: (*text).to_owned(),
                },
            )
        });
        Self {
            texts: texts.collect(),
            groups: Parsed {
                file: "seccomp.toml",
                text: include_str!("../../../sandbox-policies/seccomp.toml"),
                meant: OnceLock::new(),
            },
            allow: Parsed {
                file: "seccomp-allow.toml",
                text: include_str!("../../../sandbox-policies/seccomp-allow.toml"),
                meant: OnceLock::new(),
            },
        }
    }

    /// Adds the policy that `file` says.
    ///
    /// # Errors
    ///
    /// The name is one that is shipped.
    pub fn add(&mut self, name: PolicyName, file: String, text: String) -> Result<(), CatalogError> {
        if SHIPPED.iter().any(|(shipped, _)| *shipped == name.as_str()) {
            return Err(CatalogError::Shipped { name, file });
        }
        self.texts.insert(name, Text { file, text });
        Ok(())
    }

    /// The names of all policies, in order.
    pub fn names(&self) -> impl Iterator<Item = &PolicyName> {
        self.texts.keys()
    }

    /// The policy of that name.
    ///
    /// # Errors
    ///
    /// There is none, or its text is wrong.
    pub fn policy(&self, name: &PolicyName) -> Result<Policy, CatalogError> {
        let Some(Text { file, text }) = self.texts.get(name) else {
            return Err(self.unknown(name));
        };
        Policy::parse(file, text).map_err(|source| CatalogError::Document {
            name: name.clone(),
            source,
        })
    }

    /// The policy of that name, as written.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn text(&self, name: &PolicyName) -> Result<&str, CatalogError> {
        match self.texts.get(name) {
            Some(text) => Ok(&text.text),
            None => Err(self.unknown(name)),
        }
    }

    fn unknown(&self, name: &PolicyName) -> CatalogError {
        CatalogError::Unknown {
            name: name.clone(),
            known: self.names().map(ToString::to_string).collect(),
        }
    }

    /// The groups of system calls that policies may name.
    ///
    /// # Errors
    ///
    /// Their text is wrong.
    pub fn groups(&self) -> Result<&Groups, CatalogError> {
        self.groups.meant(Groups::parse)
    }

    /// The groups of system calls that policies may allow.
    ///
    /// # Errors
    ///
    /// Their text is wrong.
    pub fn allow_groups(&self) -> Result<&AllowGroups, CatalogError> {
        self.allow.meant(AllowGroups::parse)
    }
}

const SHIPPED: &[(&str, &str)] = &[
    ("offline", include_str!("../../../sandbox-policies/offline.toml")),
    (
        "open-net",
        include_str!("../../../sandbox-policies/open-net.toml"),
    ),
    (
        "read-only",
        include_str!("../../../sandbox-policies/read-only.toml"),
    ),
    ("strict", include_str!("../../../sandbox-policies/strict.toml")),
    (
        "workspace",
        include_str!("../../../sandbox-policies/workspace.toml"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_policy_can_be_read() {
        let catalog = Catalog::shipped();
        for name in catalog.names() {
            catalog
                .policy(name)
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
        catalog.groups().unwrap();
        catalog.allow_groups().unwrap();
    }

    #[test]
    fn a_shipped_policy_cannot_be_replaced() {
        let mut catalog = Catalog::shipped();
        let added = catalog.add(
            "workspace".parse().unwrap(),
            "/etc/w.toml".to_owned(),
            String::new(),
        );
        assert!(matches!(added, Err(CatalogError::Shipped { .. })));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = Catalog::shipped()
            .policy(&"workspase".parse().unwrap())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no policy workspase; there are offline, open-net, read-only, strict, workspace"
        );
    }
}
