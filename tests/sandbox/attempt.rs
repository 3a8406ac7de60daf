//! The attempts to get out, as `attempts/*.py` declares them, and what became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::bed::end;

/// The layers that can be left out.
pub(crate) const LAYERS: [&str; 6] = [
    "namespaces",
    "mounts",
    "privileges",
    "limits",
    "landlock",
    "seccomp",
];

/// The scripts. They stand in the workspace when they run.
const SCRIPTS: [(&str, &str); 13] = [
    ("bench.py", include_str!("attempts/bench.py")),
    ("files.py", include_str!("attempts/files.py")),
    ("kernel.py", include_str!("attempts/kernel.py")),
    ("main.py", include_str!("attempts/main.py")),
    ("namespaces.py", include_str!("attempts/namespaces.py")),
    ("network.py", include_str!("attempts/network.py")),
    ("outside.py", include_str!("attempts/outside.py")),
    ("persistence.py", include_str!("attempts/persistence.py")),
    ("processes.py", include_str!("attempts/processes.py")),
    ("protected.py", include_str!("attempts/protected.py")),
    ("resources.py", include_str!("attempts/resources.py")),
    ("sockets.py", include_str!("attempts/sockets.py")),
    ("terminals.py", include_str!("attempts/terminals.py")),
];

/// Puts the scripts somewhere.
pub(crate) fn write_scripts(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    for (name, text) in SCRIPTS {
        fs::write(directory.join(name), text).unwrap();
    }
}

/// A set of layers, which together stop something.
pub(crate) type Layers = BTreeSet<&'static str>;

/// What shows that an attempt worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proof {
    /// What it says it did: the kernel let it.
    Own,
    /// What it says holds the secret, which it cannot know otherwise.
    Secret,
    /// Its mark was found outside.
    Witness,
}

/// One way to get out.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attempt {
    /// Its name, which stays.
    pub(crate) name: String,
    /// The kind of thing that it tries.
    pub(crate) category: String,
    /// What it tries.
    pub(crate) tries: String,
    /// What it would give.
    pub(crate) gives: String,
    by: String,
    #[serde(rename = "where")]
    exceptions: BTreeMap<Trait, String>,
    /// Why it fails without any layer, if it does.
    pub(crate) ground: String,
    /// What of the host may stop it without any layer.
    pub(crate) depends: String,
    /// What shows that it worked.
    pub(crate) proof: Proof,
    #[serde(rename = "alone")]
    _alone: bool,
}

/// What sets a policy apart from the default one, as far as attempts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Trait {
    /// It gives the host's network.
    Network,
    /// The workspace cannot be written.
    ReadOnly,
    /// Only the calls of a list are allowed.
    Strict,
}

impl Attempt {
    /// Every attempt, as declared.
    pub(crate) fn all() -> Vec<Self> {
        let directory = tempfile::tempdir().unwrap();
        write_scripts(directory.path());
        let mut command = Command::new("/usr/bin/python3");
        command
            .args(["-B"])
            .arg(directory.path().join("main.py"))
            .arg("--list");
        serde_json::from_str(&end(&mut command).ok()).unwrap()
    }

    /// The sets of layers of which each is said to stop it alone under a policy with these traits.
    pub(crate) fn claims(&self, traits: &BTreeSet<Trait>) -> Vec<Layers> {
        let exception = traits.iter().find_map(|of| self.exceptions.get(of));
        let layer = |word: &str| {
            let found = LAYERS.into_iter().find(|layer| *layer == word);
            found.unwrap_or_else(|| panic!("{}: {word} is no layer", self.name))
        };
        let set = |words: &str| words.split('+').map(layer).collect();
        exception
            .unwrap_or(&self.by)
            .split_whitespace()
            .map(set)
            .collect()
    }
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It came to nothing.
    Stopped(String),
    /// It worked.
    Escaped(String),
    /// The host lacks what it needs.
    Absent(String),
    /// Nobody knows: the attempt itself is at fault.
    Broken(String),
}

/// How an attempt ended, as it says itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Said {
    pub(crate) name: String,
    end: End,
    said: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum End {
    Done,
    Refused,
    Absent,
    Killed,
    Hung,
    Broken,
}

impl Said {
    /// What is to be thought of it, given what only the judge knows.
    pub(crate) fn judge(self, proof: Proof, secret: &str, marks: &BTreeSet<String>) -> Outcome {
        let Self { name, end, said } = self;
        if marks.contains(&name) {
            return Outcome::Escaped("its mark was found outside".to_owned());
        }
        let system_call = nix::libc::SIGSYS.to_string();
        match (end, proof) {
            (End::Done, Proof::Own) => Outcome::Escaped(said),
            (End::Done | End::Refused, Proof::Secret) if said.contains(secret) => {
                Outcome::Escaped("it read the secret".to_owned())
            }
            (End::Done, Proof::Secret) => Outcome::Stopped("nothing to see".to_owned()),
            (End::Done, Proof::Witness) => Outcome::Stopped("nothing arrived".to_owned()),
            (End::Refused, _) => Outcome::Stopped(said),
            (End::Absent, _) => Outcome::Absent(said),
            (End::Killed, _) if said == system_call => Outcome::Stopped("killed by SIGSYS".to_owned()),
            (End::Killed, _) => Outcome::Broken(format!("killed by signal {said}")),
            (End::Hung, _) => Outcome::Broken("it does not end".to_owned()),
            (End::Broken, _) => Outcome::Broken(said),
        }
    }
}
