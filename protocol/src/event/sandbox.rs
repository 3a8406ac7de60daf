//! What the sandbox refused and where its limits are.

use serde::{Deserialize, Serialize};

use crate::codec::{grows, words};

/// Something was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxViolation {
    /// Which layer refused.
    pub layer: String,
    /// What was tried.
    pub operation: String,
    /// On what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What became of it.
    pub decision: ViolationDecision,
}

grows!(SandboxViolation {
    layer,
    operation,
    target,
    decision
});

words! {
    /// What became of a violation.
    pub enum ViolationDecision {
        /// It was refused.
        0 "denied" => Denied,
        /// Who tried was ended.
        1 "killed" => Killed,
        /// It was let through, and said.
        2 "logged" => Logged,
    }
}

/// A limit was reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxLimit {
    /// Of what.
    pub resource: String,
    /// How much is used, in the resource's unit.
    pub used: u64,
    /// The limit, in the same unit.
    pub limit: u64,
}

grows!(SandboxLimit {
    resource,
    used,
    limit
});
