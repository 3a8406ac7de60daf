//! A certificate that somebody gives this runner: believed when it is for this key and this name, and nobody else's.

use oqto_protocol::enrol::Grant;
use oqto_protocol::id::RunnerId;
use rustls::pki_types::{CertificateDer, ServerName};
use webpki::{EndEntityCert, KeyUsage};

use super::certificate::{Dates, Roots};
use super::key::Key;

/// Why a certificate is not taken.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// It cannot be parsed.
    #[error("the certificate is malformed")]
    Malformed(#[source] webpki::Error),
    /// It is of another key.
    #[error("the certificate is for another key than this runner's")]
    OtherKey,
    /// It is for somebody else.
    #[error("the certificate names runner {found}, this is {expected}")]
    OtherRunner {
        /// Whom it names.
        found: RunnerId,
        /// Whom it should name.
        expected: RunnerId,
    },
    /// What TLS shows is not what the answer says.
    #[error("the certificate does not name {wanted}, as it should, and nothing else")]
    Name {
        /// What it should name.
        wanted: String,
    },
    /// It is not good now, by this host's clock.
    #[error(
        "the certificate is good from {} to {} (Unix seconds), and this host's clock says {}; if the certificate is new, \
         the clocks of this host and of the control differ: set them right (timedatectl)",
        not_before / 1000, not_after / 1000, now / 1000
    )]
    Time {
        /// From when, Unix milliseconds.
        not_before: u64,
        /// Until when, Unix milliseconds.
        not_after: u64,
        /// When it was looked at, Unix milliseconds.
        now: u64,
    },
    /// Its authority is not one that this runner trusts.
    #[error("the certificate is not one of an authority that this runner trusts")]
    Untrusted(#[source] webpki::Error),
    /// What is there is as good.
    #[error("the certificate does not live longer than the present one")]
    NotLonger,
}

/// Checks that a grant is a certificate for `key` and `runner_id` under `roots`, at a time of our clock (Unix
/// milliseconds), and gives its dates.
pub(super) fn check(
    grant: &Grant,
    key: &Key,
    runner_id: &RunnerId,
    roots: &Roots,
    now: u64,
) -> Result<Dates, GrantError> {
    if grant.runner_id != *runner_id {
        return Err(GrantError::OtherRunner {
            found: grant.runner_id.clone(),
            expected: runner_id.clone(),
        });
    }
    let der = CertificateDer::from(grant.certificate.0.as_slice());
    let leaf = EndEntityCert::try_from(&der).map_err(GrantError::Malformed)?;
    if leaf.subject_public_key_info().as_ref() != key.public_key_info() {
        return Err(GrantError::OtherKey);
    }
    let wanted = format!("oqto://{}/runner/{runner_id}", grant.authority_id);
    if !leaf.valid_uri_names().eq([wanted.as_str()]) {
        return Err(GrantError::Name { wanted });
    }
    let wanted = format!("{runner_id}.runner.oqto.internal");
    let name = ServerName::try_from(wanted.as_str()).ok();
    let named = name.is_some_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok());
    if !named || leaf.valid_dns_names().count() != 1 {
        return Err(GrantError::Name { wanted });
    }
    let dates = Dates::of(&leaf).map_err(GrantError::Malformed)?;
    let Dates {
        not_before,
        not_after,
    } = dates;
    if !(not_before..=not_after).contains(&now) {
        return Err(GrantError::Time {
            not_before,
            not_after,
            now,
        });
    }
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        roots
            .verify(&leaf, &[], now, usage)
            .map_err(GrantError::Untrusted)?;
    }
    Ok(dates)
}

#[cfg(test)]
pub(super) mod tests {
    use oqto_protocol::codec::Blob;
    use oqto_protocol::id::AuthorityId;
    use rcgen::string::Ia5String;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    };

    use super::*;
    use crate::clock;

    /// An authority in a few lines.
    pub(crate) struct Signer {
        pub(crate) id: AuthorityId,
        pub(crate) root: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Signer {
        pub(crate) fn new(id: &str) -> Self {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            let mut params = CertificateParams::default();
            params
                .distinguished_name
                .push(DnType::CommonName, format!("oqto authority {id}"));
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            let root = params.self_signed(&key).unwrap().der().clone();
            Self {
                id: id.parse().unwrap(),
                root,
                issuer: Issuer::new(params, key),
            }
        }

        pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
            rcgen::SigningKey::sign(self.issuer.key(), message).unwrap()
        }

        pub(crate) fn leaf(
            &self,
            key: &impl rcgen::PublicKeyData,
            names: &[SanType],
            usages: &[ExtendedKeyUsagePurpose],
            days: (i32, i32),
        ) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            params.subject_alt_names = names.to_vec();
            params.extended_key_usages = usages.to_vec();
            (params.not_before, params.not_after) = (
                rcgen::date_time_ymd(days.0, 1, 1),
                rcgen::date_time_ymd(days.1, 1, 1),
            );
            params.signed_by(key, &self.issuer).unwrap().der().clone()
        }

        pub(crate) fn grant(&self, key: &Key, runner: &str) -> Grant {
            let names = names(self.id.as_str(), runner);
            self.grant_of(runner, &self.leaf(key.pair(), &names, &BOTH, (2000, 4000)))
        }

        pub(crate) fn grant_of(&self, runner: &str, leaf: &[u8]) -> Grant {
            Grant {
                authority_id: self.id.clone(),
                runner_id: runner.parse().unwrap(),
                certificate: Blob(leaf.to_vec()),
                trust: vec![Blob(self.root.to_vec())],
                not_after: 0,
            }
        }

        pub(crate) fn roots(&self) -> Roots {
            Roots::one(self.root.clone()).unwrap()
        }
    }

    pub(crate) const BOTH: [ExtendedKeyUsagePurpose; 2] = [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];

    pub(crate) fn uri(text: &str) -> SanType {
        SanType::URI(Ia5String::try_from(text).unwrap())
    }

    pub(crate) fn dns(text: &str) -> SanType {
        SanType::DnsName(Ia5String::try_from(text).unwrap())
    }

    fn names(authority: &str, runner: &str) -> [SanType; 2] {
        [
            dns(&format!("{runner}.runner.oqto.internal")),
            uri(&format!("oqto://{authority}/runner/{runner}")),
        ]
    }

    fn checked(signer: &Signer, grant: &Grant, key: &Key) -> Result<Dates, GrantError> {
        let runner = "r-1".parse().unwrap();
        check(grant, key, &runner, &signer.roots(), clock::unix_ms())
    }

    #[test]
    fn a_certificate_for_this_key_and_this_name_is_taken_and_no_other() {
        let (ours, theirs) = (Signer::new("a"), Signer::new("a"));
        let (key, other_key) = (Key::generate().unwrap(), Key::generate().unwrap());
        checked(&ours, &ours.grant(&key, "r-1"), &key).unwrap();

        let refused = |grant: &Grant| checked(&ours, grant, &key).unwrap_err();
        let error = refused(&ours.grant(&other_key, "r-1"));
        assert!(matches!(error, GrantError::OtherKey), "{error:?}");
        let error = refused(&theirs.grant(&key, "r-1"));
        assert!(matches!(error, GrantError::Untrusted(_)), "{error:?}");
        let error = refused(&ours.grant(&key, "r-2"));
        assert!(matches!(error, GrantError::OtherRunner { .. }), "{error:?}");
        let error = refused(&ours.grant_of("r-1", b"no certificate"));
        assert!(matches!(error, GrantError::Malformed(_)), "{error:?}");
    }

    #[test]
    fn the_names_in_the_certificate_count_and_not_those_beside_it() {
        let signer = Signer::new("a");
        let key = Key::generate().unwrap();
        let (ours, control) = (
            names("a", "r-1"),
            [
                dns("r-1.runner.oqto.internal"),
                uri("oqto://a/runner/r-1"),
                uri("oqto://a/control/main"),
            ],
        );
        let [ours_dns, ours_uri] = ours;
        for wrong in [
            names("a", "r-2").to_vec(),
            names("b", "r-1").to_vec(),
            vec![ours_dns.clone()],
            vec![ours_uri.clone()],
            vec![ours_uri.clone(), dns("r-2.runner.oqto.internal")],
            vec![ours_uri, ours_dns, dns("main.control.oqto.internal")],
            control.to_vec(),
        ] {
            let leaf = signer.leaf(key.pair(), &wrong, &BOTH, (2000, 4000));
            let error = checked(&signer, &signer.grant_of("r-1", &leaf), &key).unwrap_err();
            assert!(matches!(error, GrantError::Name { .. }), "{wrong:?}: {error:?}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_good_now_or_not_for_both_sides_is_refused() {
        let signer = Signer::new("a");
        let key = Key::generate().unwrap();
        for (days, now) in [((2000, 2001), "past"), ((3000, 3001), "future")] {
            let leaf = signer.leaf(key.pair(), &names("a", "r-1"), &BOTH, days);
            let error = checked(&signer, &signer.grant_of("r-1", &leaf), &key).unwrap_err();
            assert!(matches!(error, GrantError::Time { .. }), "{now}: {error:?}");
            assert!(error.to_string().contains("clock"), "{error}");
        }
        for usage in BOTH {
            let leaf = signer.leaf(key.pair(), &names("a", "r-1"), &[usage], (2000, 4000));
            let error = checked(&signer, &signer.grant_of("r-1", &leaf), &key).unwrap_err();
            assert!(matches!(error, GrantError::Untrusted(_)), "{error:?}");
        }
    }
}
