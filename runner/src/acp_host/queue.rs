//! Bytes that wait to be written.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::unistd::write;

/// How much room is kept for the next bytes, in bytes: one long answer must not cost its memory for ever.
const KEPT_MAX: usize = 256 * 1024;

/// Bytes that wait to be written to one pipe.
#[derive(Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    written: usize,
}

impl Queue {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn clear(&mut self) {
        self.written = 0;
        if self.bytes.capacity() > KEPT_MAX {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// Writes what the pipe takes now.
    pub(super) fn write_to(&mut self, pipe: BorrowedFd<'_>) -> io::Result<()> {
        while !self.is_empty() {
            match write(pipe, &self.bytes[self.written..]) {
                Ok(len) => self.written += len,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.clear();
        Ok(())
    }
}
