//! One connection: its Hello, then its streams, each served on its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use oqto_protocol::bounds::FRAME_LEN_MAX;
use oqto_protocol::event::Transient;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::frame::Kind;
use oqto_protocol::hello::{Hello, Limits, Welcome};
use oqto_protocol::id::ControlId;
use oqto_protocol::{reply::Reply, version};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::authorise::{authorise, from_peer, may_see, storage};
use super::{Daemon, query, renewal, subscription};
use crate::audit::Outcome;
use crate::clock;
use crate::identity::{Peer, PeerError};
use crate::transport::{
    Connection, HandshakeError, Incoming, Place, ReadError, Received, STREAMS_MAX, Stream, WriteError,
};

/// How long a stranger may take from the first packet to its Hello. An honest peer takes three round trips.
pub(super) const HELLO_MAX: Duration = Duration::from_secs(10);

/// How long the first frame of a stream may take to come, once its stream is open.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// Why a stream ended early. It is logged and touches no other stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("cannot read from the peer")]
    Read(#[from] ReadError),
    #[error("cannot write to the peer")]
    Write(#[from] WriteError),
    #[error("the peer was silent for {} s", REQUEST_MAX.as_secs())]
    Silent,
}

/// Why a link was not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unmet {
    #[error("a peer did not say hello within {} s", HELLO_MAX.as_secs())]
    Slow,
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("{address} does not come in")]
    Peer { address: SocketAddr, source: PeerError },
    #[error("control {control} left before it said hello")]
    Gone {
        control: ControlId,
        source: Option<HandshakeError>,
    },
    #[error("control {control} said no hello")]
    Hello { control: ControlId, source: StreamError },
    #[error("control {control} was told why it is not served: {because}")]
    Refused { control: ControlId, because: String },
}

/// Serves one link that came, until it is gone.
pub(super) async fn accept(incoming: Incoming, daemon: Arc<Daemon>) {
    let until = Instant::now() + HELLO_MAX;
    let met = match tokio::time::timeout_at(until, incoming.handshake()).await {
        Ok(Ok((connection, place))) => serve(connection, Some(place), until, &daemon).await.map(drop),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Unmet::Slow),
    };
    if let Err(error) = met {
        tracing::info!(error = %crate::cause::chain(&error), "refused");
        if matches!(error, Unmet::Handshake(_) | Unmet::Peer { .. }) {
            daemon.audit.count_stranger();
        }
    }
}

/// Serves one link, come or dialled, until it is gone. Its hello has to be said before `until`; one that came has its
/// place among strangers until then. Says how long it stood.
pub(super) async fn serve(
    connection: Connection,
    place: Option<Place>,
    until: Instant,
    daemon: &Arc<Daemon>,
) -> Result<Duration, Unmet> {
    // From before it is decided about: what is learnt meanwhile is not missed.
    let mut changes = daemon.credentials.changes();
    let met_at = clock::unix_ms();
    let meeting = tokio::time::timeout_at(until, meet(&connection, place, met_at, daemon));
    let (peer, hello) = meeting.await.map_err(|_| Unmet::Slow)??;
    let _present = daemon.presence();
    let since = Instant::now();
    tracing::info!(control = %peer.control, address = %connection.address(), "connected");
    let peer = Arc::new(peer);
    let mut streams = JoinSet::new();
    streams.spawn(telemetry(hello, peer.clone(), daemon.clone()));
    let renewal = renewal::keep(&connection, &peer, daemon);
    tokio::pin!(renewal);
    let mut cut = None;
    loop {
        tokio::select! {
            // First what only looks after itself, and then what may end the link: a certificate that has come is taken
            // before the link is cut that brought it.
            biased;
            () = &mut renewal => {}
            Ok(()) = changes.changed() => {
                if let Err(error) = daemon.credentials.admit(&connection.certificates(), met_at) {
                    tracing::warn!(control = %peer.control, error = %crate::cause::chain(&error), "cut");
                    connection.close(&error.to_string());
                    cut = Some(error);
                    break;
                }
            }
            stream = connection.accept_stream() => {
                let Some(stream) = stream else { break };
                // Bounded by what the transport permits at once; what has ended is let go of here.
                while streams.try_join_next().is_some() {}
                let (peer, daemon, connection) = (peer.clone(), daemon.clone(), connection.clone());
                streams.spawn(async move {
                    if let Err(error) = serve_stream(stream, &peer, &connection, &daemon).await {
                        tracing::debug!(error = %crate::cause::chain(&error), "a stream ended early");
                    }
                });
            }
        }
    }
    if let Some(error) = cut {
        // Nothing of it goes on while this is written down; where that fails, the log counts it.
        streams.shutdown().await;
        let mut entry = from_peer("connection.cut", Outcome::Noted, &peer);
        entry.address = Some(connection.address());
        entry.detail = Some(error.to_string());
        let _counted = daemon.audit.record(entry).await;
    }
    tracing::info!(control = %peer.control, "disconnected");
    Ok(since.elapsed())
}

/// Who it is, and the first stream with its Hello answered.
async fn meet(
    connection: &Connection,
    mut place: Option<Place>,
    met_at: u64,
    daemon: &Daemon,
) -> Result<(Peer, Stream), Unmet> {
    let peer = match daemon.credentials.admit(&connection.certificates(), met_at) {
        Ok(peer) => peer,
        Err(source) => {
            connection.close(&source.to_string());
            let address = connection.address();
            return Err(Unmet::Peer { address, source });
        }
    };
    let control = peer.control.clone();
    let Some(mut stream) = connection.accept_stream().await else {
        let source = connection.why_gone();
        return Err(Unmet::Gone { control, source });
    };
    if let Err(fault) = admit(connection, &peer, daemon).await {
        // Who is gone already needs no answer.
        let _gone = stream.outbox.send(&fault).await;
        stream.outbox.flush().await;
        let because = fault.message;
        return Err(Unmet::Refused { control, because });
    }
    match greet(&mut stream, &mut place, &peer, daemon).await {
        Ok(None) => Ok((peer, stream)),
        Ok(Some(fault)) => {
            stream.outbox.flush().await;
            let because = fault.message;
            Err(Unmet::Refused { control, because })
        }
        Err(source) => Err(Unmet::Hello { control, source }),
    }
}

/// Records who has come, before anything is said to it.
async fn admit(connection: &Connection, peer: &Peer, daemon: &Daemon) -> Result<(), Fault> {
    let mut entry = from_peer("connection.open", Outcome::Allowed, peer);
    entry.address = Some(connection.address());
    let recorded = daemon.audit.record(entry).await;
    recorded.map_err(|error| storage("the connection", &error))
}

/// Answers Hello; with a fault when it was refused. Who is welcome has given its place among strangers back before it
/// hears of it.
async fn greet(
    stream: &mut Stream,
    place: &mut Option<Place>,
    peer: &Peer,
    daemon: &Daemon,
) -> Result<Option<Fault>, StreamError> {
    let fault = match stream.inbox.read().await? {
        Some(frame) if frame.kind() == Kind::HELLO => match frame.body::<Hello>() {
            Ok(hello) => match version::settle(hello.minor, hello.minor_min) {
                Some(minor) => {
                    drop(place.take());
                    stream.outbox.send(&welcome(minor, peer, daemon)).await?;
                    return Ok(None);
                }
                None => Fault::new(
                    FaultCode::Version,
                    format!(
                        "this runner speaks oqto/1 minor versions {} to {}, the control speaks {} to {}; update the \
                         older of the two",
                        version::MINOR_MIN,
                        version::MINOR,
                        hello.minor_min,
                        hello.minor
                    ),
                ),
            },
            Err(error) => Fault::new(FaultCode::Malformed, format!("the hello cannot be read: {error}")),
        },
        Some(frame) => Fault::new(
            FaultCode::Malformed,
            format!(
                "the first frame must be a hello, not one of kind {}",
                frame.kind().0
            ),
        ),
        None => Fault::new(FaultCode::Malformed, "the first stream ended without a hello"),
    };
    stream.outbox.send(&fault).await?;
    Ok(Some(fault))
}

fn welcome(minor: u16, peer: &Peer, daemon: &Daemon) -> Welcome {
    let harnesses = match daemon.roles.anywhere(&peer.control) {
        Some(_) => daemon.supervisor.harnesses(),
        // Who may do nothing needs not know what there is.
        None => Vec::new(),
    };
    Welcome {
        minor,
        features: Vec::new(),
        runner_id: daemon.runner_id.clone(),
        harnesses,
        limits: Limits {
            frame_len_max: FRAME_LEN_MAX as u64,
            sessions_max: daemon.supervisor.sessions_max(),
            streams_max: STREAMS_MAX,
        },
        build: super::build_info(),
        role: daemon.roles.on_runner(&peer.control),
    }
}

/// Sends telemetry on the connection's first stream until either side goes. What does not fit is dropped: it is
/// the first thing to go under load.
async fn telemetry(mut stream: Stream, peer: Arc<Peer>, daemon: Arc<Daemon>) {
    stream.outbox.give_way();
    let mut transients = daemon.supervisor.transients();
    loop {
        let transient: Transient = tokio::select! {
            transient = transients.recv() => match transient {
                Ok(transient) => transient,
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            },
            // A control has nothing more to say here; whatever comes, or the end, is the end of telemetry.
            _ = stream.inbox.read() => return,
        };
        let workplace = daemon.supervisor.workplace(&transient.session_id);
        if !workplace.is_some_and(|workplace| may_see(&daemon, &peer, &workplace)) {
            continue;
        }
        if stream.outbox.send(&transient).await.is_err() {
            return;
        }
    }
}

async fn serve_stream(
    mut stream: Stream,
    peer: &Peer,
    connection: &Connection,
    daemon: &Daemon,
) -> Result<(), StreamError> {
    stream.inbox.set_len_max(FRAME_LEN_MAX);
    let read = tokio::time::timeout(REQUEST_MAX, stream.inbox.read()).await;
    let frame = match read.map_err(|_| StreamError::Silent)? {
        Ok(Some(frame)) => frame,
        Ok(None) => return Ok(()),
        Err(ReadError::Crowded) => {
            let fault = Fault::new(FaultCode::Busy, ReadError::Crowded.to_string());
            stream.outbox.send(&fault).await?;
            stream.outbox.flush().await;
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    match frame.kind() {
        Kind::COMMAND => {
            let reply = command(&frame, peer, connection, daemon).await;
            match reply {
                Ok(reply) => stream.outbox.send(&reply).await?,
                Err(fault) => stream.outbox.send(&fault).await?,
            }
        }
        Kind::QUERY => return query::serve(stream, &frame, peer, connection, daemon).await,
        Kind::SUBSCRIBE => return subscription::serve(stream, &frame, peer, daemon).await,
        Kind(kind) => {
            let message = format!("this runner serves no stream that begins with a frame of kind {kind}");
            stream
                .outbox
                .send(&Fault::new(FaultCode::Unsupported, message))
                .await?;
        }
    }
    stream.outbox.flush().await;
    Ok(())
}

async fn command(
    frame: &Received,
    peer: &Peer,
    connection: &Connection,
    daemon: &Daemon,
) -> Result<Reply, Fault> {
    let turn = connection.turns().command().await;
    let envelope: oqto_protocol::command::CommandEnvelope =
        frame.body().map_err(|error| malformed("command", &error))?;
    let (id, name) = (envelope.id, envelope.command.name());
    match authorise(daemon, peer, envelope, frame).await {
        Ok(authorised) => {
            drop(turn);
            let (envelope, directory) = authorised.into_command();
            Ok(daemon.supervisor.command(envelope, directory).await)
        }
        Err(fault) => Ok(Reply::refused(id, name, fault)),
    }
}

pub(super) fn malformed(what: &str, error: &oqto_protocol::codec::DecodeError) -> Fault {
    Fault::new(
        FaultCode::Malformed,
        format!("the {what} cannot be read: {error}"),
    )
}
