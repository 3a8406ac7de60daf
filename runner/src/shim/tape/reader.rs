//! The reading end of a tape, in the runner.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::record::{BURST_MAX, FILE_NAME, HEADER_LEN, Record, parse};

/// How much the reader asks the file for at once, in bytes: one burst and some. More would stay resident for every
/// idle session.
const READ_STEP: usize = 2 * BURST_MAX;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shim::tape::{Kind, Pulled, Writer};

    fn tape() -> (tempfile::TempDir, Writer) {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::create(&dir.path().join(FILE_NAME)).unwrap();
        (dir, writer)
    }

    fn set_len(dir: &tempfile::TempDir, len: u64) {
        File::options()
            .write(true)
            .open(dir.path().join(FILE_NAME))
            .unwrap()
            .set_len(len)
            .unwrap();
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
            set_len(&dir, len);
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
        while writer.len() < 12 * 1024 * 1024 {
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
        let (dir, _writer) = tape();
        set_len(&dir, 4096);
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
            drop(writer);
            std::fs::write(dir.path().join(FILE_NAME), &bytes).unwrap();
            let mut reader = Reader::open(dir.path(), 0).unwrap();
            while let Ok(Some(_)) = reader.next(bytes.len() as u64) {}
        }
    }
}
