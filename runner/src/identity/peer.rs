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
}

/// A certificate that names no control. The peer's fault: the connection is closed.
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
}

impl Peer {
    /// Reads the name from a certificate chain that TLS has verified.
    ///
    /// # Errors
    /// When it names no control of `authority`.
    pub fn from_chain(chain: &[CertificateDer<'_>], authority: &AuthorityId) -> Result<Self, PeerError> {
        let leaf = chain.first().ok_or(PeerError::Missing)?;
        let leaf = webpki::EndEntityCert::try_from(leaf).map_err(PeerError::Malformed)?;
        let peer = leaf
            .valid_uri_names()
            .find_map(parse)
            .ok_or(PeerError::NotControl)?;
        if peer.authority == *authority {
            Ok(peer)
        } else {
            Err(PeerError::OtherAuthority {
                found: peer.authority,
                expected: authority.clone(),
            })
        }
    }
}

fn parse(uri: &str) -> Option<Peer> {
    let (authority, control) = uri.strip_prefix("oqto://")?.split_once("/control/")?;
    Some(Peer {
        authority: authority.parse().ok()?,
        control: control.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_controls_uri_names_a_peer() {
        let peer = parse("oqto://abc/control/me").unwrap();
        assert_eq!((peer.authority.as_str(), peer.control.as_str()), ("abc", "me"));
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
