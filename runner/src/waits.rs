//! Waiting for several descriptors at once, some of which are there only at times.
//!
//! Floor: ground.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What one poll waits for.
#[derive(Default)]
pub(crate) struct Waits<'fd>(Vec<PollFd<'fd>>);

/// Where a descriptor stands among those that are waited for; nowhere when it is not there.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place(Option<usize>);

impl<'fd> Waits<'fd> {
    /// Waits for this one too, if it is there.
    pub(crate) fn add(&mut self, fd: Option<BorrowedFd<'fd>>, flags: PollFlags) -> Place {
        let place = fd.is_some().then_some(self.0.len());
        self.0.extend(fd.map(|fd| PollFd::new(fd, flags)));
        Place(place)
    }

    /// Waits until something is ready, a signal came, or `timeout` is over.
    ///
    /// # Errors
    /// The kernel's own.
    pub(crate) fn wait(&mut self, timeout: PollTimeout) -> io::Result<()> {
        match poll(&mut self.0, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether that one is ready: to be read or written, or at its end.
    pub(crate) fn is_ready(&self, Place(place): Place) -> bool {
        let events = place.and_then(|place| self.0.get(place)?.revents());
        events.is_some_and(|events| !events.is_empty())
    }
}
