//! A policy as written in TOML, and the errors of writing one.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Spanned;

use super::catalog::PolicyName;
use super::path::{BadPath, Template};
use super::plan::{Limits, Need, Network};

/// One policy as meant, before it meets a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it is, for people.
    pub description: String,
    pub(super) extends: Option<PolicyName>,
    pub(super) read: Vec<Template>,
    pub(super) write: Vec<Template>,
    pub(super) deny: Vec<Template>,
    pub(super) mask: Vec<Template>,
    pub(super) protect: Vec<Template>,
    pub(super) set: BTreeMap<String, String>,
    pub(super) pass: BTreeSet<String>,
    pub(super) network: Option<Network>,
    pub(super) groups: Vec<String>,
    pub(super) limits: Limits,
    pub(super) layers: LayersTable,
}

/// What is wrong with the text of a policy. Each names the file and the line.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not TOML, or says something that is not in the language.
    #[error("{file}:{line}: {}{}", message.trim_end(), nearest.map(|key| format!("; did you mean {key}?")).unwrap_or_default())]
    Syntax {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
        /// The key that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A path is not one.
    #[error("{file}:{line}: the path {path} {why}; write it absolute, or below ~ or $WORKSPACE")]
    Path {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// The path as written.
        path: String,
        /// What is wrong with it.
        why: BadPath,
    },
    /// `extends` names no policy.
    #[error(
        "{file}:{line}: extends names {name}, and a policy's name is 1 to 64 letters a to z, digits and dashes"
    )]
    Extends {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// The name as written.
        name: String,
    },
    /// The name of a variable cannot be one.
    #[error("{file}:{line}: {name} cannot be the name of a variable; use letters, digits and _")]
    Variable {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// The name as written.
        name: String,
    },
    /// A condition on an argument says nothing, or two things.
    #[error(
        "{file}:{line}: a condition needs arg from 0 to 5 and one of is, not, any_bit, given = true, or mask with is"
    )]
    Condition {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
    },
}

impl Policy {
    /// Reads a policy; `file` is its name in errors.
    ///
    /// # Errors
    ///
    /// The text is not TOML, or says something that is not in the language.
    pub fn parse(file: &str, text: &str) -> Result<Self, DocumentError> {
        let document: Document = toml::from_str(text).map_err(|error| syntax(file, text, &error))?;
        let Document {
            description,
            extends,
            filesystem,
            env,
            network,
            seccomp,
            limits,
            layers,
        } = document;
        let FilesystemTable {
            read,
            write,
            deny,
            mask,
            protect,
        } = filesystem;
        let EnvTable { set, pass } = env;
        let paths = |written: Vec<Spanned<String>>| -> Result<Vec<Template>, DocumentError> {
            written
                .into_iter()
                .map(|path| template(file, text, path))
                .collect()
        };
        let pass = pass
            .into_iter()
            .map(|name| variable(file, text, name))
            .collect::<Result<_, _>>()?;
        let set = set
            .into_iter()
            .map(|(name, value)| Ok((variable(file, text, name)?, value)));
        Ok(Self {
            description,
            extends: extends.map(|name| policy_name(file, text, &name)).transpose()?,
            read: paths(read)?,
            write: paths(write)?,
            deny: paths(deny)?,
            mask: paths(mask)?,
            protect: paths(protect)?,
            set: set.collect::<Result<_, DocumentError>>()?,
            pass,
            network: network.map(|table| table.mode),
            groups: seccomp.groups,
            limits,
            layers,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    description: String,
    extends: Option<Spanned<String>>,
    #[serde(default)]
    filesystem: FilesystemTable,
    #[serde(default)]
    env: EnvTable,
    network: Option<NetworkTable>,
    #[serde(default)]
    seccomp: SeccompTable,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    layers: LayersTable,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FilesystemTable {
    read: Vec<Spanned<String>>,
    write: Vec<Spanned<String>>,
    deny: Vec<Spanned<String>>,
    mask: Vec<Spanned<String>>,
    protect: Vec<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EnvTable {
    set: BTreeMap<Spanned<String>, String>,
    pass: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkTable {
    mode: Network,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SeccompTable {
    groups: Vec<String>,
}

/// The layers that a policy speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LayersTable {
    pub(super) cgroup_namespace: Option<Need>,
    pub(super) landlock: Option<Need>,
    pub(super) seccomp: Option<Need>,
}

/// Every key of the language, for the suggestion after a misspelt one.
const KEYS: &[&str] = &[
    "description",
    "extends",
    "filesystem",
    "read",
    "write",
    "deny",
    "mask",
    "protect",
    "env",
    "set",
    "pass",
    "network",
    "mode",
    "seccomp",
    "groups",
    "limits",
    "process_memory_mib",
    "processes",
    "open_files",
    "process_cpu_seconds",
    "file_size_mib",
    "core_mib",
    "tmp_mib",
    "layers",
    "cgroup_namespace",
    "landlock",
    "group",
    "reason",
    "call",
    "why",
    "refusal",
    "when",
    "arg",
    "is",
    "not",
    "any_bit",
    "given",
];

pub(super) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> DocumentError {
    let span = error.span().unwrap_or_default();
    let word = text.get(span.clone()).unwrap_or_default();
    let misspelt = error.message().starts_with("unknown field") && !KEYS.contains(&word);
    let nearest = KEYS
        .iter()
        .copied()
        .filter(|key| misspelt && distance(word, key) <= 2);
    DocumentError::Syntax {
        file: file.to_owned(),
        line: line_of(text, span.start),
        message: error.message().replace('\n', " "),
        nearest: nearest.min_by_key(|key| distance(word, key)),
    }
}

/// The line, from 1, on which the byte `at` stands.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// How many letters have to be added, dropped or changed to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, letter) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in to.bytes().enumerate() {
            let change = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

fn template(file: &str, text: &str, written: Spanned<String>) -> Result<Template, DocumentError> {
    let line = line_of(text, written.span().start);
    let path = written.into_inner();
    Template::parse(&path).map_err(|why| DocumentError::Path {
        file: file.to_owned(),
        line,
        path,
        why,
    })
}

fn variable(file: &str, text: &str, written: Spanned<String>) -> Result<String, DocumentError> {
    let line = line_of(text, written.span().start);
    let name = written.into_inner();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if !name.is_empty() && name.bytes().all(plain) && !name.as_bytes()[0].is_ascii_digit() {
        Ok(name)
    } else {
        Err(DocumentError::Variable {
            file: file.to_owned(),
            line,
            name,
        })
    }
}

fn policy_name(file: &str, text: &str, written: &Spanned<String>) -> Result<PolicyName, DocumentError> {
    written.get_ref().parse().map_err(|_| DocumentError::Extends {
        file: file.to_owned(),
        line: line_of(text, written.span().start),
        name: written.get_ref().clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_file_and_line_and_what_was_meant() {
        let table: &[(&str, &[&str])] = &[
            (
                "description = \"d\"\n[filesystem]\nraed = []\n",
                &["p.toml:3: ", "raed", "did you mean read?"],
            ),
            (
                "description = \"d\"\n\n[netwrok]\nmode = \"none\"\n",
                &["p.toml:3: ", "did you mean network?"],
            ),
            (
                "description = \"d\"\n[network]\nmode = \"some\"\n",
                &["p.toml:3: ", "none", "host"],
            ),
            (
                "description = \"d\"\n[network]\ndomains = [\"a.example\"]\n",
                &["p.toml:3: ", "unknown field `domains`"],
            ),
            (
                "description = \"d\"\n[layers]\nlandlock = \"maybe\"\n",
                &["p.toml:3: ", "if-available"],
            ),
            (
                "description = \"d\"\n[layers]\nnamespaces = \"if-available\"\n",
                &["p.toml:3: ", "namespaces"],
            ),
            (
                "description = \"d\"\n[filesystem]\nread = [\n  \"/a\",\n  \"b\",\n]\n",
                &["p.toml:5: ", "the path b is not absolute"],
            ),
            (
                "description = \"d\"\n[filesystem]\ndeny = [\"~/*.key\"]\n",
                &["p.toml:3: ", "wildcard"],
            ),
            (
                "description = \"d\"\n[env]\npass = [\"A B\"]\n",
                &["p.toml:3: ", "A B"],
            ),
            (
                "description = \"d\"\nextends = \"../x\"\n",
                &["p.toml:2: ", "../x"],
            ),
            ("extends = \"x\"\n", &["p.toml:1: ", "description"]),
        ];
        for (text, parts) in table {
            let error = Policy::parse("p.toml", text).unwrap_err().to_string();
            for part in *parts {
                assert!(error.contains(part), "{error} lacks {part}");
            }
        }
    }

    #[test]
    fn distance_counts_letters() {
        for (from, to, letters) in [
            ("read", "read", 0),
            ("raed", "read", 2),
            ("", "mode", 4),
            ("maks", "mask", 2),
        ] {
            assert_eq!(distance(from, to), letters, "{from} {to}");
        }
    }
}
