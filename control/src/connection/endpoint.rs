//! Our UDP sockets and what QUIC does on them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use quinn::{
    AckFrequencyConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::bounds::{
    IDLE_MAX, KEEP_ALIVE, MTU_MAX, RENEWALS_MAX, SEND_WINDOW, SOCKET_BUFFER_LEN, STRANGER_WINDOW,
};

/// The largest UDP payload there is, bytes.
const UDP_PAYLOAD_MAX: u16 = 65527;

/// After how many packets the peer acknowledges at the latest.
const ACK_PACKETS: u32 = 10;

/// After how long the peer acknowledges at the latest.
const ACK_DELAY: std::time::Duration = std::time::Duration::from_millis(5);

/// One socket for each family, bound when it is first needed and shared by all connections.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    v4: Mutex<Option<Endpoint>>,
    v6: Mutex<Option<Endpoint>>,
    /// Those that are dialled.
    listening: Mutex<Vec<Endpoint>>,
}

impl Endpoints {
    /// The endpoint that reaches `address`.
    pub(super) fn reaching(&self, address: SocketAddr) -> io::Result<Endpoint> {
        let (slot, local) = match address {
            SocketAddr::V4(_) => (&self.v4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            SocketAddr::V6(_) => (&self.v6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = &*slot {
            return Ok(endpoint.clone());
        }
        let endpoint = Endpoint::new(endpoint_config(), None, bind(local)?, Arc::new(TokioRuntime))?;
        Ok(slot.insert(endpoint).clone())
    }

    /// An endpoint at `address` that takes in who comes, closed with the others.
    pub(super) fn listen(&self, address: SocketAddr, config: ServerConfig) -> io::Result<Endpoint> {
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new(endpoint_config(), Some(config), bind(address)?, runtime)?;
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        listening.push(endpoint.clone());
        Ok(endpoint)
    }

    /// Frees the address of an endpoint that takes nobody in any more, unless links on it stand.
    pub(super) fn leave(&self, address: SocketAddr) {
        let is_left = |endpoint: &Endpoint| {
            endpoint.open_connections() == 0 && endpoint.local_addr().is_ok_and(|local| local == address)
        };
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        listening.retain(|endpoint| !is_left(endpoint));
    }

    /// Moves every connection to a socket of its own port; the peers follow.
    pub(super) fn rebind(&self) -> io::Result<()> {
        for slot in [&self.v4, &self.v6] {
            let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(endpoint) = &*slot {
                let local = match endpoint.local_addr()? {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                endpoint.rebind(bind(local)?)?;
            }
        }
        Ok(())
    }

    /// Closes every connection and waits until the peers were told.
    pub(super) async fn close(&self) {
        let mut endpoints = {
            let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *listening)
        };
        for slot in [&self.v4, &self.v6] {
            endpoints.extend(slot.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        for endpoint in &endpoints {
            endpoint.close(VarInt::from_u32(0), b"done");
        }
        for endpoint in &endpoints {
            endpoint.wait_idle().await;
        }
    }
}

fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    if let Err(error) = config.max_udp_payload_size(UDP_PAYLOAD_MAX) {
        tracing::debug!(%error, "the default of the UDP payload stays");
    }
    config
}

fn bind(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel clamps what it is asked for, and a small buffer is slow, not wrong.
    for asked in [
        socket.set_recv_buffer_size(SOCKET_BUFFER_LEN),
        socket.set_send_buffer_size(SOCKET_BUFFER_LEN),
    ] {
        if let Err(error) = asked {
            tracing::debug!(%error, "the default of the socket buffer stays");
        }
    }
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    Ok(socket.into())
}

/// How QUIC behaves; measured, each number has its reason in `bounds`.
pub(super) fn transport_config() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_PACKETS))
        .max_ack_delay(Some(ACK_DELAY));
    let mut config = TransportConfig::default();
    config
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok())
        .send_window(SEND_WINDOW)
        // Control opens every stream but those on which a runner asks for a new certificate.
        .max_concurrent_bidi_streams(VarInt::from_u32(RENEWALS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    config
}

/// The same for who dials in: until it is known who that is, little of it is kept.
pub(super) fn stranger_config() -> TransportConfig {
    let mut config = transport_config();
    config.receive_window(VarInt::from_u32(STRANGER_WINDOW));
    config
}
