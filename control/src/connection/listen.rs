//! Taking in who dials: runners with a certificate, and those that want their first.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::RunnerId;
use oqto_protocol::query::Query;
use oqto_protocol::version::{ALPN, ALPN_ENROL};
use quinn::crypto::rustls::HandshakeData;
use quinn::{ConnectionError, Endpoint, Incoming, SendStream, ServerConfig, TransportConfig, VarInt};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::dial::{chain, greet};
use super::duties::{Peer, give, read_question};
use super::endpoint::stranger_config;
use super::line::Awaited;
use super::registrar::reason;
use super::tls::server_config;
use super::{Dialer, Line, RunnerAddr, TlsError};
use crate::authority::{State, network};
use crate::bounds::{
    ARRIVALS_MAX, CONNECT_WAIT, CONTROL_LIFE, KNOCK_LEN_MAX, KNOCKS_LEN_MAX, STRANGERS_MAX,
    STRANGERS_OF_ONE_MAX, UNACCEPTED_MAX,
};

/// The code with which somebody is turned away.
const TURNED_AWAY: u32 = 1;

/// Why a control does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// There is no tokio runtime to run on.
    #[error("no tokio runtime runs here")]
    NoRuntime(#[source] tokio::runtime::TryCurrentError),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// TLS could not be set up.
    #[error("cannot set TLS up")]
    Tls(#[from] TlsError),
    /// The control was closed before.
    #[error("the control was closed by this program")]
    Closed,
}

/// An endpoint that is dialled, and the task that takes in who comes. It ends with this.
#[derive(Debug)]
pub(crate) struct Listening {
    address: SocketAddr,
    arrivals: mpsc::Receiver<Arc<Line>>,
    endpoint: Endpoint,
    dialer: Arc<Dialer>,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Links that stand are of use without it.
        self.endpoint.set_server_config(None);
        self.task.abort();
        self.dialer.endpoints().leave(self.address);
    }
}

impl Listening {
    /// Begins to listen.
    pub(crate) fn open(dialer: Arc<Dialer>, address: SocketAddr) -> Result<Self, ListenError> {
        tokio::runtime::Handle::try_current().map_err(ListenError::NoRuntime)?;
        if *dialer.closed().borrow() {
            return Err(ListenError::Closed);
        }
        dialer.registrar().watch();
        let credentials = Credentials::make(&dialer)?;
        let failed = |source| ListenError::Socket { address, source };
        let config = ServerConfig::clone(&credentials.config);
        let endpoint = dialer.endpoints().listen(address, config).map_err(failed)?;
        let address = endpoint.local_addr().map_err(failed)?;
        let (arrived, arrivals) = mpsc::channel(UNACCEPTED_MAX);
        let door = Arc::new(Door {
            dialer: Arc::clone(&dialer),
            lines: Mutex::default(),
            arrived,
        });
        let task = tokio::spawn(take_in(endpoint.clone(), door, credentials));
        Ok(Self {
            address,
            arrivals,
            endpoint,
            dialer,
            task,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next line to a runner that has none; `None` when the control was closed.
    pub(crate) async fn accept(&mut self) -> Option<Arc<Line>> {
        self.arrivals.recv().await
    }
}

/// What this control shows to who dials, made anew when half of its life is over or the authority has decided
/// something.
struct Credentials {
    config: Arc<ServerConfig>,
    transport: Arc<TransportConfig>,
    made: Instant,
    state: Arc<State>,
}

impl Credentials {
    fn make(dialer: &Dialer) -> Result<Self, TlsError> {
        let transport = Arc::new(stranger_config());
        Self::make_with(dialer, transport)
    }

    fn make_with(dialer: &Dialer, transport: Arc<TransportConfig>) -> Result<Self, TlsError> {
        let registrar = dialer.registrar();
        let state = registrar.authority.now();
        let tls = server_config(&registrar.authority, &registrar.control_id)?;
        let mut config = ServerConfig::with_crypto(Arc::new(tls));
        config
            .transport_config(Arc::clone(&transport))
            .max_incoming(STRANGERS_MAX)
            .incoming_buffer_size(KNOCK_LEN_MAX)
            .incoming_buffer_size_total(KNOCKS_LEN_MAX);
        Ok(Self {
            config: Arc::new(config),
            transport,
            made: Instant::now(),
            state,
        })
    }

    fn refresh(&mut self, dialer: &Dialer) -> Result<(), TlsError> {
        let is_fresh = Arc::ptr_eq(&self.state, &dialer.registrar().authority.now());
        if !is_fresh || self.made.elapsed() > CONTROL_LIFE / 2 {
            *self = Self::make_with(dialer, Arc::clone(&self.transport))?;
        }
        Ok(())
    }
}

/// What those who take in share.
struct Door {
    dialer: Arc<Dialer>,
    /// The lines of runners that dialled in, for when they come again.
    lines: Mutex<HashMap<RunnerId, Weak<Line>>>,
    arrived: mpsc::Sender<Arc<Line>>,
}

/// Takes in who comes, each on its own, within bounds: strangers, connections, and the time to say who one is. When half
/// of the places for strangers are taken, somebody new must show that it owns its address before it gets one, and no
/// address gets more than its share of the rest: packets with made-up senders, or one host, cannot take them all.
async fn take_in(endpoint: Endpoint, door: Arc<Door>, mut credentials: Credentials) {
    let (mut strangers, mut shares) = (JoinSet::new(), HashMap::<IpAddr, usize>::new());
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            Some(met) = strangers.join_next() => {
                let Ok(Some(address)) = met else { continue };
                if let Some(share) = shares.get_mut(&address) {
                    *share -= 1;
                }
                shares.retain(|_, share| *share > 0);
                continue;
            }
        };
        let Some(incoming) = incoming else { return };
        let address = incoming.remote_address();
        let owner = incoming.remote_address_validated().then(|| network(address.ip()));
        let share = owner
            .and_then(|owner| shares.get(&owner).copied())
            .unwrap_or_default();
        if strangers.len() >= STRANGERS_MAX
            || share >= STRANGERS_OF_ONE_MAX
            || endpoint.open_connections() >= ARRIVALS_MAX
        {
            incoming.refuse();
        } else if strangers.len() >= STRANGERS_MAX / 2 && incoming.may_retry() {
            // It fails only for one that was asked already.
            let _asked = incoming.retry();
        } else if let Err(error) = credentials.refresh(&door.dialer) {
            tracing::warn!(error = &error as &dyn std::error::Error, "nobody can dial in");
            incoming.refuse();
        } else {
            if let Some(owner) = owner {
                *shares.entry(owner).or_default() += 1;
            }
            let (door, config) = (Arc::clone(&door), Arc::clone(&credentials.config));
            strangers.spawn(async move {
                door.meet(incoming, config).await;
                owner
            });
        }
    }
}

/// A link that ends with its owner unless somebody takes it over: who is cut off in the middle is hung up on.
struct Guest(Option<quinn::Connection>);

impl Guest {
    fn quic(&self) -> Option<&quinn::Connection> {
        self.0.as_ref()
    }

    fn turn_away(mut self, why: &str) {
        if let Some(quic) = self.0.take() {
            quic.close(VarInt::from_u32(TURNED_AWAY), why.as_bytes());
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(quic) = self.0.take() {
            quic.close(VarInt::from_u32(TURNED_AWAY), b"too slow");
        }
    }
}

/// Who dialled in, once it has said what it wants.
enum Caller {
    /// It has a certificate and waits to be greeted.
    Runner(Guest),
    /// It has none, and this question on this stream.
    Stranger(Guest, SendStream, Box<Query>),
}

/// Shakes hands with who dialled in and listens to what it wants; nothing when it wants what is not done.
async fn hear(incoming: Incoming, config: Arc<ServerConfig>) -> Result<Option<Caller>, ConnectionError> {
    let quic = incoming.accept_with(config)?.await?;
    let talk = quic
        .handshake_data()
        .and_then(|any| any.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol);
    let guest = Guest(Some(quic));
    let Some(quic) = guest.quic() else { return Ok(None) };
    match talk.as_deref() {
        Some(ALPN) => Ok(Some(Caller::Runner(guest))),
        Some(ALPN_ENROL) => {
            let Ok((send, receive)) = quic.accept_bi().await else {
                return Ok(None);
            };
            match read_question(receive).await {
                Ok(question) => Ok(Some(Caller::Stranger(guest, send, Box::new(question)))),
                Err(error) => {
                    guest.turn_away(&reason(&error));
                    Ok(None)
                }
            }
        }
        // TLS settles on no other.
        _ => {
            guest.turn_away("another protocol");
            Ok(None)
        }
    }
}

impl Door {
    /// Bounds the time of who dialled in and not our own: one whose turn comes late, or whose certificate is being put on
    /// a slow disk, is not to blame, and would have used its token up for nothing.
    async fn meet(self: Arc<Self>, incoming: Incoming, config: Arc<ServerConfig>) {
        let address = incoming.remote_address();
        match timeout(CONNECT_WAIT, hear(incoming, config)).await {
            Ok(Ok(Some(Caller::Runner(guest)))) => self.meet_runner(guest, address).await,
            Ok(Ok(Some(Caller::Stranger(guest, send, question)))) => {
                self.enrol(guest, send, *question, address).await;
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                // The sender may be made up, and must neither fill the audit log nor have others limited.
                tracing::info!(%address, %error, "somebody dialled and the handshake failed");
                self.dialer.registrar().count_refusal().await;
            }
            // It may be anybody's packet with a made-up sender, so it is not worth a record.
            Err(_) => tracing::debug!(%address, "a stranger did not say who it is in time"),
        }
    }

    /// The one question of who has no certificate yet.
    async fn enrol(&self, guest: Guest, send: SendStream, question: Query, address: SocketAddr) {
        let answer = match question {
            Query::Enrol(enrol) => self.dialer.registrar().enrol(enrol, address.ip()).await,
            _ => Err(Fault::new(
                FaultCode::Unsupported,
                "without a certificate a runner may ask to enrol and nothing else",
            )),
        };
        give(send, answer).await;
        guest.turn_away("done");
    }

    async fn meet_runner(&self, mut guest: Guest, address: SocketAddr) {
        let registrar = self.dialer.registrar();
        let Some(quic) = guest.quic() else { return };
        let chain = chain(quic);
        let Some(named) = registrar.authority.named(&chain) else {
            let why = if chain.is_empty() {
                "it has shown no certificate"
            } else {
                "its certificate names no runner of this authority"
            };
            registrar.refused(address.ip(), None, why.to_owned()).await;
            return guest.turn_away(why);
        };
        let runner_id = named.runner_id.clone();
        if let Err(error) = registrar.refresh().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "nobody can dial in");
            return guest.turn_away("this control cannot see what its authority decides");
        }
        let peer = Peer {
            named,
            life: registrar.runner_life,
        };
        if peer.is_revoked(&registrar.authority.now()) {
            let why = "this runner was revoked";
            registrar
                .refused(address.ip(), Some(runner_id), why.to_owned())
                .await;
            return guest.turn_away(why);
        }
        quic.set_receive_window(VarInt::MAX);
        let at = RunnerAddr {
            id: runner_id,
            address,
        };
        let Some(quic) = guest.0.take() else { return };
        let greeting = async {
            match greet(quic, &at, peer, registrar).await {
                Ok(connection) => self.hand_over(at.clone(), connection).await,
                Err(error) => tracing::info!(
                    runner_id = %at.id,
                    error = &error as &dyn std::error::Error,
                    "a runner dialled in and does not welcome this control"
                ),
            }
        };
        if timeout(CONNECT_WAIT, greeting).await.is_err() {
            tracing::info!(runner_id = %at.id, "a runner dialled in and was not taken up in time");
        }
    }

    /// To the line that the runner had, or as a new one to who accepts.
    async fn hand_over(&self, at: RunnerAddr, connection: super::Connection) {
        let line = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let known = lines
                .get(&at.id)
                .and_then(Weak::upgrade)
                .filter(|line| !line.is_over());
            if let Some(line) = known {
                return line.stands(at, connection);
            }
            lines.retain(|_, line| line.strong_count() > 0);
            let way = Awaited {
                registrar: Arc::clone(self.dialer.registrar()),
                id: at.id.clone(),
            };
            let line = Line::new(Arc::clone(&self.dialer), Box::new(way), at.clone(), connection);
            lines.insert(at.id, Arc::downgrade(&line));
            line
        };
        // Without anybody who accepts, the line goes and the runner is hung up on.
        self.arrived.send(line).await.ok();
    }
}
