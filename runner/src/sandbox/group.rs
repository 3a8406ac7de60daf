//! The cgroup of one program that runs without a daemon.

use std::path::{Path, PathBuf};

use crate::launch::Entrance;
use crate::policy::Plan;

use super::cgroup::{self, Leaf};
use super::report::State;
use super::run::RunError;

/// What the groups of such programs are called, before the number of the process that made them.
const GROUP_PREFIX: &str = "oqto-run-";

/// The group of one run, if the host gives one.
pub(super) struct Group {
    leaf: Option<Leaf>,
    pub(super) entrance: Option<Entrance>,
}

impl Group {
    /// Named after this process, so that one whose process is gone is known to be left over.
    pub(super) fn make(plan: &Plan) -> Result<(Self, State, String), RunError> {
        let own = std::process::id().to_string();
        // One of this process's own number is of a process that had it before: this one has made none yet.
        let abandoned = |name: &str| {
            let pid = name.strip_prefix(GROUP_PREFIX);
            pid.is_some_and(|pid| pid == own || !Path::new("/proc").join(pid).exists())
        };
        let taken = cgroup::Tree::take();
        if let Ok(tree) = &taken {
            // Whatever cannot be removed holds nothing that this run needs.
            let _ = tree.sweep(|name| !abandoned(name));
        }
        let name = format!("{GROUP_PREFIX}{own}");
        let (leaf, state, detail) = cgroup::leaf_of(taken, &name, &plan.limits, plan.layers.cgroup)?;
        let mut group = Self { leaf, entrance: None };
        if let Some(leaf) = &group.leaf {
            let entrance = Entrance::open(&leaf.doorway());
            group.entrance = Some(entrance.map_err(|source| RunError::Entrance { source })?);
        }
        Ok((group, state, detail))
    }

    /// Answers the group if it could not be removed.
    pub(super) fn remove(mut self) -> Option<PathBuf> {
        let leaf = self.leaf.take()?;
        leaf.remove().is_err().then(|| leaf.doorway().inside)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A start that failed says so already, and the next run finds what is left.
        let _ = self.leaf.as_ref().map(Leaf::remove);
    }
}
