//! A runner in a few lines: a real QUIC server on the loopback that speaks the protocol and does what a test tells it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oqto_control::protocol::codec::Blob;
use oqto_control::protocol::command::CommandEnvelope;
use oqto_control::protocol::cursor::Cursor;
use oqto_control::protocol::enrol::{KeyAlgorithm, SigningRequest};
use oqto_control::protocol::event::{AgentIdle, Event, Numbered};
use oqto_control::protocol::frame::{self, Body, Frame, Kind};
use oqto_control::protocol::hello::{BuildInfo, Hello, Limits, Welcome};
use oqto_control::protocol::id::RunnerId;
use oqto_control::protocol::query::Query;
use oqto_control::protocol::stream::{Ack, Subscribe, Subscribed};
use oqto_control::protocol::version::{ALPN, MINOR};
use oqto_control::{Authority, RunnerAddr};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, RecvStream, SendStream, ServerConfig, VarInt};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use tokio::sync::mpsc;

/// What a control opened a stream with.
#[derive(Debug)]
pub(crate) enum Ask {
    Hello(Hello),
    Command(CommandEnvelope),
    Query(Query),
    Subscribe(Subscribe),
}

/// What the runner does about it.
#[derive(Clone)]
pub(crate) enum Reaction {
    /// Writes these bytes and finishes the stream.
    Answer(Vec<u8>),
    /// Writes these bytes and leaves the stream open.
    Begin(Vec<u8>),
    /// Writes these few bytes, and closes the connection behind them.
    Break(Vec<u8>),
    /// Closes the connection.
    HangUp,
}

/// The life of a certificate that outlives the test.
const HOUR: Duration = Duration::from_secs(3600);

type Script = dyn Fn(usize, &Ask) -> Reaction + Send + Sync;

/// A runner that follows a script, told which connection it is, from 0, and what is asked.
pub(crate) struct TestRunner {
    pub(crate) at: RunnerAddr,
    /// Every acknowledgement that it was sent; `None` when a control has nothing more to say on a stream that was
    /// answered.
    pub(crate) acks: mpsc::UnboundedReceiver<Option<u64>>,
    links: Arc<Mutex<Vec<quinn::Connection>>>,
    _endpoint: Endpoint,
}

impl TestRunner {
    /// Starts one whose certificate is of `signer` and that trusts the controls of `trusted`.
    pub(crate) fn start_as(
        name: &str,
        signer: &Authority,
        trusted: &Authority,
        script: impl Fn(usize, &Ask) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let papers = Papers::signed(name, signer, HOUR);
        Self::start_with(name, trusted, papers, Duration::ZERO, script)
    }

    /// Starts one with papers of its own, whose clock is behind by so much.
    pub(crate) fn start_with(
        name: &str,
        trusted: &Authority,
        papers: Papers,
        behind: Duration,
        script: impl Fn(usize, &Ask) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let id: RunnerId = name.parse().unwrap();
        let config = server_config(trusted, papers, behind);
        let endpoint = Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let at = RunnerAddr {
            id,
            address: endpoint.local_addr().unwrap(),
        };
        let (acked, acks) = mpsc::unbounded_channel();
        let links = Arc::default();
        tokio::spawn(serve(
            endpoint.clone(),
            Arc::new(script),
            acked,
            Arc::clone(&links),
        ));
        Self {
            at,
            acks,
            links,
            _endpoint: endpoint,
        }
    }

    pub(crate) fn start(
        authority: &Authority,
        script: impl Fn(usize, &Ask) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        Self::start_as("r-1", authority, authority, script)
    }
}

impl TestRunner {
    /// Closes every link that there is.
    pub(crate) fn hang_up(&self) {
        for link in self.links.lock().unwrap().drain(..) {
            link.close(VarInt::from_u32(7), b"hung up");
        }
    }
}

/// A certificate and its key.
pub(crate) struct Papers {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: KeyPair,
}

impl Papers {
    /// Those that an authority gives a runner for so long.
    pub(crate) fn signed(name: &str, signer: &Authority, life: Duration) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let grant = signer
            .sign(&signing_request(&key), &name.parse().unwrap(), life)
            .unwrap();
        Self {
            certificate: grant.certificate.0,
            key,
        }
    }
}

/// A clock that is behind.
#[derive(Debug)]
struct Behind(Duration);

impl TimeProvider for Behind {
    fn current_time(&self) -> Option<UnixTime> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Some(UnixTime::since_unix_epoch(now - self.0))
    }
}

fn server_config(trusted: &Authority, papers: Papers, behind: Duration) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.root()).unwrap();
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let mut tls = rustls::ServerConfig::builder_with_details(provider, Arc::new(Behind(behind)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from(papers.certificate)],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(papers.key.serialize_der())),
        )
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
}

/// What a runner with this key asks its authority for.
pub(crate) fn signing_request(key: &KeyPair) -> SigningRequest {
    SigningRequest {
        algorithm: KeyAlgorithm::EcdsaP256Sha256,
        public_key: Blob(key.public_key_raw().to_vec()),
        runner_id: None,
    }
}

async fn serve(
    endpoint: Endpoint,
    script: Arc<Script>,
    acked: mpsc::UnboundedSender<Option<u64>>,
    links: Arc<Mutex<Vec<quinn::Connection>>>,
) {
    let mut number = 0;
    while let Some(incoming) = endpoint.accept().await {
        let (script, acked) = (Arc::clone(&script), acked.clone());
        let Ok(connection) = incoming.await else { continue };
        links.lock().unwrap().push(connection.clone());
        tokio::spawn(async move {
            while let Ok((send, receive)) = connection.accept_bi().await {
                let (script, acked) = (Arc::clone(&script), acked.clone());
                let connection = connection.clone();
                tokio::spawn(
                    async move { stream(&connection, send, receive, number, &*script, &acked).await },
                );
            }
        });
        number += 1;
    }
}

async fn stream(
    connection: &quinn::Connection,
    mut send: SendStream,
    mut receive: RecvStream,
    number: usize,
    script: &Script,
    acked: &mpsc::UnboundedSender<Option<u64>>,
) {
    let mut bytes = Vec::new();
    let Some(ask) = next(&mut receive, &mut bytes, ask).await else {
        return;
    };
    match script(number, &ask) {
        Reaction::HangUp => connection.close(VarInt::from_u32(7), b"hung up"),
        Reaction::Answer(answer) => {
            send.write_all(&answer).await.ok();
            send.finish().ok();
            acks(&mut receive, &mut bytes, acked).await;
            acked.send(None).ok();
        }
        Reaction::Break(answer) => {
            let sent = connection.stats().frame_tx.stream;
            send.write_all(&answer).await.ok();
            // What has gone comes before the close, and closing drops what has not.
            while connection.stats().frame_tx.stream == sent {
                tokio::task::yield_now().await;
            }
            connection.close(VarInt::from_u32(7), b"hung up");
        }
        Reaction::Begin(answer) => {
            send.write_all(&answer).await.ok();
            acks(&mut receive, &mut bytes, acked).await;
            // Nothing more comes up: the stream stays until the connection goes.
            connection.closed().await;
        }
    }
}

async fn acks(receive: &mut RecvStream, bytes: &mut Vec<u8>, acked: &mpsc::UnboundedSender<Option<u64>>) {
    while let Some(ack) = next(receive, bytes, |frame| frame.body::<Ack>().unwrap()).await {
        acked.send(Some(ack.seq)).ok();
    }
}

fn ask(frame: Frame<'_>) -> Ask {
    match frame.kind {
        Kind::HELLO => Ask::Hello(frame.body().unwrap()),
        Kind::COMMAND => Ask::Command(frame.body().unwrap()),
        Kind::QUERY => Ask::Query(frame.body().unwrap()),
        Kind::SUBSCRIBE => Ask::Subscribe(frame.body().unwrap()),
        other => panic!("a control opened a stream with {other:?}"),
    }
}

async fn next<T>(
    receive: &mut RecvStream,
    bytes: &mut Vec<u8>,
    read: impl FnOnce(Frame<'_>) -> T,
) -> Option<T> {
    loop {
        if let Some((frame, rest)) = Frame::split(bytes, frame_len_max()).unwrap() {
            let (value, rest) = (read(frame), rest.to_vec());
            *bytes = rest;
            return Some(value);
        }
        let chunk = receive.read_chunk(64 * 1024, true).await.ok()??;
        bytes.extend_from_slice(&chunk.bytes);
    }
}

fn frame_len_max() -> usize {
    oqto_control::protocol::bounds::FRAME_LEN_MAX
}

/// Frames, one behind the other.
pub(crate) fn frames<T: Body>(bodies: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    bodies
        .into_iter()
        .for_each(|body| frame::append(&body, &mut bytes).unwrap());
    bytes
}

/// The welcome of the runner `name`.
pub(crate) fn welcome(name: &str) -> Vec<u8> {
    frames([Welcome {
        minor: MINOR,
        features: Vec::new(),
        runner_id: name.parse().unwrap(),
        harnesses: Vec::new(),
        limits: Limits {
            frame_len_max: 1 << 20,
            sessions_max: 8,
            streams_max: 256,
        },
        build: BuildInfo {
            name: "test".to_owned(),
            version: "0".to_owned(),
        },
        role: None,
    }])
}

/// A runner's answer to a subscription.
pub(crate) fn subscribed(epoch: u32, seq: u64, oldest: u64, newest: u64) -> Vec<u8> {
    frames([Subscribed {
        cursor: Cursor { epoch, seq },
        oldest,
        newest: Cursor { epoch, seq: newest },
    }])
}

/// An event that says nothing.
pub(crate) fn event(epoch: u32, seq: u64) -> Numbered {
    Numbered {
        epoch,
        seq,
        first_seq: None,
        ts: 7,
        event: Event::AgentIdle(AgentIdle {}),
    }
}
