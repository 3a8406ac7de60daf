//! A runner by hand, with papers of the authority, that says of itself what a test tells it to.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oqto_control::{Control, RunnerAddr};
use oqto_protocol::attest::{ATTEST_CONTEXT, Attestation, CHANNEL_LABEL, CHANNEL_LEN, Statement};
use oqto_protocol::codec::{Blob, Json, Wire as _};
use oqto_protocol::command::CommandEnvelope;
use oqto_protocol::enrol::{KeyAlgorithm, SigningRequest};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::frame::{Frame, Kind};
use oqto_protocol::hello::{BuildInfo, Limits, Welcome};
use oqto_protocol::id::Digest;
use oqto_protocol::policy::PolicyInfo;
use oqto_protocol::query::{Answer, Query};
use oqto_protocol::reply::Reply;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};

use crate::stranger::frame;

/// What it was asked, and with what it could answer.
pub(crate) struct Asking<'a> {
    /// Which connection this is, from 0.
    pub(crate) link: usize,
    pub(crate) nonce: Vec<u8>,
    pub(crate) channel: Vec<u8>,
    pub(crate) key: &'a KeyPair,
}

type Say = dyn Fn(&Asking<'_>) -> Attestation + Send + Sync;

/// The runner. It makes no session, and counts how often it was to.
pub(crate) struct Liar {
    pub(crate) at: RunnerAddr,
    pub(crate) asked: Arc<AtomicUsize>,
    pub(crate) commands: Arc<AtomicUsize>,
    links: Arc<Mutex<Vec<Connection>>>,
    _endpoint: Endpoint,
}

impl Liar {
    pub(crate) fn start(
        control: &Control,
        say: impl Fn(&Asking<'_>) -> Attestation + Send + Sync + 'static,
    ) -> Self {
        let id = "r-liar".parse().unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let request = SigningRequest {
            algorithm: KeyAlgorithm::EcdsaP256Sha256,
            public_key: Blob(key.public_key_raw().to_vec()),
            runner_id: None,
        };
        let authority = control.authority();
        let grant = authority.sign(&request, &id, Duration::from_secs(3600)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.root().clone()).unwrap();
        let config = server_config(&key, grant.certificate.0, roots);
        let endpoint = Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let at = RunnerAddr {
            id,
            address: endpoint.local_addr().unwrap(),
        };
        let serving = Arc::new(Serving {
            say: Box::new(say),
            key,
            asked: Arc::default(),
            commands: Arc::default(),
            links: Arc::default(),
        });
        tokio::spawn(serve(endpoint.clone(), serving.clone()));
        Self {
            at,
            asked: serving.asked.clone(),
            commands: serving.commands.clone(),
            links: serving.links.clone(),
            _endpoint: endpoint,
        }
    }

    /// One whose statements are made and signed as they should be, with `edit` done to them before.
    pub(crate) fn signing(control: &Control, edit: impl Fn(&mut Statement) + Send + Sync + 'static) -> Self {
        Self::start(control, move |asking| {
            let mut statement = statement(asking);
            edit(&mut statement);
            sign(asking.key, &statement)
        })
    }

    /// Closes every link that there is.
    pub(crate) fn hang_up(&self) {
        for link in self.links.lock().unwrap().drain(..) {
            link.close(7_u8.into(), b"hung up");
        }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn commands(&self) -> usize {
        self.commands.load(Ordering::SeqCst)
    }
}

struct Serving {
    say: Box<Say>,
    key: KeyPair,
    asked: Arc<AtomicUsize>,
    commands: Arc<AtomicUsize>,
    links: Arc<Mutex<Vec<Connection>>>,
}

fn server_config(key: &KeyPair, certificate: Vec<u8>, roots: RootCertStore) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from(certificate)],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    tls.alpn_protocols = vec![oqto_protocol::version::ALPN.to_vec()];
    ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
}

async fn serve(endpoint: Endpoint, serving: Arc<Serving>) {
    let mut number = 0;
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.await else { continue };
        serving.links.lock().unwrap().push(connection.clone());
        let serving = serving.clone();
        tokio::spawn(async move {
            while let Ok((up, down)) = connection.accept_bi().await {
                let (serving, connection) = (serving.clone(), connection.clone());
                tokio::spawn(async move { stream(&serving, &connection, number, up, down).await });
            }
        });
        number += 1;
    }
}

async fn stream(
    serving: &Serving,
    link: &Connection,
    number: usize,
    mut up: SendStream,
    mut down: RecvStream,
) {
    let mut got = Vec::new();
    let answer = loop {
        if let Ok(Some((asked, _))) = Frame::split(&got, 1 << 20) {
            break serving.answer(asked, link, number);
        }
        match down.read_chunk(64 * 1024, true).await {
            Ok(Some(chunk)) => got.extend_from_slice(&chunk.bytes),
            _ => return,
        }
    };
    // Who is gone wants no answer; the first stream stays as long as the link.
    let _gone = up.write_all(&answer).await;
    if matches!(
        Frame::split(&got, 1 << 20),
        Ok(Some((
            Frame {
                kind: Kind::HELLO,
                ..
            },
            _
        )))
    ) {
        link.closed().await;
    }
    let _gone = up.finish();
}

impl Serving {
    fn answer(&self, asked: Frame<'_>, link: &Connection, number: usize) -> Vec<u8> {
        match asked.kind {
            Kind::HELLO => frame(&welcome()),
            Kind::COMMAND => {
                self.commands.fetch_add(1, Ordering::SeqCst);
                let envelope: CommandEnvelope = asked.body().unwrap();
                let fault = Fault::new(FaultCode::Unsupported, "a liar makes no sessions");
                frame(&Reply::refused(envelope.id, envelope.command.name(), fault))
            }
            Kind::QUERY => match asked.body().unwrap() {
                Query::RunnerAttest(attest) => {
                    self.asked.fetch_add(1, Ordering::SeqCst);
                    let mut channel = vec![0; CHANNEL_LEN];
                    link.export_keying_material(&mut channel, CHANNEL_LABEL, b"")
                        .unwrap();
                    frame(&Answer::Attested((self.say)(&Asking {
                        link: number,
                        nonce: attest.nonce.0,
                        channel,
                        key: &self.key,
                    })))
                }
                other => panic!("a liar was asked {}", other.name()),
            },
            other => panic!("a control opened a stream with {other:?}"),
        }
    }
}

fn welcome() -> Welcome {
    Welcome {
        minor: oqto_protocol::version::MINOR,
        features: Vec::new(),
        runner_id: "r-liar".parse().unwrap(),
        harnesses: Vec::new(),
        limits: Limits {
            frame_len_max: 1 << 20,
            sessions_max: 8,
            streams_max: 256,
        },
        build: BuildInfo {
            name: "a liar".to_owned(),
            version: "0".to_owned(),
        },
        role: None,
    }
}

/// What an honest runner with everything would say.
pub(crate) fn statement(asking: &Asking<'_>) -> Statement {
    Statement {
        nonce: Blob(asking.nonce.clone()),
        channel: Blob(asking.channel.clone()),
        runner_id: "r-liar".parse().unwrap(),
        taken_at: now_ms(),
        version: "0.5.1".to_owned(),
        binary: Digest([7; 32]),
        kernel: "6.8.0-41-generic".to_owned(),
        sandbox_check: Json::from(&report()),
        policies: vec![PolicyInfo {
            name: "workspace".to_owned(),
            description: "test".to_owned(),
            digest: Digest([9; 32]),
        }],
    }
}

/// The report of a sandbox that holds.
pub(crate) fn report() -> Value {
    let layer = |name: &str| json!({"layer": name, "state": "enforced", "detail": "as it should be"});
    json!({"checked_at": now_ms(), "check": {
        "holds": true, "policy": "workspace", "binary": Digest([7; 32]), "landlock_abi": 6,
        "layers": [layer("namespaces"), layer("landlock"), layer("seccomp")],
        "attempts": [{"name": "read-outside", "forbidden": true, "stopped_by": "mounts"}],
    }})
}

pub(crate) fn sign(key: &KeyPair, statement: &Statement) -> Attestation {
    let mut signed = ATTEST_CONTEXT.to_vec();
    statement.encode(&mut signed);
    Attestation {
        signature: Blob(key.sign(&signed).unwrap()),
        statement: Blob(signed.split_off(ATTEST_CONTEXT.len())),
    }
}

pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}
