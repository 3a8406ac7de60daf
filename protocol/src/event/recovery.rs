//! The harness helps itself: it tries again, it shortens its context.

use serde::{Deserialize, Serialize};

use crate::codec::{grows, words};

/// The harness will try again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryStart {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How many there will be at most.
    pub max_attempts: u32,
    /// After how long, milliseconds.
    pub delay_ms: u64,
    /// What failed.
    pub error: String,
}

grows!(RetryStart {
    attempt,
    max_attempts,
    delay_ms,
    error
});

/// The harness has tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryEnd {
    /// Whether that helped.
    pub success: bool,
    /// Which attempt.
    pub attempt: u32,
    /// What failed in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_error: Option<String>,
}

grows!(RetryEnd {
    success,
    attempt,
    final_error
});

/// The context is being shortened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompactStart {
    /// Why.
    pub reason: CompactReason,
}

grows!(CompactStart { reason });

words! {
    /// Why a context is being shortened.
    pub enum CompactReason {
        /// It became long.
        0 "threshold" => Threshold,
        /// It became too long.
        1 "overflow" => Overflow,
        /// Somebody asked.
        2 "manual" => Manual,
    }
}

/// The context was shortened, or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompactEnd {
    /// Whether it is shorter.
    pub success: bool,
    /// Whether the run goes on with it.
    pub will_retry: bool,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What stands for what was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// How long it was, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_before: Option<u64>,
}

grows!(CompactEnd {
    success,
    will_retry,
    error,
    summary,
    tokens_before
});
