//! What a seed means: who there is, and what will go wrong when.

use crate::agent::Dialect;
use crate::dice::Dice;
use crate::{shim, store};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillRunner,
    KillShim { session: usize },
    LosePower,
    KillControl { control: usize },
    CutLink { control: usize },
    Partition,
    DiskFull,
    StoreFails,
    ClockBack { ms: u64 },
}

/// A rule that the world breaks, to see that the oracle notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    ShimForgetsWrites,
    ShimTrimsEarly,
    ShimLosesBursts,
    StoreForgetsEpoch,
    StoreTearsCommits,
    StoreSkipsSync,
    StoreDropsWhenFailing,
    LinkLosesFrames,
    LinkRepeatsBytes,
    VolatileAcknowledges,
    ControlRenamesCommands,
}

impl Flaw {
    pub(crate) const ALL: [Self; 11] = [
        Self::ShimForgetsWrites,
        Self::ShimTrimsEarly,
        Self::ShimLosesBursts,
        Self::StoreForgetsEpoch,
        Self::StoreTearsCommits,
        Self::StoreSkipsSync,
        Self::StoreDropsWhenFailing,
        Self::LinkLosesFrames,
        Self::LinkRepeatsBytes,
        Self::VolatileAcknowledges,
        Self::ControlRenamesCommands,
    ];

    pub(crate) fn of_shim(self) -> shim::Flaws {
        shim::Flaws {
            forgets_writes: self == Self::ShimForgetsWrites,
            trims_early: self == Self::ShimTrimsEarly,
            loses_bursts: self == Self::ShimLosesBursts,
        }
    }

    pub(crate) fn of_store(self) -> store::Flaws {
        store::Flaws {
            forgets_epoch: self == Self::StoreForgetsEpoch,
            tears_commits: self == Self::StoreTearsCommits,
            skips_sync: self == Self::StoreSkipsSync,
            drops_when_failing: self == Self::StoreDropsWhenFailing,
        }
    }
}

/// What a seed means.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) flaw: Flaw,
    pub(crate) dialects: Vec<Dialect>,
    /// After how many lines a harness dies by itself.
    pub(crate) dies_after: Vec<Option<u64>>,
    /// How much the store accepts before it has committed, bytes.
    pub(crate) queue_max: usize,
    /// How much may be on its way to a subscriber, bytes.
    pub(crate) window: usize,
    pub(crate) faults: Vec<(u64, Fault)>,
    /// When the last fault is over.
    pub(crate) calm_at: u64,
    /// Users also interrupt, and close.
    pub(crate) is_restless: bool,
}

impl Plan {
    pub(crate) fn new(seed: u64, flaw: Flaw) -> Self {
        let mut dice = Dice::named(seed, "plan");
        let count = dice.between(1, 3) as usize;
        let dialects: Vec<_> = (0..count)
            .map(|_| match dice.below(3) {
                0 => Dialect::Exec,
                1 => Dialect::Pi,
                _ => Dialect::OldPi,
            })
            .collect();
        let dies_after = (0..count)
            .map(|_| dice.percent(15).then(|| dice.below(60)))
            .collect();
        let span_ms = dice.between(200, 12_000);
        let mut faults: Vec<_> = (0..dice.below(9))
            .map(|_| {
                let session = dice.index(count);
                let fault = match dice.below(100) {
                    0..=34 => Fault::KillRunner,
                    35..=39 => Fault::KillShim { session },
                    40..=46 => Fault::LosePower,
                    47..=56 => Fault::KillControl {
                        control: dice.index(2),
                    },
                    57..=68 => Fault::CutLink {
                        control: dice.index(2),
                    },
                    69..=74 => Fault::Partition,
                    75..=82 => Fault::DiskFull,
                    83..=92 => Fault::StoreFails,
                    _ => Fault::ClockBack {
                        ms: dice.between(1, 5000),
                    },
                };
                (dice.below(span_ms), fault)
            })
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            flaw,
            dialects,
            dies_after,
            queue_max: *[2 * 1024 * 1024, 4096, 1024].get(dice.index(3)).unwrap_or(&4096),
            window: *[256 * 1024, 2048, 300].get(dice.index(3)).unwrap_or(&2048),
            faults,
            calm_at: span_ms + 10_000,
            is_restless: dice.percent(35),
        }
    }
}
