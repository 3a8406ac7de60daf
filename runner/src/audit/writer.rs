//! The files of a log as its one writer has them: a group is written whole, synced and signed, or was never there.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use oqto_protocol::id::{Digest, RunnerId};

use super::VerifyError;
use super::chain::Wrong;
use super::log::OpenError;
use super::record::{BadRecord, CHECKPOINT, Entry, NO_HASH, Outcome, REMOVED, Record};
use super::seal::{Head, NoSignature, PublicKey, Sign, sign_checkpoint};
use super::segment::{Segment, head_path};
use super::settings::{AtBound, Settings};
use super::verify::{Known, head, walk};
use crate::{clock, sys};

/// How long a file gets before the next one is begun, bytes, and one group: some 150,000 records, which are verified in
/// a second at the start of a runner.
const SEGMENT_LEN_MAX: u64 = 64 * 1024 * 1024;

/// How many records may come between two that are signed.
const CHECKPOINT_EVERY: u64 = 1024;

/// How much room of the disk is kept for what comes next, bytes: where others have filled it, some thousand commands can
/// still be given, among them those that make room.
const RESERVE_LEN: u64 = 1024 * 1024;

/// Why a group is not on disk. None of it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommitError {
    #[error("cannot write {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot sign the audit log")]
    Sign(#[from] NoSignature),
    #[error("a record cannot be written down")]
    Record(#[from] BadRecord),
    #[error("the runner's name is too long for the head of its audit log")]
    Head,
    #[error(
        "{dir} has the {keep_len} bytes that it may take: move its oldest files elsewhere, or raise `[audit] keep_bytes`, or \
         let the oldest go with `at_bound = \"rotate\"`"
    )]
    Full { dir: PathBuf, keep_len: u64 },
}

/// What a start found of the runner before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Bytes of a record that was never whole. They were cut off.
    pub(super) torn_len: u64,
    /// Whole records that nothing signed.
    pub(super) unsigned: u64,
}

/// Whether a group ends with a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checkpoint {
    /// It does: a runner begins or ends.
    Now,
    /// Only where enough records came since the last one.
    WhenDue,
}

/// The open file, and where in it the next group goes.
struct Open {
    /// Its first record, as its name says.
    first: u64,
    file: File,
    path: PathBuf,
    len: u64,
    /// Up to where room of the disk is kept.
    reserved: u64,
}

/// The one writer of a log.
pub(super) struct Writer {
    dir: PathBuf,
    runner: RunnerId,
    sign: Sign,
    head: File,
    open: Option<Open>,
    /// The number of the next record.
    next: u64,
    /// The hash of the last.
    hash: Digest,
    /// How many records came since the last that is signed.
    unsigned: u64,
    segment_len_max: u64,
    keep_len: u64,
    at_bound: AtBound,
    /// The files before the open one with their lengths, the oldest first.
    closed: VecDeque<(Segment, u64)>,
}

impl Writer {
    /// Opens the log in `dir`, or begins one.
    pub(super) fn open(
        dir: &Path,
        runner: RunnerId,
        key: &PublicKey,
        sign: Sign,
        settings: &Settings,
    ) -> Result<(Self, Left), OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        make_dir(dir)?;
        let mut segments = Segment::all(dir).map_err(failed(dir))?;
        let path = head_path(dir);
        let known = match head(dir, Some(key)).map_err(OpenError::Damaged)? {
            Some(head) => head,
            None if segments.is_empty() => begin(dir, &path, &runner, &sign)?,
            None => return Err(OpenError::Damaged(VerifyError::NoHead { path })),
        };
        let of_ours = |from| Known {
            from,
            anchors: &[],
            head: Some(&known),
            key: Some(key),
        };
        let head = OpenOptions::new()
            .write(true)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed(&path))?;
        let mut writer = Self {
            dir: dir.to_owned(),
            runner,
            sign,
            head,
            open: None,
            next: 1,
            hash: NO_HASH,
            unsigned: 0,
            segment_len_max: SEGMENT_LEN_MAX,
            keep_len: settings.keep_len,
            at_bound: settings.at_bound,
            closed: VecDeque::new(),
        };
        let mut left = Left::default();
        while let Some(last) = segments.last() {
            let newest = std::slice::from_ref(last);
            let walked = walk(dir, newest, &of_ours(last.first)).map_err(OpenError::Damaged)?;
            left.torn_len += walked.found.torn_len;
            left.unsigned = walked.found.whole.unsigned;
            let is_begun = walked.found.whole.last < last.first;
            if is_begun && known.seq + 1 == last.first {
                // It is begun once more.
                (writer.next, writer.hash) = (last.first, known.hash);
                break;
            }
            if is_begun && segments.len() > 1 {
                // Nobody was told of anything in it, and what comes before it is in the file before.
                fs::remove_file(&last.path).map_err(failed(&last.path))?;
                segments.pop();
                continue;
            }
            if is_begun {
                return Err(OpenError::Damaged(VerifyError::Wrong {
                    path: last.path.clone(),
                    line: 1,
                    source: Wrong::Missing {
                        first: known.seq + 1,
                        last: last.first - 1,
                    },
                }));
            }
            let file = OpenOptions::new()
                .write(true)
                .custom_flags(nix::libc::O_NOFOLLOW)
                .open(&last.path)
                .map_err(failed(&last.path))?;
            if walked.found.torn_len > 0 {
                // The head is not beyond what is whole, so nothing that is cut off was ever acknowledged.
                file.set_len(walked.last_len)
                    .and_then(|()| file.sync_data())
                    .map_err(failed(&last.path))?;
            }
            (writer.next, writer.hash) = (walked.found.whole.last + 1, walked.found.whole.hash);
            writer.open = Some(Open {
                first: last.first,
                file,
                path: last.path.clone(),
                len: walked.last_len,
                reserved: walked.last_len,
            });
            break;
        }
        if segments.is_empty() && known.seq > 0 {
            // It says what is missing.
            walk(dir, &[], &of_ours(1)).map_err(OpenError::Damaged)?;
        }
        writer.count().map_err(failed(dir))?;
        Ok((writer, left))
    }

    /// Begins a new file whenever one is as long as this.
    #[cfg(test)]
    pub(super) fn rotate_at(&mut self, len: u64) {
        self.segment_len_max = len;
    }

    /// How much of the disk it takes, bytes.
    pub(super) fn len(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|(_, len)| len).sum();
        closed + self.open.as_ref().map_or(0, |open| open.len)
    }

    /// The number of its last record.
    pub(super) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Looks which files there are before the open one: somebody may have taken some elsewhere.
    fn count(&mut self) -> io::Result<()> {
        let open = self.open.as_ref().map(|open| &open.path);
        let mut closed = VecDeque::new();
        for segment in Segment::all(&self.dir)? {
            if Some(&segment.path) != open && segment.first < self.next {
                let len = fs::symlink_metadata(&segment.path)?.len();
                closed.push_back((segment, len));
            }
        }
        self.closed = closed;
        Ok(())
    }

    /// Whether so much more is within the bound.
    fn has_room(&mut self, more: u64) -> Result<(), CommitError> {
        if self.at_bound == AtBound::Rotate || self.len() + more <= self.keep_len {
            return Ok(());
        }
        self.count().map_err(|source| CommitError::Io {
            path: self.dir.clone(),
            source,
        })?;
        if self.len() + more <= self.keep_len {
            return Ok(());
        }
        Err(CommitError::Full {
            dir: self.dir.clone(),
            keep_len: self.keep_len,
        })
    }

    /// How many of the oldest files go when one more is begun.
    fn surplus(&self) -> usize {
        if self.at_bound == AtBound::Stop {
            return 0;
        }
        let mut len = self.len() + self.segment_len_max;
        let goes = |(_, closed): &&(Segment, u64)| {
            let is_over = len > self.keep_len;
            len -= *closed;
            is_over
        };
        self.closed.iter().take_while(goes).count()
    }

    /// Removes them; a record says so already. Those that cannot be removed are tried again with the next ones.
    fn remove(&mut self, surplus: usize) {
        for (segment, len) in self.closed.drain(..surplus).collect::<Vec<_>>() {
            match fs::remove_file(&segment.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::error!(path = %segment.path.display(), %error, "cannot remove a file of the audit log");
                    self.closed.push_back((segment, len));
                }
                _ => {}
            }
        }
        self.closed
            .make_contiguous()
            .sort_by_key(|(segment, _)| segment.first);
    }

    /// Writes these entries as the next records, and gives their lines when they are on disk.
    pub(super) fn commit(
        &mut self,
        entries: Vec<Entry>,
        checkpoint: Checkpoint,
    ) -> Result<Vec<u8>, CommitError> {
        let rotate = self
            .open
            .as_ref()
            .is_none_or(|open| open.len >= self.segment_len_max);
        let first = self.next;
        let mut draft = Draft {
            at: clock::unix_ms(),
            next: first,
            hash: self.hash,
            unsigned: self.unsigned,
            bytes: Vec::new(),
        };
        let surplus = if rotate { self.surplus() } else { 0 };
        if rotate {
            draft.checkpoint(&self.runner, &self.sign)?;
        }
        if surplus > 0 {
            let following = self.closed.get(surplus).map(|(segment, _)| segment.first);
            let open = self.open.as_ref().map(|open| open.first);
            let last = following.or(open).unwrap_or(first) - 1;
            let mut entry = Entry::new(REMOVED, Outcome::Noted);
            entry.count = Some(last);
            entry.detail = Some(format!(
                "records up to {last} are kept no longer, at the bound of {} bytes",
                self.keep_len
            ));
            draft.entry(entry)?;
        }
        for entry in entries {
            if draft.unsigned >= CHECKPOINT_EVERY {
                draft.checkpoint(&self.runner, &self.sign)?;
            }
            draft.entry(entry)?;
        }
        if checkpoint == Checkpoint::Now {
            draft.checkpoint(&self.runner, &self.sign)?;
        }
        self.has_room(draft.bytes.len() as u64)?;
        let head = Head::sign(&self.runner, draft.next - 1, draft.hash, &self.sign)?;
        let head = head.to_bytes().ok_or(CommitError::Head)?;
        if rotate {
            let next = self.begin_segment(first)?;
            sync_dir(&self.dir)?;
            next.write(&draft.bytes, &self.head, &self.dir, &head)?;
            if let Some(before) = self.open.replace(next) {
                // What was kept for it goes back.
                let _kept = before.file.set_len(before.len);
                let segment = Segment::new(&self.dir, before.first);
                self.closed.push_back((segment, before.len));
            }
            self.remove(surplus);
        } else if let Some(open) = &self.open {
            open.write(&draft.bytes, &self.head, &self.dir, &head)?;
        }
        if let Some(open) = &mut self.open {
            open.len += draft.bytes.len() as u64;
            open.reserve();
        }
        self.next = draft.next;
        self.hash = draft.hash;
        self.unsigned = draft.unsigned;
        Ok(draft.bytes)
    }

    /// The next file. One of that name holds nothing that anybody was told of.
    fn begin_segment(&self, first: u64) -> Result<Open, CommitError> {
        let Segment { path, .. } = Segment::new(&self.dir, first);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path);
        match file {
            Ok(file) => Ok(Open {
                first,
                file,
                path,
                len: 0,
                reserved: 0,
            }),
            Err(source) => Err(CommitError::Io { path, source }),
        }
    }

    /// Makes the newest signature as durable as the records are. Between two records it may lag behind.
    pub(super) fn sync_head(&self) -> Result<(), CommitError> {
        self.head.sync_data().map_err(|source| CommitError::Io {
            path: head_path(&self.dir),
            source,
        })
    }
}

impl Open {
    /// Puts a group behind what there is; on failure all of it is taken back.
    fn write(&self, group: &[u8], head: &File, dir: &Path, signed: &[u8]) -> Result<(), CommitError> {
        let written = self
            .file
            .write_all_at(group, self.len)
            .and_then(|()| self.file.sync_data());
        let written = written.map_err(|source| CommitError::Io {
            path: self.path.clone(),
            source,
        });
        let signed = written.and_then(|()| {
            head.write_all_at(signed, 0).map_err(|source| CommitError::Io {
                path: head_path(dir),
                source,
            })
        });
        if signed.is_err() && self.file.metadata().is_ok_and(|found| found.len() > self.len) {
            // Where this fails too, the next group is written over it, and the next start cuts off what is torn.
            let _torn = self.file.set_len(self.len);
        }
        signed
    }

    /// Keeps room for what comes next. Where there is none, or the file system keeps none, writing will say so.
    fn reserve(&mut self) {
        if self.reserved >= self.len + RESERVE_LEN / 2 {
            return;
        }
        let wanted = self.len + RESERVE_LEN;
        if sys::reserve(&self.file, self.len, RESERVE_LEN).is_ok() {
            self.reserved = wanted;
        }
    }
}

/// Records that are not on disk yet.
struct Draft {
    at: u64,
    next: u64,
    hash: Digest,
    unsigned: u64,
    bytes: Vec<u8>,
}

impl Draft {
    fn entry(&mut self, entry: Entry) -> Result<(), CommitError> {
        let record = Record::new(self.next, self.at, self.hash, entry);
        self.push(&record)
    }

    fn checkpoint(&mut self, runner: &RunnerId, sign: &Sign) -> Result<(), CommitError> {
        let entry = Entry::new(CHECKPOINT, Outcome::Noted);
        let mut record = Record::new(self.next, self.at, self.hash, entry);
        sign_checkpoint(&mut record, runner, sign)?;
        self.push(&record)?;
        self.unsigned = 0;
        Ok(())
    }

    fn push(&mut self, record: &Record) -> Result<(), CommitError> {
        self.hash = record.write(&mut self.bytes)?;
        self.next += 1;
        self.unsigned += 1;
        Ok(())
    }
}

/// Writes the head of a log without records, before there is any.
fn begin(dir: &Path, path: &Path, runner: &RunnerId, sign: &Sign) -> Result<Head, OpenError> {
    let head = Head::sign(runner, 0, NO_HASH, sign)?;
    let written = (|| {
        let bytes = head
            .to_bytes()
            .ok_or_else(|| io::Error::other("the runner's name is too long"))?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        File::open(dir)?.sync_all()
    })();
    written.map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(head)
}

fn make_dir(dir: &Path) -> Result<(), OpenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    let found = made
        .and_then(|()| fs::symlink_metadata(dir))
        .map_err(|source| OpenError::Io {
            path: dir.to_owned(),
            source,
        })?;
    if found.uid() == sys::effective_uid() && found.mode() & 0o077 == 0 && found.is_dir() {
        Ok(())
    } else {
        Err(OpenError::Exposed { path: dir.to_owned() })
    }
}

fn sync_dir(dir: &Path) -> Result<(), CommitError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| CommitError::Io {
            path: dir.to_owned(),
            source,
        })
}
