//! Lines that are none of the harness's dialect: shown, but not without end.

use serde::{Deserialize, Serialize};

use super::bounds::{STRAYS_MAX, STRAYS_MS};

/// How many there were lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Strays {
    since: u64,
    count: u32,
}

/// What is done with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stray {
    /// It is shown.
    Shown,
    /// It is said that no more are shown.
    Last,
    /// Nothing.
    Dropped,
}

impl Strays {
    /// Counts one.
    pub(super) fn count(&mut self, now_ms: u64) -> Stray {
        if now_ms.saturating_sub(self.since) >= STRAYS_MS {
            *self = Self {
                since: now_ms,
                count: 0,
            };
        }
        self.count = self.count.saturating_add(1);
        match self.count {
            0..=STRAYS_MAX => Stray::Shown,
            count if count == STRAYS_MAX + 1 => Stray::Last,
            _ => Stray::Dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strays_is_cut_and_counted_anew_later() {
        let mut strays = Strays::default();
        let said: Vec<Stray> = (0..STRAYS_MAX + 3).map(|_| strays.count(100_000)).collect();
        assert_eq!(said.iter().filter(|stray| **stray == Stray::Shown).count(), 8);
        assert_eq!(said[8..], [Stray::Last, Stray::Dropped, Stray::Dropped]);
        assert_eq!(strays.count(100_000 + STRAYS_MS), Stray::Shown);
    }
}
