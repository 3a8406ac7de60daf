//! Peers that are not honest: connections made by hand, with whatever certificate, name and bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oqto_control::{Control, RunnerAddr};
use oqto_protocol::fault::Fault;
use oqto_protocol::frame::{Body, Frame, Kind, append};
use oqto_protocol::hello::{BuildInfo, Hello};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// How long the runner may take to answer or to hang up, whichever it should do.
const PATIENCE: Duration = Duration::from_secs(30);

/// A certificate and its key.
pub(crate) struct Papers {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Papers {
    /// Listens with them, to whoever comes.
    pub(crate) fn listen(self) -> Endpoint {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain, self.key)
            .unwrap();
        tls.alpn_protocols = vec![b"oqto/1".to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
    }
}

/// What a stranger brings to a handshake.
pub(crate) struct Stranger {
    pub(crate) at: RunnerAddr,
    root: CertificateDer<'static>,
    pub(crate) papers: Option<Papers>,
    pub(crate) alpn: Vec<u8>,
    /// How much it lets come that it has not read, bytes; none for what is usual.
    pub(crate) window: Option<u32>,
    /// Which of this host's own addresses it comes from.
    pub(crate) from: Ipv4Addr,
}

impl Stranger {
    /// One who knows whom to trust and has no papers.
    pub(crate) fn of(control: &Control, at: RunnerAddr) -> Self {
        Self {
            at,
            root: control.authority().root(),
            papers: None,
            alpn: b"oqto/1".to_vec(),
            window: None,
            from: Ipv4Addr::LOCALHOST,
        }
    }

    pub(crate) fn with(mut self, papers: Papers) -> Self {
        self.papers = Some(papers);
        self
    }

    /// The name of the runner as TLS checks it.
    pub(crate) fn name(&self) -> String {
        format!("{}.runner.oqto.internal", self.at.id)
    }

    /// Goes as far as the handshake lets it. With TLS 1.3 the client believes itself connected before the runner
    /// has seen its certificate.
    pub(crate) async fn connect(self) -> Result<Connection, String> {
        let (name, address, window) = (self.name(), self.at.address, self.window);
        let from = SocketAddr::from((self.from, 0));
        let crypto = QuicClientConfig::try_from(self.tls()).unwrap();
        let endpoint = Endpoint::client(from).unwrap();
        let mut config = ClientConfig::new(Arc::new(crypto));
        if let Some(window) = window {
            let mut transport = quinn::TransportConfig::default();
            transport.stream_receive_window(window.into());
            config.transport_config(Arc::new(transport));
        }
        let connecting = endpoint.connect_with(config, address, &name);
        let connected = tokio::time::timeout(PATIENCE, connecting.unwrap()).await;
        connected.unwrap().map_err(|error| error.to_string())
    }

    /// How it does TLS.
    pub(crate) fn tls(self) -> rustls::ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.papers {
            Some(Papers { chain, key }) => config.with_client_auth_cert(chain, key).unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![self.alpn];
        config
    }

    /// Goes on until the runner hangs up, and gives its reason.
    pub(crate) async fn turned_away(self) -> String {
        match self.connect().await {
            Err(error) => error,
            Ok(connection) => {
                let closed = tokio::time::timeout(PATIENCE, connection.closed()).await;
                closed.expect("the runner hangs up").to_string()
            }
        }
    }
}

/// The papers of a control that the authority in `dir` would give.
pub(crate) fn control_papers(dir: &Path, authority: &str) -> Papers {
    let uri = format!("oqto://{authority}/control/main");
    signed(&authority_key(dir), authority, &uri, |_| {})
}

/// As [`control_papers`], but of the day before yesterday, and of a day.
pub(crate) fn expired_papers(dir: &Path, authority: &str) -> Papers {
    let uri = format!("oqto://{authority}/control/main");
    signed(&authority_key(dir), authority, &uri, |params| {
        let day = Duration::from_secs(24 * 3600);
        params.not_before = (SystemTime::now() - 2 * day).into();
        params.not_after = (SystemTime::now() - day).into();
    })
}

/// Papers of the authority with which a control would stand in for the runner `name`: good in everything but that they
/// say that it is a control.
pub(crate) fn pretender_papers(dir: &Path, authority: &str, name: &str) -> Papers {
    let uri = format!("oqto://{authority}/control/main");
    signed(&authority_key(dir), authority, &uri, |params| {
        let name = Ia5String::try_from(format!("{name}.runner.oqto.internal")).unwrap();
        params.subject_alt_names.push(SanType::DnsName(name));
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    })
}

/// Papers with the same words, signed by somebody who only calls himself the authority.
pub(crate) fn forged_papers(authority: &str) -> Papers {
    let key = KeyPair::generate().unwrap();
    signed(
        &key,
        authority,
        &format!("oqto://{authority}/control/main"),
        |_| {},
    )
}

/// Papers that the authority signed, with another name in them.
pub(crate) fn papers_of(dir: &Path, authority: &str, uri: &str) -> Papers {
    signed(&authority_key(dir), authority, uri, |_| {})
}

/// The key of an authority that was never rotated.
fn authority_key(dir: &Path) -> KeyPair {
    let key = std::fs::read_dir(dir.join("keys"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let der = PrivatePkcs8KeyDer::from(std::fs::read(key.path()).unwrap());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn signed(issuer: &KeyPair, authority: &str, uri: &str, edit: impl FnOnce(&mut CertificateParams)) -> Papers {
    let mut root = CertificateParams::default();
    root.distinguished_name = rcgen::DistinguishedName::new();
    root.distinguished_name
        .push(DnType::CommonName, format!("oqto authority {authority}"));
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let issuer = Issuer::new(root, issuer);
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri).unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    edit(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Papers {
        chain: vec![certificate.der().clone()],
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
    }
}

pub(crate) fn hello(minor: u16, minor_min: u16) -> Vec<u8> {
    frame(&Hello {
        minor,
        minor_min,
        features: Vec::new(),
        build: BuildInfo {
            name: "a stranger".to_owned(),
            version: "0".to_owned(),
        },
    })
}

pub(crate) fn frame<T: Body>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(value, &mut bytes).unwrap();
    bytes
}

/// Sends bytes on a new stream and finishes it; gives what comes back until the runner is done with it.
pub(crate) async fn say(connection: &Connection, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let (mut up, mut down) = open(connection).await?;
    up.write_all(bytes).await.map_err(|error| error.to_string())?;
    // What was refused already may be finished too.
    let _finished = up.finish();
    let answer = tokio::time::timeout(PATIENCE, down.read_to_end(1 << 20)).await;
    answer
        .expect("the runner answers or hangs up")
        .map_err(|error| error.to_string())
}

pub(crate) async fn open(connection: &Connection) -> Result<(SendStream, RecvStream), String> {
    connection.open_bi().await.map_err(|error| error.to_string())
}

/// Sends bytes on a new stream that stays open, and gives the first frame that comes back.
pub(crate) async fn first_answer(connection: &Connection, bytes: &[u8]) -> Result<(Kind, Vec<u8>), String> {
    let (mut up, mut down) = open(connection).await?;
    up.write_all(bytes).await.map_err(|error| error.to_string())?;
    let answer = next_frame(&mut down, &mut Vec::new()).await;
    drop(up);
    answer
}

/// The next frame of a stream of which `got` was read and is in no frame yet.
pub(crate) async fn next_frame(down: &mut RecvStream, got: &mut Vec<u8>) -> Result<(Kind, Vec<u8>), String> {
    let read = async {
        let mut piece = [0; 4096];
        loop {
            if let Ok(Some((Frame { kind, body }, rest))) = Frame::split(got, 1 << 20) {
                let (frame, rest) = ((kind, body.to_vec()), rest.to_vec());
                *got = rest;
                return Ok(frame);
            }
            match down.read(&mut piece).await {
                Ok(Some(len)) => got.extend_from_slice(&piece[..len]),
                Ok(None) => return Err("the stream ended".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    let frame = tokio::time::timeout(PATIENCE, read).await;
    frame.expect("the runner answers or hangs up")
}

/// The fault that a frame is.
pub(crate) fn fault(kind: Kind, body: &[u8]) -> Fault {
    let frame = Frame { kind, body };
    frame.body().unwrap()
}
