//! What a certificate says, as the parser says it that also verifies it.

use std::time::Duration;

use oqto_protocol::codec::Blob;
use oqto_protocol::trust::ROOTS_MAX;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use webpki::{EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};

use super::pin::Pin;

/// From when to when a certificate is good, Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dates {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

impl Dates {
    /// Reads them. The parser keeps them to itself, and says them when it finds a time to lie outside.
    pub(super) fn of(certificate: &EndEntityCert<'_>) -> Result<Self, Error> {
        let judged = |seconds| {
            certificate.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &[],
                &[],
                UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
                KeyUsage::client_auth(),
                None,
                None,
            )
        };
        let not_before = match judged(0) {
            Err(Error::CertNotValidYet { not_before, .. }) => ms(not_before),
            // A certificate of the very first second.
            Err(Error::UnknownIssuer) => 0,
            Err(error) => return Err(error),
            Ok(_) => return Err(Error::UnknownIssuer),
        };
        match judged(u64::MAX) {
            Err(Error::CertExpired { not_after, .. }) => Ok(Self {
                not_before,
                not_after: ms(not_after),
            }),
            Err(error) => Err(error),
            Ok(_) => Err(Error::UnknownIssuer),
        }
    }
}

fn ms(time: UnixTime) -> u64 {
    time.as_secs().saturating_mul(1000)
}

/// A time of our clock, as the parser takes it.
pub(super) fn time(unix_ms: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(unix_ms))
}

/// The roots of an authority: at least one, and each of them can be an anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Roots(Vec<CertificateDer<'static>>);

/// Roots that are none.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// None, or too many.
    #[error("there are {0} roots, and there must be 1 to {ROOTS_MAX}")]
    Count(usize),
    /// Not a certificate.
    #[error("a root is malformed")]
    Malformed(#[source] Error),
}

impl Roots {
    /// Takes what a peer or a file says are roots.
    pub(super) fn read(blobs: &[Blob]) -> Result<Self, RootsError> {
        if !(1..=ROOTS_MAX).contains(&blobs.len()) {
            return Err(RootsError::Count(blobs.len()));
        }
        let roots: Vec<_> = blobs
            .iter()
            .map(|blob| CertificateDer::from(blob.0.clone()))
            .collect();
        for root in &roots {
            anchor_from_trusted_cert(root).map_err(RootsError::Malformed)?;
        }
        Ok(Self(roots))
    }

    /// One root.
    pub(super) fn one(root: CertificateDer<'static>) -> Result<Self, RootsError> {
        anchor_from_trusted_cert(&root).map_err(RootsError::Malformed)?;
        Ok(Self(vec![root]))
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.0.iter()
    }

    /// Whether one of them has the pin.
    pub(super) fn have(&self, pin: &Pin) -> bool {
        self.iter().any(|root| pin_of(root).as_ref() == Some(pin))
    }

    /// Verifies a chain whose first certificate is `leaf`, at a time of our clock, Unix milliseconds.
    pub(super) fn verify(
        &self,
        leaf: &EndEntityCert<'_>,
        behind: &[CertificateDer<'_>],
        at: u64,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let anchors: Vec<_> = self
            .iter()
            .filter_map(|root| anchor_from_trusted_cert(root).ok())
            .collect();
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            behind,
            time(at),
            usage,
            None,
            None,
        )
        .map(drop)
    }
}

/// What a root is known by; `None` for what is no certificate.
pub(super) fn pin_of(root: &CertificateDer<'_>) -> Option<Pin> {
    let root = EndEntityCert::try_from(root).ok()?;
    Some(Pin(Sha256::digest(root.subject_public_key_info()).into()))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_dates_are_those_of_the_certificate() {
        let key = KeyPair::generate().unwrap();
        for (from, to, wanted) in [
            (
                date_time_ymd(2001, 9, 9),
                date_time_ymd(2033, 5, 18),
                (999_993_600_000, 1_999_987_200_000),
            ),
            (
                date_time_ymd(1970, 1, 1),
                date_time_ymd(1970, 1, 2),
                (0, 86_400_000),
            ),
            (
                date_time_ymd(2049, 12, 31),
                date_time_ymd(4096, 1, 1),
                (2_524_521_600_000, 67_090_118_400_000),
            ),
        ] {
            let mut params = CertificateParams::default();
            (params.not_before, params.not_after) = (from, to);
            let certificate = params.self_signed(&key).unwrap();
            let leaf = EndEntityCert::try_from(certificate.der()).unwrap();
            let dates = Dates::of(&leaf).unwrap();
            assert_eq!((dates.not_before, dates.not_after), wanted);
        }
    }
}
