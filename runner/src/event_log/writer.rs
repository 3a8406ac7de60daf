//! The writing thread of a store: takes all that is ready, commits it at once, tells who waits.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rusqlite::{Connection, params};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::batch::{Batch, Chunk, Sync};
use super::log::{Health, Shared, lock};
use super::reader::{Ask, checkpoint, shrink};
use super::retention::Retention;
use super::session::Session;
use super::trim::{self, Trimmed};
use crate::clock;

/// How much is committed at once, in bytes: past this a commit gets longer and no cheaper per event.
const GROUP_MAX: usize = 1024 * 1024;

/// The longest row that is put together from several batches, in bytes. A reader reads a row as a whole.
const ROW_MAX: usize = 128 * 1024;

/// What a commit puts into the write-ahead log beside its bytes: a leaf of the rows and one of their index.
const COMMIT_COST: u64 = 8 * 1024;

/// What a step of forgetting puts there at most.
const STEP_COST: u64 = 2 * 1024 * 1024;

/// How much is committed before the reading thread moves it into the file, in bytes. Each move waits for the disk
/// twice, and what is appended meanwhile may have to wait with it: a thousand small commits a second reach this about
/// every other second.
const CHECKPOINT_STEP: u64 = 16 * 1024 * 1024;

/// How long the write-ahead log may get before the writer moves what the reading thread left, in bytes: only then can
/// it begin anew, and only the writer can see to it while commits come without a pause. It waits for the disk then, but
/// for little of it.
const WAL_LONG: u64 = 48 * 1024 * 1024;

/// How long it may get before the writer moves all of it, in bytes.
pub(super) const WAL_MAX: u64 = 64 * 1024 * 1024;

/// After this long without a commit what is left is moved into the file, and what memory holds of it is let go.
const IDLE: Duration = Duration::from_secs(1);

/// How much is committed before it is asked again whether something has to go, in bytes: below what a step lets go of, so
/// that a store whose events are acknowledged never reaches its bound.
const LOOK_STEP: u64 = 1024 * 1024;

/// How often that is asked while nothing is committed: what is too old is not in a hurry.
const LOOK: Duration = Duration::from_secs(600);

/// How often a store that cannot be written is tried again. Nothing tells when a disk has room.
const RETRY: Duration = Duration::from_millis(250);

/// What is to change about a session.
#[derive(Debug)]
pub(super) enum Change {
    Create { state: Bytes },
    Append(Batch),
    PutState { state: Bytes },
    PutMark { mark: Bytes },
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
            Change::PutMark { mark } => mark.len(),
            Change::Delete => 0,
        }
    }

    fn sync(&self) -> Sync {
        match &self.change {
            Change::Append(batch) => batch.sync,
            // Also a mark: the tape below it is given back, so that there would be nothing to begin at.
            Change::Create { .. } | Change::PutState { .. } | Change::PutMark { .. } | Change::Delete => {
                Sync::Power
            }
        }
    }
}

/// What the queue carries.
#[derive(Debug)]
pub(super) enum Order {
    Do(Job),
    /// There is something else to look at: an acknowledgement, or room.
    Look,
    /// The reading thread has moved the write-ahead log into the file, but for what was committed meanwhile.
    Moved,
    Close,
}

/// Batches of one session that become one row.
struct Row {
    session: Arc<Session>,
    chunk: Chunk,
}

pub(super) struct Writer {
    store: Connection,
    wal: PathBuf,
    shared: Arc<Shared>,
    retention: Retention,
    orders: mpsc::Receiver<Order>,
    /// What came and is not in a group yet.
    waiting: VecDeque<Job>,
    closing: bool,
    /// What the connection is set to.
    sync: Sync,
    /// How much was committed and not moved into the file, bytes.
    unmoved: u64,
    /// How much was committed since it was last asked whether something has to go, bytes.
    unlooked: u64,
    /// When that is asked again if nothing is committed.
    look_at: Instant,
    /// Something has to go.
    trimming: bool,
}

/// Why a group was not committed.
enum Trouble {
    Sqlite(rusqlite::Error),
    /// The store has reached its bound, and nothing in it may go.
    Full {
        len: u64,
    },
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Writer {
    pub(super) fn new(
        store: Connection,
        wal: PathBuf,
        shared: Arc<Shared>,
        retention: Retention,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            store,
            wal,
            shared,
            retention,
            orders,
            waiting: VecDeque::new(),
            closing: false,
            sync: Sync::Power,
            unmoved: 0,
            unlooked: 0,
            look_at: clock::instant(),
            trimming: true,
        }
    }

    /// Commits until it is told to close, then closes the store. It gives up what it cannot write only then.
    pub(super) fn run(mut self) {
        self.work();
        // What is asked behind this is answered by its being dropped.
        let _gone = self.shared.asks.blocking_send(Ask::Close);
    }

    fn work(&mut self) {
        loop {
            let group = self.gather();
            if group.is_empty() {
                if self.closing {
                    break;
                }
                self.rest();
                continue;
            }
            let weight: usize = group.iter().map(Job::weight).sum();
            let Some((group, rows)) = self.commit_until_done(group) else {
                return;
            };
            self.publish(group, rows);
            let written = weight as u64 + COMMIT_COST;
            self.unlooked += written;
            self.wrote(written);
            if self.trimming || self.unlooked > LOOK_STEP {
                self.trim();
            }
        }
        self.close();
    }

    /// What is ready, as much as is committed at once. Empty when nothing came for a while, or nothing will.
    fn gather(&mut self) -> Vec<Job> {
        if self.waiting.is_empty() && !self.closing {
            match self.next_order() {
                Ok(order) => self.take(order),
                Err(mpsc::RecvTimeoutError::Timeout) => return Vec::new(),
                Err(mpsc::RecvTimeoutError::Disconnected) => self.closing = true,
            }
        }
        let mut group = Vec::new();
        let mut weight = 0;
        while weight < GROUP_MAX {
            if self.waiting.is_empty()
                && let Ok(order) = self.orders.try_recv()
            {
                self.take(order);
                continue;
            }
            let Some(job) = self.waiting.pop_front() else {
                break;
            };
            weight += job.weight();
            group.push(job);
        }
        group
    }

    /// The next thing to do, or that nothing came for a while. What was acknowledged meanwhile is kept with the next
    /// commit, or after that while: not at once, since a reader that follows closely acknowledges every commit.
    fn next_order(&self) -> Result<Order, mpsc::RecvTimeoutError> {
        let now = clock::instant();
        loop {
            let until = if self.has_chores() {
                now + IDLE
            } else {
                self.look_at
            };
            match self
                .orders
                .recv_timeout(until.saturating_duration_since(clock::instant()))
            {
                Ok(Order::Look) => {}
                Ok(Order::Moved) => self.bound_wal(WAL_LONG),
                next => return next,
            }
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Do(job) => self.waiting.push_back(job),
            Order::Look => {}
            Order::Moved => self.bound_wal(WAL_LONG),
            Order::Close => self.closing = true,
        }
    }

    /// Whether there is something to do when nothing comes.
    fn has_chores(&self) -> bool {
        self.unmoved > 0 || self.trimming || !lock(&self.shared.acked).is_empty()
    }

    /// What is done when nothing comes, a little at a time.
    fn rest(&mut self) {
        // Each of these fails when the disk does, and then the next commit says so.
        if !lock(&self.shared.acked).is_empty() {
            drop(self.in_transaction(|_| Ok(())));
        }
        self.trim();
        if std::mem::take(&mut self.unmoved) > 0 {
            self.shared.ask_checkpoint();
            shrink(&self.store);
            lock(&self.shared.tail).clear();
        }
    }

    /// Lets go of what has to go: all of it while nothing else is to do, else one step.
    fn trim(&mut self) {
        self.unlooked = 0;
        self.look_at = clock::instant() + LOOK;
        self.trimming = false;
        while self.trim_step().unwrap_or(false) {
            self.wrote(STEP_COST);
            if let Ok(order) = self.orders.try_recv() {
                self.take(order);
            }
            if self.closing || !self.waiting.is_empty() {
                self.trimming = true;
                return;
            }
        }
        self.shared.letting_go.store(false, Ordering::Release);
    }

    /// One step of forgetting; whether there was something to forget.
    fn trim_step(&mut self) -> rusqlite::Result<bool> {
        let retention = self.retention;
        let Some(step) = trim::next(&self.store, &retention, clock::unix_ms())? else {
            return Ok(false);
        };
        let shared = self.shared.clone();
        let mut before = None;
        let trimmed = self.in_transaction(|store| {
            if let Some(Trimmed { session, oldest_seq }) = trim::trim(store, step, retention.step())? {
                before = Some((session, shared.oldest_seq(session)));
                // Before it is committed: who reads must never find events gone that are said to be there.
                shared.set_oldest_seq(session, oldest_seq);
            }
            Ok(())
        });
        if let (Err(_), Some((session, oldest_seq))) = (&trimmed, before) {
            shared.set_oldest_seq(session, oldest_seq);
        }
        trimmed.map(|()| true)
    }

    /// Changes the store without waiting for the disk, and keeps what was acknowledged meanwhile.
    fn in_transaction(
        &mut self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        self.set_sync(Sync::Process)?;
        let acked = std::mem::take(&mut *lock(&self.shared.acked));
        let changed = (|| {
            self.store.execute_batch("BEGIN IMMEDIATE")?;
            trim::keep_acked(&self.store, &acked)?;
            change(&self.store)?;
            self.store.execute_batch("COMMIT")
        })();
        if changed.is_err() {
            self.undo(acked);
        }
        changed
    }

    fn undo(&self, acked: BTreeMap<i64, u64>) {
        // It fails only when there is no transaction, and then there is nothing to undo.
        let _undone = self.store.execute_batch("ROLLBACK");
        let mut kept = lock(&self.shared.acked);
        for (session, seq) in acked {
            let newer = kept.entry(session).or_default();
            *newer = seq.max(*newer);
        }
    }

    fn set_sync(&mut self, wanted: Sync) -> rusqlite::Result<()> {
        if self.sync != wanted {
            self.store.execute_batch(match wanted {
                Sync::Process => "PRAGMA synchronous = NORMAL",
                Sync::Power => "PRAGMA synchronous = FULL",
            })?;
            self.sync = wanted;
        }
        Ok(())
    }

    /// None when the log is closed while the store still cannot be written.
    fn commit_until_done(&mut self, mut group: Vec<Job>) -> Option<(Vec<Job>, Vec<Row>)> {
        loop {
            match self.try_commit(&group) {
                Ok(rows) => {
                    self.shared.set_health(Health::Fine);
                    return Some((group, rows));
                }
                Err(trouble) => {
                    let text = match trouble {
                        Trouble::Sqlite(error) => {
                            self.shared.note_damage(&error);
                            error.to_string()
                        }
                        Trouble::Full { len } => full(len, self.retention.len_max),
                    };
                    self.shared.set_health(Health::Failing { text });
                    if self.shared.closing.load(Ordering::Acquire) {
                        return None;
                    }
                    group = self.await_room(group);
                }
            }
        }
    }

    fn try_commit(&mut self, group: &[Job]) -> Result<Vec<Row>, Trouble> {
        let grows = |job: &Job| matches!(job.change, Change::Create { .. } | Change::Append(_));
        if group.iter().any(grows) {
            let bound = self.retention.len_max;
            if trim::len(&self.store)? >= bound {
                // Before it is judged what may go.
                self.in_transaction(|_| Ok(()))?;
            }
            loop {
                let len = trim::len(&self.store)?;
                if len < bound {
                    break;
                }
                if !self.trim_step()? {
                    return Err(Trouble::Full { len });
                }
            }
        }
        Ok(self.commit(group)?)
    }

    /// Waits for a moment, or for what may make room: somebody's acknowledgement, or a deletion, which is carried out
    /// before what waits for room.
    fn await_room(&mut self, mut group: Vec<Job>) -> Vec<Job> {
        if let Ok(order) = self.orders.recv_timeout(RETRY) {
            self.take(order);
            while let Ok(order) = self.orders.try_recv() {
                self.take(order);
            }
        }
        let all = group.drain(..).chain(self.waiting.drain(..));
        let (deletions, mut others): (Vec<_>, Vec<_>) =
            all.partition(|job| matches!(job.change, Change::Delete));
        for deletion in deletions {
            // What it waits for goes with it.
            others.retain(|job| job.session.key != deletion.session.key);
            let deletion = vec![deletion];
            match self.commit(&deletion) {
                Ok(rows) => self.publish(deletion, rows),
                Err(_) => others.splice(0..0, deletion).for_each(drop),
            }
        }
        others
    }

    fn commit(&mut self, group: &[Job]) -> rusqlite::Result<Vec<Row>> {
        self.set_sync(group.iter().map(Job::sync).max().unwrap_or(Sync::Process))?;
        let acked = std::mem::take(&mut *lock(&self.shared.acked));
        let rows = rows(group);
        let committed = self.write(group, &rows, &acked);
        if committed.is_err() {
            self.undo(acked);
        }
        committed.map(|()| rows)
    }

    fn write(&self, group: &[Job], rows: &[Row], acked: &BTreeMap<i64, u64>) -> rusqlite::Result<()> {
        self.store.execute_batch("BEGIN IMMEDIATE")?;
        for job in group {
            self.apply(job)?;
        }
        trim::keep_acked(&self.store, acked)?;
        let mut insert = self.store.prepare_cached(
            "INSERT INTO batches (session, last_seq, first_seq, epoch, committed_ms, bytes)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM sessions WHERE key = ?1)",
        )?;
        let mut put_mark = self.store.prepare_cached(
            "INSERT OR REPLACE INTO marks SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM sessions WHERE key = ?1)",
        )?;
        let now_ms = clock::unix_ms();
        for Row { session, chunk } in rows {
            let Chunk {
                first_seq,
                last_seq,
                bytes,
            } = chunk;
            insert.execute(params![
                session.key,
                last_seq,
                first_seq,
                session.epoch(),
                now_ms,
                &bytes[..]
            ])?;
        }
        for (session, mark) in marks(group) {
            put_mark.execute(params![session, &mark[..]])?;
        }
        self.store.execute_batch("COMMIT")
    }

    /// Everything about a job but its events, which become rows together with others, and its mark.
    fn apply(&self, job: &Job) -> rusqlite::Result<()> {
        let store = &self.store;
        let Session {
            key, id, created_ms, ..
        } = &*job.session;
        match &job.change {
            Change::Create { state } => {
                store.execute(
                    "INSERT INTO sessions VALUES (?1, ?2, ?3, 0, 0, ?4)",
                    params![key, id, created_ms, &state[..]],
                )?;
                store.execute(
                    "INSERT INTO epochs VALUES (?1, ?2, 0)",
                    params![key, job.session.epoch()],
                )?;
            }
            Change::Append(batch) => {
                for message in &batch.messages {
                    let mut insert =
                        store.prepare_cached("INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5)")?;
                    let (idx, seq) = (message.idx, batch.last_seq);
                    insert.execute(params![key, idx, seq, message.id, &message.frame[..]])?;
                }
            }
            Change::PutState { state } => {
                let mut update = store.prepare_cached("UPDATE sessions SET state = ?2 WHERE key = ?1")?;
                update.execute(params![key, &state[..]])?;
            }
            Change::PutMark { .. } => {}
            Change::Delete => {
                // Its rows may be many, and go little by little.
                store.execute("INSERT INTO leaving VALUES (?1)", [key])?;
                for table in ["marks", "epochs"] {
                    store.execute(&format!("DELETE FROM {table} WHERE session = ?1"), [key])?;
                }
                store.execute("DELETE FROM sessions WHERE key = ?1", [key])?;
            }
        }
        Ok(())
    }

    /// Shows what was committed, then tells who waits for it.
    fn publish(&mut self, group: Vec<Job>, rows: Vec<Row>) {
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
                    self.trimming = true;
                    self.shared.letting_go.store(true, Ordering::Release);
                    tail.remove(job.session.key);
                    self.shared.set_oldest_seq(job.session.key, 1);
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

    /// So much more is in the write-ahead log.
    fn wrote(&mut self, len: u64) {
        self.unmoved += len;
        if self.unmoved > CHECKPOINT_STEP {
            self.unmoved = 0;
            self.bound_wal(WAL_MAX);
            self.shared.ask_checkpoint();
        }
    }

    /// Moves the write-ahead log into the file if it is longer than that.
    fn bound_wal(&self, len_max: u64) {
        if self.wal.metadata().is_ok_and(|found| found.len() > len_max) {
            // It fails when the disk does, and then the next commit says so.
            drop(checkpoint(&self.store, &self.shared.moving));
        }
    }

    /// The note that nothing is missing goes to the disk with a sync, behind all that was committed before.
    fn close(&mut self) {
        // One that is not kept is only said again.
        drop(self.in_transaction(|_| Ok(())));
        let noted = self
            .store
            .execute_batch("PRAGMA synchronous = FULL; UPDATE store SET clean = 1");
        // Without it the next boot begins new epochs, which is only more careful.
        drop(noted);
    }
}

fn full(len: u64, bound: u64) -> String {
    format!(
        "it holds {len} bytes, which is its bound of {bound}, and none of them may be forgotten: acknowledge events, delete \
         sessions, or raise events.store_len_max"
    )
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
    Some(Row {
        session: (*session).clone(),
        chunk,
    })
}

/// The newest mark of each session, whether it came with events or by itself: what lies before it on a tape is given
/// back as soon as it is committed, so that an older one must never take its place.
fn marks(group: &[Job]) -> BTreeMap<i64, &Bytes> {
    let marks = group.iter().filter_map(|job| {
        let mark = match &job.change {
            Change::Append(batch) => batch.mark.as_ref()?,
            Change::PutMark { mark } => mark,
            Change::Create { .. } | Change::PutState { .. } | Change::Delete => return None,
        };
        Some((job.session.key, mark))
    });
    marks.collect()
}

impl Shared {
    fn ask_checkpoint(&self) {
        // A full queue means that others keep the reading thread busy; the next step asks again.
        let _busy = self.asks.try_send(Ask::Checkpoint);
    }
}
