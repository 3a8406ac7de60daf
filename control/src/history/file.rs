//! A history in files: one of JSON lines for each session, synced before anything is acknowledged.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::Envelope;

use super::{HistoryError, HistoryStore, Kept, SessionAddr};
use crate::link::cursor_of;

/// How many files stay open. One that was closed is read through once when it is needed again.
const OPEN_MAX: usize = 256;

/// Keeps every event of each session in `DIR/RUNNER/SESSION.jsonl`, one canonical event a line.
///
/// What a lost tail of the runner took back stays in the file in front of its `stream.reset` line. One process at a
/// time may use a directory. A line that a crash cut off is dropped when the file is opened again.
#[derive(Debug)]
pub struct File {
    dir: PathBuf,
    open: Mutex<BTreeMap<SessionAddr, Log>>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: fs::File,
    /// How many bytes are whole lines that were synced.
    len: u64,
    last: Cursor,
}

impl File {
    /// Keeps files in `dir`, which is made when it is first needed.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            open: Mutex::default(),
        }
    }

    fn with<T>(
        &self,
        session: &SessionAddr,
        act: impl FnOnce(&mut Log) -> Result<T, HistoryError>,
    ) -> Result<T, HistoryError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.contains_key(session) && open.len() >= OPEN_MAX {
            open.pop_first();
        }
        let log = match open.entry(session.clone()) {
            Entry::Occupied(log) => log.into_mut(),
            Entry::Vacant(place) => place.insert(Log::open(&self.dir, session)?),
        };
        act(log)
    }
}

impl HistoryStore for File {
    fn append(&self, session: &SessionAddr, events: &[Envelope]) -> Result<Kept, HistoryError> {
        self.with(session, |log| log.append(events))
    }

    fn last(&self, session: &SessionAddr) -> Result<Cursor, HistoryError> {
        self.with(session, |log| Ok(log.last))
    }
}

impl Log {
    fn open(dir: &Path, session: &SessionAddr) -> Result<Self, HistoryError> {
        let dir = dir.join(session.runner_id.as_str());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(failed("make", &dir))?;
        let path = dir.join(format!("{}.jsonl", session.session_id));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        // The name of a new file must outlive the power too, or its events would not.
        fs::File::open(&dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed("sync", &dir))?;
        let (len, last) = scan(&file, &path)?;
        file.set_len(len).map_err(failed("cut", &path))?;
        Ok(Self {
            path,
            file,
            len,
            last,
        })
    }

    fn append(&mut self, events: &[Envelope]) -> Result<Kept, HistoryError> {
        let (mut lines, mut last) = (Vec::new(), self.last);
        for event in events {
            let Some(cursor) = cursor_of(event).filter(|cursor| *cursor > last) else {
                continue;
            };
            serde_json::to_writer(&mut lines, event).map_err(HistoryError::Encode)?;
            lines.push(b'\n');
            last = cursor;
        }
        if !lines.is_empty() {
            // From the end of what is known to be whole: a write that failed half way is overwritten.
            self.file
                .seek(SeekFrom::Start(self.len))
                .and_then(|_| self.file.write_all(&lines))
                .and_then(|()| self.file.sync_data())
                .map_err(failed("write", &self.path))?;
            self.len += lines.len() as u64;
            self.last = last;
        }
        Ok(Kept::Durable(self.last))
    }
}

/// How much of the file is whole lines, and the event in the last of them.
fn scan(file: &fs::File, path: &Path) -> Result<(u64, Cursor), HistoryError> {
    let mut reader = BufReader::new(file);
    let (mut len, mut number) = (0, 0);
    let (mut line, mut whole) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        let read = reader
            .read_until(b'\n', &mut line)
            .map_err(failed("read", path))?;
        if line.pop() != Some(b'\n') {
            break;
        }
        std::mem::swap(&mut line, &mut whole);
        number += 1;
        len += read as u64;
    }
    if number == 0 {
        return Ok((0, Cursor::default()));
    }
    let event: Envelope = serde_json::from_slice(&whole).map_err(|source| HistoryError::Corrupt {
        path: path.to_owned(),
        line: number,
        source,
    })?;
    Ok((len, cursor_of(&event).unwrap_or_default()))
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> HistoryError + 'a {
    move |source| HistoryError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use oqto_protocol::event::{AgentIdle, Event};

    use super::*;

    fn event(seq: u64) -> Envelope {
        Envelope {
            session_id: "s-1".parse().unwrap(),
            runner_id: "r-1".parse().unwrap(),
            epoch: 1,
            seq: Some(seq),
            first_seq: None,
            ts: 7,
            event: Event::AgentIdle(AgentIdle {}),
        }
    }

    fn session() -> SessionAddr {
        SessionAddr {
            runner_id: "r-1".parse().unwrap(),
            session_id: "s-1".parse().unwrap(),
        }
    }

    fn at(seq: u64) -> Cursor {
        Cursor { epoch: 1, seq }
    }

    #[test]
    fn what_was_kept_is_known_to_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let store = File::new(dir.path().to_owned());
        assert_eq!(store.last(&session()).unwrap(), Cursor::default());
        assert_eq!(
            store.append(&session(), &[event(1), event(2)]).unwrap(),
            Kept::Durable(at(2))
        );
        assert_eq!(File::new(dir.path().to_owned()).last(&session()).unwrap(), at(2));
    }

    #[test]
    fn an_event_that_comes_again_is_not_kept_twice() {
        let dir = tempfile::tempdir().unwrap();
        let store = File::new(dir.path().to_owned());
        store.append(&session(), &[event(1), event(2)]).unwrap();
        store.append(&session(), &[event(2), event(3)]).unwrap();
        let text = fs::read_to_string(dir.path().join("r-1/s-1.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_dropped_and_kept_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r-1/s-1.jsonl");
        File::new(dir.path().to_owned())
            .append(&session(), &[event(1)])
            .unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [whole.as_slice(), &whole[..10]].concat()).unwrap();
        let store = File::new(dir.path().to_owned());
        assert_eq!(
            store.append(&session(), &[event(2)]).unwrap(),
            Kept::Durable(at(2))
        );
        assert_eq!(File::new(dir.path().to_owned()).last(&session()).unwrap(), at(2));
    }

    #[test]
    fn a_whole_line_that_is_no_event_is_said_with_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r-1/s-1.jsonl");
        File::new(dir.path().to_owned())
            .append(&session(), &[event(1)])
            .unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [whole.as_slice(), b"{}\n"].concat()).unwrap();
        let error = File::new(dir.path().to_owned()).last(&session()).unwrap_err();
        assert!(
            matches!(error, HistoryError::Corrupt { line: 2, .. }),
            "{error:?}"
        );
    }
}
