//! A root: one of the keys of an authority, and the certificate that it signed itself.

use std::path::Path;
use std::time::SystemTime;

use oqto_protocol::codec::Blob;
use oqto_protocol::id::{AuthorityId, Digest};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

use super::issue::root_params;
use super::{AuthorityError, disk};
use crate::bounds::{AUTHORITY_FILE_LEN_MAX, ROOT_LIFE};

/// What a root is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is trusted and will sign after a switch.
    Next,
    /// It is trusted and signs everything.
    Signs,
    /// It is trusted until it is dropped, and signs nothing any more.
    Old,
}

/// A root as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RootInfo {
    /// Its name among the authority's roots: the beginning of its pin.
    pub id: String,
    /// What somebody who trusts nobody yet compares: `sha256:` and the digest of its public key's description.
    pub pin: String,
    /// What it is for.
    pub standing: Standing,
    /// When it was made, Unix milliseconds.
    pub made_at: u64,
    /// Until when it is valid, Unix milliseconds.
    pub not_after: u64,
}

/// A root as the authority's file has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RootRecord {
    pub(super) id: String,
    pub(super) certificate: Blob,
    pub(super) standing: Standing,
    pub(super) made_at: u64,
    /// The first trust statement that had it; 0 for the first root, which is in every grant.
    pub(super) since: u64,
}

impl RootRecord {
    pub(super) fn info(&self, pin: Digest) -> RootInfo {
        let life_ms = u64::try_from(ROOT_LIFE.as_millis()).unwrap_or(u64::MAX);
        RootInfo {
            id: self.id.clone(),
            pin: format!("sha256:{pin}"),
            standing: self.standing,
            made_at: self.made_at,
            not_after: self.made_at.saturating_add(life_ms),
        }
    }
}

/// A private key of the authority. It has no Debug, and what can be wiped of it is wiped when it is let go.
pub(super) struct RootKey(KeyPair);

impl Drop for RootKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl RootKey {
    pub(super) fn generate() -> Result<Self, AuthorityError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(AuthorityError::Make)
    }

    /// Reads a key; `None` when the file is not there.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, AuthorityError> {
        let Some((bytes, _)) = disk::read(path, AUTHORITY_FILE_LEN_MAX)? else {
            return Ok(None);
        };
        let der = PrivatePkcs8KeyDer::from(bytes.as_slice());
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
            .map(|key| Some(Self(key)))
            .map_err(|source| AuthorityError::Key {
                path: path.to_owned(),
                source,
            })
    }

    pub(super) fn write(&self, dir: &Path, name: &str) -> Result<(), AuthorityError> {
        disk::write_whole(dir, name, self.0.serialized_der()).map(drop)
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.0
    }

    /// The digest of its public half, as certificates describe it.
    pub(super) fn pin(&self) -> Digest {
        Digest(Sha256::digest(self.0.subject_public_key_info()).into())
    }

    /// Its name among the roots of an authority.
    pub(super) fn id(&self) -> String {
        short(&self.pin())
    }

    /// A certificate of its own for the authority of that name.
    pub(super) fn certify(
        &self,
        authority: &AuthorityId,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let params = root_params(authority, now);
        let certificate = params.self_signed(&self.0).map_err(AuthorityError::Make)?;
        Ok(certificate.der().clone())
    }
}

/// A root with its key, ready to sign.
pub(super) struct Root {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: RootKey,
    pub(super) params: CertificateParams,
    pub(super) pin: Digest,
}

impl Root {
    /// Joins a certificate and its key; `None` when they are not of each other, or the name is another.
    pub(super) fn join(authority: &AuthorityId, certificate: &Blob, key: RootKey) -> Option<Self> {
        let certificate = CertificateDer::from(certificate.0.clone());
        let params = root_params(authority, SystemTime::now());
        // A certificate made now has another serial and another date, but the same name and key: what an anchor is.
        let fresh = params.self_signed(&key.0).ok()?;
        let kept = webpki::anchor_from_trusted_cert(&certificate).ok()?;
        let fresh = webpki::anchor_from_trusted_cert(fresh.der()).ok()?;
        let is_same =
            kept.subject == fresh.subject && kept.subject_public_key_info == fresh.subject_public_key_info;
        is_same.then(|| Self {
            pin: key.pin(),
            certificate: certificate.clone(),
            key,
            params,
        })
    }
}

/// The beginning of a digest: 16 hex digits.
pub(super) fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(16).collect()
}
