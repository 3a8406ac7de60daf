//! The files of a log: `audit-FIRST.jsonl`, each named by the number of its first record, and `head`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::record::LINE_LEN_MAX;
use super::seal::{HEAD_LEN, Head};
use crate::sys;

/// How much of a file is read at once, bytes.
const READ_LEN: usize = 256 * 1024;

/// One file of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The number of its first record, as its name says. What it holds is believed, not its name.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
}

impl Segment {
    /// The file of `dir` that begins with record `first`.
    #[must_use]
    pub fn new(dir: &Path, first: u64) -> Self {
        Self {
            first,
            // As many digits as a number can have, so that names sort as numbers do.
            path: dir.join(format!("audit-{first:020}.jsonl")),
        }
    }

    /// The files of a log, the oldest first; none where there is no log.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn all(dir: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok());
            if let Some(first) = number {
                let path = dir.join(name);
                found.push(Self { first, path });
            }
        }
        found.sort_by_key(|segment| segment.first);
        Ok(found)
    }

    /// Reads its lines.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn lines(&self) -> io::Result<Lines> {
        Ok(Lines {
            reader: BufReader::with_capacity(READ_LEN, sys::open_plain(&self.path)?),
            line: Vec::new(),
        })
    }
}

/// Lines of a file, each in bounded memory.
#[derive(Debug)]
pub struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
}

/// What a file has next.
#[derive(Debug)]
pub enum Piece<'a> {
    /// A line, without its end; of one that is too long its beginning, which is no record.
    Line(&'a [u8]),
    /// Bytes without an end of line: the file's last.
    Torn {
        /// How many.
        len: u64,
    },
}

impl Lines {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next_piece(&mut self) -> io::Result<Option<Piece<'_>>> {
        self.line.clear();
        let bound = LINE_LEN_MAX as u64 + 2;
        let taken = (&mut self.reader).take(bound).read_until(b'\n', &mut self.line)?;
        if taken == 0 {
            return Ok(None);
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
            return Ok(Some(Piece::Line(&self.line)));
        }
        let mut len = taken as u64;
        loop {
            let more = self.reader.fill_buf()?;
            if more.is_empty() {
                return Ok(Some(Piece::Torn { len }));
            }
            if let Some(end) = memchr::memchr(b'\n', more) {
                self.reader.consume(end + 1);
                return Ok(Some(Piece::Line(&self.line)));
            }
            let skipped = more.len();
            len += skipped as u64;
            self.reader.consume(skipped);
        }
    }
}

/// Where the head of a log is.
#[must_use]
pub fn head_path(dir: &Path) -> PathBuf {
    dir.join("head")
}

/// What stands for a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadFile {
    /// Nothing, or an empty file.
    Absent,
    /// Bytes that are none.
    Damaged,
    /// One, by whomever.
    Head(Head),
}

/// How often a head is read that is just being written.
const HEAD_READS: usize = 3;

/// Reads the head of a log.
///
/// # Errors
/// When it cannot be read.
pub fn read_head(dir: &Path) -> io::Result<HeadFile> {
    for _ in 0..HEAD_READS {
        let mut bytes = Vec::new();
        match sys::open_plain(&head_path(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HeadFile::Absent),
            file => file?.take(HEAD_LEN as u64 + 1).read_to_end(&mut bytes)?,
        };
        if bytes.is_empty() {
            return Ok(HeadFile::Absent);
        }
        if let Some(head) = Head::from_bytes(&bytes) {
            return Ok(HeadFile::Head(head));
        }
    }
    Ok(HeadFile::Damaged)
}
