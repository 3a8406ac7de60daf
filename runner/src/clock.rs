//! The only place that reads time.
//!
//! Floor: ground. Cores take time as an argument; what they are given comes from here.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, now. A host clock before 1970 reads as zero.
#[must_use]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| {
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    })
}

/// This moment, for deadlines: it never jumps.
#[must_use]
pub fn instant() -> Instant {
    Instant::now()
}
