//! From what a runner answered to a statement that can be believed.

use oqto_protocol::attest::{ATTEST_CONTEXT, Attestation, Statement};
use oqto_protocol::codec::{DecodeError, decode_all};
use oqto_protocol::id::RunnerId;
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;
use webpki::aws_lc_rs::ECDSA_P256_SHA256;

use super::report::SandboxCheck;
use crate::bounds::CLOCK_SKEW;

/// A runner's statement that was made for this asking, on this connection, with the key of its certificate. It shows who
/// says it, not that it is true: who owns the runner's host can make it say anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    statement: Statement,
    sandbox: Result<SandboxCheck, String>,
}

/// Why a statement is not believed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The runner's certificate cannot be read.
    #[error("the runner's certificate cannot be read")]
    Certificate(#[source] webpki::Error),
    /// Another key has signed it, or it was edited since.
    #[error("the statement is not signed with the key of the runner's certificate")]
    Signature(#[source] webpki::Error),
    /// It is none.
    #[error("the statement is malformed")]
    Malformed(#[from] DecodeError),
    /// It answers another asking: somebody says again what was said before.
    #[error("the statement answers another asking")]
    Nonce,
    /// It was made for another connection: somebody passes on what was said elsewhere.
    #[error("the statement was made for another connection")]
    Channel,
    /// It is another runner's.
    #[error("the statement is of runner {found}, not of {wanted}")]
    OtherRunner {
        /// Who says it.
        found: RunnerId,
        /// Who was asked.
        wanted: RunnerId,
    },
    /// It was made at another time, as far as this clock tells.
    #[error(
        "the runner's clock is {apart_s} s {} this one, and {} s are tolerated; set the clock that is wrong",
        if *is_ahead { "ahead of" } else { "behind" },
        CLOCK_SKEW.as_secs()
    )]
    Clock {
        /// How far the clocks are apart, seconds.
        apart_s: u64,
        /// Whether the runner's shows the later time.
        is_ahead: bool,
    },
}

/// What a statement has to be made for.
pub(crate) struct Asked<'a> {
    /// What was drawn for this asking.
    pub(crate) nonce: &'a [u8],
    /// What the TLS session exports on this side.
    pub(crate) channel: &'a [u8],
    /// Who was asked.
    pub(crate) runner_id: &'a RunnerId,
    /// What the runner has shown in the handshake.
    pub(crate) certificate: &'a CertificateDer<'a>,
    /// Unix milliseconds.
    pub(crate) now_ms: u64,
}

/// Reads an attestation as the answer to what was asked.
pub(crate) fn verify(attestation: &Attestation, asked: &Asked<'_>) -> Result<Verified, VerifyError> {
    let certificate = EndEntityCert::try_from(asked.certificate).map_err(VerifyError::Certificate)?;
    let signed = [ATTEST_CONTEXT, &attestation.statement.0].concat();
    certificate
        .verify_signature(ECDSA_P256_SHA256, &signed, &attestation.signature.0)
        .map_err(VerifyError::Signature)?;
    let statement: Statement = decode_all(&attestation.statement.0)?;
    if statement.nonce.0 != asked.nonce {
        return Err(VerifyError::Nonce);
    }
    if statement.channel.0 != asked.channel {
        return Err(VerifyError::Channel);
    }
    if statement.runner_id != *asked.runner_id {
        return Err(VerifyError::OtherRunner {
            found: statement.runner_id,
            wanted: asked.runner_id.clone(),
        });
    }
    let apart_s = statement.taken_at.abs_diff(asked.now_ms) / 1000;
    if apart_s > CLOCK_SKEW.as_secs() {
        return Err(VerifyError::Clock {
            apart_s,
            is_ahead: statement.taken_at > asked.now_ms,
        });
    }
    let sandbox = SandboxCheck::read(statement.sandbox_check.text());
    Ok(Verified { statement, sandbox })
}

impl Verified {
    /// What the runner says.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The check of its sandbox.
    ///
    /// # Errors
    /// Why there is none, in words for people.
    pub fn sandbox(&self) -> Result<&SandboxCheck, &str> {
        self.sandbox.as_ref().map_err(String::as_str)
    }
}
