//! How long a shim is waited for that was sent something. It answers each write at once, whatever its harness, its tape
//! and the disk's room do; one that does not is stopped, or hangs, and nobody could ever tell it anything again.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often it is looked at whether it has answered.
const LOOK: Duration = Duration::from_secs(1);

/// How many looks in vain are enough: far beyond a busy host, and within what a human waits for an answer.
const LOOKS_MAX: u32 = 20;

/// What is left of the patience with one shim.
///
/// It is looks that count and not a clock: where the host or the runner stood still nobody looked.
pub(super) struct Patience {
    looks: Interval,
    in_vain: u32,
}

impl Patience {
    pub(super) fn new() -> Self {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { looks, in_vain: 0 }
    }

    /// The shim said something.
    pub(super) fn heard(&mut self) {
        self.in_vain = 0;
    }

    /// Waits until there is none left. May be dropped and called again: what was counted stays.
    pub(super) async fn end(&mut self) {
        while self.in_vain < LOOKS_MAX {
            self.looks.tick().await;
            self.in_vain += 1;
        }
        self.in_vain = 0;
    }
}
