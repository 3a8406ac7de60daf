//! When a certificate is renewed, and when it is late for that.

use super::certificate::Dates;

/// The life of the certificate that this runner has; times are Unix milliseconds of its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    dates: Dates,
    taken_at: u64,
}

impl Life {
    /// Of a certificate that was taken then.
    pub(super) fn new(dates: Dates, taken_at: u64) -> Self {
        Self {
            dates,
            taken_at: taken_at.clamp(dates.not_before, dates.not_after),
        }
    }

    /// Until when it is good.
    #[must_use]
    pub fn ends_at(&self) -> u64 {
        self.dates.not_after
    }

    /// When it is renewed: at two thirds of its life, and up to a tenth of that earlier, by any number, so that runners
    /// that were enrolled together do not come back together.
    #[must_use]
    pub fn renewed_at(&self, random: u64) -> u64 {
        let two_thirds = self.len() / 3 * 2;
        let early = u128::from(two_thirds / 10) * u128::from(random) / u128::from(u64::MAX);
        self.taken_at + two_thirds - u64::try_from(early).unwrap_or(0)
    }

    /// From when on somebody should look why nobody renews it.
    #[must_use]
    pub fn late_at(&self) -> u64 {
        self.taken_at + self.len() / 10 * 9
    }

    /// How long it lives here: a certificate begins before it is made, since clocks differ, and how far ours is behind
    /// must not make it longer than whoever signed it thinks it is.
    fn len(&self) -> u64 {
        self.dates.not_after - self.taken_at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn it_is_renewed_at_two_thirds_or_a_little_earlier() {
        let dates = Dates {
            not_before: 100 * HOUR,
            not_after: 124 * HOUR,
        };
        let life = Life::new(dates, 100 * HOUR);
        assert_eq!(life.renewed_at(0), 116 * HOUR);
        assert_eq!(life.renewed_at(u64::MAX), 116 * HOUR - 16 * HOUR / 10);
        assert_eq!(life.late_at(), 100 * HOUR + 24 * HOUR / 10 * 9);
    }

    #[test]
    fn one_of_seconds_that_began_minutes_ago_is_not_renewed_at_once() {
        let now = 1_000 * HOUR;
        let dates = Dates {
            not_before: now - 300_000,
            not_after: now + 3_000,
        };
        assert_eq!(Life::new(dates, now).renewed_at(0), now + 2_000);
    }

    proptest! {
        #[test]
        fn it_is_renewed_within_its_life_wherever_our_clock_stands(
            not_before in 0..u64::from(u32::MAX),
            len in 1..u64::from(u32::MAX),
            taken_at in any::<u64>(),
            random in any::<u64>(),
        ) {
            let dates = Dates { not_before, not_after: not_before + len };
            let life = Life::new(dates, taken_at);
            let renewed_at = life.renewed_at(random);
            prop_assert!((dates.not_before..=dates.not_after).contains(&renewed_at));
            prop_assert!(renewed_at <= life.late_at().max(life.taken_at) || life.len() < 30);
            prop_assert!(life.late_at() <= life.ends_at());
        }
    }
}
