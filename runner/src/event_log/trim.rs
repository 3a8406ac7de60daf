//! Forgetting, a little at a time: each step is one short transaction that waits for no disk.

use std::collections::{BTreeMap, BTreeSet};

use oqto_protocol::event::splice::{Glance, frame_at};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};

use super::retention::{Retention, Standing, Trim, thin};

/// How many rows go at once. They may be short.
const STEP_ROWS: usize = 256;

/// The longest row that is put together of thinned ones, bytes: as those of commits.
const ROW_MAX: usize = 128 * 1024;

/// What goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Some of what is left of a session that was deleted.
    Leave(i64),
    /// Some of what a session may forget.
    Trim(Trim),
}

/// What went of a session that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trimmed {
    /// Whose.
    pub(super) session: i64,
    /// The oldest number that is left.
    pub(super) oldest_seq: u64,
}

/// What the store holds, bytes, without what is free in its file.
pub(super) fn len(store: &Connection) -> rusqlite::Result<u64> {
    let number = |name| store.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok((number("page_count")? - number("freelist_count")?) * number("page_size")?)
}

/// Keeps what was acknowledged. To be called in a transaction.
pub(super) fn keep_acked(store: &Connection, acked: &BTreeMap<i64, u64>) -> rusqlite::Result<()> {
    let mut update =
        store.prepare_cached("UPDATE sessions SET acked_seq = max(acked_seq, ?2) WHERE key = ?1")?;
    for (session, seq) in acked {
        update.execute(params![session, seq])?;
    }
    Ok(())
}

/// What is to go next, by what stands in the store.
pub(super) fn next(store: &Connection, retention: &Retention, now_ms: u64) -> rusqlite::Result<Option<Step>> {
    let leaving: Option<i64> = store
        .prepare_cached("SELECT min(session) FROM leaving")?
        .query_row([], |row| row.get(0))?;
    if let Some(session) = leaving {
        return Ok(Some(Step::Leave(session)));
    }
    let mut select = store.prepare_cached(
        "SELECT key, acked_seq,
                (SELECT coalesce(max(last_seq), 0) FROM batches WHERE session = key),
                (SELECT last_seq FROM batches WHERE session = key ORDER BY last_seq LIMIT 1),
                (SELECT committed_ms FROM batches WHERE session = key ORDER BY last_seq LIMIT 1),
                (SELECT last_seq FROM batches WHERE session = key AND last_seq > thinned_seq
                 ORDER BY last_seq LIMIT 1)
         FROM sessions WHERE acked_seq > 0",
    )?;
    let number =
        |row: &rusqlite::Row<'_>, at| Ok::<u64, rusqlite::Error>(row.get::<_, Option<u64>>(at)?.unwrap_or(0));
    let standings = select.query_map([], |row| {
        Ok(Standing {
            session: row.get(0)?,
            acked_seq: row.get(1)?,
            newest_seq: row.get(2)?,
            oldest_seq: number(row, 3)?,
            oldest_ms: number(row, 4)?,
            whole_seq: number(row, 5)?,
        })
    })?;
    let standings: Vec<_> = standings.collect::<Result<_, _>>()?;
    Ok(retention.next(len(store)?, now_ms, &standings).map(Step::Trim))
}

/// Does it. To be called in a transaction; what it gives is true once that is committed.
pub(super) fn trim(store: &Connection, step: Step, step_len: usize) -> rusqlite::Result<Option<Trimmed>> {
    let session = match step {
        Step::Leave(session) => {
            leave_some(store, session, step_len)?;
            return Ok(None);
        }
        Step::Trim(Trim::Thin(session)) => {
            thin_some(store, session, step_len)?;
            session
        }
        Step::Trim(Trim::Remove { session, through_ms }) => {
            remove_some(store, session, through_ms, step_len)?;
            session
        }
    };
    let mut select =
        store.prepare_cached("SELECT first_seq FROM batches WHERE session = ?1 ORDER BY last_seq LIMIT 1")?;
    let oldest = select.query_row([session], |row| row.get(0)).optional()?;
    Ok(Some(Trimmed {
        session,
        oldest_seq: oldest.unwrap_or(1),
    }))
}

/// Removes some rows of a session that was deleted, and its name from those that leave with the last of them.
fn leave_some(store: &Connection, session: i64, step_len: usize) -> rusqlite::Result<()> {
    for (key, column, table) in [("last_seq", "bytes", "batches"), ("idx", "frame", "messages")] {
        let select = format!(
            "SELECT {key}, length({column}) FROM {table} WHERE session = ?1 ORDER BY {key} LIMIT {STEP_ROWS}"
        );
        let mut select = store.prepare_cached(&select)?;
        let mut rows = select.query([session])?;
        let (mut last, mut len) = (None::<u64>, 0);
        while len < step_len
            && let Some(row) = rows.next()?
        {
            last = Some(row.get(0)?);
            len += row.get::<_, usize>(1)?;
        }
        if let Some(last) = last {
            let delete = format!("DELETE FROM {table} WHERE session = ?1 AND {key} <= ?2");
            store.prepare_cached(&delete)?.execute(params![session, last])?;
            return Ok(());
        }
    }
    store
        .prepare_cached("DELETE FROM leaving WHERE session = ?1")?
        .execute([session])?;
    Ok(())
}

/// The rows of a session past `after_seq` that may go, as many as a step takes: their first and last numbers.
fn some_rows(
    store: &Connection,
    session: i64,
    after_seq: u64,
    through_ms: u64,
    step_len: usize,
) -> rusqlite::Result<Vec<(u64, u64)>> {
    // SQLite's numbers have a sign.
    let through_ms = i64::try_from(through_ms).unwrap_or(i64::MAX);
    let mut select = store.prepare_cached(
        "SELECT first_seq, last_seq, length(bytes) FROM batches
         WHERE session = ?1 AND last_seq > ?2
           AND last_seq <= (SELECT acked_seq FROM sessions WHERE key = ?1)
           AND last_seq < (SELECT max(last_seq) FROM batches WHERE session = ?1)
           AND committed_ms <= ?3
         ORDER BY last_seq LIMIT ?4",
    )?;
    let mut found = select.query(params![session, after_seq, through_ms, STEP_ROWS])?;
    let (mut rows, mut len) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        len += row.get::<_, usize>(2)?;
        if len > step_len && !rows.is_empty() {
            break;
        }
        rows.push((row.get(0)?, row.get(1)?));
    }
    Ok(rows)
}

fn remove_some(store: &Connection, session: i64, through_ms: u64, step_len: usize) -> rusqlite::Result<()> {
    let Some((_, through_seq)) = some_rows(store, session, 0, through_ms, step_len)?
        .last()
        .copied()
    else {
        return Ok(());
    };
    store
        .prepare_cached("DELETE FROM batches WHERE session = ?1 AND last_seq <= ?2")?
        .execute(params![session, through_seq])?;
    // The last message stays, by which the numbers of messages go on.
    store
        .prepare_cached(
            "DELETE FROM messages WHERE session = ?1 AND idx < coalesce(
                (SELECT idx FROM messages WHERE session = ?1 AND seq > ?2 ORDER BY idx LIMIT 1),
                (SELECT max(idx) FROM messages WHERE session = ?1))",
        )?
        .execute(params![session, through_seq])?;
    Ok(())
}

/// Takes the deltas of finished messages out of some rows and puts what is left into fewer rows. For the numbers that
/// are behind the last event that is left, the next row stands.
fn thin_some(store: &Connection, session: i64, step_len: usize) -> rusqlite::Result<()> {
    let thinned_seq: u64 = store
        .prepare_cached("SELECT thinned_seq FROM sessions WHERE key = ?1")?
        .query_row([session], |row| row.get(0))?;
    let rows = some_rows(store, session, thinned_seq, u64::MAX, step_len)?;
    let (Some((first_seq, _)), Some((_, through_seq))) = (rows.first().copied(), rows.last().copied()) else {
        return Ok(());
    };
    let mut writing = Writing {
        insert: store.prepare_cached("INSERT INTO batches VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?,
        session,
        row: None,
    };
    let mut from = first_seq;
    for (_, last_seq) in rows {
        let (epoch, committed_ms, bytes) = take_row(store, session, last_seq)?;
        let finished = finished(store, session, &bytes)?;
        let left = thin(&bytes, from, |id| finished.contains(id));
        if let Some(last_seq) = left.last_seq {
            writing.take(Row {
                first_seq: from,
                last_seq,
                epoch,
                committed_ms,
                frames: left.frames,
            })?;
            from = last_seq + 1;
        }
    }
    writing.write()?;
    store
        .prepare_cached(
            "UPDATE batches SET first_seq = ?3 WHERE session = ?1 AND first_seq > ?3 AND last_seq =
                (SELECT last_seq FROM batches WHERE session = ?1 AND last_seq > ?2 ORDER BY last_seq LIMIT 1)",
        )?
        .execute(params![session, through_seq, from])?;
    store
        .prepare_cached("UPDATE sessions SET thinned_seq = ?2 WHERE key = ?1")?
        .execute(params![session, through_seq])?;
    Ok(())
}

fn take_row(store: &Connection, session: i64, last_seq: u64) -> rusqlite::Result<(u64, u64, Vec<u8>)> {
    let row = store
        .prepare_cached(
            "SELECT epoch, committed_ms, bytes FROM batches WHERE session = ?1 AND last_seq = ?2",
        )?
        .query_row(params![session, last_seq], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    store
        .prepare_cached("DELETE FROM batches WHERE session = ?1 AND last_seq = ?2")?
        .execute(params![session, last_seq])?;
    Ok(row)
}

/// Which of the messages that grow in these frames stand whole in the store.
fn finished(store: &Connection, session: i64, frames: &[u8]) -> rusqlite::Result<BTreeSet<String>> {
    let mut growing = BTreeSet::new();
    let mut at = 0;
    while let Some(frame) = frame_at(frames, at) {
        at += frame.len();
        let glance = Glance::of(frame);
        if let Some(piece) = glance.as_ref().and_then(Glance::piece) {
            growing.insert(piece.message_id);
        }
    }
    let mut select = store.prepare_cached("SELECT 1 FROM messages WHERE session = ?1 AND id = ?2")?;
    let mut finished = BTreeSet::new();
    for id in growing {
        if select.exists(params![session, id])? {
            finished.insert(id.to_owned());
        }
    }
    Ok(finished)
}

/// A row as it is to stand in the store.
struct Row {
    first_seq: u64,
    last_seq: u64,
    epoch: u64,
    committed_ms: u64,
    frames: Vec<u8>,
}

/// Rows on their way back into the store, short neighbours as one.
struct Writing<'a> {
    insert: CachedStatement<'a>,
    session: i64,
    row: Option<Row>,
}

impl Writing<'_> {
    fn take(&mut self, row: Row) -> rusqlite::Result<()> {
        if let Some(before) = &mut self.row
            && before.epoch == row.epoch
            && before.frames.len() + row.frames.len() <= ROW_MAX
        {
            before.frames.extend_from_slice(&row.frames);
            (before.last_seq, before.committed_ms) = (row.last_seq, row.committed_ms);
            return Ok(());
        }
        self.write()?;
        self.row = Some(row);
        Ok(())
    }

    fn write(&mut self) -> rusqlite::Result<()> {
        let Some(Row {
            first_seq,
            last_seq,
            epoch,
            committed_ms,
            frames,
        }) = self.row.take()
        else {
            return Ok(());
        };
        self.insert.execute(params![
            self.session,
            last_seq,
            first_seq,
            epoch,
            committed_ms,
            frames
        ])?;
        Ok(())
    }
}
