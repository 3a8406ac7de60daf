//! Who the other side is, read from the certificate that TLS has verified.

use oqto_protocol::id::{AuthorityId, ControlId};
use rustls::pki_types::CertificateDer;

/// A control, as its certificate names it: `oqto://AUTHORITY/control/ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who vouches for it.
    pub authority: AuthorityId,
    /// Its name.
    pub control: ControlId,
    /// The serial number of its certificate, as its DER has it.
    pub serial: Vec<u8>,
}

/// A certificate that names no control of ours. The peer's fault: the connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The handshake left no certificate.
    #[error("the peer has shown no certificate")]
    Missing,
    /// It cannot be parsed, although TLS took it.
    #[error("the peer's certificate is malformed")]
    Malformed(#[source] webpki::Error),
    /// It names something else, or nothing.
    #[error("the peer's certificate names no control (it needs the URI oqto://AUTHORITY/control/ID)")]
    NotControl,
    /// It names another authority than the one that this runner belongs to.
    #[error("the peer's certificate is of authority {found}, this runner belongs to {expected}")]
    OtherAuthority {
        /// What it names.
        found: AuthorityId,
        /// What it should name.
        expected: AuthorityId,
    },
    /// The authority has said that it is trusted no more.
    #[error("control {control}, or its certificate {serial}, is revoked")]
    Revoked {
        /// Its name.
        control: ControlId,
        /// The serial number of its certificate, hex.
        serial: String,
    },
    /// The root that it comes from is trusted no more.
    #[error("the root that signed the certificate of control {control} is trusted no more")]
    RootGone {
        /// Its name.
        control: ControlId,
        /// What the verifier says.
        source: webpki::Error,
    },
}

impl Peer {
    /// Reads the name from a certificate that TLS has verified, or is about to.
    pub(super) fn read(leaf: &webpki::EndEntityCert<'_>) -> Result<Self, PeerError> {
        // One name: who could be two could be revoked as one and come as the other.
        let mut names = leaf.valid_uri_names();
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(PeerError::NotControl);
        };
        let (authority, control) = parse(name).ok_or(PeerError::NotControl)?;
        Ok(Self {
            authority,
            control,
            serial: leaf.serial().to_vec(),
        })
    }

    /// Reads the name from a certificate chain that TLS has verified.
    ///
    /// # Errors
    /// When it names no control.
    pub fn of_chain(chain: &[CertificateDer<'_>]) -> Result<Self, PeerError> {
        let leaf = chain.first().ok_or(PeerError::Missing)?;
        Self::read(&webpki::EndEntityCert::try_from(leaf).map_err(PeerError::Malformed)?)
    }

    /// Reads the name from a certificate chain that TLS has verified.
    ///
    /// # Errors
    /// When it names no control of `authority`.
    pub fn from_chain(chain: &[CertificateDer<'_>], authority: &AuthorityId) -> Result<Self, PeerError> {
        let peer = Self::of_chain(chain)?;
        if peer.authority == *authority {
            Ok(peer)
        } else {
            Err(PeerError::OtherAuthority {
                found: peer.authority,
                expected: authority.clone(),
            })
        }
    }

    /// The name that TLS checks when this control is dialled; nobody looks it up.
    pub(super) fn server_name(&self) -> String {
        format!("{}.control.oqto.internal", self.control)
    }
}

fn parse(uri: &str) -> Option<(AuthorityId, ControlId)> {
    let (authority, control) = uri.strip_prefix("oqto://")?.split_once("/control/")?;
    Some((authority.parse().ok()?, control.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_controls_uri_names_a_peer() {
        let (authority, control) = parse("oqto://abc/control/me").unwrap();
        assert_eq!((authority.as_str(), control.as_str()), ("abc", "me"));
        for uri in [
            "oqto://abc/runner/me",
            "oqto:///control/me",
            "oqto://abc/control/",
            "oqto://a/control/x/y",
            "me",
        ] {
            assert_eq!(parse(uri), None, "{uri}");
        }
    }
}
