//! Faults: why something was not done.

use serde::{Deserialize, Serialize};

use crate::codec::{grows, words};

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// For programs.
    pub code: FaultCode,
    /// For people: what failed, on what, why, and what to do.
    pub message: String,
}

grows!(Fault { code, message });

impl Fault {
    /// A fault.
    #[must_use]
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

words! {
    /// Why something was not done, for programs.
    pub enum FaultCode {
        /// The runner is wrong; please report it.
        0 "internal" => Internal,
        /// No common version.
        1 "version" => Version,
        /// The frame is not what it should be.
        2 "malformed" => Malformed,
        /// This runner or this harness does not do that; the message names what.
        3 "unsupported" => Unsupported,
        /// There is no such thing.
        4 "not_found" => NotFound,
        /// It is there already.
        5 "exists" => Exists,
        /// Not while the session is in this state.
        6 "wrong_state" => WrongState,
        /// A value is not acceptable.
        7 "invalid" => Invalid,
        /// Not allowed.
        8 "denied" => Denied,
        /// The sandbox policy does not allow it, or cannot be enforced here.
        9 "policy" => Policy,
        /// The harness refused or failed.
        10 "harness" => Harness,
        /// A limit was reached.
        11 "limit" => Limit,
        /// Try again later.
        12 "busy" => Busy,
        /// The runner's disk is full or failing.
        13 "storage" => Storage,
        /// It took too long.
        14 "timeout" => Timeout,
        /// The runner is stopping.
        15 "closing" => Closing,
    }
}
