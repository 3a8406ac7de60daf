//! How long to wait before a control is dialled again.

use std::time::Duration;

/// The bound of the first wait.
const FIRST_MAX: Duration = Duration::from_millis(100);

/// The bound of every later wait for somebody who does not answer: who comes back is found within some seconds, and a
/// thousand runners that lost the same control come back a hundred a second.
const SILENT_MAX: Duration = Duration::from_secs(10);

/// The same for somebody who answers and refuses: a human has to change something first.
const REFUSED_MAX: Duration = Duration::from_secs(60);

/// Waits whose bound doubles from one to the next, each of them chosen anywhere in the upper half below its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    waits: u32,
}

impl Backoff {
    /// How long to wait now; `random` is any number.
    pub(super) fn next(&mut self, is_refused: bool, random: u64) -> Duration {
        let most = if is_refused { REFUSED_MAX } else { SILENT_MAX };
        let bound = 2_u32
            .checked_pow(self.waits)
            .and_then(|factor| FIRST_MAX.checked_mul(factor))
            .map_or(most, |bound| bound.min(most));
        self.waits = self.waits.saturating_add(1);
        jittered(bound, random)
    }

    /// It worked: the next wait is a first one.
    pub(super) fn reset(&mut self) {
        self.waits = 0;
    }
}

/// Somewhere in the upper half of a duration, evenly chosen by a number that was.
pub(super) fn jittered(bound: Duration, random: u64) -> Duration {
    let half = bound / 2;
    let nanos = half.as_nanos() * u128::from(random) / u128::from(u64::MAX);
    half + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// Any number. Without random bytes, the one that waits longest.
pub(super) fn random() -> u64 {
    let mut bytes = [0xff; 8];
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bound_of_a_wait_doubles_up_to_its_own_and_is_longer_for_who_is_refused() {
        let mut backoff = Backoff::default();
        let mut waits = |is_refused, times| -> Vec<u128> {
            (0..times)
                .map(|_| backoff.next(is_refused, u64::MAX).as_millis())
                .collect()
        };
        assert_eq!(
            waits(false, 9),
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        assert_eq!(waits(true, 2), [51_200, 60_000]);
        backoff.reset();
        assert_eq!(backoff.next(true, 0), FIRST_MAX / 2);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_longest(waits in any::<u32>(), refused in any::<bool>(), random in any::<u64>()) {
            let wait = Backoff { waits }.next(refused, random);
            prop_assert!(wait <= REFUSED_MAX && wait >= FIRST_MAX / 2);
        }
    }
}
