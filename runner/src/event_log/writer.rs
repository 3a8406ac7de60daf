//! The writing thread of a store: takes all that is ready, commits it at once, tells who waits.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rusqlite::{Connection, params};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::batch::{Batch, Chunk, Sync};
use super::log::{Health, Shared, lock};
use super::reader::{Ask, checkpoint, shrink};
use super::session::Session;

/// How much is committed at once, in bytes: past this a commit gets longer and no cheaper per event.
const GROUP_MAX: usize = 1024 * 1024;

/// The longest row that is put together from several batches, in bytes. A reader reads a row as a whole.
const ROW_MAX: usize = 128 * 1024;

/// What a commit puts into the write-ahead log beside its bytes: a leaf and its parent.
const COMMIT_COST: u64 = 8 * 1024;

/// How much is committed before the reading thread moves it into the file, in bytes. Each move waits for the disk
/// twice, and what is appended meanwhile may have to wait with it: a thousand small commits a second reach this about
/// every other second.
const CHECKPOINT_STEP: u64 = 16 * 1024 * 1024;

/// How long the write-ahead log may get before the writer itself waits for it to be moved, in bytes. While commits
/// come without a pause nobody else can empty it.
const WAL_MAX: u64 = 64 * 1024 * 1024;

/// After this long without a commit what is left is moved into the file.
const IDLE: Duration = Duration::from_secs(1);

/// How often a store that cannot be written is tried again. Nothing tells when a disk has room.
const RETRY: Duration = Duration::from_millis(250);

/// What is to change about a session.
#[derive(Debug)]
pub(super) enum Change {
    Create { state: Bytes },
    Append(Batch),
    PutState { state: Bytes },
    Delete,
}

/// A change on its way to the disk.
#[derive(Debug)]
pub(super) struct Job {
    session: Arc<Session>,
    change: Change,
    done: oneshot::Sender<()>,
    /// Its place in the bounded queue, given up when it is committed.
    _room: OwnedSemaphorePermit,
}

impl Job {
    pub(super) fn new(
        session: Arc<Session>,
        change: Change,
        room: OwnedSemaphorePermit,
        done: oneshot::Sender<()>,
    ) -> Self {
        Self {
            session,
            change,
            done,
            _room: room,
        }
    }

    fn weight(&self) -> usize {
        match &self.change {
            Change::Append(batch) => batch.weight(),
            Change::Create { state } | Change::PutState { state } => state.len(),
            Change::Delete => 0,
        }
    }

    fn sync(&self) -> Sync {
        match &self.change {
            Change::Append(batch) => batch.sync,
            Change::Create { .. } | Change::PutState { .. } | Change::Delete => Sync::Power,
        }
    }
}

/// What the queue carries.
#[derive(Debug)]
pub(super) enum Order {
    Do(Job),
    Close,
}

/// Batches of one session that become one row.
struct Row {
    session: Arc<Session>,
    chunk: Chunk,
    mark: Option<Bytes>,
}

pub(super) struct Writer {
    pub(super) store: Connection,
    pub(super) wal: PathBuf,
    pub(super) shared: Arc<Shared>,
}

impl Writer {
    /// Commits until it is told to close, then closes the store. It gives up what it cannot write only then.
    pub(super) fn run(self, orders: &mpsc::Receiver<Order>) {
        self.work(orders);
        // What is asked behind this is answered by its being dropped.
        let _gone = self.shared.asks.blocking_send(Ask::Close);
    }

    fn work(&self, orders: &mpsc::Receiver<Order>) {
        let mut sync = Sync::Power;
        let mut unmoved = 0;
        let mut closing = false;
        while !closing {
            let mut group = Vec::new();
            match orders.recv_timeout(IDLE) {
                Ok(Order::Do(job)) => group.push(job),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if std::mem::take(&mut unmoved) > 0 {
                        self.shared.ask_checkpoint();
                        shrink(&self.store);
                    }
                    // With nothing unmoved there is nothing to wake up for.
                    match orders.recv() {
                        Ok(Order::Do(job)) => group.push(job),
                        Ok(Order::Close) | Err(mpsc::RecvError) => break,
                    }
                }
                Ok(Order::Close) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            let mut weight = group[0].weight();
            while weight < GROUP_MAX {
                match orders.try_recv() {
                    Ok(Order::Do(job)) => {
                        weight += job.weight();
                        group.push(job);
                    }
                    Ok(Order::Close) => {
                        closing = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
            let Some(rows) = self.commit_until_done(&group, &mut sync) else {
                return;
            };
            self.publish(group, rows);
            unmoved += weight as u64 + COMMIT_COST;
            if unmoved > CHECKPOINT_STEP {
                unmoved = 0;
                self.bound_wal();
            }
        }
        self.close();
    }

    /// None when the log is closed while the store still cannot be written.
    fn commit_until_done(&self, group: &[Job], sync: &mut Sync) -> Option<Vec<Row>> {
        loop {
            match self.commit(group, sync) {
                Ok(rows) => {
                    self.shared.set_health(Health::Fine);
                    return Some(rows);
                }
                Err(error) => {
                    // It fails only when there is no transaction, and then there is nothing to undo.
                    let _undone = self.store.execute_batch("ROLLBACK");
                    self.shared.set_health(Health::Failing {
                        text: error.to_string(),
                    });
                    if self.shared.closing.load(Ordering::Acquire) {
                        return None;
                    }
                    thread::park_timeout(RETRY);
                }
            }
        }
    }

    fn commit(&self, group: &[Job], sync: &mut Sync) -> rusqlite::Result<Vec<Row>> {
        let wanted = group.iter().map(Job::sync).max().unwrap_or(Sync::Power);
        if *sync != wanted {
            self.store.execute_batch(match wanted {
                Sync::Process => "PRAGMA synchronous = NORMAL",
                Sync::Power => "PRAGMA synchronous = FULL",
            })?;
            *sync = wanted;
        }
        self.store.execute_batch("BEGIN IMMEDIATE")?;
        let rows = rows(group);
        for job in group {
            self.apply(job)?;
        }
        let mut insert = self.store.prepare_cached(
            "INSERT INTO batches (session, last_seq, first_seq, epoch, mark, bytes)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM sessions WHERE key = ?1)",
        )?;
        for Row { session, chunk, mark } in &rows {
            let Chunk {
                first_seq,
                last_seq,
                bytes,
            } = chunk;
            let (mark, bytes) = (mark.as_deref(), &bytes[..]);
            insert.execute(params![
                session.key,
                last_seq,
                first_seq,
                session.epoch(),
                mark,
                bytes
            ])?;
        }
        self.store.execute_batch("COMMIT")?;
        Ok(rows)
    }

    /// Everything about a job but its events, which become rows together with others.
    fn apply(&self, job: &Job) -> rusqlite::Result<()> {
        let store = &self.store;
        let Session {
            key, id, created_ms, ..
        } = &*job.session;
        match &job.change {
            Change::Create { state } => {
                store.execute(
                    "INSERT INTO sessions VALUES (?1, ?2, ?3, ?4)",
                    params![key, id, created_ms, &state[..]],
                )?;
                store.execute(
                    "INSERT INTO epochs VALUES (?1, ?2, 0)",
                    params![key, job.session.epoch()],
                )?;
            }
            Change::Append(batch) => {
                for message in &batch.messages {
                    let mut insert = store.prepare_cached("INSERT INTO messages VALUES (?1, ?2, ?3, ?4)")?;
                    insert.execute(params![key, message.idx, message.id, &message.frame[..]])?;
                }
            }
            Change::PutState { state } => {
                let mut update = store.prepare_cached("UPDATE sessions SET state = ?2 WHERE key = ?1")?;
                update.execute(params![key, &state[..]])?;
            }
            Change::Delete => {
                for table in ["batches", "messages", "epochs"] {
                    store.execute(&format!("DELETE FROM {table} WHERE session = ?1"), [key])?;
                }
                store.execute("DELETE FROM sessions WHERE key = ?1", [key])?;
            }
        }
        Ok(())
    }

    /// Shows what was committed, then tells who waits for it.
    fn publish(&self, group: Vec<Job>, rows: Vec<Row>) {
        let last: Vec<_> = rows
            .iter()
            .map(|row| (row.session.clone(), row.chunk.last_seq))
            .collect();
        {
            let mut tail = lock(&self.shared.tail);
            for Row { session, chunk, .. } in rows {
                tail.push(session.key, chunk);
            }
            for job in &group {
                if let Change::Delete = job.change {
                    tail.remove(job.session.key);
                }
            }
        }
        for (session, last_seq) in last {
            session.committed(last_seq);
        }
        for job in group {
            if let Change::Delete = job.change {
                job.session.end();
            }
            // Nobody has to wait for it.
            let _gone = job.done.send(());
        }
    }

    fn bound_wal(&self) {
        let len = self.wal.metadata().map_or(0, |found| found.len());
        if len > WAL_MAX {
            // It fails when the disk does, and then the next commit says so.
            drop(checkpoint(&self.store));
        } else {
            self.shared.ask_checkpoint();
        }
    }

    /// The note that nothing is missing goes to the disk with a sync, behind all that was committed before.
    fn close(&self) {
        let noted = self
            .store
            .execute_batch("PRAGMA synchronous = FULL; UPDATE store SET clean = 1");
        // Without it the next boot begins new epochs, which is only more careful.
        drop(noted);
    }
}

/// The group's batches, put together by session as long as rows stay short.
fn rows(group: &[Job]) -> Vec<Row> {
    let mut batches: Vec<Vec<(&Arc<Session>, &Batch)>> = Vec::new();
    let mut open: HashMap<i64, (usize, usize)> = HashMap::new();
    for job in group {
        let Change::Append(batch) = &job.change else {
            continue;
        };
        let len = batch.bytes.len();
        let place = open
            .get(&job.session.key)
            .copied()
            .filter(|(_, held)| held + len <= ROW_MAX);
        let (at, held) = place.unwrap_or_else(|| {
            batches.push(Vec::new());
            (batches.len() - 1, 0)
        });
        batches[at].push((&job.session, batch));
        open.insert(job.session.key, (at, held + len));
    }
    batches.iter().filter_map(|batches| row(batches)).collect()
}

fn row(batches: &[(&Arc<Session>, &Batch)]) -> Option<Row> {
    let ((session, first), (_, last)) = (batches.first()?, batches.last()?);
    let bytes = match batches {
        [(_, only)] => only.bytes.clone(),
        _ => {
            let len = batches.iter().map(|(_, batch)| batch.bytes.len()).sum();
            let mut joined = BytesMut::with_capacity(len);
            for (_, batch) in batches {
                joined.extend_from_slice(&batch.bytes);
            }
            joined.freeze()
        }
    };
    let chunk = Chunk {
        first_seq: first.first_seq,
        last_seq: last.last_seq,
        bytes,
    };
    let mark = batches.iter().rev().find_map(|(_, batch)| batch.mark.clone());
    Some(Row {
        session: (*session).clone(),
        chunk,
        mark,
    })
}

impl Shared {
    fn ask_checkpoint(&self) {
        // A full queue means that others keep the reading thread busy; the next step asks again.
        let _busy = self.asks.try_send(Ask::Checkpoint);
    }
}
