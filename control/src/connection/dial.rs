//! Dialling a runner: handshake, name, Hello.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use oqto_protocol::bounds::HELLO_LEN_MAX;
use oqto_protocol::event::{Envelope, Transient};
use oqto_protocol::frame::Kind;
use oqto_protocol::hello::{BuildInfo, Hello, Welcome};
use oqto_protocol::id::RunnerId;
use oqto_protocol::version::{MINOR, MINOR_MIN};
use quinn::{ClientConfig, ConnectionError, SendStream, TransportConfig, VarInt};
use quinn_proto::TransportErrorCode;
use rustls::CertificateError;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

use super::duties::Peer;
use super::endpoint::{Endpoints, transport_config};
use super::exchange::{encode, expect};
use super::registrar::Registrar;
use super::tls::{Noted, client_config};
use super::{ExchangeError, FrameReader, TlsError};
use crate::authority::{Authority, AuthorityError, server_name};
use crate::bounds::{ANSWER_BUFFER_LEN, CLOCK_SKEW, CONNECT_WAIT, TRANSIENTS_MAX};
use crate::link::Budget;
use crate::posture::Posture;

/// Where a runner is and who it must prove to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunnerAddr {
    /// Its name.
    pub id: RunnerId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Why a runner is not connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no tokio runtime to run on.
    #[error("no tokio runtime runs here")]
    NoRuntime(#[source] tokio::runtime::TryCurrentError),
    /// The local socket could not be made.
    #[error("cannot open a UDP socket")]
    Socket(#[source] io::Error),
    /// TLS could not be set up.
    #[error("cannot set TLS up")]
    Tls(#[from] TlsError),
    /// The dial could not even begin.
    #[error("cannot dial {address}")]
    Dial {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: quinn::ConnectError,
    },
    /// Nobody answered in time.
    #[error("nobody answers at {address} within {} s", CONNECT_WAIT.as_secs())]
    Silent {
        /// Where.
        address: SocketAddr,
    },
    /// The runner's certificate has ended.
    #[error(
        "the certificate of runner {runner} ended {} ago; if the clocks of both hosts are right, enrol it again: \
         oqtoctl token create --runner-id {runner}, then oqto-runner enrol on its host",
        Long(*ago)
    )]
    Expired {
        /// Which runner.
        runner: RunnerId,
        /// Since when, Unix seconds.
        not_after: u64,
        /// How long ago that is by this host's clock.
        ago: Duration,
    },
    /// The runner's certificate has not begun: a clock is wrong.
    #[error(
        "the certificate of runner {runner} begins in {}: the clock of this host, or of the control that signed it, is \
         wrong by at least as much; set them",
        Long(*ahead)
    )]
    Early {
        /// Which runner.
        runner: RunnerId,
        /// In how long it begins by this host's clock.
        ahead: Duration,
    },
    /// The runner takes a certificate that was made now for one of another time.
    #[error(
        "runner {runner} refuses a certificate that this control made now, as one of another time: its clock and this \
         host's differ by more than {}; set them",
        Long(CLOCK_SKEW)
    )]
    ClocksDiffer {
        /// Which runner.
        runner: RunnerId,
    },
    /// The runner, or its certificate, is trusted no more.
    #[error("runner {runner} was revoked")]
    Revoked {
        /// Which.
        runner: RunnerId,
    },
    /// What the authority has decided cannot be read, so nobody is trusted.
    #[error("cannot see what the authority decides")]
    Authority(#[from] AuthorityError),
    /// The handshake failed.
    #[error("the handshake with {address} failed")]
    Handshake {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: quinn::ConnectionError,
    },
    /// Another runner is there.
    #[error("the certificate at {address} is not that of runner {wanted}")]
    Stranger {
        /// Where.
        address: SocketAddr,
        /// Who should be there.
        wanted: RunnerId,
    },
    /// Hello was not answered with Welcome.
    #[error("the runner does not welcome this control")]
    Hello(#[source] ExchangeError),
    /// The runner chose a version that was not offered.
    #[error("the runner speaks version 1.{theirs}, this control 1.{MINOR_MIN} to 1.{MINOR}")]
    Version {
        /// The runner's minor version.
        theirs: u16,
    },
    /// The private runner of this machine is gone and cannot be started again.
    #[cfg(feature = "local")]
    #[error("cannot start the private runner of this machine again")]
    Local(#[source] Box<crate::LocalError>),
    /// The link was lost and did not come back in time.
    #[error("the link to the runner was lost {} s ago and is not back", waited.as_secs())]
    Away {
        /// How long it was waited for.
        waited: Duration,
        /// Why the last dial failed, if one did.
        source: Option<Arc<ConnectError>>,
    },
    /// The runner did not answer for so long that it is left alone for a while: the circuit is open.
    #[error("the runner is left alone for {} s more, since it does not answer", retry_in.as_secs_f32().ceil())]
    Open {
        /// After how long it is dialled again.
        retry_in: Duration,
        /// Why the last dial failed.
        source: Option<Arc<ConnectError>>,
    },
    /// This program has closed the runner's handle, or the control.
    #[error("the link was closed by this program")]
    Closed,
}

impl ConnectError {
    /// Whether dialling again is of no use before somebody has changed something.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::NoRuntime(_)
            | Self::Tls(_)
            | Self::Stranger { .. }
            | Self::Expired { .. }
            | Self::Revoked { .. }
            | Self::Version { .. }
            | Self::Closed => true,
            Self::Hello(source) => matches!(source, ExchangeError::Refused(_)),
            #[cfg(feature = "local")]
            Self::Local(error) => error.is_lasting(),
            Self::Socket(_)
            | Self::Dial { .. }
            | Self::Silent { .. }
            | Self::Handshake { .. }
            | Self::Early { .. }
            | Self::ClocksDiffer { .. }
            | Self::Authority(_)
            | Self::Away { .. }
            | Self::Open { .. } => false,
        }
    }
}

/// A time for people: the largest unit that it has two of.
struct Long(Duration);

impl std::fmt::Display for Long {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7200 => write!(f, "{} min", seconds / 60),
            seconds @ 7200..172_800 => write!(f, "{} h", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

/// What it takes to dial.
#[derive(Debug)]
pub(crate) struct Dialer {
    registrar: Arc<Registrar>,
    posture: Option<Posture>,
    endpoints: Endpoints,
    transport: Arc<TransportConfig>,
    budget: Mutex<Budget>,
    closed: watch::Sender<bool>,
}

impl Dialer {
    /// Dials with certificates of an authority. Runners must be as `posture` says before they are given work.
    pub(crate) fn new(registrar: Registrar, posture: Option<Posture>) -> Self {
        Self {
            registrar: Arc::new(registrar),
            posture,
            endpoints: Endpoints::default(),
            transport: Arc::new(transport_config()),
            budget: Mutex::default(),
            closed: watch::Sender::new(false),
        }
    }

    /// Who signs.
    pub(crate) fn authority(&self) -> &Authority {
        &self.registrar.authority
    }

    /// Who decides on certificates.
    pub(crate) fn registrar(&self) -> &Arc<Registrar> {
        &self.registrar
    }

    pub(super) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// What runners must be.
    pub(crate) fn posture(&self) -> Option<&Posture> {
        self.posture.as_ref()
    }

    /// From when on a link that was lost may be dialled again: all of them share one budget.
    pub(super) fn reserve(&self) -> Instant {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.reserve(Instant::now())
    }

    /// Closes every connection for good and waits until the peers were told.
    pub(crate) async fn close(&self) {
        self.closed.send_replace(true);
        self.endpoints.close().await;
    }

    /// Whether it was closed, now and when that changes.
    pub(super) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// Moves every connection to a new socket.
    pub(crate) fn rebind(&self) -> io::Result<()> {
        self.endpoints.rebind()
    }

    /// Connects: when it returns, the runner has proved its name and answered Hello. When it asks for a new certificate
    /// on this link, it gets one for `life`.
    pub(crate) async fn dial(&self, at: &RunnerAddr, life: Duration) -> Result<Connection, ConnectError> {
        tokio::runtime::Handle::try_current().map_err(ConnectError::NoRuntime)?;
        if *self.closed.borrow() {
            return Err(ConnectError::Closed);
        }
        tokio::time::timeout(CONNECT_WAIT, self.dial_unbounded(at, life))
            .await
            .unwrap_or(Err(ConnectError::Silent { address: at.address }))
    }

    async fn dial_unbounded(&self, at: &RunnerAddr, life: Duration) -> Result<Connection, ConnectError> {
        let RunnerAddr { id, address } = at;
        let (registrar, noted) = (&self.registrar, Noted::default());
        let revoked = || ConnectError::Revoked { runner: id.clone() };
        registrar.refresh().await?;
        if registrar.authority.now().is_runner_revoked(id) {
            return Err(revoked());
        }
        let tls = client_config(&registrar.authority, &registrar.control_id, &noted)?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::clone(&self.transport));
        let endpoint = self.endpoints.reaching(*address).map_err(ConnectError::Socket)?;
        let quic = endpoint
            .connect_with(config, *address, &server_name(id))
            .map_err(|source| ConnectError::Dial {
                address: *address,
                source,
            })?
            .await
            .map_err(|source| refused(at, noted.take().as_ref(), source))?;
        // The handshake checked the name in its DNS form; the URI also says that it is a runner, and whose.
        let named = registrar.authority.named(&chain(&quic));
        let Some(named) = named.filter(|named| named.runner_id == *id) else {
            quic.close(VarInt::from_u32(0), b"another name");
            return Err(ConnectError::Stranger {
                address: *address,
                wanted: id.clone(),
            });
        };
        let peer = Peer { named, life };
        if peer.is_revoked(&registrar.authority.now()) {
            return Err(revoked());
        }
        greet(quic, at, peer, registrar).await
    }
}

/// The certificates that a peer has shown.
pub(super) fn chain(quic: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    quic.peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map(|chain| *chain)
        .unwrap_or_default()
}

/// Says Hello to who has proved its name, and begins what it is owed.
pub(super) async fn greet(
    quic: quinn::Connection,
    at: &RunnerAddr,
    peer: Peer,
    registrar: &Arc<Registrar>,
) -> Result<Connection, ConnectError> {
    let connection = match hello(quic, at).await {
        Err(ConnectError::Hello(ExchangeError::Lost(source))) if is_of_another_time(&source) => {
            return Err(ConnectError::ClocksDiffer {
                runner: at.id.clone(),
            });
        }
        other => other?,
    };
    connection.begin_duties(peer, registrar).await;
    Ok(connection)
}

/// Why a handshake failed, as far as that is known.
fn refused(at: &RunnerAddr, noted: Option<&CertificateError>, source: ConnectionError) -> ConnectError {
    let runner = at.id.clone();
    let between = |early: &UnixTime, late: &UnixTime| {
        Duration::from_secs(late.as_secs().saturating_sub(early.as_secs()))
    };
    match noted {
        Some(CertificateError::ExpiredContext { time, not_after }) => ConnectError::Expired {
            runner,
            not_after: not_after.as_secs(),
            ago: between(not_after, time),
        },
        Some(CertificateError::NotValidYetContext { time, not_before }) => ConnectError::Early {
            runner,
            ahead: between(time, not_before),
        },
        _ if is_of_another_time(&source) => ConnectError::ClocksDiffer { runner },
        _ => ConnectError::Handshake {
            address: at.address,
            source,
        },
    }
}

/// Whether a peer refused our certificate for its dates: the alert `certificate_expired` of TLS, which also stands for
/// one that has not begun.
fn is_of_another_time(source: &ConnectionError) -> bool {
    const CERTIFICATE_EXPIRED: u8 = 45;
    matches!(source, ConnectionError::ConnectionClosed(close)
        if close.error_code == TransportErrorCode::crypto(CERTIFICATE_EXPIRED))
}

/// A runner that proved its name and answered Hello.
#[derive(Debug)]
pub(crate) struct Connection {
    quic: quinn::Connection,
    welcome: Welcome,
    transients: broadcast::Sender<Envelope>,
    /// Since when the runner is known to be as it should, on this connection.
    pub(super) fit: tokio::sync::Mutex<Option<Instant>>,
    /// Whether it ends, or has ended, since its runner is trusted no more.
    revoked: Arc<AtomicBool>,
    /// The first stream stays open in both directions as long as the connection.
    _first: SendStream,
}

impl Connection {
    pub(super) fn quic(&self) -> &quinn::Connection {
        &self.quic
    }

    /// What the runner said of itself.
    pub(crate) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Whether it is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.quic.close_reason().is_some()
    }

    /// Whether it has ended since its runner is trusted no more.
    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    pub(super) fn revoked(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.revoked)
    }

    /// Ends it, for both sides; who waits for something on it learns that it is lost.
    pub(super) fn close(&self) {
        self.quic.close(VarInt::from_u32(0), b"done");
    }

    /// Looks from time to time whether the runner is gone, and ends the connection then: its silence would only be
    /// understood much later.
    #[cfg(feature = "local")]
    pub(crate) fn watch(&self, every: Duration, mut is_gone: impl FnMut() -> bool + Send + 'static) {
        let quic = self.quic.clone();
        tokio::spawn(async move {
            while tokio::time::timeout(every, quic.closed()).await.is_err() {
                if is_gone() {
                    quic.close(VarInt::from_u32(0), b"gone");
                }
            }
        });
    }

    /// Telemetry from now on. Who reads slowly loses the oldest.
    pub(crate) fn transients(&self) -> broadcast::Receiver<Envelope> {
        self.transients.subscribe()
    }
}

/// The first stream's reader lives in a task and holds the connection: it has to be closed, not only let go.
impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

async fn hello(quic: quinn::Connection, at: &RunnerAddr) -> Result<Connection, ConnectError> {
    let lost = |source| ConnectError::Hello(ExchangeError::Lost(source));
    let (mut send, receive) = quic.open_bi().await.map_err(lost)?;
    let hello = Hello {
        minor: MINOR,
        minor_min: MINOR_MIN,
        features: Vec::new(),
        build: BuildInfo {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
    };
    let bytes = encode(&hello).map_err(|error| ConnectError::Hello(error.into()))?;
    send.write_all(&bytes)
        .await
        .map_err(|error| ConnectError::Hello(error.into()))?;
    let mut reader = FrameReader::new(receive, ANSWER_BUFFER_LEN, HELLO_LEN_MAX);
    let welcome: Welcome = reader.next(expect).await.map_err(ConnectError::Hello)?;
    if !(MINOR_MIN..=MINOR).contains(&welcome.minor) {
        return Err(ConnectError::Version {
            theirs: welcome.minor,
        });
    }
    if welcome.runner_id != at.id {
        return Err(ConnectError::Stranger {
            address: at.address,
            wanted: at.id.clone(),
        });
    }
    let (transients, _) = broadcast::channel(TRANSIENTS_MAX);
    tokio::spawn(drain(reader, at.id.clone(), transients.clone()));
    Ok(Connection {
        quic,
        welcome,
        transients,
        fit: tokio::sync::Mutex::default(),
        revoked: Arc::default(),
        _first: send,
    })
}

/// Reads telemetry until the connection ends. A frame that cannot be read is dropped: telemetry is owed to nobody.
async fn drain(mut reader: FrameReader, runner_id: RunnerId, transients: broadcast::Sender<Envelope>) {
    loop {
        let transient = reader
            .next(|frame| match frame.kind {
                Kind::TRANSIENT => Ok(frame.body::<Transient>().ok()),
                _ => Ok(None),
            })
            .await;
        match transient {
            Ok(Some(Transient {
                session_id,
                ts,
                event,
            })) => {
                let runner_id = runner_id.clone();
                let envelope = Envelope {
                    session_id,
                    runner_id,
                    epoch: 0,
                    seq: None,
                    first_seq: None,
                    ts,
                    event,
                };
                // Nobody may be listening.
                transients.send(envelope).ok();
            }
            Ok(None) => {}
            Err(_) => return,
        }
    }
}
