//! Real agents, installed by `tests/run.sh` in the versions of `tests/agents/package-lock.json`.

use std::path::PathBuf;

use crate::tests_dir;

/// Where the agents are.
#[derive(Clone, Debug)]
pub struct Agents {
    dir: PathBuf,
}

impl Agents {
    /// Where their programs are, the right node among them.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.dir.join("node_modules/.bin")
    }

    /// A pi that repeats each message with each piece of it, if it is installed.
    #[must_use]
    pub fn old_pi(&self) -> Option<PathBuf> {
        let pi = self.dir.join("pi-0.74/node_modules/.bin/pi");
        pi.exists().then_some(pi)
    }
}

/// The agents: in the directory that `OQTO_TEST_AGENTS` names, else where `tests/run.sh` puts them.
///
/// # Panics
/// When they are not installed.
#[must_use]
pub fn agents() -> Agents {
    let dir = std::env::var_os("OQTO_TEST_AGENTS").map_or_else(|| tests_dir().join(".agents"), PathBuf::from);
    let agents = Agents { dir };
    let pi = agents.bin().join("pi");
    assert!(
        pi.exists(),
        "{} is missing: bash tests/run.sh --setup",
        pi.display()
    );
    agents
}
