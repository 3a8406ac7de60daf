//! What a runner is, measured and signed.

use serde::{Deserialize, Serialize};

use crate::codec::{Blob, Json, grows};
use crate::id::{Digest, RunnerId};
use crate::policy::PolicyInfo;

/// Asks what a runner is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attest {
    /// 16 to 64 bytes that were never used before.
    pub nonce: Blob,
}

grows!(Attest { nonce });

/// What a runner is, signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attestation {
    /// The bytes that were signed: a `Statement` in its wire form.
    pub statement: Blob,
    /// By the key of the runner's certificate.
    pub signature: Blob,
}

grows!(Attestation { statement, signature });

/// What a runner says of itself, bound to one asking and one TLS session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// As it was asked.
    pub nonce: Blob,
    /// What only this TLS session exports.
    pub channel: Blob,
    /// Who says it.
    pub runner_id: RunnerId,
    /// When, Unix milliseconds.
    pub taken_at: u64,
    /// Its software's version.
    pub version: String,
    /// The digest of the running program.
    pub binary: Digest,
    /// The kernel's release.
    pub kernel: String,
    /// The sandbox's report on itself.
    pub sandbox_check: Json,
    /// Its policies.
    #[serde(default)]
    pub policies: Vec<PolicyInfo>,
}

grows!(Statement {
    nonce,
    channel,
    runner_id,
    taken_at,
    version,
    binary,
    kernel,
    sandbox_check,
    policies
});
