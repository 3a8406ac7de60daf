//! Subscriptions: how events flow and how they are acknowledged.

use serde::{Deserialize, Serialize};

use crate::codec::grows;
use crate::cursor::Cursor;
use crate::id::SessionId;

/// Asks for a session's events after a cursor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Whose.
    pub session_id: SessionId,
    /// The last event that the reader has; `{0, 0}` for all.
    pub cursor: Cursor,
    /// The longest frame that the reader takes, bytes; 0 for the protocol's own bound.
    pub max_frame: u32,
    /// For whom the control asks, in its own words; as in [`CommandEnvelope`](crate::command::CommandEnvelope).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
}

grows!(Subscribe {
    session_id,
    cursor,
    max_frame,
    on_behalf_of
});

/// The subscription stands; events follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    /// From where it goes on.
    pub cursor: Cursor,
    /// The oldest event that is still kept.
    pub oldest: u64,
    /// The newest event.
    pub newest: Cursor,
}

grows!(Subscribed {
    cursor,
    oldest,
    newest
});

/// The reader has every event up to here on its own disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// The last of them.
    pub seq: u64,
}

grows!(Ack { seq });
