//! Handshakes that came to nothing, and what is to be done about it.

use std::net::SocketAddr;

use quinn::{ConnectionError, TransportErrorCode};

/// The alerts of TLS (RFC 8446, 6.2) that have a reason of their own here.
const CERTIFICATE_EXPIRED: u8 = 45;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// A link that did not come about, or that the peer took back at once: with TLS 1.3 who dials learns only then that its
/// certificate is refused.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's certificate is not good at this time, as this host has it.
    #[error(
        "the certificate of {address} is not good now, by this host's clock; if it is new, the clocks of the two hosts \
         differ by at least as much as is said here"
    )]
    PeerDates {
        /// Whose it is.
        address: SocketAddr,
        /// What it says, and by how much.
        source: ConnectionError,
    },
    /// This runner's certificate is not good at this time, as the peer has it.
    #[error(
        "{address} says that this runner's certificate is not good now; if it has not expired here, the clocks of the two \
         hosts differ"
    )]
    OurDates {
        /// Who says so.
        address: SocketAddr,
        /// What it says.
        source: ConnectionError,
    },
    /// The other side does something else.
    #[error("{address} speaks another protocol")]
    Protocol {
        /// Who.
        address: SocketAddr,
        /// What was said.
        source: ConnectionError,
    },
    /// No certificate, another authority, another version, or the link broke.
    #[error("the handshake with {address} failed")]
    Failed {
        /// With whom.
        address: SocketAddr,
        /// Why.
        source: ConnectionError,
    },
}

impl HandshakeError {
    pub(super) fn new(address: SocketAddr, source: ConnectionError) -> Self {
        let (code, is_theirs) = match &source {
            ConnectionError::TransportError(error) => (Some(error.code), false),
            ConnectionError::ConnectionClosed(close) => (Some(close.error_code), true),
            _ => (None, false),
        };
        let is = |alert| code == Some(TransportErrorCode::crypto(alert));
        if is(CERTIFICATE_EXPIRED) && is_theirs {
            Self::OurDates { address, source }
        } else if is(CERTIFICATE_EXPIRED) {
            Self::PeerDates { address, source }
        } else if is(NO_APPLICATION_PROTOCOL) {
            Self::Protocol { address, source }
        } else {
            Self::Failed { address, source }
        }
    }

    /// Whether it was this runner that did not believe what the peer showed.
    #[must_use]
    pub fn is_disbelief(&self) -> bool {
        match self {
            Self::PeerDates { .. } => true,
            Self::Failed {
                source: ConnectionError::TransportError(error),
                ..
            } => (0x100..0x200).contains(&u64::from(error.code)),
            _ => false,
        }
    }

    /// Whether nobody was there, the way is blocked, or too many came at once: somebody may be there later.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        let Self::Failed { source, .. } = self else {
            return false;
        };
        match source {
            ConnectionError::TimedOut | ConnectionError::Reset | ConnectionError::LocallyClosed => true,
            // Before a byte of TLS was read: it says nothing of who asks.
            ConnectionError::ConnectionClosed(close) => {
                close.error_code == TransportErrorCode::CONNECTION_REFUSED
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use quinn::ConnectionClose;

    use super::*;

    #[test]
    fn who_has_no_place_for_anybody_refuses_nobody() {
        let closed = |error_code| {
            let source = ConnectionError::ConnectionClosed(ConnectionClose {
                error_code,
                frame_type: None,
                reason: Vec::new().into(),
            });
            HandshakeError::new(SocketAddr::from(([127, 0, 0, 1], 1)), source)
        };
        assert!(closed(TransportErrorCode::CONNECTION_REFUSED).is_silence());
        assert!(!closed(TransportErrorCode::crypto(CERTIFICATE_EXPIRED)).is_silence());
        assert!(!closed(TransportErrorCode::PROTOCOL_VIOLATION).is_silence());
    }
}
