//! A policy as written in TOML, and the errors of writing one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::catalog::PolicyName;
use super::path::BadPath;
use super::pattern::Template;
use super::permission::{BadRule, Otherwise, RULES_MAX, RuleTemplate, TIMEOUT_S_MAX};
use super::plan::{Need, Network};
use super::rule::{LayerName, Limit, Ruled, Source};

/// One policy as meant, before it meets others and a request. What it does not say is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it is, for people.
    pub description: String,
    pub(super) extends: Option<PolicyName>,
    pub(super) read: Option<Vec<Ruled<Template>>>,
    pub(super) write: Option<Vec<Ruled<Template>>>,
    pub(super) deny: Vec<Ruled<Template>>,
    pub(super) mask: Vec<Ruled<Template>>,
    pub(super) protect: Vec<Ruled<Template>>,
    pub(super) set: BTreeMap<String, Ruled<String>>,
    pub(super) pass: Option<BTreeMap<String, Source>>,
    pub(super) network: Option<Ruled<Network>>,
    pub(super) connect: Option<Ruled<BTreeSet<u16>>>,
    pub(super) bind: Option<Ruled<BTreeSet<u16>>>,
    pub(super) groups: BTreeMap<String, Source>,
    pub(super) allow: Option<BTreeMap<String, Source>>,
    pub(super) limits: BTreeMap<Limit, Ruled<u64>>,
    pub(super) layers: BTreeMap<LayerName, Ruled<Need>>,
    pub(super) permit: Option<Vec<Ruled<RuleTemplate>>>,
    pub(super) forbid: Vec<Ruled<RuleTemplate>>,
    pub(super) otherwise: Option<Ruled<Otherwise>>,
    pub(super) timeout_s: Option<Ruled<u32>>,
}

/// What is wrong with the text of a policy. Each names the file and the line.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not TOML, or says something that is not in the language.
    #[error("{file}:{line}: {}{}", message.trim_end(), nearest.as_ref().map(|key| format!("; did you mean {key}?")).unwrap_or_default())]
    Syntax {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
        /// The key or value that was probably meant.
        nearest: Option<Box<str>>,
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
    /// A rule of permissions is none.
    #[error("{file}:{line}: the rule {rule:?} {why}")]
    Rule {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// The rule as written.
        rule: String,
        /// What is wrong with it.
        why: BadRule,
    },
    /// There are more rules of permissions than are compared.
    #[error("{file}:{line}: there are {count} rules in {key}, and there may be {RULES_MAX}")]
    Rules {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// In which list.
        key: &'static str,
        /// How many.
        count: usize,
    },
    /// Somebody would have no time to answer, or for ever.
    #[error("{file}:{line}: timeout_s is {value}, it must be 1 to {TIMEOUT_S_MAX}")]
    Timeout {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// What it says.
        value: u32,
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
        let policy = Self::parse_part(file, text)?;
        match policy.description.is_empty() {
            false => Ok(policy),
            true => Err(DocumentError::Syntax {
                file: file.to_owned(),
                line: 1,
                message: "description is missing, which says for people what the policy is".to_owned(),
                nearest: None,
            }),
        }
    }

    /// Reads what narrows another policy, which does not have to say what it is.
    pub(super) fn parse_part(file: &str, text: &str) -> Result<Self, DocumentError> {
        let document: Document = toml::from_str(text).map_err(|error| syntax(file, text, &error))?;
        let at = At {
            file: &Arc::from(file),
            text,
        };
        let Document {
            description,
            extends,
            filesystem,
            env,
            network,
            seccomp,
            limits,
            layers,
            permissions,
        } = document;
        let FilesystemTable {
            read,
            write,
            deny,
            mask,
            protect,
        } = filesystem;
        let EnvTable { set, pass } = env;
        let NetworkTable {
            mode,
            connect_tcp,
            bind_tcp,
        } = network;
        let SeccompTable { groups, allow } = seccomp;
        let PermissionsTable {
            allow: permit,
            deny: forbid,
            otherwise,
            timeout_s,
        } = permissions;
        let set = set
            .into_iter()
            .map(|(name, value)| {
                let (name, source) = at.variable(name)?;
                Ok((name, Ruled { value, source }))
            })
            .collect::<Result<_, DocumentError>>()?;
        let pass = pass.map(|names| {
            names
                .into_iter()
                .map(|name| at.variable(name))
                .collect::<Result<_, _>>()
        });
        Ok(Self {
            description: description.unwrap_or_default(),
            extends: extends.map(|name| at.policy_name(&name)).transpose()?,
            read: read.map(|paths| at.templates(paths)).transpose()?,
            write: write.map(|paths| at.templates(paths)).transpose()?,
            deny: at.templates(deny)?,
            mask: at.templates(mask)?,
            protect: at.templates(protect)?,
            set,
            pass: pass.transpose()?,
            network: mode.map(|mode| at.ruled(mode)),
            connect: connect_tcp.map(|ports| at.ruled(ports)),
            bind: bind_tcp.map(|ports| at.ruled(ports)),
            groups: at.names(groups),
            allow: allow.map(|names| at.names(names)),
            limits: at.table(limits),
            layers: at.table(layers),
            permit: permit.map(|rules| at.rules("allow", rules)).transpose()?,
            forbid: at.rules("deny", forbid)?,
            otherwise: otherwise.map(|otherwise| at.ruled(otherwise)),
            timeout_s: timeout_s.map(|timeout| at.timeout(timeout)).transpose()?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    description: Option<String>,
    extends: Option<Spanned<String>>,
    #[serde(default)]
    filesystem: FilesystemTable,
    #[serde(default)]
    env: EnvTable,
    #[serde(default)]
    network: NetworkTable,
    #[serde(default)]
    seccomp: SeccompTable,
    #[serde(default)]
    limits: BTreeMap<Spanned<Limit>, u64>,
    #[serde(default)]
    layers: BTreeMap<Spanned<LayerName>, Need>,
    #[serde(default)]
    permissions: PermissionsTable,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FilesystemTable {
    read: Option<Vec<Spanned<String>>>,
    write: Option<Vec<Spanned<String>>>,
    deny: Vec<Spanned<String>>,
    mask: Vec<Spanned<String>>,
    protect: Vec<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EnvTable {
    set: BTreeMap<Spanned<String>, String>,
    pass: Option<Vec<Spanned<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NetworkTable {
    mode: Option<Spanned<Network>>,
    connect_tcp: Option<Spanned<BTreeSet<u16>>>,
    bind_tcp: Option<Spanned<BTreeSet<u16>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SeccompTable {
    groups: Vec<Spanned<String>>,
    allow: Option<Vec<Spanned<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PermissionsTable {
    allow: Option<Vec<Spanned<String>>>,
    deny: Vec<Spanned<String>>,
    otherwise: Option<Spanned<Otherwise>>,
    timeout_s: Option<Spanned<u32>>,
}

/// A text, to tell on which line of it something stands.
#[derive(Clone, Copy)]
struct At<'a> {
    file: &'a Arc<str>,
    text: &'a str,
}

impl At<'_> {
    fn line<T>(self, written: &Spanned<T>) -> usize {
        line_of(self.text, written.span().start)
    }

    fn source<T>(self, written: &Spanned<T>) -> Source {
        Source::Line {
            file: Arc::clone(self.file),
            line: self.line(written),
        }
    }

    fn ruled<T>(self, written: Spanned<T>) -> Ruled<T> {
        Ruled {
            source: self.source(&written),
            value: written.into_inner(),
        }
    }

    fn names(self, written: Vec<Spanned<String>>) -> BTreeMap<String, Source> {
        let names = written.into_iter().map(|name| self.ruled(name));
        names.map(|name| (name.value, name.source)).collect()
    }

    fn table<K: Ord, V>(self, written: BTreeMap<Spanned<K>, V>) -> BTreeMap<K, Ruled<V>> {
        let rules = written.into_iter().map(|(key, value)| {
            let source = self.source(&key);
            (key.into_inner(), Ruled { value, source })
        });
        rules.collect()
    }

    fn templates(self, written: Vec<Spanned<String>>) -> Result<Vec<Ruled<Template>>, DocumentError> {
        let templates = written.into_iter().map(|path| {
            let (line, source) = (self.line(&path), self.source(&path));
            let path = path.into_inner();
            match Template::parse(&path) {
                Ok(value) => Ok(Ruled { value, source }),
                Err(why) => Err(DocumentError::Path {
                    file: self.file.to_string(),
                    line,
                    path,
                    why,
                }),
            }
        });
        templates.collect()
    }

    fn rules(
        self,
        key: &'static str,
        written: Vec<Spanned<String>>,
    ) -> Result<Vec<Ruled<RuleTemplate>>, DocumentError> {
        if let Some(more) = written.get(RULES_MAX) {
            return Err(DocumentError::Rules {
                file: self.file.to_string(),
                line: self.line(more),
                key,
                count: written.len(),
            });
        }
        let rules = written.into_iter().map(|rule| {
            let (line, source) = (self.line(&rule), self.source(&rule));
            match RuleTemplate::parse(rule.get_ref()) {
                Ok(value) => Ok(Ruled { value, source }),
                Err(why) => Err(DocumentError::Rule {
                    file: self.file.to_string(),
                    line,
                    rule: rule.into_inner(),
                    why,
                }),
            }
        });
        rules.collect()
    }

    fn timeout(self, written: Spanned<u32>) -> Result<Ruled<u32>, DocumentError> {
        match written.get_ref() {
            1..=TIMEOUT_S_MAX => Ok(self.ruled(written)),
            value => Err(DocumentError::Timeout {
                file: self.file.to_string(),
                line: self.line(&written),
                value: *value,
            }),
        }
    }

    fn variable(self, written: Spanned<String>) -> Result<(String, Source), DocumentError> {
        let (line, source) = (self.line(&written), self.source(&written));
        let name = written.into_inner();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if !name.is_empty() && name.bytes().all(plain) && !name.as_bytes()[0].is_ascii_digit() {
            Ok((name, source))
        } else {
            Err(DocumentError::Variable {
                file: self.file.to_string(),
                line,
                name,
            })
        }
    }

    fn policy_name(self, written: &Spanned<String>) -> Result<PolicyName, DocumentError> {
        written.get_ref().parse().map_err(|_| DocumentError::Extends {
            file: self.file.to_string(),
            line: self.line(written),
            name: written.get_ref().clone(),
        })
    }
}

pub(super) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> DocumentError {
    let span = error.span().unwrap_or_default();
    let message = error.message().replace('\n', " ");
    DocumentError::Syntax {
        file: file.to_owned(),
        line: line_of(text, span.start),
        nearest: meant(&message).map(String::into_boxed_str),
        message,
    }
}

/// The parser says `unknown field` or `unknown variant`, what it read, and what it knows, each between backquotes.
fn meant(message: &str) -> Option<String> {
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let mut quoted = message.split('`').skip(1).step_by(2).filter(|_| unknown);
    let read = quoted.next()?;
    nearest(read, quoted)
}

/// The word that was probably meant: at most two letters away.
pub(super) fn nearest<'a>(read: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let near = known.filter(|word| distance(read, word) <= 2);
    near.min_by_key(|word| distance(read, word)).map(str::to_owned)
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
                "description = \"d\"\n[layers]\nnamespace = \"required\"\n",
                &["p.toml:3: ", "did you mean namespaces?"],
            ),
            (
                "description = \"d\"\n[limits]\nproceses = 3\n",
                &["p.toml:3: ", "did you mean processes?"],
            ),
            (
                "description = \"d\"\n[network]\nmode = \"hots\"\n",
                &["p.toml:3: ", "did you mean host?"],
            ),
            (
                "description = \"d\"\n[network]\nconnect_tcp = [443, 70000]\n",
                &["p.toml:3: ", "70000"],
            ),
            (
                "description = \"d\"\n[filesystem]\nread = [\n  \"/a\",\n  \"b\",\n]\n",
                &["p.toml:5: ", "the path b is not absolute"],
            ),
            (
                "description = \"d\"\n[filesystem]\ndeny = [\"~/[ab].key\"]\n",
                &["p.toml:3: ", "[ab].key", "only wildcards are *, ? and **"],
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
