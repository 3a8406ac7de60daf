//! The reading thread of a store: for whoever is too far behind for memory. It also moves the write-ahead log into
//! the file, beside the writer, which so does not wait for the disk.

use std::sync::Mutex;

use bytes::Bytes;
use rusqlite::{Connection, MAIN_DB, OptionalExtension as _, params};
use tokio::sync::{mpsc, oneshot};

use super::batch::{self, Chunk};
use super::log::{SessionRow, lock};
use super::writer::Order;

/// How many questions may wait. Subscribers past that wait to ask.
pub(super) const QUEUE_MAX: usize = 64;

/// The most bytes of messages in one answer. At least one message is in it, however long.
const MESSAGES_MAX: usize = 4 * 1024 * 1024;

/// Where the answer goes. Nobody may wait for it any more.
pub(super) type Reply<T> = oneshot::Sender<rusqlite::Result<T>>;

/// Finished messages in order, and whether there are more behind them.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) frames: Vec<Bytes>,
    pub(super) more: bool,
}

/// A question to the store.
#[derive(Debug)]
pub(super) enum Ask {
    Events {
        session: i64,
        after_seq: u64,
        through_seq: u64,
        max_bytes: usize,
        reply: Reply<Option<Chunk>>,
    },
    Messages {
        session: i64,
        after_idx: Option<u64>,
        limit: usize,
        reply: Reply<Page>,
    },
    Mark {
        session: i64,
        reply: Reply<Option<Bytes>>,
    },
    Sessions {
        reply: Reply<Vec<SessionRow>>,
    },
    Checkpoint,
    Close,
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store failed.
    #[error("cannot read the event log")]
    Sqlite(#[from] rusqlite::Error),
    /// The log is closed.
    #[error("the event log is closed")]
    Closed,
    /// What is behind the cursor was acknowledged and is kept no longer.
    #[error("events from {from} on are kept no longer; the oldest is {oldest}")]
    Expired {
        /// The first that was asked for.
        from: u64,
        /// The oldest that there is.
        oldest: u64,
    },
    /// What was committed is not there.
    #[error("event {from} is missing from the event log; the next that it has is {found:?}")]
    Missing {
        /// The first that was asked for.
        from: u64,
        /// The first that there is behind it.
        found: Option<u64>,
    },
}

/// Answers until it is told to close.
pub(super) fn run(
    store: &Connection,
    mut asks: mpsc::Receiver<Ask>,
    writer: &std::sync::mpsc::Sender<Order>,
    moving: &Mutex<()>,
) {
    // A dropped reply is a reader that went away.
    while let Some(ask) = asks.blocking_recv() {
        match ask {
            Ask::Events {
                session,
                after_seq,
                through_seq,
                max_bytes,
                reply,
            } => {
                let _gone = reply.send(events(store, session, after_seq, through_seq, max_bytes));
            }
            Ask::Messages {
                session,
                after_idx,
                limit,
                reply,
            } => {
                let _gone = reply.send(messages(store, session, after_idx, limit));
            }
            Ask::Mark { session, reply } => {
                let _gone = reply.send(mark(store, session));
            }
            Ask::Sessions { reply } => {
                let _gone = reply.send(sessions(store));
            }
            // One that fails is made up for by the next, or by the writer when the bound is reached.
            Ask::Checkpoint => {
                drop(checkpoint(store, moving));
                shrink(store);
                let _gone = writer.send(Order::Moved);
            }
            Ask::Close => return,
        }
    }
}

/// Moves what is in the write-ahead log into the file, as far as no reader is in the way, and behind whoever does so now.
pub(super) fn checkpoint(store: &Connection, moving: &Mutex<()>) -> rusqlite::Result<()> {
    let _alone = lock(moving);
    store.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// Gives back the memory that a connection keeps for pages that it may read again.
pub(super) fn shrink(store: &Connection) {
    // Nothing depends on it, and what is wrong with the store shows at its next use.
    let _bigger = store.execute_batch("PRAGMA shrink_memory");
}

/// Who reads here is behind what memory holds, and gets neighbouring deltas as one.
fn events(
    store: &Connection,
    session: i64,
    after_seq: u64,
    through_seq: u64,
    max_bytes: usize,
) -> rusqlite::Result<Option<Chunk>> {
    // A row's bytes are read when it is known that they are wanted: it may be long.
    let mut select = store.prepare_cached(
        "SELECT rowid, first_seq, last_seq, length(bytes) FROM batches
         WHERE session = ?1 AND last_seq > ?2 AND first_seq <= ?3 ORDER BY last_seq",
    )?;
    let mut rows = select.query(params![session, after_seq, through_seq])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let mut blob = store.blob_open(MAIN_DB, "batches", "bytes", row.get(0)?, true)?;
    let mut bytes = vec![0; row.get(3)?];
    blob.read_at_exact(&mut bytes, 0)?;
    let row_last_seq = row.get(2)?;
    let row = Chunk {
        first_seq: row.get(1)?,
        last_seq: row_last_seq,
        bytes: bytes.into(),
    };
    let Some(Chunk {
        first_seq,
        mut last_seq,
        bytes,
    }) = row.cut(after_seq, max_bytes)
    else {
        return Ok(None);
    };
    drop(row);
    let mut joined = Vec::from(bytes);
    while last_seq >= row_last_seq
        && let Some(row) = rows.next()?
    {
        let (row_first_seq, len): (u64, usize) = (row.get(1)?, row.get(3)?);
        // A row out of order is left to the next read, which starts behind the last good one.
        if joined.len() + len > max_bytes || row_first_seq != last_seq + 1 {
            break;
        }
        let at = joined.len();
        joined.resize(at + len, 0);
        blob.reopen(row.get(0)?)?;
        blob.read_at_exact(&mut joined[at..], 0)?;
        if let Some(bytes) = batch::from(row_first_seq, &joined[at..]) {
            joined.truncate(at);
            joined.extend_from_slice(&bytes);
        }
        last_seq = row.get(2)?;
    }
    Ok(Some(Chunk {
        first_seq,
        last_seq,
        bytes: batch::merged(&joined),
    }))
}

fn messages(
    store: &Connection,
    session: i64,
    after_idx: Option<u64>,
    limit: usize,
) -> rusqlite::Result<Page> {
    let mut select =
        store.prepare_cached("SELECT frame FROM messages WHERE session = ?1 AND idx >= ?2 ORDER BY idx")?;
    let first = after_idx.map_or(0, |idx| idx + 1);
    let mut rows = select.query(params![session, first])?;
    let mut frames = Vec::new();
    let mut len = 0;
    while let Some(row) = rows.next()? {
        let frame = row.get_ref(0)?.as_blob()?;
        len += frame.len();
        if frames.len() == limit || (len > MESSAGES_MAX && !frames.is_empty()) {
            return Ok(Page { frames, more: true });
        }
        frames.push(Bytes::copy_from_slice(frame));
    }
    Ok(Page { frames, more: false })
}

fn mark(store: &Connection, session: i64) -> rusqlite::Result<Option<Bytes>> {
    let mut select = store.prepare("SELECT mark FROM marks WHERE session = ?1")?;
    let found = select.query_row([session], |row| row.get::<_, Vec<u8>>(0));
    found.optional().map(|found| found.map(Bytes::from))
}

fn sessions(store: &Connection) -> rusqlite::Result<Vec<SessionRow>> {
    let mut select = store.prepare(
        "SELECT id, created_ms, state, (SELECT max(epoch) FROM epochs WHERE session = key),
                (SELECT coalesce(max(last_seq), 0) FROM batches WHERE session = key)
         FROM sessions ORDER BY created_ms, id",
    )?;
    let rows = select.query_map([], |row| {
        Ok(SessionRow {
            id: row.get(0)?,
            created_ms: row.get(1)?,
            state: row.get::<_, Vec<u8>>(2)?.into(),
            epoch: row.get(3)?,
            last_seq: row.get(4)?,
        })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use oqto_protocol::event::{AgentIdle, Event, Numbered};
    use oqto_protocol::frame;

    use super::super::schema;
    use super::*;

    #[test]
    fn an_event_that_came_to_stand_for_what_is_asked_for_while_it_was_asked_is_found() {
        let home = tempfile::tempdir().unwrap();
        let store = schema::open(&home.path().join("events.sqlite"), "boot", 1).unwrap();
        let mut bytes = Vec::new();
        let idle = Numbered {
            epoch: 1,
            seq: 20,
            first_seq: Some(5),
            ts: 1,
            event: Event::AgentIdle(AgentIdle {}),
        };
        frame::append(&idle, &mut bytes).unwrap();
        let insert = "INSERT INTO batches VALUES (1, 20, 5, 1, 1, ?1)";
        store.writer.execute(insert, [&bytes]).unwrap();
        // When 10 was the newest, deltas up to there were a row of their own.
        let found = events(&store.reader, 1, 4, 10, 1024).unwrap().unwrap();
        assert_eq!((found.first_seq, found.last_seq), (5, 20));
        assert_eq!(events(&store.reader, 1, 20, 30, 1024).unwrap(), None);
        assert_eq!(
            events(&store.reader, 1, 2, 4, 1024).unwrap(),
            None,
            "not published yet"
        );
    }
}
