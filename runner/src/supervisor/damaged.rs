//! What becomes of sessions whose event log cannot be read: it is set aside under a name that is said, and they go on in
//! a new one where their tape still tells everything, lie down where their harness can go on by itself, or end; each says
//! where its events are.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::again::FindError;
use super::begin::{setup, shim_dir};
use super::create::end;
use super::farewell::put_aside;
use super::fleet::Supervisor;
use super::handle::cursor;
use super::mind::Mind;
use super::origin::Origin;
use super::record::SessionRecord;
use crate::event_log::{self, EventLog, OpenError, SessionLog};
use crate::shim::TapeReader;
use crate::{cause, clock};

impl Supervisor {
    /// Opens an event log. A damaged one is set aside; the one in its place begins in an epoch that none before had.
    pub(super) fn open_store(&self, path: &Path) -> Result<EventLog, OpenError> {
        let retention = self.settings.retention;
        let error = match EventLog::open(path, retention) {
            Err(error @ OpenError::Damaged { .. }) => error,
            opened => return opened,
        };
        let now_ms = clock::unix_ms();
        let aside = event_log::set_aside(path, now_ms).map_err(|source| OpenError::Io {
            path: path.to_owned(),
            source,
        })?;
        tracing::error!(error = %cause::chain(&error), aside = %aside.display(), "a damaged event log is set aside");
        // Epochs are counted from 1, one a power failure: none comes near the time in seconds.
        EventLog::open_from(path, retention, now_ms / 1000)
    }

    /// The log of a session that its event log does not know, or knows nothing of, when an earlier one was set aside;
    /// `None` when none was. What is left of the session's shim is what can go on.
    pub(super) async fn begin_anew(
        &self,
        record: &SessionRecord,
        dir: &Path,
        store: &Arc<EventLog>,
    ) -> Result<Option<SessionLog>, FindError> {
        let asides = event_log::set_asides(&record.store).map_err(FindError::Aside)?;
        // One that is younger was never in it: it was being made, or deleted.
        let Some((_, aside)) = asides.last().filter(|(at, _)| *at >= record.created_at) else {
            return Ok(None);
        };
        let log = match store.session(record.id.as_str()) {
            Some(log) => log,
            None => store.create_session(record.id.as_str(), Bytes::new()).await?,
        };
        if tokio::task::block_in_place(|| is_whole(&shim_dir(dir, 0))) {
            tracing::warn!(session = %record.id, aside = %aside.display(), "told again from its tape, in a new epoch");
            return Ok(Some(log));
        }
        let shims = dir.join("shim");
        let mut generation = 0;
        for start in fs::read_dir(&shims).into_iter().flatten().filter_map(Result::ok) {
            end(&start.path()).await;
            let number = start.file_name().to_str().and_then(|name| name.parse().ok());
            generation = generation.max(number.unwrap_or(0));
            put_aside(dir, &start.path()).map_err(FindError::Aside)?;
        }
        let setup = setup(record, self.harness_of(record)?, cursor(&log), 0);
        let origin = Origin::lost(setup, record.own_session.clone(), generation, clock::unix_ms());
        tell_lost(&log, origin, aside).await?;
        tracing::error!(session = %record.id, aside = %aside.display(), "what was told of a session is lost with its event log");
        Ok(Some(log))
    }

    /// Event logs that were set aside, of all workspaces.
    pub(super) fn set_asides(&self) -> Vec<PathBuf> {
        let Ok(dirs) = fs::read_dir(self.settings.stores_dir()) else {
            return Vec::new();
        };
        dirs.filter_map(Result::ok)
            .filter_map(|dir| event_log::set_asides(&dir.path().join("events.sqlite")).ok())
            .flatten()
            .map(|(_, path)| path)
            .collect()
    }
}

/// Whether a tape still tells everything from its beginning: what was told and kept is given back to the file system, but
/// for the very first of it.
fn is_whole(shim_dir: &Path) -> bool {
    let read = TapeReader::open(shim_dir, 0).and_then(|mut tape| {
        let len = tape.file_len()?;
        while tape.next(len)?.is_some() {}
        Ok(tape.offset() > 0)
    });
    read.unwrap_or(false)
}

/// Says what is lost. Where the harness can go on by a session of its own the session is dormant, else it is over.
async fn tell_lost(log: &SessionLog, origin: Origin, aside: &Path) -> Result<(), FindError> {
    let error = format!(
        "the event log of this session was damaged and is set aside as {}; what was said before is only there",
        aside.display()
    );
    let mut mind: Mind<()> = Mind::new(origin, 0, cursor(log), log.next_idx());
    mind.lost(&error, clock::unix_ms());
    if let Some(batch) = mind.take()?.batch {
        log.append(batch).await?.committed().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::tape::{BURST_MAX, FILE_NAME, Kind, Writer};

    #[test]
    fn a_tape_is_whole_until_some_of_it_was_given_back() {
        let home = tempfile::tempdir().unwrap();
        assert!(!is_whole(home.path()), "there is none");
        let mut tape = Writer::create(&home.path().join(FILE_NAME)).unwrap();
        assert!(!is_whole(home.path()), "it tells nothing");
        tape.append(Kind::Start, 0, &[b"{}"]).unwrap();
        assert!(is_whole(home.path()));
        while tape.len() < 12 * 1024 * 1024 {
            tape.append(Kind::Out, 0, &[&[b'x'; BURST_MAX]]).unwrap();
        }
        assert!(is_whole(home.path()));
        tape.trim(tape.len()).unwrap();
        assert!(!is_whole(home.path()));
    }
}
