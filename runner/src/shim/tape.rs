//! The tape: every byte that a program said or was told, in order, in one append-only file.
//!
//! A record is `payload length u32 LE · kind u8 · unix ms u64 LE · payload`. The shim writes, the runner reads; the
//! tape needs no fsync, since it must outlive processes only: when the host loses power the program is gone too.
//! An offset names the same byte for ever, also after the blocks below it were given back to the file system.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::wire::WriteId;
use crate::sys;

/// The tape's name in a session's directory.
pub const FILE_NAME: &str = "tape";

/// The longest payload of a record. Only a write of the runner comes near it; a program's output is cut into
/// pieces of [`BURST_MAX`].
pub const PAYLOAD_MAX: usize = 16 * 1024 * 1024;

/// How much is read from a program's pipe at once, in bytes: all that a pipe holds by default, so one write to the
/// tape carries everything that was ready.
pub const BURST_MAX: usize = 64 * 1024;

/// How much the reader asks the file for at once, in bytes: one burst and some. More would stay resident for every
/// idle session.
const READ_STEP: usize = 2 * BURST_MAX;

/// Blocks go back to the file system in steps of this many bytes: small enough that a read tape costs little disk,
/// big enough that a busy one is not punched for every burst.
const TRIM_STEP: u64 = 4 * 1024 * 1024;

/// The first bytes are never given back: they say what this tape is of.
const TRIM_FLOOR: u64 = 4096;

const HEADER_LEN: usize = 13;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`Start`] as JSON. The first record of every tape, and nowhere else.
    Start,
    /// What the program wrote on its standard output.
    Out,
    /// What the program wrote on its standard error.
    Err,
    /// A [`WriteId`] and what the program was then given on its standard input.
    In,
    /// What the runner noted for its successor. The program never sees it.
    Note,
    /// What was written on the report pipe before the program began.
    Report,
    /// An [`Exit`]. The last record of every tape that was ended in order.
    Exit,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Start,
        Self::Out,
        Self::Err,
        Self::In,
        Self::Note,
        Self::Report,
        Self::Exit,
    ];

    fn number(self) -> u8 {
        match self {
            Self::Start => 1,
            Self::Out => 2,
            Self::Err => 3,
            Self::In => 4,
            Self::Note => 5,
            Self::Report => 6,
            Self::Exit => 7,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// Who began a tape, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The version of the wire that the shim speaks.
    pub shim_version: u16,
    /// The shim's process id.
    pub shim_pid: u32,
    /// The program's process id.
    pub harness_pid: u32,
    /// The boot in which these ids mean something.
    pub boot_id: String,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    pub(super) const LEN: usize = 5;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let (tag, number) = match self {
            Self::Code(number) => (0, number),
            Self::Signal(number) => (1, number),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [tag, a, b, c, d]
    }

    pub(super) fn from_bytes([tag, number @ ..]: [u8; Self::LEN]) -> Option<Self> {
        let number = i32::from_le_bytes(number);
        match tag {
            0 => Some(Self::Code(number)),
            1 => Some(Self::Signal(number)),
            _ => None,
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            // Only a stopped process has neither, and nobody asks the kernel about those.
            (None, None) => Self::Code(status.into_raw()),
        }
    }
}

/// What came of reading a program's pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// Nothing is there now.
    Nothing,
    /// Nothing will ever come again.
    End,
    /// A burst was read; [`Writer::flush`] puts it on the tape.
    Burst,
}

/// The writing end. A record is on the tape whole or not at all.
#[derive(Debug)]
pub struct Writer {
    file: File,
    len: u64,
    /// Below this the blocks were given back.
    trimmed: u64,
    /// One record as it goes to the file: room for its header, then what was read.
    burst: Box<[u8]>,
    /// The burst's kind and length while it is not on the tape yet.
    held: Option<(Kind, usize)>,
}

impl Writer {
    /// Begins a tape. There must be none yet at `path`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let burst = vec![0; HEADER_LEN + BURST_MAX].into_boxed_slice();
        Ok(Self {
            file,
            len: 0,
            trimmed: TRIM_FLOOR,
            burst,
            held: None,
        })
    }

    /// Where the next record will start.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing stands on it yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a burst waits for the file to take it.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Reads what is ready, at most one burst. Only when none is held.
    ///
    /// # Errors
    /// Those of the source.
    pub fn pull(&mut self, kind: Kind, mut source: impl Read) -> io::Result<Pulled> {
        assert!(self.held.is_none(), "a burst that is held would be lost");
        loop {
            match source.read(&mut self.burst[HEADER_LEN..]) {
                Ok(0) => return Ok(Pulled::End),
                Ok(len) => {
                    self.held = Some((kind, len));
                    return Ok(Pulled::Burst);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Pulled::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts the held burst on the tape. It stays held when that fails.
    ///
    /// # Errors
    /// When the file does not take it.
    pub fn flush(&mut self, unix_ms: u64) -> io::Result<()> {
        let Some((kind, len)) = self.held else {
            return Ok(());
        };
        self.burst[..HEADER_LEN].copy_from_slice(&header(kind, len, unix_ms));
        let whole = HEADER_LEN + len;
        let written = self.file.write_all_at(&self.burst[..whole], self.len);
        self.settle(written, whole)?;
        self.held = None;
        Ok(())
    }

    /// Puts a record of these parts on the tape.
    ///
    /// # Errors
    /// When the file does not take it; then it is not on the tape.
    pub fn append(&mut self, kind: Kind, unix_ms: u64, parts: &[&[u8]]) -> io::Result<()> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        assert!(len <= PAYLOAD_MAX, "a record is bounded by who makes it");
        let header = header(kind, len, unix_ms);
        let mut at = self.len;
        let written = [&header[..]].iter().chain(parts).try_for_each(|part| {
            self.file.write_all_at(part, at)?;
            at += part.len() as u64;
            Ok(())
        });
        self.settle(written, HEADER_LEN + len)
    }

    /// Gives the blocks below `offset` back, in coarse steps. A file system that cannot do that keeps them.
    ///
    /// # Errors
    /// When the file system could and failed.
    pub fn trim(&mut self, offset: u64) -> io::Result<()> {
        let floor = offset.min(self.len) / TRIM_STEP * TRIM_STEP;
        if floor <= self.trimmed {
            return Ok(());
        }
        let punched = sys::punch_hole(&self.file, self.trimmed, floor - self.trimmed);
        self.trimmed = floor;
        match punched {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
            punched => punched,
        }
    }

    fn settle(&mut self, written: io::Result<()>, whole: usize) -> io::Result<()> {
        if let Err(error) = written {
            // What was written of it lies behind the tape's end. It is cut off so that a reader of a dead shim's
            // tape does not meet it behind a later, shorter record; if even that fails, the next write covers it.
            let _cut = self.file.set_len(self.len);
            return Err(error);
        }
        self.len += whole as u64;
        Ok(())
    }
}

fn header(kind: Kind, len: usize, unix_ms: u64) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&(len as u32).to_le_bytes());
    header[4] = kind.number();
    header[5..].copy_from_slice(&unix_ms.to_le_bytes());
    header
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it starts.
    pub offset: u64,
    /// Where the next one starts.
    pub end: u64,
    /// What it holds.
    pub kind: Kind,
    /// When the shim wrote it.
    pub unix_ms: u64,
    /// Its bytes.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// The id and the bytes of an [`Kind::In`].
    #[must_use]
    pub fn input(&self) -> Option<(WriteId, &'a [u8])> {
        let (id, bytes) = self.payload.split_first_chunk()?;
        (self.kind == Kind::In).then_some((*id, bytes))
    }

    /// How the program ended, of an [`Kind::Exit`].
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        let exit = Exit::from_bytes(self.payload.try_into().ok()?)?;
        (self.kind == Kind::Exit).then_some(exit)
    }
}

/// Why a tape could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be opened.
    #[error("cannot open tape {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is a pipe, a link, a device: nothing that a shim made.
    #[error("tape {path} is no plain file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("cannot read the tape at offset {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no record here: the offset is none, its blocks were given back, or the file was tampered with.
    #[error("no record starts at offset {offset} of the tape")]
    Garbage {
        /// Where.
        offset: u64,
    },
    /// It is shorter than the shim said.
    #[error("the tape ends before offset {until}")]
    Short {
        /// How long it was said to be.
        until: u64,
    },
}

/// The reading end. It holds one record, or as many as one read brought.
#[derive(Debug)]
pub struct Reader {
    file: File,
    /// Where the next record starts.
    at: u64,
    /// The bytes of the file from `at - taken` on.
    buffer: Vec<u8>,
    taken: usize,
}

impl Reader {
    /// Opens the tape in a session's directory, to read from the record that starts at `offset`.
    ///
    /// # Errors
    /// When it is not there or is no plain file. A link is not followed: the directory may be another user's.
    pub fn open(dir: &Path, offset: u64) -> Result<Self, ReadError> {
        let path = dir.join(FILE_NAME);
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let found = opened.and_then(|file| Ok((file.metadata()?.is_file(), file)));
        match found {
            Ok((true, file)) => Ok(Self {
                file,
                at: offset,
                buffer: Vec::new(),
                taken: 0,
            }),
            Ok((false, _)) => Err(ReadError::NotAFile { path }),
            Err(source) => Err(ReadError::Open { path, source }),
        }
    }

    /// Where the next record starts.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// How long the file is: how far a tape can be read whose shim is gone.
    ///
    /// # Errors
    /// When the file cannot be asked.
    pub fn file_len(&self) -> Result<u64, ReadError> {
        let metadata = self.file.metadata();
        metadata.map(|found| found.len()).map_err(|source| ReadError::Io {
            offset: self.at,
            source,
        })
    }

    /// The next record that ends at or before `until`, which is what the shim announced or, without a shim,
    /// [`Reader::file_len`]. A record that was being written when its shim died is none.
    ///
    /// # Errors
    /// When the file cannot be read or does not hold a record here.
    pub fn next(&mut self, until: u64) -> Result<Option<Record<'_>>, ReadError> {
        let offset = self.at;
        if !self.have(HEADER_LEN, until)? {
            return Ok(None);
        }
        let garbage = ReadError::Garbage { offset };
        let Some((len, kind, unix_ms)) = parse(&self.buffer[self.taken..]) else {
            return Err(garbage);
        };
        let whole = HEADER_LEN + len;
        if !self.have(whole, until)? {
            return Ok(None);
        }
        let start = self.taken + HEADER_LEN;
        self.taken += whole;
        self.at += whole as u64;
        let payload = &self.buffer[start..start + len];
        Ok(Some(Record {
            offset,
            end: self.at,
            kind,
            unix_ms,
            payload,
        }))
    }

    /// Whether `len` bytes from `at` on lie below `until`; then they are in the buffer.
    fn have(&mut self, len: usize, until: u64) -> Result<bool, ReadError> {
        let below = usize::try_from(until.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if below < len {
            return Ok(false);
        }
        if self.buffer.len() - self.taken >= len {
            return Ok(true);
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        // After a giant record the memory goes back.
        self.buffer.shrink_to(len.max(READ_STEP));
        let mut filled = self.buffer.len();
        self.buffer.resize(below.min(READ_STEP).max(len), 0);
        while filled < len {
            let offset = self.at + filled as u64;
            match self.file.read_at(&mut self.buffer[filled..], offset) {
                Ok(0) => {
                    self.buffer.truncate(filled);
                    return Err(ReadError::Short { until });
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    self.buffer.truncate(filled);
                    return Err(ReadError::Io { offset, source });
                }
            }
        }
        self.buffer.truncate(filled);
        Ok(true)
    }
}

fn parse(bytes: &[u8]) -> Option<(usize, Kind, u64)> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (&[kind], rest) = rest.split_first_chunk()?;
    let (unix_ms, _) = rest.split_first_chunk()?;
    let len = u32::from_le_bytes(*len) as usize;
    let kind = Kind::from_number(kind)?;
    (len <= PAYLOAD_MAX).then(|| (len, kind, u64::from_le_bytes(*unix_ms)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tape() -> (tempfile::TempDir, Writer) {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::create(&dir.path().join(FILE_NAME)).unwrap();
        (dir, writer)
    }

    #[test]
    fn a_burst_is_read_back_with_its_kind_and_time() {
        let (dir, mut writer) = tape();
        assert_eq!(writer.pull(Kind::Err, &b"boom"[..]).unwrap(), Pulled::Burst);
        writer.flush(77).unwrap();
        let mut reader = Reader::open(dir.path(), 0).unwrap();
        let record = reader.next(writer.len()).unwrap().unwrap();
        let expected = Record {
            offset: 0,
            end: writer.len(),
            kind: Kind::Err,
            unix_ms: 77,
            payload: b"boom",
        };
        assert_eq!(record, expected);
        assert_eq!(reader.next(writer.len()).unwrap(), None);
    }

    #[test]
    fn a_half_written_tail_is_no_record() {
        let (dir, mut writer) = tape();
        writer.append(Kind::Note, 1, &[b"whole"]).unwrap();
        let whole = writer.len();
        writer.append(Kind::Note, 2, &[b"cut short"]).unwrap();
        for len in (whole..writer.len()).rev() {
            writer.file.set_len(len).unwrap();
            let mut reader = Reader::open(dir.path(), 0).unwrap();
            let until = reader.file_len().unwrap();
            assert_eq!(reader.next(until).unwrap().unwrap().payload, b"whole");
            assert_eq!(reader.next(until).unwrap(), None);
        }
    }

    #[test]
    fn offsets_stay_after_what_is_below_them_was_given_back() {
        let (dir, mut writer) = tape();
        let piece = vec![b'x'; BURST_MAX];
        writer.append(Kind::Start, 0, &[b"{}"]).unwrap();
        while writer.len() < 3 * TRIM_STEP {
            writer.append(Kind::Out, 0, &[&piece]).unwrap();
        }
        let last = writer.len();
        writer.append(Kind::Out, 0, &[b"last"]).unwrap();
        writer.trim(last).unwrap();
        let mut reader = Reader::open(dir.path(), last).unwrap();
        assert_eq!(reader.next(writer.len()).unwrap().unwrap().payload, b"last");
        let mut reader = Reader::open(dir.path(), 0).unwrap();
        assert_eq!(reader.next(writer.len()).unwrap().unwrap().kind, Kind::Start);
    }

    #[test]
    fn a_hole_and_a_link_are_named_and_never_read() {
        let (dir, writer) = tape();
        writer.file.set_len(4096).unwrap();
        let mut reader = Reader::open(dir.path(), 0).unwrap();
        assert!(matches!(reader.next(4096), Err(ReadError::Garbage { offset: 0 })));
        assert!(matches!(reader.next(8), Ok(None)));
        let other = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path().join(FILE_NAME), other.path().join(FILE_NAME)).unwrap();
        assert!(matches!(
            Reader::open(other.path(), 0),
            Err(ReadError::Open { .. })
        ));
    }

    proptest! {
        #[test]
        fn records_come_back_in_order_however_long_they_are(
            sizes in prop::collection::vec(0_usize..3 * BURST_MAX, 1..12),
            from in 0_usize..12,
        ) {
            let (dir, mut writer) = tape();
            let mut starts = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                starts.push(writer.len());
                writer.append(Kind::Out, index as u64, &[&vec![index as u8; *size]]).unwrap();
            }
            let from = from % sizes.len();
            let mut reader = Reader::open(dir.path(), starts[from]).unwrap();
            for (index, size) in sizes.iter().enumerate().skip(from) {
                let record = reader.next(writer.len()).unwrap().unwrap();
                prop_assert_eq!(record.unix_ms, index as u64);
                prop_assert!(record.payload == vec![index as u8; *size]);
            }
            prop_assert_eq!(reader.next(writer.len()).unwrap(), None);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let (dir, writer) = tape();
            writer.file.write_all_at(&bytes, 0).unwrap();
            let mut reader = Reader::open(dir.path(), 0).unwrap();
            while let Ok(Some(_)) = reader.next(bytes.len() as u64) {}
        }
    }
}
