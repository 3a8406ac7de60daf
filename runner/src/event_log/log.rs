//! A store and its two threads.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::reader::{self, Ask, ReadError, Reply};
use super::retention::Retention;
use super::schema::{self, OpenError, Opened};
use super::session::{Closed, Known, Session, SessionLog};
use super::tail::Tail;
use super::writer::{Change, Job, Order, Writer};
use crate::{clock, sys};

/// How much may be accepted and not committed, in bytes: two of the longest commits, so that one is made while the
/// next is gathered. A single batch may be longer; it is accepted when nothing else waits.
const QUEUE_MAX: usize = 2 * 1024 * 1024;

/// What a change counts in the queue beside its bytes, so that the number of changes is bounded too.
const JOB_COST: usize = 256;

/// How many sessions may be on their way out at once.
const DELETIONS_MAX: usize = 64;

/// How the store takes what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Fine,
    /// It does not; what was accepted is kept and tried again, and nothing more is accepted.
    Failing {
        /// What SQLite said.
        text: String,
    },
}

/// A session as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Its id.
    pub id: String,
    /// When it was created.
    pub created_ms: u64,
    /// What [`SessionLog::put_state`] kept last.
    pub state: Bytes,
    /// The epoch in which numbers are given out now.
    pub epoch: u64,
    /// The number of its last event; 0 when it has none.
    pub last_seq: u64,
}

/// Why a session was not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// There is one of that id.
    #[error("the session exists")]
    Exists,
    /// Nothing can be written.
    #[error("the event log cannot be written: {text}")]
    Failing {
        /// Why not.
        text: String,
    },
    /// The log is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why a session was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is none of that id any more.
    #[error("there is no such session")]
    Unknown,
    /// The log is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// What handles and threads share.
#[derive(Debug)]
pub(super) struct Shared {
    orders: mpsc::Sender<Order>,
    room: Arc<Semaphore>,
    /// What makes room does not wait for it.
    room_to_delete: Arc<Semaphore>,
    pub(super) asks: tokio::sync::mpsc::Sender<Ask>,
    pub(super) tail: Mutex<Tail>,
    /// Acknowledgements that are not committed yet, by session.
    pub(super) acked: Mutex<BTreeMap<i64, u64>>,
    /// The oldest number that is kept of each session that lost some.
    oldest: Mutex<BTreeMap<i64, u64>>,
    /// Held by who moves the write-ahead log into the file: SQLite turns a second one away, who would have it grow on.
    pub(super) moving: Arc<Mutex<()>>,
    path: PathBuf,
    health: watch::Sender<Health>,
    /// Something in it goes little by little, and is not gone yet.
    pub(super) letting_go: AtomicBool,
    pub(super) closing: AtomicBool,
}

/// The event log of one workspace. Opened once by its daemon.
#[derive(Debug)]
pub struct EventLog {
    shared: Arc<Shared>,
    sessions: Mutex<Sessions>,
    /// The writing and the reading one; none once they were told to end.
    threads: Mutex<Vec<JoinHandle<()>>>,
    first_epoch: u64,
}

#[derive(Debug)]
struct Sessions {
    by_id: HashMap<String, Arc<Session>>,
    next_key: i64,
}

impl EventLog {
    /// Opens the store at `path`, or makes it when nothing is there. Waits for the disk.
    ///
    /// # Errors
    /// When the file cannot be used as it is. It is left alone then.
    pub fn open(path: &Path, retention: Retention) -> Result<Self, OpenError> {
        Self::open_from(path, retention, 1)
    }

    /// The same; if it has to be made, its sessions begin in `first_epoch`.
    ///
    /// # Errors
    /// When the file cannot be used as it is. It is left alone then.
    pub fn open_from(path: &Path, retention: Retention, first_epoch: u64) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        Self::open_in_boot(path, retention, first_epoch, &sys::boot_id().map_err(io)?)
    }

    pub(super) fn open_in_boot(
        path: &Path,
        retention: Retention,
        first_epoch: u64,
        boot_id: &str,
    ) -> Result<Self, OpenError> {
        let Opened {
            writer,
            reader,
            sessions,
            last_key,
            first_epoch,
        } = schema::open(path, boot_id, first_epoch)?;
        let oldest = sessions.iter().map(|known| (known.key, known.oldest_seq));
        let oldest = oldest.filter(|(_, seq)| *seq > 1).collect();
        let (orders, ordered) = mpsc::channel();
        let (asks, asked) = tokio::sync::mpsc::channel(reader::QUEUE_MAX);
        let shared = Arc::new(Shared {
            orders: orders.clone(),
            room: Arc::new(Semaphore::new(QUEUE_MAX)),
            room_to_delete: Arc::new(Semaphore::new(DELETIONS_MAX)),
            asks,
            tail: Mutex::default(),
            acked: Mutex::default(),
            oldest: Mutex::new(oldest),
            moving: Arc::default(),
            path: path.to_owned(),
            health: watch::Sender::new(Health::Fine),
            letting_go: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        let moving = shared.moving.clone();
        let writer = Writer::new(writer, schema::wal(path), shared.clone(), retention, ordered);
        let io = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        let threads = vec![
            spawn("log-write", move || writer.run()).map_err(io)?,
            spawn("log-read", move || reader::run(&reader, asked, &orders, &moving)).map_err(io)?,
        ];
        let by_id = sessions
            .into_iter()
            .map(|known| (known.id.clone(), Arc::new(Session::new(known))));
        let sessions = Mutex::new(Sessions {
            by_id: by_id.collect(),
            next_key: last_key + 1,
        });
        Ok(Self {
            shared,
            sessions,
            threads: Mutex::new(threads),
            first_epoch,
        })
    }
}

impl EventLog {
    /// Creates a session and keeps it. Its first event has the number 1.
    ///
    /// # Errors
    /// When there is one of that id already, or the store cannot be written.
    pub async fn create_session(&self, id: &str, state: Bytes) -> Result<SessionLog, CreateError> {
        if let Health::Failing { text } = &*self.shared.health.borrow() {
            return Err(CreateError::Failing { text: text.clone() });
        }
        let room = self.shared.room(state.len() + id.len()).await?;
        let (session, done) = {
            let mut sessions = lock(&self.sessions);
            if sessions.by_id.contains_key(id) {
                return Err(CreateError::Exists);
            }
            let session = Arc::new(Session::new(Known {
                key: sessions.next_key,
                id: id.to_owned(),
                created_ms: clock::unix_ms(),
                epochs: vec![(self.first_epoch, 0)],
                last_seq: 0,
                last_idx: None,
                acked_seq: 0,
                oldest_seq: 1,
            }));
            let change = Change::Create { state };
            let done = self
                .shared
                .send(|done| Job::new(session.clone(), change, room, done))?;
            sessions.next_key += 1;
            sessions.by_id.insert(id.to_owned(), session.clone());
            (session, done)
        };
        done.await.map_err(|_| Closed)?;
        Ok(SessionLog {
            session,
            shared: self.shared.clone(),
        })
    }

    /// The session of that id.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<SessionLog> {
        let session = lock(&self.sessions).by_id.get(id)?.clone();
        Some(SessionLog {
            session,
            shared: self.shared.clone(),
        })
    }

    /// All sessions as stored, in the order of their creation.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn sessions(&self) -> Result<Vec<SessionRow>, ReadError> {
        self.shared.ask(|reply| Ask::Sessions { reply }).await
    }

    /// Deletes a session with all its events and messages. Whoever follows it is told that it is over; its numbers
    /// are free for another session of the same id.
    ///
    /// # Errors
    /// When there is none, or the log is closed.
    pub async fn delete_session(&self, id: &str) -> Result<(), ChangeError> {
        let room = self.shared.room_to_delete.clone().acquire_owned().await;
        let room = room.map_err(|_| Closed)?;
        let done = {
            let mut sessions = lock(&self.sessions);
            let session = sessions.by_id.get(id).ok_or(ChangeError::Unknown)?.clone();
            session.refuse_more();
            let done = self
                .shared
                .send(|done| Job::new(session, Change::Delete, room, done))?;
            sessions.by_id.remove(id);
            done
        };
        Ok(done.await.map_err(|_| Closed)?)
    }

    /// Whether somebody has a handle on one of its sessions, or it has something to do by itself: to keep what was
    /// acknowledged, to let go of what was deleted, to try again what cannot be written.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        // This and the writing thread have one each.
        let is_held = Arc::strong_count(&self.shared) > 2;
        is_held
            || self.shared.letting_go.load(Ordering::Acquire)
            || !lock(&self.shared.acked).is_empty()
            || *self.shared.health.borrow() != Health::Fine
    }

    /// Whether the store takes what it is given, now and whenever that changes.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health()
    }

    /// Tries a store that is [`Health::Failing`] again at once.
    pub fn retry(&self) {
        self.shared.nudge();
    }

    /// Commits what was accepted and closes the store. Handles that are left give [`Closed`]. A store that cannot
    /// be written is tried once more.
    pub async fn close(&self) {
        let threads = self.end();
        let ended = tokio::task::spawn_blocking(|| threads.into_iter().try_for_each(JoinHandle::join));
        // A thread that panicked said so, and its store opens as after any other crash.
        let _ended = ended.await;
        self.end_sessions();
    }

    fn end(&self) -> Vec<JoinHandle<()>> {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.room.close();
        self.shared.room_to_delete.close();
        // A thread that is gone needs not be told. The reading thread is told by the writing one, which asks it last.
        let _gone = self.shared.orders.send(Order::Close);
        std::mem::take(&mut *lock(&self.threads))
    }

    fn end_sessions(&self) {
        for session in lock(&self.sessions).by_id.values() {
            session.end();
        }
    }
}

/// Without [`EventLog::close`] nobody waits: the threads finish what was accepted while the process lasts.
impl Drop for EventLog {
    fn drop(&mut self) {
        drop(self.end());
        self.end_sessions();
    }
}

impl Shared {
    /// Waits until this many bytes more may be accepted.
    pub(super) async fn room(&self, weight: usize) -> Result<OwnedSemaphorePermit, Closed> {
        let wanted = (weight + JOB_COST).min(QUEUE_MAX);
        let wanted = u32::try_from(wanted).map_err(|_| Closed)?;
        self.room
            .clone()
            .acquire_many_owned(wanted)
            .await
            .map_err(|_| Closed)
    }

    pub(super) fn send(
        &self,
        job: impl FnOnce(oneshot::Sender<()>) -> Job,
    ) -> Result<oneshot::Receiver<()>, Closed> {
        let (done, waits) = oneshot::channel();
        self.orders.send(Order::Do(job(done))).map_err(|_| Closed)?;
        Ok(waits)
    }

    pub(super) async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| ReadError::Closed)?;
        let answer = answer.await.map_err(|_| ReadError::Closed)?;
        Ok(answer.inspect_err(|error| self.note_damage(error))?)
    }

    /// The oldest number that is kept of a session.
    pub(super) fn oldest_seq(&self, session: i64) -> u64 {
        lock(&self.oldest).get(&session).copied().unwrap_or(1)
    }

    /// Says that nothing before this number is kept; 1 when all of it is, or the session is gone.
    pub(super) fn set_oldest_seq(&self, session: i64, seq: u64) {
        let mut oldest = lock(&self.oldest);
        if seq > 1 {
            oldest.insert(session, seq);
        } else {
            oldest.remove(&session);
        }
    }

    /// Has an acknowledgement kept.
    pub(super) fn acknowledged(&self, session: i64, seq: u64) {
        let is_first = {
            let mut acked = lock(&self.acked);
            let kept = acked.entry(session).or_default();
            *kept = seq.max(*kept);
            acked.len() == 1
        };
        if is_first {
            self.nudge();
        }
    }

    /// If it is damage, notes it beside the store, so that the next runner sets it aside.
    pub(super) fn note_damage(&self, error: &rusqlite::Error) {
        if !schema::is_damage(error) {
            return;
        }
        if let Err(error) = schema::note_damage(&self.path, &error.to_string()) {
            tracing::error!(store = %self.path.display(), %error, "cannot note that an event log is damaged");
        }
    }

    /// Wakes the writing thread.
    fn nudge(&self) {
        // One that is gone has nothing left to do.
        let _gone = self.orders.send(Order::Look);
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub(super) fn set_health(&self, health: Health) {
        self.health.send_if_modified(|now| {
            if *now == health {
                return false;
            }
            match &health {
                Health::Failing { text } => tracing::error!(
                    store = %self.path.display(),
                    %text,
                    "an event log cannot be written; its sessions wait and nothing is lost"
                ),
                Health::Fine => {
                    tracing::info!(store = %self.path.display(), "the event log is written again");
                }
            }
            *now = health;
            true
        });
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Locks. What a panic left behind is as whole as the code under the lock leaves it at each step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::{Batch, Resume, Sync};

    async fn append(session: &SessionLog, sync: Sync) {
        let batch = Batch::new(session.last_seq() + 1, Bytes::from_static(&[0; 4]), sync);
        session
            .append(batch.unwrap())
            .await
            .unwrap()
            .committed()
            .await
            .unwrap();
    }

    /// The store as a host that lost its power leaves it: in use, under the name of an earlier boot.
    fn lose_power(path: &Path, last_seq: u64) {
        let store = rusqlite::Connection::open(path).unwrap();
        store
            .execute("DELETE FROM batches WHERE last_seq > ?1", [last_seq])
            .unwrap();
        store.execute("UPDATE store SET clean = 0", []).unwrap();
    }

    #[tokio::test]
    async fn after_an_unclean_boot_a_lost_number_comes_back_only_under_a_greater_epoch() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("events.db");
        let log = EventLog::open_in_boot(&path, Retention::DEFAULT, 1, "first").unwrap();
        let session = log.create_session("one", Bytes::new()).await.unwrap();
        for _ in 0..5 {
            append(&session, Sync::Process).await;
        }
        log.close().await;
        lose_power(&path, 3);

        let log = EventLog::open_in_boot(&path, Retention::DEFAULT, 1, "second").unwrap();
        let session = log.session("one").unwrap();
        assert_eq!((session.epoch(), session.last_seq()), (2, 3));
        append(&session, Sync::Power).await;
        assert_eq!(session.resume(1, 2), Resume::After(2));
        assert_eq!(session.resume(1, 3), Resume::After(3));
        assert_eq!(session.resume(1, 4), Resume::Reset { epoch: 2, seq: 3 });
        assert_eq!(session.resume(2, 4), Resume::After(4));
        assert_eq!(session.resume(2, 5), Resume::Reset { epoch: 2, seq: 4 });
        assert_eq!(session.resume(9, 1), Resume::Reset { epoch: 2, seq: 0 });
        log.close().await;

        // A store that was closed in order lost nothing, whatever the host did then.
        let log = EventLog::open_in_boot(&path, Retention::DEFAULT, 1, "third").unwrap();
        assert_eq!(log.session("one").unwrap().epoch(), 2);
        log.close().await;
    }

    #[tokio::test]
    async fn after_an_unclean_boot_deltas_without_an_end_are_given_up_since_a_reader_may_have_them_as_one() {
        use oqto_protocol::event::{AgentIdle, Event, Numbered, TextDelta};
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("events.db");
        let log = EventLog::open_in_boot(&path, Retention::DEFAULT, 1, "first").unwrap();
        let session = log.create_session("one", Bytes::new()).await.unwrap();
        let delta = || {
            Event::TextDelta(TextDelta {
                message_id: "m-1".parse().unwrap(),
                delta: "x".to_owned(),
                content_index: 0,
            })
        };
        let idle = || Event::AgentIdle(AgentIdle {});
        // Events 1 to 3 in a row of their own, 4 and 5, then 6 and 7, which power takes.
        for events in [
            vec![idle(), delta(), delta()],
            vec![delta(), delta()],
            vec![delta(), idle()],
        ] {
            let first = session.last_seq() + 1;
            let mut frames = Vec::new();
            for (seq, event) in (first..).zip(events) {
                let (epoch, first_seq, ts) = (1, None, seq);
                let numbered = Numbered {
                    epoch,
                    seq,
                    first_seq,
                    ts,
                    event,
                };
                oqto_protocol::frame::append(&numbered, &mut frames).unwrap();
            }
            let batch = Batch::new(first, frames.into(), Sync::Process).unwrap();
            session.append(batch).await.unwrap().committed().await.unwrap();
        }
        log.close().await;
        lose_power(&path, 5);

        let log = EventLog::open_in_boot(&path, Retention::DEFAULT, 1, "second").unwrap();
        let session = log.session("one").unwrap();
        assert_eq!((session.epoch(), session.last_seq()), (2, 1));
        assert_eq!(session.resume(1, 6), Resume::Reset { epoch: 2, seq: 1 });
        assert_eq!(session.read(0, usize::MAX).await.unwrap().unwrap().seqs(), 1..=1);
        log.close().await;
    }
}
