//! The writing end of a tape, in the shim.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::record::{BURST_MAX, HEADER_LEN, Kind, PAYLOAD_MAX, header};
use crate::sys;

/// Blocks go back to the file system in steps of this many bytes: small enough that a read tape costs little disk,
/// big enough that a busy one is not punched for every burst.
const TRIM_STEP: u64 = 4 * 1024 * 1024;

/// The first bytes are never given back: they say what this tape is of.
const TRIM_FLOOR: u64 = 4096;

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
