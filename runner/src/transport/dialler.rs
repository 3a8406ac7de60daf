//! Dialling: a runner that nobody can reach reaches its controls.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, VarInt};
use zeroize::Zeroizing;

use super::handshake::HandshakeError;
use super::listener::{Connection, endpoint_config, transport_config, widen};

/// How long a dial may take to the end of its handshake: a few round trips, and packets that are lost.
const DIAL_MAX: Duration = Duration::from_secs(10);

/// The name that a dialled control is asked for. Each has one of its own, which its certificate says.
const SERVER_NAME: &str = "control.oqto.internal";

/// Our sockets for dialling, one for each family, bound when it is first needed and shared by all that is dialled.
pub struct Dialler {
    secret: Zeroizing<[u8; 32]>,
    v4: Mutex<Option<Endpoint>>,
    v6: Mutex<Option<Endpoint>>,
}

/// A dial that led to nobody.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The socket cannot be had.
    #[error("cannot open a UDP socket to dial {address}")]
    Socket {
        /// Whom.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The TLS configuration has no cipher suite that QUIC needs.
    #[error("the TLS configuration cannot carry QUIC")]
    Tls(#[source] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The dial could not even begin.
    #[error("cannot dial {address}")]
    Begin {
        /// Whom.
        address: SocketAddr,
        /// Why not.
        source: quinn::ConnectError,
    },
    /// Nobody answers.
    #[error("nobody answers at {address} within {} s", DIAL_MAX.as_secs())]
    Silent {
        /// Where.
        address: SocketAddr,
    },
    /// The handshake came to nothing.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl Dialler {
    /// One that has dialled nobody yet. The secret is as that of a listener.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self {
            secret: Zeroizing::new(*secret),
            v4: Mutex::new(None),
            v6: Mutex::new(None),
        }
    }

    /// Dials; when it returns, the peer is verified.
    ///
    /// # Errors
    /// When nobody is there, or cannot be verified.
    pub async fn dial(
        &self,
        address: SocketAddr,
        tls: rustls::ClientConfig,
    ) -> Result<Connection, DialError> {
        let endpoint = self
            .reaching(address)
            .map_err(|source| DialError::Socket { address, source })?;
        let tls = QuicClientConfig::try_from(tls).map_err(DialError::Tls)?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport_config()));
        let connecting = endpoint
            .connect_with(config, address, SERVER_NAME)
            .map_err(|source| DialError::Begin { address, source })?;
        match tokio::time::timeout(DIAL_MAX, connecting).await {
            Ok(Ok(link)) => Ok(Connection::new(link)),
            Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => Err(DialError::Silent { address }),
            Ok(Err(source)) => Err(HandshakeError::new(address, source).into()),
        }
    }

    /// Closes every link that was dialled and waits until the peers know. Nothing can be dialled any more.
    pub async fn close(&self) {
        for slot in [&self.v4, &self.v6] {
            let endpoint = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(endpoint) = endpoint {
                endpoint.close(VarInt::from_u32(0), b"the runner is stopping");
                endpoint.wait_idle().await;
            }
        }
    }

    fn reaching(&self, address: SocketAddr) -> io::Result<Endpoint> {
        let (slot, local) = match address {
            SocketAddr::V4(_) => (&self.v4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            SocketAddr::V6(_) => (&self.v6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = &*slot {
            return Ok(endpoint.clone());
        }
        let socket = UdpSocket::bind(local)?;
        widen(&socket);
        let config = endpoint_config(&self.secret)?;
        let endpoint = Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))?;
        Ok(slot.insert(endpoint).clone())
    }
}
