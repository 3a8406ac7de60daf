//! First packets of QUIC made by hand: what no library sends.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};
use rustls::crypto::aws_lc_rs;
use rustls::quic::{Keys, Version};
use rustls::{CipherSuite, Side, SupportedCipherSuite};

/// The least that a first datagram may have, bytes (RFC 9000, 14.1).
const DATAGRAM_LEN_MIN: usize = 1200;

/// How long the runner may take to answer a packet.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the names of connections of these packets are.
const THEIRS: [u8; 8] = *b"hostile1";
const OURS: [u8; 8] = *b"hostile2";

/// Makes first packets that are good, each of a connection of its own, that nobody goes on with.
pub(crate) struct Beginnings {
    endpoint: Endpoint,
    config: ClientConfig,
    to: SocketAddr,
    name: String,
}

impl Beginnings {
    pub(crate) fn new(config: rustls::ClientConfig, to: SocketAddr, name: String) -> Self {
        let crypto = quinn_proto::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
        Self {
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None),
            config: ClientConfig::new(Arc::new(crypto)),
            to,
            name,
        }
    }

    pub(crate) fn next(&mut self) -> Vec<u8> {
        let now = Instant::now();
        let connecting = self
            .endpoint
            .connect(now, self.config.clone(), self.to, &self.name);
        let (handle, mut connection) = connecting.unwrap();
        let mut datagram = Vec::new();
        let transmit = connection.poll_transmit(now, 1, &mut datagram).unwrap();
        datagram.truncate(transmit.size);
        // It is forgotten here; over there it has begun.
        self.endpoint
            .handle_event(handle, quinn_proto::EndpointEvent::drained());
        datagram
    }
}

/// What a runner answers to a first packet that has these bytes of TLS: the payload of its first packet.
pub(crate) fn answer_to(hello: &[u8], to: SocketAddr) -> Vec<u8> {
    let keys = keys();
    let mut payload = vec![0x06, 0];
    payload.extend(u16::try_from(0x4000 | hello.len()).unwrap().to_be_bytes());
    payload.extend(hello);
    let tag_len = keys.local.packet.tag_len();
    // What stands before it, and the padding that makes it long enough.
    payload.resize(DATAGRAM_LEN_MIN - 28 - tag_len, 0);
    let mut header = vec![0xc1, 0, 0, 0, 1, 8];
    header.extend(THEIRS);
    header.push(8);
    header.extend(OURS);
    header.push(0);
    header.extend(
        u16::try_from(0x4000 | (2 + payload.len() + tag_len))
            .unwrap()
            .to_be_bytes(),
    );
    let number_at = header.len();
    header.extend([0, 0]);
    let tag = keys
        .local
        .packet
        .encrypt_in_place(0, &header, &mut payload)
        .unwrap();
    let mut datagram = [header, payload, tag.as_ref().to_vec()].concat();
    let (head, rest) = datagram.split_at_mut(number_at);
    let (number, rest) = rest.split_at_mut(2);
    let sample = &rest[2..2 + keys.local.header.sample_len()];
    keys.local
        .header
        .encrypt_in_place(sample, &mut head[0], number)
        .unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&datagram, to).unwrap();
    let mut answer = [0; 2048];
    let len = socket.recv(&mut answer).expect("the runner answers");
    opened(&mut answer[..len])
}

fn keys() -> Keys {
    let suites = aws_lc_rs::ALL_CIPHER_SUITES;
    let suite = suites.iter().find_map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) if suite.common.suite == CipherSuite::TLS13_AES_128_GCM_SHA256 => {
            suite.quic_suite()
        }
        _ => None,
    });
    suite.unwrap().keys(&THEIRS, Side::Client, Version::V1)
}

/// The payload of a first packet of the other side.
fn opened(datagram: &mut [u8]) -> Vec<u8> {
    let keys = keys();
    assert_eq!(datagram[0] & 0xf0, 0xc0, "a first packet");
    let mut at = 5;
    for _ in 0..2 {
        at += 1 + usize::from(datagram[at]);
    }
    let (token_len, read) = number(&datagram[at..]);
    at += read + token_len;
    let (len, read) = number(&datagram[at..]);
    at += read;
    let end = at + len;
    let (head, rest) = datagram.split_at_mut(at);
    let (packet_number, sealed) = rest.split_at_mut(4);
    let sample = &sealed[..keys.remote.header.sample_len()];
    keys.remote
        .header
        .decrypt_in_place(sample, &mut head[0], packet_number)
        .unwrap();
    let number_len = usize::from(head[0] & 3) + 1;
    let (header, payload) = datagram[..end].split_at_mut(at + number_len);
    let number = header[at..]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte));
    let opened = keys.remote.packet.decrypt_in_place(number, header, payload);
    opened.unwrap().to_vec()
}

/// A number of QUIC's, and how many bytes it took.
fn number(bytes: &[u8]) -> (usize, usize) {
    let len = 1 << (bytes[0] >> 6);
    let first = usize::from(bytes[0] & 0x3f);
    let value = bytes[1..len]
        .iter()
        .fold(first, |value, byte| value << 8 | usize::from(*byte));
    (value, len)
}

/// The greeting of a client that speaks nothing newer than TLS 1.2.
pub(crate) fn hello_of_tls_1_2() -> Vec<u8> {
    let extension = |kind: u16, body: &[u8]| {
        let len = u16::try_from(body.len()).unwrap();
        [&kind.to_be_bytes()[..], &len.to_be_bytes(), body].concat()
    };
    let extensions = [
        // Groups, points, signatures, versions, protocols, QUIC's parameters.
        extension(10, &[0, 4, 0, 29, 0, 23]),
        extension(11, &[1, 0]),
        extension(13, &[0, 4, 4, 3, 8, 4]),
        extension(43, &[2, 3, 3]),
        extension(16, &[0, 7, 6, b'o', b'q', b't', b'o', b'/', b'1']),
        extension(57, &[&[0x0f, 8][..], &OURS].concat()),
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session; the suites of TLS 1.2 with ECDHE and AES-GCM; no compression.
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1][..], &len[1..], &body].concat()
}
