//! The runner's private key.

use std::sync::Arc;

use oqto_protocol::codec::Blob;
use oqto_protocol::enrol::{KeyAlgorithm, SigningRequest};
use oqto_protocol::id::RunnerId;
use rcgen::{PublicKeyData as _, SigningKey as _};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey as TlsKey;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

/// The runner's private key, ECDSA on P-256. It has no Debug, is written by `store` alone, and is zeroed when it goes.
pub struct Key(rcgen::KeyPair);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A key that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The crypto provider failed.
    #[error("cannot make a key")]
    Make(#[source] rcgen::Error),
    /// The text is no such key.
    #[error("the text is no PKCS#8 key on P-256")]
    Malformed(#[source] rcgen::Error),
    /// The crypto provider failed.
    #[error("the key does not sign")]
    Sign(#[source] rcgen::Error),
}

impl Key {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the crypto provider fails.
    pub fn generate() -> Result<Self, KeyError> {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(KeyError::Make)
    }

    /// Reads a key from PEM.
    ///
    /// # Errors
    /// When the text is no such key.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        rcgen::KeyPair::from_pem_and_sign_algo(text, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(KeyError::Malformed)
    }

    /// The key as PEM, for the store alone.
    pub(super) fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// The key as TLS takes it.
    pub(super) fn for_tls(&self) -> Result<Arc<dyn TlsKey>, rustls::Error> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialized_der()));
        any_ecdsa_type(&der)
    }

    /// A secret of its own for one purpose, the same as long as the key is: it tells nothing of the key, nor of what
    /// is derived for another purpose.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update(self.0.serialized_der());
        hash.update(purpose);
        Zeroizing::new(hash.finalize().into())
    }

    /// Signs a message, which begins with what it is for: no two purposes may have the same bytes.
    ///
    /// # Errors
    /// When the crypto provider fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.0.sign(message).map_err(KeyError::Sign)
    }

    /// The public half: a point on P-256, uncompressed.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        self.0.der_bytes()
    }

    /// The public half as a certificate has it: a SubjectPublicKeyInfo.
    pub(super) fn public_key_info(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    #[cfg(test)]
    pub(super) fn pair(&self) -> &rcgen::KeyPair {
        &self.0
    }

    /// What a control is asked to sign.
    #[must_use]
    pub fn signing_request(&self, runner_id: RunnerId) -> SigningRequest {
        SigningRequest {
            algorithm: KeyAlgorithm::EcdsaP256Sha256,
            public_key: Blob(self.0.der_bytes().to_vec()),
            runner_id: Some(runner_id),
        }
    }
}
