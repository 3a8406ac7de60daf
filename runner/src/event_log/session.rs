//! One session of the log: appending to it, following it, going on with it after a restart.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::batch::{self, Batch, Chunk};
use super::durable::Durable;
use super::log::{ChangeError, Health, Shared, lock};
use super::reader::{Ask, Page, ReadError};
use super::resume::{Resume, resume};
use super::writer::{Change, Job};

/// What the store knows of a session when it is opened.
pub(super) struct Known {
    pub(super) key: i64,
    pub(super) id: String,
    pub(super) created_ms: u64,
    /// Each epoch with the last number that was kept before it; the newest last.
    pub(super) epochs: Vec<(u64, u64)>,
    pub(super) last_seq: u64,
    pub(super) last_idx: Option<u64>,
    /// The greatest number that somebody acknowledged.
    pub(super) acked_seq: u64,
    /// The oldest number that is kept.
    pub(super) oldest_seq: u64,
}

/// A session in memory, shared by its handles and the writer.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: i64,
    pub(super) id: String,
    pub(super) created_ms: u64,
    pub(super) epochs: Vec<(u64, u64)>,
    progress: watch::Sender<Progress>,
    accepted: Mutex<Accepted>,
    acked_seq: AtomicU64,
}

/// How far the session is committed.
#[derive(Clone, Copy, Debug)]
struct Progress {
    last_seq: u64,
    /// Nothing more will come.
    over: bool,
}

/// How far the session was accepted into the queue.
#[derive(Debug)]
struct Accepted {
    last_seq: u64,
    last_idx: Option<u64>,
    deleted: bool,
}

impl Session {
    pub(super) fn new(known: Known) -> Self {
        let Known {
            key,
            id,
            created_ms,
            epochs,
            last_seq,
            last_idx,
            acked_seq,
            oldest_seq: _,
        } = known;
        let accepted = Mutex::new(Accepted {
            last_seq,
            last_idx,
            deleted: false,
        });
        let progress = watch::Sender::new(Progress {
            last_seq,
            over: false,
        });
        Self {
            key,
            id,
            created_ms,
            epochs,
            progress,
            accepted,
            acked_seq: AtomicU64::new(acked_seq),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epochs.last().map_or(1, |(epoch, _)| *epoch)
    }

    pub(super) fn refuse_more(&self) {
        lock(&self.accepted).deleted = true;
    }

    /// Tells who follows that events up to this number are committed.
    pub(super) fn committed(&self, last_seq: u64) {
        self.progress.send_modify(|progress| progress.last_seq = last_seq);
    }

    /// Tells who follows that no more will come.
    pub(super) fn end(&self) {
        self.progress.send_modify(|progress| progress.over = true);
    }
}

/// Why a batch was not accepted. Nothing of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Its numbers do not follow the ones before.
    #[error("event {first_seq} does not follow event {last_seq}")]
    OutOfOrder {
        /// Its first number.
        first_seq: u64,
        /// The last that was accepted.
        last_seq: u64,
    },
    /// A message's number is not greater than the ones before.
    #[error("message {idx} was numbered before")]
    MessageOutOfOrder {
        /// Its number.
        idx: u64,
    },
    /// The session was deleted.
    #[error("the session was deleted")]
    Deleted,
    /// The log is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// The log was closed before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event log is closed")]
pub struct Closed;

/// A batch that was accepted and is not known to be committed yet. It will be, also when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Pending {
    last_seq: u64,
    done: oneshot::Receiver<()>,
}

impl Pending {
    /// Waits until the batch is committed as it asked to be. Gives the number of its last event.
    ///
    /// # Errors
    /// When the log was closed while its store could not be written.
    pub async fn committed(self) -> Result<Durable<u64>, Closed> {
        self.done.await.map_err(|_| Closed)?;
        Ok(Durable::new(self.last_seq))
    }
}

/// A handle on one session. Clones are the same session.
#[derive(Clone, Debug)]
pub struct SessionLog {
    pub(super) session: Arc<Session>,
    pub(super) shared: Arc<Shared>,
}

impl SessionLog {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.session.id
    }

    /// The epoch in which numbers are given out now.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.session.epoch()
    }

    /// The number of the last event that is committed; 0 when there is none.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.session.progress.borrow().last_seq
    }

    /// The number of the oldest event that is kept; 1 when none was forgotten.
    #[must_use]
    pub fn oldest_seq(&self) -> u64 {
        self.shared.oldest_seq(self.session.key)
    }

    /// The greatest number that somebody acknowledged; 0 for none.
    #[must_use]
    pub fn acked_seq(&self) -> u64 {
        self.session.acked_seq.load(Ordering::Acquire)
    }

    /// Somebody has every event up to `seq` on a disk of theirs, so the log may forget them. Kept with the next
    /// commit, or soon after; forgotten with the host's power, it only has to be said again.
    pub fn acknowledge(&self, seq: u64) {
        let seq = seq.min(self.last_seq());
        if self.session.acked_seq.fetch_max(seq, Ordering::AcqRel) < seq {
            self.shared.acknowledged(self.session.key, seq);
        }
    }

    /// The number that its next message gets.
    #[must_use]
    pub fn next_idx(&self) -> u64 {
        lock(&self.session.accepted).last_idx.map_or(0, |last| last + 1)
    }

    /// The newest mark that is committed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn mark(&self) -> Result<Option<Durable<Bytes>>, ReadError> {
        let session = self.session.key;
        let found = self.shared.ask(|reply| Ask::Mark { session, reply }).await?;
        Ok(found.map(Durable::new))
    }

    /// Waits for room, then takes the batch. It is committed in its turn, together with what else is ready.
    ///
    /// Batches of one session are appended by one caller at a time. Dropped before it is done, it took nothing.
    ///
    /// # Errors
    /// When the batch does not go on where the last one ended, or the log is closed.
    pub async fn append(&self, batch: Batch) -> Result<Pending, AppendError> {
        let mut progress = self.session.progress.subscribe();
        let room = tokio::select! {
            room = self.shared.room(batch.weight()) => room?,
            // Who waits for room in vain must learn that there is nothing to wait for.
            _ = progress.wait_for(|now| now.over) => return Err(self.over()),
        };
        let mut accepted = lock(&self.session.accepted);
        if accepted.deleted {
            return Err(AppendError::Deleted);
        }
        let Batch {
            first_seq, last_seq, ..
        } = batch;
        if first_seq != accepted.last_seq + 1 {
            return Err(AppendError::OutOfOrder {
                first_seq,
                last_seq: accepted.last_seq,
            });
        }
        let mut last_idx = accepted.last_idx;
        for message in &batch.messages {
            if last_idx.is_some_and(|last| message.idx <= last) {
                return Err(AppendError::MessageOutOfOrder { idx: message.idx });
            }
            last_idx = Some(message.idx);
        }
        // Sent while the lock is held: the queue's order is the order of the numbers.
        let change = Change::Append(batch);
        let done = self
            .shared
            .send(|done| Job::new(self.session.clone(), change, room, done))?;
        accepted.last_seq = last_seq;
        accepted.last_idx = last_idx;
        Ok(Pending { last_seq, done })
    }

    fn over(&self) -> AppendError {
        match lock(&self.session.accepted).deleted {
            true => AppendError::Deleted,
            false => AppendError::Closed(Closed),
        }
    }

    /// Takes nothing more: who appends, also who waits for room, gets [`AppendError::Deleted`]. For a session that is
    /// to be deleted while its store cannot be written.
    pub fn abandon(&self) {
        self.session.refuse_more();
        self.session.end();
    }

    /// Whether it was deleted or abandoned.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        lock(&self.session.accepted).deleted
    }

    /// Waits until an event past `seq` is committed and gives the last one's number.
    ///
    /// # Errors
    /// When the session was deleted or the log closed.
    pub async fn wait_past(&self, seq: u64) -> Result<u64, Closed> {
        let mut progress = self.session.progress.subscribe();
        let found = progress
            .wait_for(|now| now.over || now.last_seq > seq)
            .await
            .map_err(|_| Closed)?;
        if found.last_seq > seq {
            Ok(found.last_seq)
        } else {
            Err(Closed)
        }
    }

    /// Events past `after_seq`, in order: at most `max_bytes`, but at least one. None when none is committed yet.
    ///
    /// Who is behind by more than one commit gets neighbouring deltas of a message as one frame.
    ///
    /// # Errors
    /// When the store cannot be read, or what was asked for is kept no longer.
    pub async fn read(&self, after_seq: u64, max_bytes: usize) -> Result<Option<Durable<Chunk>>, ReadError> {
        let through_seq = self.last_seq();
        if after_seq >= through_seq {
            return Ok(None);
        }
        let (from, oldest) = (after_seq + 1, self.oldest_seq());
        if from < oldest {
            return Err(ReadError::Expired { from, oldest });
        }
        let key = self.session.key;
        // What is there was committed before it was put there.
        let recent = lock(&self.shared.tail).read(key, after_seq, max_bytes);
        if let Some(chunk) = recent.and_then(|chunks| batch::join(&chunks, through_seq)) {
            return Ok(Some(Durable::new(chunk)));
        }
        let ask = |reply| Ask::Events {
            session: key,
            after_seq,
            through_seq,
            max_bytes,
            reply,
        };
        let found = self.shared.ask(ask).await?;
        // It may have gone meanwhile.
        let oldest = self.oldest_seq();
        match found {
            Some(chunk) if chunk.first_seq == from => Ok(Some(Durable::new(chunk))),
            _ if from < oldest => Err(ReadError::Expired { from, oldest }),
            // It was deleted meanwhile.
            None if self.is_abandoned() => Ok(None),
            found => Err(ReadError::Missing {
                from,
                found: found.map(|chunk| chunk.first_seq),
            }),
        }
    }

    /// Whether the store takes what it is given, now and whenever that changes.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health()
    }

    /// Finished messages past `after_idx` (none: from the first), in order, at most `limit` of them and no more
    /// than fit in one answer; and whether there are more behind them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn messages(
        &self,
        after_idx: Option<u64>,
        limit: usize,
    ) -> Result<(Vec<Durable<Bytes>>, bool), ReadError> {
        let session = self.session.key;
        let Page { frames, more } = self
            .shared
            .ask(|reply| Ask::Messages {
                session,
                after_idx,
                limit,
                reply,
            })
            .await?;
        Ok((frames.into_iter().map(Durable::new).collect(), more))
    }

    /// Keeps a new state of the session, which is given back as it is. Waits until it is committed.
    ///
    /// # Errors
    /// When the session was deleted or the log closed.
    pub async fn put_state(&self, state: Bytes) -> Result<(), ChangeError> {
        let room = self.shared.room(state.len()).await?;
        let done = {
            let accepted = lock(&self.session.accepted);
            if accepted.deleted {
                return Err(ChangeError::Unknown);
            }
            let change = Change::PutState { state };
            self.shared
                .send(|done| Job::new(self.session.clone(), change, room, done))?
        };
        Ok(done.await.map_err(|_| Closed)?)
    }

    /// Waits for room, then takes a mark that no new event comes with, in its turn with the batches. What is given back
    /// says when it is committed.
    ///
    /// # Errors
    /// When the session was deleted or the log closed.
    pub async fn put_mark(&self, mark: Bytes) -> Result<oneshot::Receiver<()>, AppendError> {
        let room = self.shared.room(mark.len()).await?;
        let accepted = lock(&self.session.accepted);
        if accepted.deleted {
            return Err(AppendError::Deleted);
        }
        let change = Change::PutMark { mark };
        let done = self
            .shared
            .send(|done| Job::new(self.session.clone(), change, room, done))?;
        Ok(done)
    }

    /// Where a reader goes on that saw `seq` of `epoch` last.
    #[must_use]
    pub fn resume(&self, epoch: u64, seq: u64) -> Resume {
        resume(&self.session.epochs, self.last_seq(), epoch, seq)
    }
}
