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

    /// Whether nobody was there, or the way is blocked: somebody may be there later.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Failed {
                source: ConnectionError::TimedOut | ConnectionError::Reset | ConnectionError::LocallyClosed,
                ..
            }
        )
    }
}
