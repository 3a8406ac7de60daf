//! An authority in a few lines, which signs what a test tells it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oqto_protocol::codec::{Blob, Wire as _};
use oqto_protocol::enrol::{Grant, SigningRequest};
use oqto_protocol::id::AuthorityId;
use oqto_protocol::trust::{TRUST_CONTEXT, Trust, TrustStatement};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, SigningKey as _,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};

/// As long as any test.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) struct Authority {
    pub(crate) id: AuthorityId,
    pub(crate) root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with what stands behind it, and its key.
pub(crate) struct Papers {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

struct Point<'a>(&'a [u8]);

impl PublicKeyData for Point<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl Authority {
    /// A root with a key of its own; two of the same name are two roots of one authority, as far as names go.
    pub(crate) fn new(id: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("oqto authority {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self {
            id: id.parse().unwrap(),
            root: params.self_signed(&key).unwrap().der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// `sha256:HEX` of the root's SubjectPublicKeyInfo.
    pub(crate) fn pin(&self) -> String {
        let digest = Sha256::digest(self.issuer.key().subject_public_key_info());
        digest
            .iter()
            .fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// A runner's certificate as it should be, good for `life`.
    pub(crate) fn grant(&self, request: &SigningRequest, life: Duration) -> Grant {
        let name = request.runner_id.clone().unwrap();
        let names = [
            SanType::DnsName(text(&format!("{name}.runner.oqto.internal"))),
            SanType::URI(text(&format!("oqto://{}/runner/{name}", self.id))),
        ];
        let leaf = self.leaf(&Point(&request.public_key.0), &names, life, None);
        Grant {
            authority_id: self.id.clone(),
            runner_id: name,
            certificate: Blob(leaf.to_vec()),
            trust: vec![Blob(self.root.to_vec())],
            not_after: 0,
        }
    }

    /// A control's certificate, which can be dialled, with the root behind it.
    pub(crate) fn control(&self, id: &str) -> Papers {
        self.control_of(id, None)
    }

    /// The same with a serial number.
    pub(crate) fn control_of(&self, id: &str, serial: Option<&[u8]>) -> Papers {
        let names = [
            SanType::DnsName(text(&format!("{id}.control.oqto.internal"))),
            SanType::URI(text(&format!("oqto://{}/control/{id}", self.id))),
        ];
        self.papers(&names, HOUR, serial)
    }

    pub(crate) fn papers(&self, names: &[SanType], life: Duration, serial: Option<&[u8]>) -> Papers {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Papers {
            chain: vec![self.leaf(&key, names, life, serial), self.root.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    fn leaf(
        &self,
        key: &impl PublicKeyData,
        names: &[SanType],
        life: Duration,
        serial: Option<&[u8]>,
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.serial_number = serial.map(SerialNumber::from_slice);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + now.saturating_sub(Duration::from_secs(300));
        params.not_after = epoch + now + life;
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }

    /// Number `number` of what this authority says, changed by `change`, signed by it.
    pub(crate) fn statement(&self, number: u64, change: impl FnOnce(&mut TrustStatement)) -> Trust {
        let mut statement = TrustStatement {
            authority_id: self.id.clone(),
            number,
            issued_at: 0,
            roots: vec![Blob(self.root.to_vec())],
            revoked_runners: Vec::new(),
            revoked_controls: Vec::new(),
            revoked_serials: Vec::new(),
        };
        change(&mut statement);
        let mut bytes = Vec::new();
        statement.encode(&mut bytes);
        let message = [TRUST_CONTEXT, &bytes].concat();
        Trust {
            statement: Blob(bytes),
            signature: Blob(self.issuer.key().sign(&message).unwrap()),
        }
    }
}

pub(crate) fn text(text: &str) -> Ia5String {
    Ia5String::try_from(text).unwrap()
}
