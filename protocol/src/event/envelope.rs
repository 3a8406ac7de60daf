//! Events with what stands around them: on the wire and the disk, and in JSON.

use serde::{Deserialize, Serialize};

use crate::codec::grows;
use crate::id::{RunnerId, SessionId};

use super::Event;

/// An event with its number, as it is kept and sent. Whose it is follows from the stream or file it stands in.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered {
    /// Which telling of the session.
    pub epoch: u32,
    /// Its number within the epoch, from 1, without gaps; of a merged event the last.
    pub seq: u64,
    /// Of a merged event the first number.
    pub first_seq: Option<u64>,
    /// When it happened, Unix milliseconds.
    pub ts: u64,
    /// What happened.
    pub event: Event,
}

grows!(Numbered {
    epoch,
    seq,
    first_seq,
    ts,
    event
});

/// An event with all that is needed to know it anywhere: the form of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Whose.
    pub session_id: SessionId,
    /// Where.
    pub runner_id: RunnerId,
    /// Which telling of the session.
    pub epoch: u32,
    /// Its number; a transient event has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Of a merged event the first number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seq: Option<u64>,
    /// When it happened, Unix milliseconds.
    pub ts: u64,
    /// What happened. Flattened, since the protocol has one object an event and every field of it is known.
    #[serde(flatten)]
    pub event: Event,
}

/// An event that is not kept: telemetry, the first thing to go under load.
#[derive(Clone, Debug, PartialEq)]
pub struct Transient {
    /// Whose.
    pub session_id: SessionId,
    /// When, Unix milliseconds.
    pub ts: u64,
    /// What.
    pub event: Event,
}

grows!(Transient {
    session_id,
    ts,
    event
});
