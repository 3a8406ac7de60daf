//! A control in a few lines: a real QUIC peer that speaks the protocol by hand, dialled or dialling.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use oqto_protocol::enrol::SigningRequest;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::frame::{Body, Frame, Kind, append};
use oqto_protocol::hello::{BuildInfo, Hello, Welcome};
use oqto_protocol::query::{Answer, Query, RunnerStatus, Status};
use oqto_protocol::trust::Trust;
use oqto_protocol::version::{ALPN, ALPN_ENROL, MINOR};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use tokio::sync::mpsc;

use crate::authority::{Authority, Papers};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a runner asks a control.
pub(crate) type Answerer = Arc<dyn Fn(Query) -> Answer + Send + Sync>;

/// Answers renewals with a certificate for `life`, and nothing else.
pub(crate) fn renews(authority: Arc<Authority>, life: Duration) -> Answerer {
    Arc::new(move |query| match query {
        Query::Renew(renew) => Answer::Grant(authority.grant(&renew.request, life)),
        _ => refused("this control renews"),
    })
}

pub(crate) fn refused(why: &str) -> Answer {
    Answer::Fault(Fault::new(FaultCode::Denied, why))
}

/// The request of a query for a certificate.
pub(crate) fn request(query: &Query) -> &SigningRequest {
    match query {
        Query::Enrol(enrol) => &enrol.request,
        Query::Renew(renew) => &renew.request,
        other => panic!("a runner asked {other:?}"),
    }
}

/// A control that listens.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    /// Runners that dialled and welcomed it.
    pub(crate) came: mpsc::UnboundedReceiver<Link>,
    endpoint: Endpoint,
}

impl Listening {
    /// Shows `papers`, knows runners by the root of `authority`, and answers what they ask with `answer`.
    pub(crate) fn start(authority: &Authority, papers: Papers, answer: Answerer) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.root.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(papers.chain, papers.key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec(), ALPN_ENROL.to_vec()];
        let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = endpoint.local_addr().unwrap();
        let (come, came) = mpsc::unbounded_channel();
        tokio::spawn(serve(endpoint.clone(), answer, come));
        Self {
            address,
            came,
            endpoint,
        }
    }

    /// The next runner that dials.
    pub(crate) async fn next(&mut self) -> Link {
        let link = tokio::time::timeout(PATIENCE, self.came.recv()).await;
        link.expect("a runner dials in time").unwrap()
    }

    /// Listens no more, and lets go of all that came.
    pub(crate) fn stop(&self) {
        self.endpoint.close(0_u8.into(), b"stopped");
    }
}

async fn serve(endpoint: Endpoint, answer: Answerer, come: mpsc::UnboundedSender<Link>) {
    while let Some(incoming) = endpoint.accept().await {
        let (answer, come) = (answer.clone(), come.clone());
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let data = connection.handshake_data().unwrap();
            let data = data.downcast::<HandshakeData>().unwrap();
            if data.protocol.as_deref() == Some(ALPN_ENROL) {
                answer_all(connection, answer).await;
            } else if let Ok(link) = Link::greet(connection, answer).await {
                // The test may be over.
                let _ = come.send(link);
            }
        });
    }
}

/// Answers every stream that the runner opens.
async fn answer_all(connection: Connection, answer: Answerer) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let Ok((Kind::QUERY, body)) = read(&mut receive).await else {
            continue;
        };
        let query = Frame {
            kind: Kind::QUERY,
            body: &body,
        };
        let answer = answer(query.body().unwrap());
        send.write_all(&frame(&answer)).await.unwrap();
        send.finish().unwrap();
    }
}

/// A link to a runner that has welcomed this control.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) welcome: Welcome,
    _first: (SendStream, RecvStream),
}

impl Link {
    /// Dials a runner as somebody.
    pub(crate) async fn dial(
        authority: &Authority,
        papers: Papers,
        at: SocketAddr,
        runner: &str,
        answer: Answerer,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.root.clone()).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(papers.chain, papers.key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_secs(1)));
        config.transport_config(Arc::new(transport));
        let name = format!("{runner}.runner.oqto.internal");
        let connecting = endpoint.connect_with(config, at, &name).unwrap();
        let connection = tokio::time::timeout(PATIENCE, connecting).await;
        let connection = connection.unwrap().map_err(|error| error.to_string())?;
        Self::greet(connection, answer).await
    }

    async fn greet(connection: Connection, answer: Answerer) -> Result<Self, String> {
        let (mut send, mut receive) = connection.open_bi().await.map_err(|e| e.to_string())?;
        let hello = Hello {
            minor: MINOR,
            minor_min: MINOR,
            features: Vec::new(),
            build: BuildInfo {
                name: "test".to_owned(),
                version: "0".to_owned(),
            },
        };
        // Who is turned away may learn of it in the middle of either: the connection knows why.
        let answered = match send.write_all(&frame(&hello)).await {
            Ok(()) => read(&mut receive).await,
            Err(error) => Err(error.to_string()),
        };
        let Ok((kind, body)) = answered else {
            return Err(connection.closed().await.to_string());
        };
        let welcome = Frame { kind, body: &body }
            .body()
            .map_err(|_| format!("no welcome: kind {}", kind.0))?;
        tokio::spawn(answer_all(connection.clone(), answer));
        Ok(Self {
            connection,
            welcome,
            _first: (send, receive),
        })
    }

    /// Asks the runner.
    pub(crate) async fn ask(&self, query: &Query) -> Result<Answer, String> {
        let (mut send, mut receive) = self.connection.open_bi().await.map_err(|e| e.to_string())?;
        send.write_all(&frame(query)).await.map_err(|e| e.to_string())?;
        send.finish().map_err(|e| e.to_string())?;
        let (kind, body) = read(&mut receive).await?;
        Frame { kind, body: &body }.body().map_err(|e| e.to_string())
    }

    pub(crate) async fn status(&self) -> Status {
        match self.ask(&Query::RunnerStatus(RunnerStatus {})).await.unwrap() {
            Answer::Status(status) => status,
            other => panic!("a runner answered {other:?}"),
        }
    }

    pub(crate) async fn tell(&self, trust: Trust) -> Result<Answer, String> {
        self.ask(&Query::Trust(trust)).await
    }

    /// The runner's certificate.
    pub(crate) fn shown(&self) -> CertificateDer<'static> {
        let chain = self.connection.peer_identity().unwrap();
        chain.downcast::<Vec<CertificateDer<'static>>>().unwrap()[0].clone()
    }

    /// Why the runner ended this link.
    pub(crate) async fn cut(&self) -> String {
        let closed = tokio::time::timeout(PATIENCE, self.connection.closed()).await;
        closed.expect("the runner ends the link").to_string()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn frame<T: Body>(body: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(body, &mut bytes).unwrap();
    bytes
}

async fn read(receive: &mut RecvStream) -> Result<(Kind, Vec<u8>), String> {
    let mut length = [0; 4];
    receive.read_exact(&mut length).await.map_err(|e| e.to_string())?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    receive.read_exact(&mut bytes).await.map_err(|e| e.to_string())?;
    Ok((
        Kind(u16::from_le_bytes([bytes[0], bytes[1]])),
        bytes[2..].to_vec(),
    ))
}
