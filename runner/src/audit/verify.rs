//! Verifies the files of a log, also of one that is being written.

use std::io;
use std::path::{Path, PathBuf};

use super::chain::{Anchor, Verifier, Whole, Wrong};
use super::seal::{Head, PublicKey};
use super::segment::{HeadFile, Piece, Segment, read_head};

/// How often a log is read again that went on meanwhile: what was taken back by a runner whose disk failed is written
/// over, and a reader may have seen half of either.
const READS_MAX: usize = 3;

/// What somebody who verifies a log knows of it beforehand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The first record of the oldest file to look at, where older ones were taken elsewhere. Without it all that the log
    /// itself does not say were removed have to be there.
    pub from: Option<u64>,
    /// Records that are known from elsewhere.
    pub anchors: Vec<Anchor>,
}

/// What was found in a log where nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The number of its files.
    pub files: usize,
    /// Its first record.
    pub first: u64,
    /// What its records are.
    pub whole: Whole,
    /// Bytes of a record that is not whole, at the end: it is being written, or its writer was killed. Nobody was told
    /// that it is there.
    pub torn_len: u64,
}

/// Why a log is not whole, or nobody can say.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A record is wrong.
    #[error("{path}, line {line}")]
    Wrong {
        /// In which file.
        path: PathBuf,
        /// In which line of it, from 1.
        line: u64,
        /// What.
        source: Wrong,
    },
    /// The head is not there, but records are.
    #[error("{path} is missing: whether the log was cut short cannot be told")]
    NoHead {
        /// Where it should be.
        path: PathBuf,
    },
    /// The head is no head.
    #[error("{path} is damaged: whether the log was cut short cannot be told")]
    HeadDamaged {
        /// Where it is.
        path: PathBuf,
    },
    /// The head was signed by another key.
    #[error("{path} is not signed by this runner's key")]
    HeadForged {
        /// Where it is.
        path: PathBuf,
    },
    /// What is known from elsewhere is of a record that is not looked at.
    #[error(
        "record {seq} is known from elsewhere, and the oldest that is here is {first}: put the older files back"
    )]
    AnchorGone {
        /// Which.
        seq: u64,
        /// The oldest that is there.
        first: u64,
    },
    /// There is no log.
    #[error("there is no audit log in {path}")]
    NoLog {
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

impl VerifyError {
    /// Whether the log is at fault, and not who reads it.
    #[must_use]
    pub fn is_finding(&self) -> bool {
        match self {
            Self::Wrong { .. } | Self::NoHead { .. } | Self::HeadDamaged { .. } | Self::HeadForged { .. } => {
                true
            }
            Self::AnchorGone { .. } | Self::NoLog { .. } | Self::Io { .. } => false,
        }
    }
}

/// Verifies all files of the log in `dir`, and that they are what is expected.
/// Without a key, hashes are verified and signatures are not.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(dir: &Path, expected: &Expected, key: Option<&PublicKey>) -> Result<Found, VerifyError> {
    let mut reads = 1;
    loop {
        let head = head(dir, key)?;
        let error = match verify_once(dir, expected, head.as_ref(), key) {
            Err(error) if error.is_finding() && reads < READS_MAX => error,
            found => return found,
        };
        if self::head(dir, key)? == head {
            return Err(error);
        }
        reads += 1;
    }
}

fn verify_once(
    dir: &Path,
    expected: &Expected,
    head: Option<&Head>,
    key: Option<&PublicKey>,
) -> Result<Found, VerifyError> {
    let mut segments = Segment::all(dir).map_err(|source| io_error(dir, source))?;
    if let Some(from) = expected.from {
        // What is older is not asked about.
        segments.retain(|segment| segment.first >= from);
    }
    let oldest = segments.first().map_or(1, |segment| segment.first);
    let first = expected.from.unwrap_or(oldest);
    if let Some(gone) = expected.anchors.iter().find(|anchor| anchor.seq < first) {
        return Err(VerifyError::AnchorGone { seq: gone.seq, first });
    }
    let known = Known {
        from: first,
        anchors: &expected.anchors,
        head,
        key,
    };
    let found = walk(dir, &segments, &known)?.found;
    let removed = found.whole.removed;
    if let Some(segment) = segments.first()
        && expected.from.is_none()
        && removed + 1 < first
    {
        return Err(VerifyError::Wrong {
            path: segment.path.clone(),
            line: 1,
            source: Wrong::Missing {
                first: removed + 1,
                last: first - 1,
            },
        });
    }
    Ok(found)
}

/// The head of the log in `dir`, signed by the key; `None` where there is none.
pub(super) fn head(dir: &Path, key: Option<&PublicKey>) -> Result<Option<Head>, VerifyError> {
    let path = super::segment::head_path(dir);
    match read_head(dir).map_err(|source| io_error(&path, source))? {
        HeadFile::Absent => Ok(None),
        HeadFile::Damaged => Err(VerifyError::HeadDamaged { path }),
        HeadFile::Head(head) if key.is_some_and(|key| !head.is_signed_by(key)) => {
            Err(VerifyError::HeadForged { path })
        }
        HeadFile::Head(head) => Ok(Some(head)),
    }
}

/// What came of reading files.
pub(super) struct Walked {
    pub(super) found: Found,
    /// How long the whole lines of the last file are together, bytes.
    pub(super) last_len: u64,
}

/// What is known of a log before it is read.
pub(super) struct Known<'a> {
    /// Its first record that is looked at.
    pub(super) from: u64,
    pub(super) anchors: &'a [Anchor],
    pub(super) head: Option<&'a Head>,
    pub(super) key: Option<&'a PublicKey>,
}

/// Reads these files in their order.
pub(super) fn walk(dir: &Path, segments: &[Segment], known: &Known<'_>) -> Result<Walked, VerifyError> {
    let Known {
        from,
        anchors,
        head,
        key,
    } = *known;
    if segments.is_empty() && head.is_none_or(|head| head.seq == 0) {
        return Err(VerifyError::NoLog { path: dir.to_owned() });
    }
    if head.is_none() {
        return Err(VerifyError::NoHead {
            path: super::segment::head_path(dir),
        });
    }
    let mut verifier = Verifier::new(from, anchors, head, key);
    let (mut line, mut last_len, mut torn_len) = (0, 0, 0);
    let mut at = dir;
    // Where something that stands elsewhere should be.
    let mut gap = None;
    for (index, segment) in segments.iter().enumerate() {
        at = &segment.path;
        (line, last_len) = (0, 0);
        let failed = |source| io_error(&segment.path, source);
        let mut lines = segment.lines().map_err(failed)?;
        while let Some(piece) = lines.next_piece().map_err(failed)? {
            line += 1;
            let bytes = match piece {
                Piece::Line(bytes) => bytes,
                Piece::Torn { len } if index + 1 == segments.len() => {
                    torn_len = len;
                    continue;
                }
                // Whoever began the next file had ended this one.
                Piece::Torn { .. } => b"",
            };
            let wrong = |source| VerifyError::Wrong {
                path: segment.path.clone(),
                line,
                source,
            };
            verifier.line(bytes).map_err(wrong)?;
            if verifier.looks_for_one() && gap.is_none() {
                gap = Some((segment.path.clone(), line));
            }
            last_len += bytes.len() as u64 + 1;
        }
    }
    let (path, line) = gap.unwrap_or_else(|| (at.to_owned(), line));
    let whole = verifier
        .finish()
        .map_err(|source| VerifyError::Wrong { path, line, source })?;
    Ok(Walked {
        found: Found {
            files: segments.len(),
            first: from,
            whole,
            torn_len,
        },
        last_len,
    })
}

fn io_error(path: &Path, source: io::Error) -> VerifyError {
    VerifyError::Io {
        path: path.to_owned(),
        source,
    }
}
