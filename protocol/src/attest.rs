//! What a runner is, measured and signed.

use serde::{Deserialize, Serialize};

use crate::codec::{Blob, Json, grows};
use crate::id::{Digest, RunnerId};
use crate::policy::PolicyInfo;

/// What stands before the statement in what is signed, so that no signature made for this is one for anything else.
pub const ATTEST_CONTEXT: &[u8] = b"oqto attestation v1\0";

/// The label under which both sides of a TLS session export its [`Statement::channel`]; the context is empty.
pub const CHANNEL_LABEL: &[u8] = b"EXPORTER-oqto-attestation-v1";

/// How long what a TLS session exports is, bytes: nobody guesses it, and no two sessions have the same.
pub const CHANNEL_LEN: usize = 32;

/// The shortest nonce, bytes: none of this length was ever drawn twice.
pub const NONCE_LEN_MIN: usize = 16;

/// The longest nonce, bytes: no digest that somebody may want to bind in is longer.
pub const NONCE_LEN_MAX: usize = 64;

/// Asks what a runner is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attest {
    /// [`NONCE_LEN_MIN`] to [`NONCE_LEN_MAX`] bytes that were never used before.
    pub nonce: Blob,
}

grows!(Attest { nonce });

/// What a runner is, signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attestation {
    /// The bytes that were signed, behind [`ATTEST_CONTEXT`]: a `Statement` in its wire form.
    pub statement: Blob,
    /// By the key of the runner's certificate: ECDSA on P-256 with SHA-256, ASN.1 DER.
    pub signature: Blob,
}

grows!(Attestation { statement, signature });

/// What a runner says of itself, bound to one asking and one TLS session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// As it was asked.
    pub nonce: Blob,
    /// What only this TLS session exports under [`CHANNEL_LABEL`], [`CHANNEL_LEN`] bytes.
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
    /// The sandbox's report on itself: `checked_at`, and `check`, or `error` where it could not be checked.
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
