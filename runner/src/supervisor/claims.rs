//! Which session has which of its harness's own sessions. Two harnesses that write one of them do not see each other, and
//! each loses what the other wrote; so a runner lets one session have it at a time, while its harness lives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use oqto_protocol::id::SessionId;

/// Who has what. At most a few a session that lives.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<BTreeMap<Claim, SessionId>>);

/// Another session has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) by: SessionId,
}

/// A harness's own session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    harness: String,
    name: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    /// A file, as it is called in the sandbox; links resolved where it is called the same outside.
    File(PathBuf),
    /// What its harness calls it, or how that begins.
    Id(String),
}

impl Claim {
    /// What a harness that works in `workspace` calls `own_session`. It asks the file system.
    pub(super) fn new(harness: &str, own_session: &str, workspace: &Path) -> Self {
        let is_file = own_session.contains('/') || Path::new(own_session).extension().is_some();
        let name = if is_file {
            let path = workspace.join(own_session);
            Name::File(path.canonicalize().unwrap_or(path))
        } else {
            Name::Id(own_session.to_owned())
        };
        Self {
            harness: harness.to_owned(),
            name,
        }
    }

    /// Whether both may be the same: files are called by ids, and people write only how one begins.
    fn meets(&self, other: &Self) -> bool {
        let called = |path: &Path, id: &str| {
            let stem = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            let own = stem.rsplit_once('_').map_or(stem, |(_, own)| own);
            !id.is_empty() && own.starts_with(id)
        };
        let same = match (&self.name, &other.name) {
            (Name::File(one), Name::File(other)) => one == other,
            (Name::Id(one), Name::Id(other)) => one == other,
            (Name::File(path), Name::Id(id)) | (Name::Id(id), Name::File(path)) => called(path, id),
        };
        same && self.harness == other.harness
    }
}

impl Claims {
    /// Gives a session what no other has; whether it did not have it already.
    ///
    /// # Errors
    /// When another has it.
    pub(super) fn take(&self, claim: Claim, id: &SessionId) -> Result<bool, Held> {
        let mut taken = self.lock();
        let other = taken.iter().find(|(held, by)| *by != id && held.meets(&claim));
        if let Some((_, by)) = other {
            return Err(Held { by: by.clone() });
        }
        Ok(taken.insert(claim, id.clone()).is_none())
    }

    /// A session that has this has nothing else any more. Its harness did that already, so that another that has it is
    /// only told of.
    pub(super) fn moved(&self, claim: Claim, id: &SessionId) {
        self.lock().retain(|held, by| by != id || *held == claim);
        if let Err(held) = self.take(claim, id) {
            tracing::warn!(session = %id, other = %held.by, "two harnesses write one session");
        }
    }

    /// A session does not go where it was to go.
    pub(super) fn leave(&self, claim: &Claim, id: &SessionId) {
        self.lock().retain(|held, by| by != id || held != claim);
    }

    /// A session whose harness is gone has nothing.
    pub(super) fn release(&self, id: &SessionId) {
        self.lock().retain(|_, by| by != id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Claim, SessionId>> {
        // What a panic left behind is as whole as each single insertion.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> SessionId {
        name.parse().unwrap()
    }

    #[test]
    fn one_session_has_it_until_its_harness_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("at_0123-4567.jsonl"), "").unwrap();
        std::os::unix::fs::symlink("at_0123-4567.jsonl", dir.path().join("link.jsonl")).unwrap();
        let claim = |name: &str| Claim::new("pi", name, dir.path());
        let absolute = dir.path().join("./at_0123-4567.jsonl");
        let claims = Claims::default();
        assert_eq!(claims.take(claim("at_0123-4567.jsonl"), &id("one")), Ok(true));
        assert_eq!(claims.take(claim("at_0123-4567.jsonl"), &id("one")), Ok(false));
        for name in ["link.jsonl", absolute.to_str().unwrap(), "0123", "0123-4567"] {
            let refused = claims.take(claim(name), &id("two")).expect_err(name);
            assert_eq!(refused.by, id("one"), "{name}");
        }
        for name in ["other.jsonl", "4567", "0123-45678"] {
            claims.take(claim(name), &id("two")).expect(name);
        }
        claims
            .take(Claim::new("mine", "0123", dir.path()), &id("two"))
            .expect("of another harness");
        claims.release(&id("one"));
        claims.take(claim("0123"), &id("two")).unwrap();
    }

    #[test]
    fn a_session_that_moved_has_only_where_it_is() {
        let claim = |name: &str| Claim::new("mine", name, Path::new("/"));
        let claims = Claims::default();
        claims.take(claim("a"), &id("one")).unwrap();
        claims.moved(claim("b"), &id("one"));
        claims.take(claim("a"), &id("two")).unwrap();
        claims.take(claim("b"), &id("two")).unwrap_err();
        claims.take(claim("c"), &id("one")).unwrap();
        claims.leave(&claim("c"), &id("one"));
        claims.take(claim("c"), &id("two")).unwrap();
        // It did it already, and whoever has it keeps it.
        claims.moved(claim("a"), &id("one"));
        claims.take(claim("b"), &id("two")).unwrap();
        claims.take(claim("a"), &id("two")).unwrap();
    }
}
