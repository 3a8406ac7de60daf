//! All commands of an agent's, and who waits for their end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::message::{self, Create, Done, Outcome, Refusal};
use super::terminal::Terminal;

/// How many terminals an agent may have that it did not release. Each keeps a pipe and its output.
const TERMINALS_MAX: usize = 32;

/// How many requests may wait for the end of one terminal.
const WAITING_MAX: usize = 16;

/// An agent's terminals, by number.
#[derive(Default)]
pub(super) struct Terminals {
    open: BTreeMap<u64, Place>,
    made: u64,
}

struct Place {
    terminal: Terminal,
    /// The ids of the requests that wait for its end.
    waiting: Vec<Box<RawValue>>,
    released: bool,
}

impl Terminals {
    /// Serves a request; `None` when it is answered later.
    pub(super) fn serve(&mut self, request: message::Terminal, id: &RawValue) -> Option<Outcome> {
        use message::Terminal as Asked;
        let done = match request {
            Asked::Create(create) => self.create(create),
            Asked::Output(named) => self.find(&named.terminal_id).map(|place| place.terminal.output()),
            Asked::WaitForExit(named) => return self.wait_for_exit(&named.terminal_id, id),
            Asked::Kill(named) => self.find(&named.terminal_id).map(|place| {
                place.terminal.kill();
                Done::Nothing {}
            }),
            Asked::Release(named) => self.release(&named.terminal_id),
        };
        Some(done)
    }

    fn create(&mut self, create: Create) -> Outcome {
        if self.open.len() >= TERMINALS_MAX {
            let message = format!("there are {TERMINALS_MAX} terminals already; release one");
            return Err(Refusal::failed(message));
        }
        let terminal = Terminal::start(create)?;
        self.made += 1;
        let place = Place {
            terminal,
            waiting: Vec::new(),
            released: false,
        };
        self.open.insert(self.made, place);
        Ok(Done::Created {
            terminal_id: name(self.made),
        })
    }

    fn find(&mut self, terminal_id: &str) -> Result<&mut Place, Refusal> {
        number(terminal_id)
            .and_then(|number| self.open.get_mut(&number))
            .filter(|place| !place.released)
            .ok_or_else(|| Refusal::not_found(format!("there is no terminal {terminal_id:?}")))
    }

    fn wait_for_exit(&mut self, terminal_id: &str, id: &RawValue) -> Option<Outcome> {
        let place = match self.find(terminal_id) {
            Ok(place) => place,
            Err(refusal) => return Some(Err(refusal)),
        };
        if let Some(exit) = place.terminal.exit() {
            return Some(Ok(Done::Exited(exit)));
        }
        if place.waiting.len() >= WAITING_MAX {
            let message = format!("{WAITING_MAX} requests wait for the end of this terminal already");
            return Some(Err(Refusal::failed(message)));
        }
        place.waiting.push(id.to_owned());
        None
    }

    /// Ends what runs in it. It goes when that is over and nobody waits for it.
    fn release(&mut self, terminal_id: &str) -> Outcome {
        let place = self.find(terminal_id)?;
        place.terminal.end();
        place.released = true;
        self.forget();
        Ok(Done::Nothing {})
    }

    fn forget(&mut self) {
        self.open
            .retain(|_, place| !place.released || place.terminal.exit().is_none());
    }

    /// Whether requests wait.
    pub(super) fn has_waiting(&self) -> bool {
        self.open.values().any(|place| !place.waiting.is_empty())
    }

    /// Forgets a request that waits; says whether there was one.
    pub(super) fn cancel(&mut self, id: &RawValue) -> bool {
        self.open.values_mut().any(|place| {
            let at = place.waiting.iter().position(|waits| waits.get() == id.get());
            at.map(|at| place.waiting.swap_remove(at)).is_some()
        })
    }

    pub(super) fn pipes(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>)> {
        self.open
            .iter()
            .filter_map(|(number, place)| Some((*number, place.terminal.pipe()?.as_fd())))
    }

    pub(super) fn read(&mut self, number: u64) -> io::Result<()> {
        match self.open.get_mut(&number) {
            Some(place) => place.terminal.read().map(|_| ()),
            None => Ok(()),
        }
    }

    /// The requests that waited for terminals that have ended, and their answers.
    pub(super) fn reap(&mut self) -> io::Result<Vec<(Box<RawValue>, Outcome)>> {
        let mut answers = Vec::new();
        for place in self.open.values_mut() {
            if place.terminal.ends()?
                && let Some(exit) = place.terminal.exit()
            {
                let waited = place.waiting.drain(..);
                answers.extend(waited.map(|id| (id, Ok(Done::Exited(exit.clone())))));
            }
        }
        self.forget();
        Ok(answers)
    }

    /// How long until something has to be killed.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let due = self
            .open
            .values()
            .filter_map(|place| place.terminal.kill_at())
            .min()?;
        Some(due.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    pub(super) fn kill_when_due(&mut self) {
        for place in self.open.values_mut() {
            if place.terminal.kill_at().is_some_and(|at| at <= Instant::now()) {
                place.terminal.end();
            }
        }
    }

    /// Ends all that runs.
    pub(super) fn end(&mut self) {
        for place in self.open.values_mut() {
            place.terminal.end();
        }
    }
}

fn name(number: u64) -> String {
    format!("terminal-{number}")
}

fn number(terminal_id: &str) -> Option<u64> {
    terminal_id.strip_prefix("terminal-")?.parse().ok()
}
