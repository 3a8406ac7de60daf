//! Who makes statements.

use std::io;
use std::sync::Arc;

use oqto_protocol::attest::{
    ATTEST_CONTEXT, Attestation, CHANNEL_LEN, NONCE_LEN_MAX, NONCE_LEN_MIN, Statement,
};
use oqto_protocol::codec::{Blob, Wire as _};
use oqto_protocol::id::{Digest, RunnerId};
use oqto_protocol::policy::PolicyInfo;
use tokio::sync::OnceCell;

use super::check::{CheckSettings, Checks};
use crate::identity::{Key, KeyError};
use crate::{clock, sys};

/// Makes statements, for as long as this program runs.
pub struct Attestor {
    runner_id: RunnerId,
    key: Arc<Key>,
    checks: Checks,
    /// Of this program. It cannot change while it runs, so it is read once, when it is first asked for.
    binary: OnceCell<Digest>,
}

/// Why there is no statement.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The peer's fault.
    #[error("a nonce has {NONCE_LEN_MIN} to {NONCE_LEN_MAX} bytes, this one has {len}")]
    Nonce {
        /// What it has.
        len: usize,
    },
    /// This program cannot be read.
    #[error("cannot read this program")]
    Binary(#[source] io::Error),
    /// The kernel does not say which one it is.
    #[error("cannot tell the kernel's release")]
    Kernel(#[source] io::Error),
    /// The key does not sign.
    #[error("cannot sign the statement")]
    Sign(#[source] KeyError),
}

impl Attestor {
    /// Speaks for this runner.
    #[must_use]
    pub fn new(runner_id: RunnerId, key: Arc<Key>, settings: CheckSettings) -> Self {
        Self {
            runner_id,
            key,
            checks: Checks::new(settings),
            binary: OnceCell::new(),
        }
    }

    /// Says what this runner is, over `nonce` and what the asker's TLS session exports. The sandbox is checked if that
    /// was not done of late; who asks meanwhile waits for the same check.
    ///
    /// # Errors
    /// When the nonce has not the length of one, or this host cannot be looked at. A sandbox that does not hold, or
    /// cannot be checked, is no error but part of what is said.
    pub async fn attest(
        &self,
        nonce: Blob,
        channel: [u8; CHANNEL_LEN],
        policies: Vec<PolicyInfo>,
    ) -> Result<Attestation, AttestError> {
        let len = nonce.0.len();
        if !(NONCE_LEN_MIN..=NONCE_LEN_MAX).contains(&len) {
            return Err(AttestError::Nonce { len });
        }
        let binary = *self.binary.get_or_try_init(own_digest).await?;
        let sandbox_check = self.checks.latest().await;
        let statement = Statement {
            nonce,
            channel: Blob(channel.to_vec()),
            runner_id: self.runner_id.clone(),
            taken_at: clock::unix_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            binary,
            kernel: sys::kernel_release().map_err(AttestError::Kernel)?,
            sandbox_check,
            policies,
        };
        let mut signed = ATTEST_CONTEXT.to_vec();
        statement.encode(&mut signed);
        let signature = self.key.sign(&signed).map_err(AttestError::Sign)?;
        Ok(Attestation {
            statement: Blob(signed.split_off(ATTEST_CONTEXT.len())),
            signature: Blob(signature),
        })
    }
}

async fn own_digest() -> Result<Digest, AttestError> {
    let read = tokio::task::spawn_blocking(sys::own_digest).await;
    read.unwrap_or_else(|ended| Err(io::Error::other(ended)))
        .map_err(AttestError::Binary)
}
