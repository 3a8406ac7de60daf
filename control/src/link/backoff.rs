//! How long to wait before trying again.

use std::time::Duration;

/// The bound of the first wait. A runner that is started again listens after some hundredths of a second.
const FIRST_MAX: Duration = Duration::from_millis(50);

/// The bound of every later wait: who comes back is found within a few seconds, and one packet in as long burdens
/// nobody.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Waits whose bound doubles from one to the next, each of them chosen anywhere below its bound: who lost a link at the
/// same moment comes back at different ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    waits: u32,
}

impl Backoff {
    /// How long to wait now; `random` is any number.
    pub fn next(&mut self, random: u64) -> Duration {
        let bound = self.bound();
        self.waits = self.waits.saturating_add(1);
        share(bound, random)
    }

    /// How many waits there were since the last success.
    pub fn waits(&self) -> u32 {
        self.waits
    }

    /// It worked: the next wait is a first one.
    pub fn reset(&mut self) {
        self.waits = 0;
    }

    fn bound(&self) -> Duration {
        2_u32
            .checked_pow(self.waits)
            .and_then(|factor| FIRST_MAX.checked_mul(factor))
            .map_or(WAIT_MAX, |bound| bound.min(WAIT_MAX))
    }
}

/// A part of a duration, evenly chosen by a number that was.
pub(super) fn share(whole: Duration, random: u64) -> Duration {
    let nanos = u128::from(random) * whole.as_nanos() / u128::from(u64::MAX);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bound_of_a_wait_doubles_up_to_its_own() {
        let mut backoff = Backoff::default();
        let longest: Vec<u128> = (0..9).map(|_| backoff.next(u64::MAX).as_millis()).collect();
        assert_eq!(longest, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.waits(), 9);
        backoff.reset();
        assert_eq!(backoff.next(u64::MAX), FIRST_MAX);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_longest_and_every_part_of_it_may_come(
            waits in any::<u32>(),
            random in any::<u64>(),
        ) {
            let mut backoff = Backoff { waits };
            let (bound, wait) = (backoff.bound(), backoff.next(random));
            prop_assert!(bound <= WAIT_MAX && wait <= bound);
            prop_assert_eq!(share(bound, 0), Duration::ZERO);
            prop_assert_eq!(share(bound, u64::MAX), bound);
        }
    }
}
