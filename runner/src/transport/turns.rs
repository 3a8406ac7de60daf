//! Turns: how much of what one peer asks is looked at at once, so that others need not wait for all of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep_until;

use crate::clock;

/// How many commands of a connection are decided about at once. Each may wait for the disk with others, so that a few are
/// too few; a stranger's command waits behind as many of each peer.
const COMMANDS_MAX: usize = 32;

/// How many queries of a connection are answered at once. Each takes a processor for as long as it lasts.
const QUERIES_MAX: usize = 4;

/// How many commands of a connection there may be in a moment, and how many each second after that. A program that drives
/// all sessions that a runner can have needs a tenth; a flood of commands takes a processor, not both.
const COMMANDS: (u32, u32) = (512, 4000);

/// The same of queries, of which each costs a hundred commands.
const QUERIES: (u32, u32) = (64, 400);

/// The turns of one connection. They are taken in the order in which they are asked for.
#[derive(Clone)]
pub struct Turns {
    commands: Arc<Line>,
    queries: Arc<Line>,
}

/// Who waits for one kind of turn.
struct Line {
    places: Arc<Semaphore>,
    /// How much earlier than its time a turn may come, and how far apart turns are.
    ahead: Duration,
    apart: Duration,
    /// The time of the next.
    next: Mutex<Instant>,
}

/// It is somebody's turn for as long as this lives.
pub struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            commands: Arc::new(Line::new(COMMANDS_MAX, COMMANDS)),
            queries: Arc::new(Line::new(QUERIES_MAX, QUERIES)),
        }
    }

    /// For deciding about a command, not for waiting until it is carried out.
    pub async fn command(&self) -> Turn {
        self.commands.turn().await
    }

    /// For answering a query.
    pub async fn query(&self) -> Turn {
        self.queries.turn().await
    }
}

impl Line {
    fn new(places: usize, (at_once, a_second): (u32, u32)) -> Self {
        let apart = Duration::from_secs(1) / a_second;
        Self {
            places: Arc::new(Semaphore::new(places)),
            ahead: apart * at_once,
            apart,
            next: Mutex::new(clock::instant()),
        }
    }

    async fn turn(&self) -> Turn {
        // Nobody closes it.
        let _permit = self.places.clone().acquire_owned().await.ok();
        if let Some(from) = self.reserve(clock::instant()) {
            sleep_until(from.into()).await;
        }
        Turn { _permit }
    }

    /// Takes the next turn, and says from when on it is, where it is not yet.
    fn reserve(&self, now: Instant) -> Option<Instant> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (*next).max(now);
        *next = at + self.apart;
        at.checked_sub(self.ahead).filter(|from| *from > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_as_fast_as_its_rate_and_who_asks_now_and_then_never_waits() {
        let line = Line::new(1, (10, 100));
        let begun = clock::instant();
        let waits = (0..110).filter_map(|_| line.reserve(begun));
        let last = waits.last().unwrap();
        // The first ten come at once, the others one in 10 ms.
        assert_eq!(last - begun, Duration::from_millis(990));
        assert_eq!(line.reserve(begun + Duration::from_secs(2)), None);
    }
}
