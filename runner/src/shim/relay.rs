//! The shim's loop: waits for whatever is ready and moves bytes, until the program ended and the runner knows it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use super::input::Input;
use super::link::{Broken, Link};
use super::tape::{Exit, Kind, Pulled, Writer};
use super::wire::{self, FromShim, Refusal, Target, ToShim, WriteId};
use crate::bounds::TAPE_BACKLOG_MAX;
use crate::session::Fact;
use crate::{clock, sys};

/// How long a program may take to end after its input was closed because the shim was told to end.
const GRACE: Duration = Duration::from_secs(5);

/// How long after its input was closed a program that runs on is asked to end by SIGTERM, it and all that it runs:
/// the exec agent takes two seconds to end what runs in it, and the signal must leave time before the kill.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often a full disk is tried again. Nothing tells when it has room.
const RETRY: Duration = Duration::from_millis(250);

/// How many writes are remembered, so that the same one again has no second effect. A runner has far fewer
/// unanswered when it dies.
const REMEMBERED_MAX: usize = 1024;

/// How much is still read of each pipe after the program ended, in bytes: the most a pipe can hold by default.
/// What comes later is from a process that escaped its program's end.
const DRAIN_MAX: usize = 1024 * 1024;

/// One of the program's pipes.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) pipe: File,
}

/// Looks again at what an order wants to be watched.
pub type Look = fn(&str) -> Vec<Fact>;

/// Everything the loop needs to begin.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) tape: Writer,
    pub(super) child: Child,
    pub(super) input: Input,
    pub(super) sources: [Option<Source>; SOURCES],
    pub(super) listener: UnixListener,
    pub(super) signals: SignalFd,
    /// What is looked at again when the program has ended.
    pub(super) watch: Option<String>,
    pub(super) look: Look,
}

pub(super) const SOURCES: usize = 3;

/// The slots of the poll set.
const SIGNALS: usize = 0;
const LISTENER: usize = 1;
const LINK: usize = 2;
const INPUT: usize = 3;
const FIRST_SOURCE: usize = 4;
const SLOTS: usize = FIRST_SOURCE + SOURCES;

#[derive(Debug)]
pub(super) struct Relay {
    parts: Parts,
    link: Option<Link>,
    remembered: Remembered,
    /// How far the runner has read.
    consumed: u64,
    /// The tape does not grow, and the runner was told so.
    trouble: Option<String>,
    ending: Ending,
    /// Set when its input is closed for good: when the program is asked to end by SIGTERM.
    terminate_at: Option<Instant>,
    /// Set by a request to end: when the program is killed.
    kill_at: Option<Instant>,
    /// The note of what was seen when the program had ended, once it was looked, until it is on the tape.
    seen: Option<Option<Vec<u8>>>,
    released: bool,
}

/// How far the program's end has come.
#[derive(Debug)]
enum Ending {
    Alive,
    /// It was reaped; what its pipes still hold is read, within a budget.
    Draining {
        exit: Exit,
        left: usize,
    },
    /// Its exit is on the tape.
    Recorded(Exit),
}

impl Relay {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            link: None,
            remembered: Remembered::default(),
            consumed: 0,
            trouble: None,
            ending: Ending::Alive,
            terminate_at: None,
            kill_at: None,
            seen: None,
            released: false,
        }
    }

    /// Runs until the runner released the shim or a signal ended it.
    pub(super) fn run(mut self) -> io::Result<()> {
        while !self.is_over() {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if !ready[SIGNALS].is_empty() {
                self.take_signals()?;
            }
            if !ready[LINK].is_empty() {
                self.with_link(Self::hear);
            }
            if !ready[LISTENER].is_empty() {
                self.accept();
            }
            if !ready[INPUT].is_empty() {
                self.parts.input.flush();
            }
            self.end_when_due()?;
            self.write_held();
            for (index, source) in ready[FIRST_SOURCE..].iter().enumerate() {
                if !source.is_empty() || self.is_draining() {
                    self.pull(index);
                }
            }
            self.record_exit();
            self.with_link(|relay, link| link.send(relay.parts.tape.len()));
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let recorded = matches!(self.ending, Ending::Recorded(_));
        // Told to end with a full disk: the exit cannot be kept, and the shim does not outlive its host for it.
        let hopeless = !matches!(self.ending, Ending::Alive) && self.trouble.is_some();
        (self.released && recorded) || (self.kill_at.is_some() && (recorded || hopeless))
    }

    fn wait(&self) -> nix::Result<[PollFlags; SLOTS]> {
        let Parts {
            input,
            sources,
            listener,
            signals,
            ..
        } = &self.parts;
        // A slot without a descriptor of its own asks the signals for nothing. A pipe that must not be read is left
        // out wholly, since the kernel would report its other end's closing again and again.
        let idle = (signals.as_fd(), PollFlags::empty());
        let slot = |fd: Option<_>, events| fd.map_or(idle, |fd| (fd, events));
        let source = |index: usize| {
            let open = sources[index].as_ref().filter(|_| self.may_read());
            slot(open.map(|source| source.pipe.as_fd()), PollFlags::POLLIN)
        };
        let link_events = self.link.as_ref().map_or(PollFlags::empty(), |link| {
            let read = if link.has_room() {
                PollFlags::POLLIN
            } else {
                PollFlags::empty()
            };
            let write = if link.is_behind() {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            read | write
        });
        let mut set = [
            (signals.as_fd(), PollFlags::POLLIN),
            (listener.as_fd(), PollFlags::POLLIN),
            slot(self.link.as_ref().map(Link::as_fd), link_events),
            slot(input.waits_for(), PollFlags::POLLOUT),
            source(0),
            source(1),
            source(2),
        ]
        .map(|(fd, events)| PollFd::new(fd, events));
        poll(&mut set, self.timeout())?;
        Ok(set.map(|slot| slot.revents().unwrap_or(PollFlags::empty())))
    }

    fn timeout(&self) -> PollTimeout {
        if self.is_draining() && self.may_read() {
            return PollTimeout::ZERO;
        }
        let retry = self.trouble.is_some().then_some(RETRY);
        let due = [self.terminate_at, self.kill_at].into_iter().flatten();
        let due = due.map(|at| at.saturating_duration_since(clock::instant()));
        match retry.into_iter().chain(due).min() {
            // A rounded-down wait would spin until the deadline.
            Some(wait) => (wait + Duration::from_millis(1))
                .try_into()
                .unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        }
    }

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.parts.signals.read_signal()? {
            if signal.ssi_signo == Signal::SIGTERM as u32 && self.kill_at.is_none() {
                self.parts.input.close();
                self.terminate_at = Some(clock::instant() + PATIENCE);
                self.kill_at = Some(clock::instant() + GRACE);
            }
        }
        if let Ending::Alive = self.ending
            && let Some(status) = self.parts.child.try_wait()?
        {
            self.ending = Ending::Draining {
                exit: status.into(),
                left: SOURCES * DRAIN_MAX,
            };
        }
        Ok(())
    }

    /// Does to a program that does not go what is due.
    fn end_when_due(&mut self) -> io::Result<()> {
        let Ending::Alive = self.ending else {
            self.terminate_at = None;
            return Ok(());
        };
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= clock::instant());
        if is_due(self.terminate_at) {
            self.terminate_at = None;
            // A host that does not show its processes leaves it to the kill.
            let _asked = sys::terminate_descendants();
        }
        if is_due(self.kill_at) {
            // One that hangs in the kernel dies later or never: a deadline that is over must not keep this awake.
            self.kill_at = Some(clock::instant() + GRACE);
            self.parts.child.kill()?;
        }
        Ok(())
    }

    fn accept(&mut self) {
        // A connection that is gone again, or a host without descriptors: the next one asks again.
        let Ok((stream, _)) = self.parts.listener.accept() else {
            return;
        };
        let trusted = sys::peer_uid(&stream).is_ok_and(|uid| uid == 0 || uid == sys::effective_uid());
        if !trusted {
            return;
        }
        let tape_len = self.parts.tape.len();
        let exited = match self.ending {
            Ending::Recorded(exit) => Some(exit),
            Ending::Alive | Ending::Draining { .. } => None,
        };
        let harness_pid = self.parts.child.id();
        let hello = FromShim::Hello {
            version: wire::VERSION,
            tape_len,
            harness_pid,
            exited,
        };
        // The newest runner is the one that lives: whoever was connected before is replaced.
        self.link = Link::new(stream, &hello, tape_len).ok();
        if let (Some(link), Some(text)) = (&mut self.link, &self.trouble) {
            link.say(&FromShim::Trouble { text });
        }
    }

    /// Does something with the link, and drops the link when it is broken.
    fn with_link(&mut self, act: impl FnOnce(&mut Self, &mut Link) -> Result<(), Broken>) {
        if let Some(mut link) = self.link.take()
            && act(self, &mut link).is_ok()
        {
            self.link = Some(link);
        }
    }

    fn hear(&mut self, link: &mut Link) -> Result<(), Broken> {
        if link.has_room() {
            link.receive()?;
        }
        while let Some(frame) = link.heard()? {
            match frame {
                ToShim::Write { id, to, bytes } => {
                    let answer = match self.take_write(id, to, bytes) {
                        Ok(()) => FromShim::Wrote { id },
                        Err(why) => FromShim::Refused { id, why },
                    };
                    link.say(&answer);
                }
                ToShim::CloseStdin => {
                    self.parts.input.close_when_written();
                    self.terminate_at = Some(clock::instant() + PATIENCE);
                }
                ToShim::Kill => self.kill(),
                ToShim::Consumed { read, needed } => self.consume(read, needed),
                ToShim::Release => self.released = matches!(self.ending, Ending::Recorded(_)),
                // The link lets only the first one pass, to itself.
                ToShim::Hello { .. } => return Err(Broken),
            }
        }
        Ok(())
    }

    fn take_write(&mut self, id: WriteId, to: Target, bytes: &[u8]) -> Result<(), Refusal> {
        if self.remembered.has(&id) {
            return Ok(());
        }
        let Parts { tape, input, .. } = &mut self.parts;
        if tape.is_holding() {
            return Err(Refusal::NoSpace);
        }
        // The runner's own words may pass a program that is too far ahead, but not without end.
        if tape.len() - self.consumed > 2 * TAPE_BACKLOG_MAX {
            return Err(Refusal::Busy);
        }
        let now = clock::unix_ms();
        let recorded = match (to, &self.ending) {
            (Target::Note, Ending::Alive | Ending::Draining { .. }) => tape.append(Kind::Note, now, &[bytes]),
            (Target::Stdin, Ending::Alive) => {
                input.room_for(bytes.len())?;
                tape.append(Kind::In, now, &[&id, bytes])
            }
            // The exit is a tape's last record.
            (Target::Stdin | Target::Note, _) => return Err(Refusal::Closed),
        };
        recorded.map_err(|_| Refusal::NoSpace)?;
        self.remembered.add(id);
        if to == Target::Stdin {
            input.push(bytes);
        }
        Ok(())
    }

    fn kill(&mut self) {
        // It fails only for a program that was reaped already, and that is what was asked for.
        let _killed = self.parts.child.kill();
    }

    fn consume(&mut self, read: u64, needed: u64) {
        self.consumed = self.consumed.max(read.min(self.parts.tape.len()));
        // Blocks that could not be given back cost disk, no data; the next step tries its own.
        let _trimmed = self.parts.tape.trim(needed.min(self.consumed));
    }

    fn is_draining(&self) -> bool {
        matches!(self.ending, Ending::Draining { .. })
    }

    /// Whether the program may be read. What a dead one left is bounded by itself.
    fn may_read(&self) -> bool {
        let far_ahead = self.parts.tape.len() - self.consumed > TAPE_BACKLOG_MAX;
        !self.parts.tape.is_holding() && (!far_ahead || self.is_draining())
    }

    fn pull(&mut self, index: usize) {
        if !self.may_read() {
            return;
        }
        let Parts { tape, sources, .. } = &mut self.parts;
        let Some(source) = &sources[index] else { return };
        let before = tape.len();
        match tape.pull(source.kind, &source.pipe) {
            Ok(Pulled::Burst) => {}
            Ok(Pulled::Nothing) if matches!(self.ending, Ending::Alive) => return,
            // A program's end of a pipe has no other way to fail than to be gone.
            Ok(Pulled::Nothing | Pulled::End) | Err(_) => {
                sources[index] = None;
                return;
            }
        }
        self.write_held();
        if let Ending::Draining { left, .. } = &mut self.ending {
            let read = usize::try_from(self.parts.tape.len() - before).unwrap_or(usize::MAX);
            *left = left.saturating_sub(read);
            if *left == 0 {
                self.parts.sources = [const { None }; SOURCES];
            }
        }
    }

    fn write_held(&mut self) {
        if self.parts.tape.is_holding() {
            let written = self.parts.tape.flush(clock::unix_ms());
            self.tell_trouble(&written);
        }
    }

    fn record_exit(&mut self) {
        let Ending::Draining { exit, .. } = self.ending else {
            return;
        };
        if self.parts.tape.is_holding() || self.parts.sources.iter().any(Option::is_some) {
            return;
        }
        let Parts {
            tape, watch, look, ..
        } = &mut self.parts;
        let now = clock::unix_ms();
        // Before the exit, which is a tape's last record. It is looked once, however often the disk is full.
        let note = self.seen.get_or_insert_with(|| {
            let facts = watch.take().map(|watch| look(&watch)).unwrap_or_default();
            (!facts.is_empty()).then(|| Fact::note(&facts))
        });
        let noted = match note {
            Some(bytes) => tape.append(Kind::Note, now, &[bytes]),
            None => Ok(()),
        };
        let written = noted.and_then(|()| {
            *note = None;
            tape.append(Kind::Exit, now, &[&exit.to_bytes()])
        });
        self.tell_trouble(&written);
        if written.is_err() {
            return;
        }
        self.ending = Ending::Recorded(exit);
        self.parts.input.close();
        sys::end_children();
        if let Some(link) = &mut self.link {
            link.say_exited(exit, self.parts.tape.len());
        }
    }

    fn tell_trouble(&mut self, written: &io::Result<()>) {
        match (written, &self.trouble) {
            (Err(error), None) => {
                let text = error.to_string();
                if let Some(link) = &mut self.link {
                    link.say(&FromShim::Trouble { text: &text });
                }
                self.trouble = Some(text);
            }
            (Ok(()), Some(_)) => {
                self.trouble = None;
                if let Some(link) = &mut self.link {
                    link.say(&FromShim::Recovered);
                }
            }
            (Ok(()), None) | (Err(_), Some(_)) => {}
        }
    }
}

/// The last writes that had an effect.
#[derive(Debug, Default)]
struct Remembered {
    ids: Vec<WriteId>,
    oldest: usize,
}

impl Remembered {
    fn has(&self, id: &WriteId) -> bool {
        self.ids.contains(id)
    }

    fn add(&mut self, id: WriteId) {
        if self.ids.len() < REMEMBERED_MAX {
            self.ids.push(id);
        } else {
            self.ids[self.oldest] = id;
            self.oldest = (self.oldest + 1) % REMEMBERED_MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_write_is_forgotten_first() {
        let id = |number: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            id
        };
        let mut remembered = Remembered::default();
        for number in 0..=REMEMBERED_MAX {
            remembered.add(id(number));
        }
        assert!(!remembered.has(&id(0)));
        assert!(remembered.has(&id(1)) && remembered.has(&id(REMEMBERED_MAX)));
    }
}
