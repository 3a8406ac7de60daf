//! Random choices that a seed tells: the same seed rolls the same.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The variable that names the seed of a run.
pub(crate) const SEED: &str = "OQTO_CHAOS_SEED";

/// Splitmix64: any seed is a good one.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The seed that was asked for, or one that nobody chose.
    pub(crate) fn seed() -> u64 {
        match std::env::var(SEED) {
            Ok(text) => text.parse().expect("a number"),
            Err(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |now| now.as_secs() ^ (u64::from(now.subsec_nanos()) << 20)),
        }
    }

    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// One of them.
    pub(crate) fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let at = self.below(all.len() as u64);
        &all[usize::try_from(at).unwrap()]
    }

    /// A time in milliseconds, from the first to below the second.
    pub(crate) fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}
