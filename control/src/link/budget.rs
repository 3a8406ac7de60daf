//! How often all runners together are dialled again.

use std::time::{Duration, Instant};

/// How many dials may come at once: a handful of runners that restart are found without delay.
const BURST: u32 = 32;

/// How far apart dials are beyond that. A thousand runners that are lost at once, with the network, are dialled again
/// within 20 s, and no more than a core's worth of handshakes is asked for at any time.
const INTERVAL: Duration = Duration::from_millis(20);

/// The retry budget of one control: a token bucket that all its runners share. It gives out moments, each of them
/// once, instead of a word to ask again: so a thousand that wait do not wake for one token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// When the bucket is full again.
    full: Option<Instant>,
}

impl Budget {
    /// From when on the caller may dial.
    pub fn reserve(&mut self, now: Instant) -> Instant {
        let full = self.full.map_or(now, |full| full.max(now)) + INTERVAL;
        self.full = Some(full);
        // What the burst allows lies before now.
        let ahead = full.duration_since(now).saturating_sub(INTERVAL * BURST);
        now + ahead
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_handful_goes_at_once_and_a_thousand_one_by_one() {
        let now = Instant::now();
        let mut budget = Budget::default();
        let waits: Vec<Duration> = (0..1000).map(|_| budget.reserve(now) - now).collect();
        let burst = usize::try_from(BURST).unwrap();
        assert!(waits[..burst].iter().all(Duration::is_zero));
        assert!(waits[burst..].windows(2).all(|two| two[1] - two[0] == INTERVAL));
        assert!(waits.last().unwrap() < &Duration::from_secs(20));
        // Who comes later finds what was saved up since.
        let later = now + INTERVAL * 2000;
        assert_eq!(budget.reserve(later), later);
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_do_more_go_than_the_burst_and_its_share(
            pauses in proptest::collection::vec(0..100_u64, 1..300),
            from in 0..300_usize,
            len in 1..300_usize,
        ) {
            let mut now = Instant::now();
            let mut budget = Budget::default();
            let mut gone = Vec::new();
            for ms in pauses {
                now += Duration::from_millis(ms);
                gone.push(budget.reserve(now));
            }
            let stretch: Vec<_> = gone.iter().skip(from).take(len).collect();
            if let [first, .., last] = stretch[..] {
                let share = last.duration_since(*first).as_nanos() / INTERVAL.as_nanos();
                let bound = u128::from(BURST) + share + 1;
                prop_assert!(u128::try_from(stretch.len()).unwrap() <= bound);
            }
        }
    }
}
