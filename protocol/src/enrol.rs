//! How a runner gets its certificate and keeps it fresh.

use serde::{Deserialize, Serialize};

use crate::codec::{Blob, grows, words};
use crate::id::{AuthorityId, RunnerId};
use crate::secret::Secret;

/// A one-time join token.
pub type Token = Secret;

/// A key that wants a certificate; that its owner has the private half shows in the first TLS handshake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SigningRequest {
    /// What kind of key.
    pub algorithm: KeyAlgorithm,
    /// The public key: for P-256 the uncompressed point, 65 bytes.
    pub public_key: Blob,
    /// The name that it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_id: Option<RunnerId>,
}

grows!(SigningRequest {
    algorithm,
    public_key,
    runner_id
});

words! {
    /// What kind of key.
    pub enum KeyAlgorithm {
        /// ECDSA on P-256 with SHA-256.
        0 "ecdsa_p256_sha256" => EcdsaP256Sha256,
    }
}

/// Asks for a first certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Enrol {
    /// What buys it.
    pub token: Token,
    /// For which key.
    pub request: SigningRequest,
}

grows!(Enrol { token, request });

/// Asks for a new certificate over a live link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Renew {
    /// For which key.
    pub request: SigningRequest,
}

grows!(Renew { request });

/// A certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// Who signed.
    pub authority_id: AuthorityId,
    /// Who it names.
    pub runner_id: RunnerId,
    /// The certificate, DER.
    pub certificate: Blob,
    /// The roots to trust from now on, DER.
    #[serde(default)]
    pub trust: Vec<Blob>,
    /// Until when, Unix milliseconds.
    pub not_after: u64,
}

grows!(Grant {
    authority_id,
    runner_id,
    certificate,
    trust,
    not_after
});
