//! Groups of system calls that a policy allows by name, and with them nothing else: `sandbox-policies/seccomp-allow.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::document::{DocumentError, syntax};
use super::plan::Permit;
use super::seccomp::{Written, meant};
use super::syscall::Syscall;

/// The groups of one file, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowGroups(BTreeMap<String, Vec<Permit>>);

impl AllowGroups {
    /// Reads a file of groups; `file` is its name in errors.
    ///
    /// # Errors
    ///
    /// The text is not TOML, or says something that is not in the language.
    pub fn parse(file: &str, text: &str) -> Result<Self, DocumentError> {
        let file_of: File = toml::from_str(text).map_err(|error| syntax(file, text, &error))?;
        let mut groups = BTreeMap::new();
        for (name, group) in file_of.group {
            groups.insert(name, meant(file, text, group.allow, Entry::permit)?);
        }
        Ok(Self(groups))
    }

    /// The calls that a group allows.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&[Permit]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// The names of all groups, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    group: BTreeMap<String, Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[expect(dead_code, reason = "required of the writer, for the reader of the file")]
    reason: String,
    allow: Vec<toml::Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    call: Syscall,
    #[expect(dead_code, reason = "required of the writer, for the reader of the file")]
    why: String,
    #[serde(default)]
    when: Vec<Written>,
}

impl Entry {
    fn permit(self) -> Option<Permit> {
        let Self { call, why: _, when } = self;
        let when = when.into_iter().map(Written::condition).collect::<Option<_>>()?;
        Some(Permit { call, when })
    }
}
