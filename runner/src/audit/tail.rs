//! Reads a log from one of its records on, while it is written.

use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::record::{LINE_LEN_MAX, Line};
use super::segment::Segment;
use crate::sys;

/// How many records are read at once: at most a mebibyte.
const CHUNK_MAX: usize = 256;

/// Where somebody is who reads a log.
#[derive(Debug)]
pub struct Tail {
    dir: PathBuf,
    next: u64,
    /// The file that has it, how much of it is read, and the number of what comes then.
    at: Option<(Segment, u64, u64)>,
}

/// Why it cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The files that had it were removed, or taken elsewhere.
    #[error("record {seq} is not here any more")]
    Gone {
        /// Which.
        seq: u64,
    },
    /// What stands there is not what was written.
    #[error("record {seq} in {path} is not as it was written: run `oqto-runner audit verify`")]
    Damaged {
        /// Which.
        seq: u64,
        /// Where.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Tail {
    /// Begins with record `next`.
    #[must_use]
    pub fn new(dir: &Path, next: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            next,
            at: None,
        }
    }

    /// The next lines, without their ends, up to record `last`, which is known to be there; some of them where there are
    /// many, none at the end.
    ///
    /// # Errors
    /// See [`TailError`].
    pub fn read(&mut self, last: u64) -> Result<Vec<Vec<u8>>, TailError> {
        let mut lines = Vec::new();
        while self.next <= last && lines.len() < CHUNK_MAX {
            let (found, before) = (self.at.is_none(), self.next);
            let (segment, mut offset, mut seq) = match self.at.take() {
                Some(at) => at,
                None => self.find()?,
            };
            let failed = |source| TailError::Io {
                path: segment.path.clone(),
                source,
            };
            // Anew each time: what lies behind the last whole record may be taken back and written over.
            let mut file = sys::open_plain(&segment.path).map_err(failed)?;
            file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            let mut reader = BufReader::new(file);
            let mut is_over = false;
            while seq <= last && lines.len() < CHUNK_MAX {
                let mut bytes = Vec::new();
                let bound = LINE_LEN_MAX as u64 + 2;
                let taken = (&mut reader).take(bound).read_until(b'\n', &mut bytes);
                let taken = taken.map_err(failed)? as u64;
                if taken == 0 {
                    is_over = true;
                    break;
                }
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                }
                if Line::read(&bytes).is_none_or(|line| line.seq != seq) {
                    let path = segment.path.clone();
                    return Err(TailError::Damaged { seq, path });
                }
                (offset, seq) = (offset + taken, seq + 1);
                if seq > self.next {
                    lines.push(bytes);
                    self.next = seq;
                }
            }
            if !is_over {
                self.at = Some((segment, offset, seq));
            } else if found && self.next == before {
                // Of all files this is the one that should have it. What was read before is said first.
                if lines.is_empty() {
                    return Err(TailError::Gone { seq: self.next });
                }
                break;
            }
        }
        Ok(lines)
    }

    /// The file that has the next record.
    fn find(&self) -> Result<(Segment, u64, u64), TailError> {
        let all = Segment::all(&self.dir).map_err(|source| TailError::Io {
            path: self.dir.clone(),
            source,
        })?;
        let segment = all.into_iter().rev().find(|segment| segment.first <= self.next);
        let segment = segment.ok_or(TailError::Gone { seq: self.next })?;
        let first = segment.first;
        Ok((segment, 0, first))
    }
}
