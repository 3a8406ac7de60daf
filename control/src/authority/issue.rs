//! What certificates say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oqto_protocol::codec::Blob;
use oqto_protocol::enrol::{Grant, KeyAlgorithm, SigningRequest};
use oqto_protocol::id::{AuthorityId, ControlId, RunnerId};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroize as _;

use super::ledger::{Serial, ms};
use super::names::{control_server_name, control_uri, runner_uri, server_name};
use super::store::{Authority, now_ms};
use crate::bounds::{CLOCK_SKEW, CONTROL_LIFE, LEAF_LIFE_MAX, ROOT_LIFE};

/// Bytes of an uncompressed point on P-256: a tag and two coordinates.
const POINT_LEN: usize = 65;

/// The tag of an uncompressed point.
const POINT_UNCOMPRESSED: u8 = 4;

/// Bytes of a serial number; random, so that none says how many there are.
const SERIAL_LEN: usize = 16;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request's key is of a kind that this authority does not sign.
    #[error("the key is not one of ECDSA on P-256")]
    Algorithm,
    /// The request's key is not a point.
    #[error("the key is not an uncompressed point of {POINT_LEN} bytes")]
    Key,
    /// The request asks for another name than it would get.
    #[error("the request is for runner {asked}, not for {given}")]
    Name {
        /// What it asks for.
        asked: RunnerId,
        /// What it would get.
        given: RunnerId,
    },
    /// Who asks is trusted no more.
    #[error("{who} was revoked")]
    Revoked {
        /// Who.
        who: String,
    },
    /// No root signs.
    #[error("the authority has no root that signs")]
    NoSigner,
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// Making the certificate failed.
    #[error("cannot make the certificate")]
    Make(#[from] rcgen::Error),
}

/// A certificate with its root behind it, and its key, for one TLS configuration.
pub(crate) struct Credentials {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A certificate that was made.
pub(super) struct Issued {
    pub(super) grant: Grant,
    pub(super) serial: Serial,
    /// The root that signed.
    pub(super) root: String,
}

impl Authority {
    /// Signs a runner's key for `life` from now, 30 days at most, and writes nothing down: [`grant`](Self::grant) does. That
    /// its owner has the private half shows in the first handshake.
    ///
    /// # Errors
    /// When the key is not a P-256 point, the request asks for another name, or the runner was revoked.
    pub fn sign(
        &self,
        request: &SigningRequest,
        runner_id: &RunnerId,
        life: Duration,
    ) -> Result<Grant, SignError> {
        self.issue(request, runner_id, life).map(|issued| issued.grant)
    }

    pub(super) fn issue(
        &self,
        request: &SigningRequest,
        runner_id: &RunnerId,
        life: Duration,
    ) -> Result<Issued, SignError> {
        let point = point_of(request)?;
        if let Some(asked) = &request.runner_id
            && asked != runner_id
        {
            return Err(SignError::Name {
                asked: asked.clone(),
                given: runner_id.clone(),
            });
        }
        let state = self.now();
        if state.is_runner_revoked(runner_id) {
            let who = format!("runner {runner_id}");
            return Err(SignError::Revoked { who });
        }
        let root = state.signer().ok_or(SignError::NoSigner)?;
        let life = life.min(LEAF_LIFE_MAX);
        let (mut params, serial) = leaf(&format!("oqto runner {runner_id}"), SystemTime::now(), life)?;
        params.subject_alt_names = vec![
            SanType::DnsName(Ia5String::try_from(server_name(runner_id))?),
            SanType::URI(Ia5String::try_from(runner_uri(self.id(), runner_id))?),
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let issuer = Issuer::from_params(&root.params, root.key.pair());
        let certificate = params.signed_by(&point, &issuer)?;
        let grant = Grant {
            authority_id: self.id().clone(),
            runner_id: runner_id.clone(),
            certificate: Blob(certificate.der().to_vec()),
            trust: state.trust_roots(),
            not_after: now_ms().saturating_add(ms(life)),
        };
        Ok(Issued {
            grant,
            serial,
            root: root.key.id(),
        })
    }

    /// A fresh key and certificate for a control, which serves and dials.
    pub(crate) fn control_credentials(&self, control: &ControlId) -> Result<Credentials, SignError> {
        let state = self.now();
        if state.is_control_revoked(control) {
            let who = format!("control {control}");
            return Err(SignError::Revoked { who });
        }
        let root = state.signer().ok_or(SignError::NoSigner)?;
        let mut key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let (mut params, _) = leaf(
            &format!("oqto control {control}"),
            SystemTime::now(),
            CONTROL_LIFE,
        )?;
        params.subject_alt_names = vec![
            SanType::DnsName(Ia5String::try_from(control_server_name(control))?),
            SanType::URI(Ia5String::try_from(control_uri(self.id(), control))?),
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let issuer = Issuer::from_params(&root.params, root.key.pair());
        let certificate = params.signed_by(&key, &issuer)?.der().clone();
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        key.zeroize();
        Ok(Credentials {
            chain: vec![certificate, root.certificate.clone()],
            key: der,
        })
    }
}

/// The key that a request wants signed.
pub(super) fn point_of(request: &SigningRequest) -> Result<Point<'_>, SignError> {
    if request.algorithm != KeyAlgorithm::EcdsaP256Sha256 {
        return Err(SignError::Algorithm);
    }
    Point::parse(&request.public_key.0)
}

/// The parameters of a root, the same for all roots of an authority but for key and dates; leaves never have its name.
pub(super) fn root_params(authority: &AuthorityId, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("oqto authority {authority}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    live_from(&mut params, now, ROOT_LIFE);
    params
}

fn leaf(name: &str, now: SystemTime, life: Duration) -> Result<(CertificateParams, Serial), SignError> {
    let mut serial = [0; SERIAL_LEN];
    getrandom::fill(&mut serial).map_err(|_| SignError::Random)?;
    // A serial number is positive and without leading zeros.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    live_from(&mut params, now, life);
    Ok((params, Serial::new(&serial)))
}

/// Sets the dates. rcgen's time is reached from its own epoch, so that the package it comes from need not be named.
fn live_from(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now.saturating_add(life);
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// A public key of P-256, as a certificate holds it.
pub(super) struct Point<'a>(&'a [u8]);

impl<'a> Point<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, SignError> {
        match bytes.first() {
            Some(&POINT_UNCOMPRESSED) if bytes.len() == POINT_LEN => Ok(Self(bytes)),
            _ => Err(SignError::Key),
        }
    }
}

impl PublicKeyData for Point<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
