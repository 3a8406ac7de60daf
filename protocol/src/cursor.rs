//! Where a reader stands in a session's events.

use serde::{Deserialize, Serialize};

use crate::codec::grows;

/// The last event that somebody has. `seq` 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// Which telling of the session; it grows when a host lost power and with it the newest events.
    pub epoch: u32,
    /// The event's number within the epoch, from 1.
    pub seq: u64,
}

grows!(Cursor { epoch, seq });
