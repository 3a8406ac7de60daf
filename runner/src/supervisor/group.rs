//! The cgroups of sessions: made with a session, ended with it, and swept when a runner starts.

use oqto_protocol::id::SessionId;

use crate::policy::Plan;
use crate::sandbox::cgroup::{self, CgroupError, Leaf, Tree};
use crate::sandbox::report::State;

/// What their names begin with, before the session's.
const PREFIX: &str = "oqto-session-";

fn name(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// Makes the group of a session, or says why there is none.
///
/// # Errors
/// The plan requires one, and the host does not give it.
pub(super) fn make(id: &SessionId, plan: &Plan) -> Result<(Option<Leaf>, State, String), CgroupError> {
    cgroup::leaf(&name(id.as_str()), &plan.limits, plan.layers.cgroup)
}

/// Ends whatever is left in the group of a session, and removes it.
pub(super) fn end(id: &str) {
    let Ok(tree) = Tree::take() else { return };
    if let Err(error) = tree.remove(&name(id)) {
        tracing::warn!(session = %id, %error, "cannot remove the session's cgroup");
    }
}

/// Ends whatever is left in the groups of sessions that do not live.
pub(super) fn sweep(lives: impl Fn(&str) -> bool) {
    let Ok(tree) = Tree::take() else { return };
    // A group with another name is nobody's business here.
    match tree.sweep(|name| name.strip_prefix(PREFIX).is_none_or(&lives)) {
        Ok(swept) => {
            for (path, result) in swept {
                let error = result.err().map(tracing::field::display);
                tracing::info!(group = %path.display(), error, "removed the cgroup of a session that is over");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot look for left-over cgroups"),
    }
}
