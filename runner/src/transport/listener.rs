//! Who may connect, and how fast it goes.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use oqto_protocol::bounds::HELLO_LEN_MAX;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    AckFrequencyConfig, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::CertificateDer;

use super::handshake::HandshakeError;
use super::strangers::{Place, Strangers};
use super::stream::{Room, Stream};
use super::turns::Turns;

/// Connections at once. Each may hold a window of unread data; past this a stranger waits outside.
const CONNECTIONS_MAX: usize = 64;

/// Streams of one connection at once, each kind: memory is kept ready for every one that is permitted.
pub const STREAMS_MAX: u32 = 256;

/// What the kernel is asked to buffer for the socket, bytes: its default of some 200 KiB loses packets in bursts.
const SOCKET_BUFFER_LEN: usize = 4 * 1024 * 1024;

/// The largest packet that discovery may find. With segmentation offload ten of them go to the kernel at once, and
/// ten of more than 6550 bytes pass 65,507, which it refuses.
const MTU_MAX: u16 = 6500;

/// How much may be on its way to one peer, bytes. A slow reader keeps this much in memory.
const SEND_WINDOW: u64 = 1024 * 1024;

/// How much one peer may have sent that nobody has read yet, bytes, on all its streams together. One frame of the
/// longest kind is read piece by piece and needs no more.
const RECEIVE_WINDOW: u32 = 8 * 1024 * 1024;

/// How long a silent link lives: an outage of some seconds passes, and a dead peer's place is soon free again.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// How often a live link is heard: far below what NATs forget after, and three chances before it counts as silent.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// An address where this runner cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket cannot be had.
    #[error("cannot listen on {address}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The TLS configuration has no cipher suite that QUIC needs.
    #[error("the TLS configuration cannot carry QUIC")]
    Tls(#[source] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// A TLS session that exports nothing of its own. One whose handshake is done always does.
#[derive(Debug, thiserror::Error)]
#[error("this TLS session exports nothing")]
pub struct ExportError;

/// Where this runner listens.
pub struct Listener {
    endpoint: Endpoint,
    /// What handshakes go by. Not the endpoint's: a link is given that when its first packet comes, by a task of its own.
    config: Mutex<Arc<ServerConfig>>,
    address: SocketAddr,
    strangers: Strangers,
}

/// A link whose handshake has begun.
pub struct Incoming {
    connecting: quinn::Connecting,
    address: SocketAddr,
    place: Place,
}

/// A verified link to a peer.
#[derive(Clone)]
pub struct Connection {
    link: quinn::Connection,
    /// For long frames that are not whole yet.
    room: Room,
    /// For what is asked and looked at.
    turns: Turns,
}

impl Listener {
    /// Listens on `address`. A peer that still speaks to a runner that is gone is told so at once by the next one at the
    /// same address that has the same `secret`.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn bind(
        address: SocketAddr,
        tls: rustls::ServerConfig,
        secret: &[u8; 32],
    ) -> Result<Self, BindError> {
        let socket_error = |source| BindError::Socket { address, source };
        let socket = UdpSocket::bind(address).map_err(socket_error)?;
        widen(&socket);
        let endpoint_config = endpoint_config(secret).map_err(socket_error)?;
        let config = server_config(tls)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint =
            Endpoint::new(endpoint_config, Some(config.clone()), socket, runtime).map_err(socket_error)?;
        let address = endpoint.local_addr().map_err(socket_error)?;
        Ok(Self {
            endpoint,
            config: Mutex::new(Arc::new(config)),
            address,
            strangers: Strangers::default(),
        })
    }

    /// Has the links that are accepted from here on go by `tls`. Those that stand do not notice.
    ///
    /// # Errors
    /// When the configuration cannot carry QUIC; the one before stays.
    pub fn set_tls(&self, tls: rustls::ServerConfig) -> Result<(), BindError> {
        let crypto = Arc::new(QuicServerConfig::try_from(tls).map_err(BindError::Tls)?);
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut config).crypto = crypto;
        Ok(())
    }

    fn config(&self) -> Arc<ServerConfig> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it listens, the port filled in.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next link; `None` once closed. When half of all places are taken, a stranger must show that it owns its
    /// address before it gets one: packets with made-up senders cannot take the rest. Nor can one host.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let address = incoming.remote_address();
            let open = self.endpoint.open_connections();
            if open >= CONNECTIONS_MAX {
                incoming.refuse();
            } else if open >= CONNECTIONS_MAX / 2 && incoming.may_retry() {
                // It fails only for one that was asked already.
                let _asked = incoming.retry();
            } else if let Some(place) = self.strangers.place(address.ip()) {
                if let Ok(connecting) = incoming.accept_with(self.config()) {
                    return Some(Incoming {
                        connecting,
                        address,
                        place,
                    });
                }
            } else {
                incoming.refuse();
            }
        }
    }

    /// Closes every link and waits until the peers know.
    pub async fn close(&self) {
        self.endpoint
            .close(VarInt::from_u32(0), b"the runner is stopping");
        self.endpoint.wait_idle().await;
    }
}

impl Incoming {
    /// Finishes the handshake. Until its place is dropped, the peer counts as one on the way in.
    ///
    /// # Errors
    /// When the peer cannot be verified, or is gone.
    pub async fn handshake(self) -> Result<(Connection, Place), HandshakeError> {
        let link = self.connecting.await;
        let link = link.map_err(|source| HandshakeError::new(self.address, source))?;
        Ok((Connection::new(link), self.place))
    }
}

impl Connection {
    pub(super) fn new(link: quinn::Connection) -> Self {
        Self {
            link,
            room: Room::new(),
            turns: Turns::new(),
        }
    }

    /// Where the peer is now; it may move.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.link.remote_address()
    }

    /// The certificates that the peer has shown, verified.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.link
            .peer_identity()
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .map(|chain| *chain)
            .unwrap_or_default()
    }

    /// What this TLS session and no other exports under `label`: both sides have the same.
    ///
    /// # Errors
    /// When the TLS session has nothing to export.
    pub fn export<const N: usize>(&self, label: &[u8]) -> Result<[u8; N], ExportError> {
        let mut exported = [0; N];
        match self.link.export_keying_material(&mut exported, label, b"") {
            Ok(()) => Ok(exported),
            Err(_) => Err(ExportError),
        }
    }

    /// The next stream that the peer opens, with room for short frames only until it is told otherwise; `None`
    /// once the link is gone.
    pub async fn accept_stream(&self) -> Option<Stream> {
        let (send, recv) = self.link.accept_bi().await.ok()?;
        Some(Stream::new(send, recv, HELLO_LEN_MAX, self.room.clone()))
    }

    /// A stream of our own; `None` once the link is gone. It takes as long as the peer likes to have none.
    pub async fn open_stream(&self) -> Option<Stream> {
        let (send, recv) = self.link.open_bi().await.ok()?;
        Some(Stream::new(send, recv, HELLO_LEN_MAX, self.room.clone()))
    }

    /// Why the link is gone; `None` while it stands.
    #[must_use]
    pub fn why_gone(&self) -> Option<HandshakeError> {
        let reason = self.link.close_reason()?;
        Some(HandshakeError::new(self.address(), reason))
    }

    /// Whose turn it is among what is asked on this connection.
    #[must_use]
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Ends the link and says why.
    pub fn close(&self, reason: &str) {
        self.link.close(VarInt::from_u32(1), reason.as_bytes());
    }

    /// Waits until the link is gone.
    pub async fn closed(&self) {
        self.link.closed().await;
    }
}

/// How links are named, and how one that nobody knows is refused: the peer believes that only of who knows the secret.
pub(super) fn endpoint_config(secret: &[u8; 32]) -> io::Result<EndpointConfig> {
    let [name_key, reset_key] = [b"names" as &[u8], b"resets"].map(|purpose| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), purpose);
        hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref())
    });
    let mut name = [0; 8];
    name.copy_from_slice(&hmac::sign(&name_key, b"key").as_ref()[..8]);
    let name = u64::from_le_bytes(name);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(name)));
    config.max_udp_payload_size(65_527).map_err(io::Error::other)?;
    Ok(config)
}

fn server_config(tls: rustls::ServerConfig) -> Result<ServerConfig, BindError> {
    let tls = QuicServerConfig::try_from(tls).map_err(BindError::Tls)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(transport_config()));
    config.max_incoming(CONNECTIONS_MAX);
    Ok(config)
}

pub(super) fn transport_config() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(10))
        .max_ack_delay(Some(Duration::from_millis(5)));
    let mut config = TransportConfig::default();
    config
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .send_window(SEND_WINDOW)
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .max_idle_timeout(IDLE_MAX.try_into().ok())
        .keep_alive_interval(Some(KEEP_ALIVE));
    config
}

/// Asks for large socket buffers. The kernel may give less than asked; that costs speed, never correctness.
pub(super) fn widen(socket: &UdpSocket) {
    use nix::sys::socket::{setsockopt, sockopt};
    for result in [
        setsockopt(socket, sockopt::RcvBuf, &SOCKET_BUFFER_LEN),
        setsockopt(socket, sockopt::SndBuf, &SOCKET_BUFFER_LEN),
    ] {
        if let Err(error) = result {
            tracing::debug!(%error, "the kernel gives small socket buffers");
        }
    }
}
