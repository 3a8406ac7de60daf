//! What the runner's key signs of its audit log: checkpoints in it, and its head beside it. Pure.

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use oqto_protocol::codec::Blob;
use oqto_protocol::id::{Digest, RunnerId};
use serde::{Deserialize, Serialize};

use super::record::Record;

/// How long a head is on disk, bytes: one sector, which a disk writes whole or not at all.
pub const HEAD_LEN: usize = 512;

/// What tells a checkpoint from anything else that this key signs.
const CHECKPOINT: &[u8] = b"oqto-runner audit checkpoint 1\0";

/// What tells a head from anything else that this key signs.
const HEAD: &[u8] = b"oqto-runner audit head 1\0";

/// A signature that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the runner's key does not sign")]
pub struct NoSignature;

/// Signs with the runner's key.
pub type Sign = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, NoSignature> + Send + Sync>;

/// The public half of a runner's key: a point on P-256, uncompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(pub Vec<u8>);

impl PublicKey {
    /// Whether its private half signed this.
    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0)
            .verify(message, signature)
            .is_ok()
    }
}

/// The newest record that was acknowledged, signed. It stands beside the log, so that a log that ends before it is known to
/// be cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whose log.
    pub runner: RunnerId,
    /// The record's number; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
    /// The runner's signature of all this.
    pub signature: Blob,
}

impl Head {
    /// Signs a head.
    ///
    /// # Errors
    /// When the key does not sign.
    pub fn sign(runner: &RunnerId, seq: u64, hash: Digest, sign: &Sign) -> Result<Self, NoSignature> {
        let signature = sign(&message(HEAD, runner, seq, &hash))?;
        Ok(Self {
            runner: runner.clone(),
            seq,
            hash,
            signature: Blob(signature),
        })
    }

    /// Whether the key signed it.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let message = message(HEAD, &self.runner, self.seq, &self.hash);
        key.has_signed(&message, &self.signature.0)
    }

    /// Its bytes on disk; `None` when they do not fit, which no name is long enough for.
    #[must_use]
    pub fn to_bytes(&self) -> Option<[u8; HEAD_LEN]> {
        let text = serde_json::to_vec(self).ok()?;
        let mut bytes = [b' '; HEAD_LEN];
        bytes[HEAD_LEN - 1] = b'\n';
        bytes[..HEAD_LEN - 1]
            .get_mut(..text.len())?
            .copy_from_slice(&text);
        Some(bytes)
    }

    /// Reads one from disk; `None` when it is none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// Makes a record a checkpoint: signed are all before it.
///
/// # Errors
/// When the key does not sign.
pub fn sign_checkpoint(record: &mut Record, runner: &RunnerId, sign: &Sign) -> Result<(), NoSignature> {
    let signature = sign(&message(CHECKPOINT, runner, record.seq, &record.prev))?;
    record.runner = Some(runner.clone());
    record.signature = Some(Blob(signature));
    Ok(())
}

/// Whether a record is a checkpoint that the key signed.
#[must_use]
pub fn is_signed_checkpoint(record: &Record, key: &PublicKey) -> bool {
    let (Some(runner), Some(signature)) = (&record.runner, &record.signature) else {
        return false;
    };
    key.has_signed(
        &message(CHECKPOINT, runner, record.seq, &record.prev),
        &signature.0,
    )
}

/// Neither a purpose nor a name has a NUL, and the rest has a fixed length: no two mean the same bytes.
fn message(purpose: &[u8], runner: &RunnerId, seq: u64, hash: &Digest) -> Vec<u8> {
    let mut message = purpose.to_vec();
    message.extend_from_slice(runner.as_str().as_bytes());
    message.push(0);
    message.extend_from_slice(&seq.to_be_bytes());
    message.extend_from_slice(&hash.0);
    message
}
