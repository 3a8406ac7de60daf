//! A runner that dials: a raw QUIC client that enrols, renews and is told whom to trust.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use oqto_control::Authority;
use oqto_control::protocol::codec::Blob;
use oqto_control::protocol::enrol::{Enrol, Grant, KeyAlgorithm, Renew, SigningRequest, Token};
use oqto_control::protocol::fault::{Fault, FaultCode};
use oqto_control::protocol::frame::{self, Body, Frame, Kind};
use oqto_control::protocol::hello::Hello;
use oqto_control::protocol::id::RunnerId;
use oqto_control::protocol::query::{Answer, Done, Query, SessionList};
use oqto_control::protocol::stream::Subscribe;
use oqto_control::protocol::trust::Trust;
use oqto_control::protocol::version::{ALPN, ALPN_ENROL};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, ConnectionError, Endpoint, RecvStream, SendStream};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::mpsc;

use crate::support::{event, frames, subscribed, welcome};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A runner's key, its name, and whom it trusts.
pub(crate) struct Dialler {
    pub(crate) name: RunnerId,
    pub(crate) key: KeyPair,
    pub(crate) root: CertificateDer<'static>,
    pub(crate) server: SocketAddr,
    /// The address that it dials from.
    pub(crate) from: Ipv4Addr,
}

/// A live link of it to a control.
pub(crate) struct Link {
    pub(crate) quic: quinn::Connection,
    /// What it was told to trust.
    pub(crate) trusted: mpsc::UnboundedReceiver<Trust>,
    _endpoint: Endpoint,
}

impl Dialler {
    pub(crate) fn new(name: &str, authority: &Authority, server: SocketAddr) -> Self {
        Self {
            name: name.parse().unwrap(),
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            root: authority.root(),
            server,
            from: Ipv4Addr::LOCALHOST,
        }
    }

    pub(crate) fn request(&self) -> SigningRequest {
        SigningRequest {
            algorithm: KeyAlgorithm::EcdsaP256Sha256,
            public_key: Blob(self.key.public_key_raw().to_vec()),
            runner_id: Some(self.name.clone()),
        }
    }

    /// Connects with this certificate, or none.
    pub(crate) async fn connect(
        &self,
        alpn: &[u8],
        certificate: Option<&[u8]>,
    ) -> Result<(Endpoint, quinn::Connection), ConnectionError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match certificate {
            Some(certificate) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
                let chain = vec![CertificateDer::from(certificate.to_vec())];
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let crypto = Arc::new(QuicClientConfig::try_from(config).unwrap());
        let endpoint = Endpoint::client(SocketAddr::from((self.from, 0))).unwrap();
        let connecting = endpoint.connect_with(
            ClientConfig::new(crypto),
            self.server,
            "main.control.oqto.internal",
        );
        let quic = tokio::time::timeout(PATIENCE, connecting.unwrap())
            .await
            .unwrap()?;
        Ok((endpoint, quic))
    }

    /// Asks for a first certificate.
    pub(crate) async fn enrol(&self, token: &Token) -> Result<Grant, Fault> {
        let (_endpoint, quic) = self.connect(ALPN_ENROL, None).await.unwrap();
        let query = Query::Enrol(Enrol {
            token: token.clone(),
            request: self.request(),
        });
        granted(ask(&quic, &query).await.unwrap())
    }

    /// Dials in with a certificate and does what a runner does: welcomes, answers, takes trust statements.
    pub(crate) async fn dial(&self, certificate: &[u8]) -> Link {
        let (endpoint, quic) = self.connect(ALPN, Some(certificate)).await.unwrap();
        let (told, trusted) = mpsc::unbounded_channel();
        tokio::spawn(serve(quic.clone(), self.name.clone(), told));
        Link {
            quic,
            trusted,
            _endpoint: endpoint,
        }
    }

    /// Asks for a new certificate on a live link.
    pub(crate) async fn renew(&self, quic: &quinn::Connection) -> Result<Grant, Fault> {
        let request = self.request();
        granted(ask(quic, &Query::Renew(Renew { request })).await.unwrap())
    }
}

pub(crate) fn granted(answer: Answer) -> Result<Grant, Fault> {
    match answer {
        Answer::Grant(grant) => Ok(grant),
        Answer::Fault(fault) => Err(fault),
        other => panic!("{other:?}"),
    }
}

/// One question on a stream of its own; `None` when there is no answer.
pub(crate) async fn ask<Q: Body>(quic: &quinn::Connection, question: &Q) -> Option<Answer> {
    ask_raw(quic, &frames_of(question)).await
}

pub(crate) async fn ask_raw(quic: &quinn::Connection, bytes: &[u8]) -> Option<Answer> {
    let (mut send, mut receive) = quic.open_bi().await.ok()?;
    send.write_all(bytes).await.ok()?;
    send.finish().ok();
    let asked = first(&mut receive, |frame| frame.body().unwrap());
    tokio::time::timeout(PATIENCE, asked).await.unwrap()
}

fn frames_of<B: Body>(body: &B) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::append(body, &mut bytes).unwrap();
    bytes
}

async fn serve(quic: quinn::Connection, name: RunnerId, told: mpsc::UnboundedSender<Trust>) {
    while let Ok((send, receive)) = quic.accept_bi().await {
        let (quic, name, told) = (quic.clone(), name.clone(), told.clone());
        tokio::spawn(async move { stream(&quic, send, receive, &name, &told).await });
    }
}

async fn stream(
    quic: &quinn::Connection,
    mut send: SendStream,
    mut receive: RecvStream,
    name: &RunnerId,
    told: &mpsc::UnboundedSender<Trust>,
) {
    enum Asked {
        Hello,
        Query(Query),
        Subscribe,
    }
    let asked = first(&mut receive, |frame| match frame.kind {
        Kind::HELLO => frame.body::<Hello>().map(|_| Asked::Hello).unwrap(),
        Kind::QUERY => Asked::Query(frame.body().unwrap()),
        Kind::SUBSCRIBE => frame.body::<Subscribe>().map(|_| Asked::Subscribe).unwrap(),
        other => panic!("{other:?}"),
    });
    let Some(asked) = asked.await else { return };
    let answer = match asked {
        Asked::Hello => {
            send.write_all(&welcome(name.as_str())).await.ok();
            quic.closed().await;
            return;
        }
        // A stream that never stops: an event each few milliseconds until the link goes.
        Asked::Subscribe => {
            send.write_all(&subscribed(1, 0, 1, 1)).await.ok();
            for seq in 1.. {
                if send.write_all(&frames([event(1, seq)])).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            return;
        }
        Asked::Query(Query::Trust(trust)) => {
            told.send(trust).ok();
            Answer::Done(Done {})
        }
        Asked::Query(Query::RunnerSessions(_)) => Answer::SessionList(SessionList { sessions: Vec::new() }),
        Asked::Query(other) => Answer::Fault(Fault::new(FaultCode::Unsupported, other.name())),
    };
    send.write_all(&frames_of(&answer)).await.ok();
    send.finish().ok();
    send.stopped().await.ok();
}

/// The first frame of a stream.
async fn first<T>(receive: &mut RecvStream, read: impl FnOnce(Frame<'_>) -> T) -> Option<T> {
    let mut bytes = Vec::new();
    loop {
        if let Some((frame, _)) = Frame::split(&bytes, 1 << 20).unwrap() {
            return Some(read(frame));
        }
        let chunk = receive.read_chunk(64 * 1024, true).await.ok()??;
        bytes.extend_from_slice(&chunk.bytes);
    }
}
