//! A program's standard input: what could not be written yet waits here, within a bound.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use super::wire::Refusal;

/// How many bytes may wait for a program that does not read. A single write may be longer: it is taken when
/// nothing else waits.
const QUEUE_MAX: usize = 1024 * 1024;

/// What the queue keeps of its memory when it is empty again.
const QUEUE_KEPT: usize = 4096;

#[derive(Debug)]
pub(super) struct Input {
    /// None once it is closed.
    pipe: Option<File>,
    queue: Vec<u8>,
    written: usize,
    closing: bool,
}

impl Input {
    /// Takes a pipe that never blocks.
    pub(super) fn new(pipe: File) -> Self {
        Self {
            pipe: Some(pipe),
            queue: Vec::new(),
            written: 0,
            closing: false,
        }
    }

    /// An input that nothing reads.
    pub(super) fn closed() -> Self {
        Self {
            pipe: None,
            queue: Vec::new(),
            written: 0,
            closing: true,
        }
    }

    /// Whether this many bytes more can be taken.
    pub(super) fn room_for(&self, len: usize) -> Result<(), Refusal> {
        let waiting = self.queue.len() - self.written;
        match self.pipe {
            Some(_) if self.closing => Err(Refusal::Closed),
            Some(_) if waiting > 0 && waiting + len > QUEUE_MAX => Err(Refusal::Busy),
            Some(_) => Ok(()),
            None => Err(Refusal::Closed),
        }
    }

    /// Writes what the pipe takes now and keeps the rest. Ask [`Input::room_for`] first.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.queue.extend_from_slice(bytes);
        self.flush();
    }

    /// Writes what the pipe takes now.
    pub(super) fn flush(&mut self) {
        while let Some(pipe) = &mut self.pipe
            && self.written < self.queue.len()
        {
            match pipe.write(&self.queue[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The program closed its end: what it was still owed stays on the tape only.
                Err(_) => self.close(),
            }
        }
        self.queue.clear();
        self.queue.shrink_to(QUEUE_KEPT);
        self.written = 0;
        if self.closing {
            self.pipe = None;
        }
    }

    /// Closes the pipe once the queue is written.
    pub(super) fn close_when_written(&mut self) {
        self.closing = true;
        self.flush();
    }

    /// Closes the pipe now.
    pub(super) fn close(&mut self) {
        self.pipe = None;
        self.queue = Vec::new();
        self.written = 0;
    }

    /// The pipe while something waits for it.
    pub(super) fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        let pipe = self.pipe.as_ref()?;
        (self.written < self.queue.len()).then(|| pipe.as_fd())
    }
}
