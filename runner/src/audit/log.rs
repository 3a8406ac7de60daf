//! The log as its users have it: an entry goes in, and the answer comes when it is on disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use oqto_protocol::id::RunnerId;
use tokio::sync::{oneshot, watch};

use super::VerifyError;
use super::record::{Entry, Outcome};
use super::seal::{NoSignature, PublicKey, Sign};
use super::settings::{AtBound, Settings};
use super::sink::Outlet;
use super::tail::Tail;
use super::writer::{Checkpoint, CommitError, Left, Writer};
use crate::{cause, clock};

/// How many entries are committed at once. More wait for the next group: one sync takes longer than all of them.
const GROUP_MAX: usize = 1024;

/// From which share of its bound on somebody is told that a log will be full: three quarters.
const NEARLY: (u64, u64) = (3, 4);

/// How often strangers who were refused are recorded, all of them in one record: what somebody without a certificate
/// does must not fill the disk.
const STRANGERS_EVERY: Duration = Duration::from_secs(60);

/// A log that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be had.
    #[error("cannot use {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others could read or change it.
    #[error(
        "{path} has to be a directory of this runner's user that is closed to all others; run: chmod 0700 {path}"
    )]
    Exposed {
        /// Which.
        path: PathBuf,
    },
    /// It is not as it was written. To go on would hide it.
    #[error(
        "the audit log is not as this runner left it; look at it with `oqto-runner audit verify`, keep it elsewhere and start again. \
         One that another key signed is of another identity: this runner's key stays the same for the life of its identity"
    )]
    Damaged(#[source] VerifyError),
    /// The key does not sign.
    #[error("cannot sign the audit log")]
    Sign(#[from] NoSignature),
    /// No thread to write it.
    #[error("cannot start the thread that writes the audit log")]
    Thread(#[source] io::Error),
}

/// An entry that is not on disk. What it was to permit must not be done.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the audit log takes no record: {because}")]
pub struct Unrecorded {
    because: Arc<str>,
}

enum Ask {
    Record(Box<Entry>, oneshot::Sender<Result<(), Unrecorded>>),
    Close(oneshot::Sender<()>),
}

/// The audit log of a runner. What waits in it is bounded by the streams of its peers: each waits for its own.
pub struct Log {
    asks: mpsc::Sender<Ask>,
    strangers: Arc<AtomicU64>,
    failing: Arc<Mutex<Option<Arc<str>>>>,
    dir: PathBuf,
    settings: Settings,
    /// How much of the disk it takes, bytes.
    len: Arc<AtomicU64>,
    newest: watch::Receiver<u64>,
    #[cfg(test)]
    unheard: Vec<Arc<AtomicU64>>,
}

impl Log {
    /// Opens the log in `dir`, or begins one, and says in it that this runner has started: now, or where the disk has no
    /// room now, before anything else.
    ///
    /// # Errors
    /// When it cannot be had, or is not as it was left.
    pub fn open(
        dir: &Path,
        runner: RunnerId,
        key: &PublicKey,
        sign: Sign,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        let (writer, left) = Writer::open(dir, runner, key, sign, &settings)?;
        let outlets = settings.sinks.iter().cloned().map(Outlet::open);
        let outlets: Vec<Outlet> = outlets.collect::<Result<_, _>>().map_err(OpenError::Thread)?;
        #[cfg(test)]
        let unheard = outlets.iter().map(|outlet| outlet.lost.clone()).collect();
        let (asks, asked) = mpsc::channel();
        let strangers = Arc::new(AtomicU64::new(0));
        let failing = Arc::new(Mutex::new(None));
        let len = Arc::new(AtomicU64::new(writer.len()));
        let newest = watch::Sender::new(writer.last());
        let read = newest.subscribe();
        let mut work = Work {
            writer,
            asked,
            strangers: strangers.clone(),
            strangers_at: clock::instant(),
            failing: failing.clone(),
            unrecorded: 0,
            start: Some(start(left)),
            outlets,
            len: len.clone(),
            newest,
        };
        let run = move || {
            // Whether it fails is said to the first who asks.
            let _said = work.commit(Vec::new(), false);
            work.run();
        };
        thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(run)
            .map_err(OpenError::Thread)?;
        Ok(Self {
            asks,
            strangers,
            failing,
            dir: dir.to_owned(),
            settings,
            len,
            newest: read,
            #[cfg(test)]
            unheard,
        })
    }

    /// The number of its newest record, now and whenever there is one more.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.clone()
    }

    /// Reads it from record `next` on.
    #[must_use]
    pub fn tail(&self, next: u64) -> Tail {
        Tail::new(&self.dir, next)
    }

    /// How many records each sink has not taken, and nothing said yet.
    #[cfg(test)]
    pub(super) fn unheard(&self) -> Vec<u64> {
        let counted = self.unheard.iter();
        counted.map(|lost| lost.load(Ordering::Relaxed)).collect()
    }

    /// What a human should know of it.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(because) = self.failing() {
            notes.push(format!(
                "what needs a record is refused, since the audit log takes none: {because}"
            ));
        }
        let (len, keep_len) = (self.len.load(Ordering::Relaxed), self.settings.keep_len);
        if self.settings.at_bound == AtBound::Stop
            && len / NEARLY.1 >= keep_len / NEARLY.1 * NEARLY.0 / NEARLY.1
        {
            notes.push(format!(
                "the audit log in {} has {len} of the {keep_len} bytes that it may take, and what needs a record will be refused \
                 then: move its oldest files elsewhere, or say [audit] at_bound = \"rotate\"",
                self.dir.display()
            ));
        }
        notes
    }

    /// Comes back when the entry is on disk, whatever happens then.
    ///
    /// # Errors
    /// When it is not: what it was to permit must not be done.
    pub async fn record(&self, entry: Entry) -> Result<(), Unrecorded> {
        let (answer, answered) = oneshot::channel();
        let closed = || Unrecorded {
            because: "it is closed".into(),
        };
        self.asks
            .send(Ask::Record(Box::new(entry), answer))
            .map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Counts a stranger who was refused. All of a minute are one record.
    pub fn count_stranger(&self) {
        self.strangers.fetch_add(1, Ordering::Relaxed);
    }

    /// Why it takes no records, while it does not.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.as_ref().map(|because| (**because).to_owned())
    }

    /// Says in it that this runner stops, signs it, and takes no more.
    pub async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        if self.asks.send(Ask::Close(answer)).is_ok() {
            // A thread that is gone has nothing left to say.
            let _gone = answered.await;
        }
    }
}

fn start(left: Left) -> Entry {
    let Left { torn_len, unsigned } = left;
    let mut entry = Entry::new("audit.start", Outcome::Noted);
    if torn_len > 0 || unsigned > 0 {
        entry.detail = Some(format!(
            "the runner before was killed: {torn_len} bytes of a record that nobody was told of were cut off, \
             {unsigned} records had no signature"
        ));
    }
    entry
}

/// The thread's own.
struct Work {
    writer: Writer,
    asked: mpsc::Receiver<Ask>,
    strangers: Arc<AtomicU64>,
    strangers_at: Instant,
    failing: Arc<Mutex<Option<Arc<str>>>>,
    /// How many entries could not be written since one could.
    unrecorded: u64,
    /// What is said first.
    start: Option<Entry>,
    outlets: Vec<Outlet>,
    len: Arc<AtomicU64>,
    newest: watch::Sender<u64>,
}

impl Work {
    fn run(&mut self) {
        loop {
            let first = match self.asked.recv_timeout(STRANGERS_EVERY) {
                Ok(ask) => ask,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if self.strangers.load(Ordering::Relaxed) > 0
                        || self.outlets.iter().any(|it| it.lost() > 0)
                    {
                        // They stay counted where it fails.
                        let _said = self.commit(Vec::new(), false);
                    }
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            let (mut entries, mut answers, mut close) = (Vec::new(), Vec::new(), None);
            let mut next = Some(first);
            while let Some(ask) = next {
                match ask {
                    Ask::Record(entry, answer) => {
                        entries.push(*entry);
                        answers.push(answer);
                    }
                    Ask::Close(answer) => {
                        entries.push(Entry::new("audit.stop", Outcome::Noted));
                        close = Some(answer);
                    }
                }
                let is_full = entries.len() >= GROUP_MAX || close.is_some();
                next = if is_full { None } else { self.asked.try_recv().ok() };
            }
            let committed = self.commit(entries, close.is_some());
            if committed.is_err() {
                self.unrecorded += answers.len() as u64;
            }
            for answer in answers {
                // Who has gone meanwhile does nothing more.
                let _gone = answer.send(committed.clone());
            }
            if let Some(answer) = close {
                Outlet::close(&mut self.outlets);
                let _gone = answer.send(());
                return;
            }
        }
    }

    /// Writes what has to be said first, and these.
    fn commit(&mut self, entries: Vec<Entry>, is_last: bool) -> Result<(), Unrecorded> {
        let mut group = Vec::with_capacity(entries.len() + 3);
        group.extend(self.start.clone());
        if self.unrecorded > 0 {
            let mut gap = Entry::new("audit.gap", Outcome::Refused);
            gap.count = Some(self.unrecorded);
            gap.reason = Some("storage".to_owned());
            gap.detail = Some("refused, since this log could not be written".to_owned());
            group.push(gap);
        }
        let now = clock::instant();
        let mut strangers = 0;
        let mut lost = vec![0; self.outlets.len()];
        if is_last || now.duration_since(self.strangers_at) >= STRANGERS_EVERY {
            self.strangers_at = now;
            strangers = self.strangers.load(Ordering::Relaxed);
            lost = self.outlets.iter().map(Outlet::lost).collect();
        }
        for (outlet, lost) in self.outlets.iter().zip(&lost).filter(|(_, lost)| **lost > 0) {
            let mut entry = Entry::new("audit.unheard", Outcome::Noted);
            entry.count = Some(*lost);
            entry.detail = Some(format!("{} did not take them; they stand here", outlet.name()));
            group.push(entry);
        }
        if strangers > 0 {
            let mut entry = Entry::new("connection.open", Outcome::Refused);
            entry.count = Some(strangers);
            entry.reason = Some("denied".to_owned());
            group.push(entry);
        }
        group.extend(entries);
        let checkpoint = if is_last || self.start.is_some() {
            Checkpoint::Now
        } else {
            Checkpoint::WhenDue
        };
        let committed = self.writer.commit(group, checkpoint).and_then(|lines| {
            if is_last {
                self.writer.sync_head()?;
            }
            Ok(lines)
        });
        self.len.store(self.writer.len(), Ordering::Relaxed);
        let committed = committed.map(|lines| {
            self.start = None;
            self.unrecorded = 0;
            self.strangers.fetch_sub(strangers, Ordering::Relaxed);
            for (outlet, lost) in self.outlets.iter().zip(lost) {
                outlet.said(lost);
            }
            self.newest.send_replace(self.writer.last());
            self.hand(&lines);
        });
        self.tell(committed)
    }

    /// Lets sinks have what is on disk.
    fn hand(&self, lines: &[u8]) {
        if self.outlets.is_empty() {
            return;
        }
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = Arc::from(line);
            for outlet in &self.outlets {
                outlet.hand(&line);
            }
        }
    }

    /// Says once that it fails, and once that it does no longer.
    fn tell(&self, committed: Result<(), CommitError>) -> Result<(), Unrecorded> {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match committed {
            Ok(()) => {
                if failing.take().is_some() {
                    tracing::info!("the audit log takes records again");
                }
                Ok(())
            }
            Err(error) => {
                let because: Arc<str> = cause::chain(&error).into();
                if failing.replace(because.clone()).is_none() {
                    tracing::error!("what needs a record is refused, the audit log takes none: {because}");
                }
                Err(Unrecorded { because })
            }
        }
    }
}
