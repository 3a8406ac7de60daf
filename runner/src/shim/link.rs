//! The shim's end of one connection with a runner.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::inbox::Inbox;
use super::tape::Exit;
use super::wire::{self, FromShim, ToShim};

/// How much may wait for a runner that does not read before nothing more is read from it, in bytes.
const OUTBOX_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    inbox: Inbox,
    outbox: Vec<u8>,
    /// The runner said hello.
    greeted: bool,
    /// How long the runner knows the tape to be.
    told_len: u64,
}

/// The runner on the other end is gone or does not speak the wire.
#[derive(Debug)]
pub(super) struct Broken;

impl Link {
    /// Takes a connection and greets.
    pub(super) fn new(stream: UnixStream, hello: &FromShim<'_>, tape_len: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let mut link = Self {
            stream,
            inbox: Inbox::default(),
            outbox: Vec::new(),
            greeted: false,
            told_len: tape_len,
        };
        link.say(hello);
        Ok(link)
    }

    /// Queues a frame.
    pub(super) fn say(&mut self, frame: &FromShim<'_>) {
        frame.encode(&mut self.outbox);
    }

    /// Sends what is queued as far as the socket takes it, then, if that was all, how long the tape is now: a
    /// runner that is behind hears of the newest length only.
    pub(super) fn send(&mut self, tape_len: u64) -> Result<(), Broken> {
        self.flush()?;
        if self.outbox.is_empty() && self.told_len < tape_len {
            self.tell_len(tape_len);
            self.flush()?;
        }
        Ok(())
    }

    /// Queues the end, behind how long the tape is with it.
    pub(super) fn say_exited(&mut self, exit: Exit, tape_len: u64) {
        self.tell_len(tape_len);
        self.say(&FromShim::Exited { exit });
    }

    fn tell_len(&mut self, tape_len: u64) {
        self.told_len = tape_len;
        self.say(&FromShim::Grown { len: tape_len });
    }

    fn flush(&mut self) -> Result<(), Broken> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(0) => return Err(Broken),
                Ok(len) => drop(self.outbox.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken),
            }
        }
        Ok(())
    }

    /// Reads once.
    pub(super) fn receive(&mut self) -> Result<(), Broken> {
        match self.inbox.fill(|room| self.stream.read(room)) {
            Ok(0) => Err(Broken),
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(_) => Err(Broken),
        }
    }

    /// The next frame that came in whole. The first is the runner's hello and ends here.
    pub(super) fn heard(&mut self) -> Result<Option<ToShim<'_>>, Broken> {
        if !self.greeted {
            let Some(frame) = self.inbox.frame().map_err(|_| Broken)? else {
                return Ok(None);
            };
            match ToShim::decode(frame) {
                Ok(ToShim::Hello {
                    version: wire::VERSION,
                }) => self.greeted = true,
                _ => return Err(Broken),
            }
        }
        let Some(frame) = self.inbox.frame().map_err(|_| Broken)? else {
            return Ok(None);
        };
        match ToShim::decode(frame) {
            Ok(ToShim::Hello { .. }) | Err(_) => Err(Broken),
            Ok(frame) => Ok(Some(frame)),
        }
    }

    /// Whether more may be read: an answer to it has room.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.len() < OUTBOX_MAX
    }

    /// Whether something waits for the socket.
    pub(super) fn is_behind(&self) -> bool {
        !self.outbox.is_empty()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
