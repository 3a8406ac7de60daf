//! A runner that is nothing but its transport: it greets, and answers every subscription with the frames of the plan
//! that the session's name says. What it is not asked, it does not know: no log, no shim, no policy.
//!
//! With it the house's transport is measured beside others: the listener and the outbox of the runner here, the library
//! of the control there.

use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use oqto_control::{Control, Cursor, Options, Runner};
use oqto_protocol::bounds::FRAME_LEN_MAX;
use oqto_protocol::frame::{self, Kind};
use oqto_protocol::hello::{BuildInfo, Limits, Welcome};
use oqto_protocol::id::{RunnerId, SessionId};
use oqto_protocol::stream::{Subscribe, Subscribed};
use oqto_protocol::version::{ALPN, MINOR};
use oqto_runner::identity::{announce, bootstrap};
use oqto_runner::transport::{Connection, Listener, Stream};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    AckFrequencyConfig, ClientConfig, Endpoint, EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt,
};
use tempfile::TempDir;

use super::certificates::{Certificates, SERVER_NAME};
use super::frames::{Frames, paced, ready};
use super::generator::Plan;
use super::house::{enrol, open_bed};

/// The session whose events are those of a plan.
///
/// # Panics
/// Never: a plan's words make a name.
#[must_use]
pub fn session_of(plan: Plan) -> SessionId {
    let name = format!("plan-{plan}").replace(' ', "-");
    name.parse().expect("lower case letters, digits and dashes")
}

fn plan_of(session: &SessionId) -> Option<Plan> {
    let words = session.to_string();
    words.strip_prefix("plan-")?.replace('-', " ").parse().ok()
}

/// Is the bare runner, when the command line asks for one; `None`: the bench goes on.
#[must_use]
pub fn bare_if_asked() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (tls, name) = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--bare", dir] => {
            let identity = bootstrap(Path::new(dir), io::stdin().lock(), io::stdout().lock());
            let identity = identity.expect("who started it gives a certificate");
            let tls = identity.server_config().expect("a certificate of the authority");
            (tls, identity.runner_id())
        }
        ["--raw", dir] => {
            let name = "raw".parse().expect("a name");
            (Certificates::found(Path::new(dir)).server(ALPN), name)
        }
        _ => return None,
    };
    run(listen(tls, name));
    Some(ExitCode::SUCCESS)
}

/// Runs a bench as a task, as an embedder would: where the thread that starts the runtime polls it, every event has to
/// wake one thread more.
///
/// # Panics
/// When the bench does.
pub fn run(bench: impl Future<Output = ()> + Send + 'static) {
    let runtime = runtime();
    let ended = runtime.block_on(runtime.spawn(bench));
    ended.expect("the bench");
}

/// The runtime of both ends of every transport: as many threads as the runner has.
///
/// # Panics
/// When the host gives no threads.
#[must_use]
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn listen(tls: rustls::ServerConfig, name: RunnerId) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind(address, tls, &[0; 32]).expect("a free port");
    announce(io::stdout().lock(), listener.address()).expect("who started it listens");
    while let Some(incoming) = listener.accept().await {
        let name = name.clone();
        tokio::spawn(async move {
            if let Ok((connection, _place)) = incoming.handshake().await {
                serve(&connection, &name).await;
            }
        });
    }
}

async fn serve(connection: &Connection, name: &RunnerId) {
    while let Some(stream) = connection.accept_stream().await {
        tokio::spawn(answer(stream, name.clone()));
    }
}

async fn answer(mut stream: Stream, name: RunnerId) {
    let Ok(Some(asked)) = stream.inbox.read().await else {
        return;
    };
    match asked.kind() {
        Kind::HELLO => {
            let welcome = welcome(name);
            stream.outbox.send(&welcome).await.expect("a peer that listens");
            // The first stream stays open as long as the connection.
            while let Ok(Some(_)) = stream.inbox.read().await {}
        }
        _ => {
            let asked: Subscribe = asked.body().expect("a subscription");
            let plan = plan_of(&asked.session_id).expect("a plan");
            // Who hung up has heard enough.
            let _gone = feed(&mut stream, plan).await;
            stream.outbox.flush().await;
        }
    }
}

async fn feed(stream: &mut Stream, plan: Plan) -> Result<(), oqto_runner::transport::WriteError> {
    let frames = plan.per_second.is_none().then(|| Frames::of(plan));
    stream.outbox.send(&subscribed(plan)).await?;
    match frames {
        Some(frames) => {
            for chunk in frames.chunks() {
                stream.outbox.send_frames(chunk).await?;
            }
        }
        None => {
            let mut frames = paced(plan);
            while let Some(frames) = ready(&mut frames).await {
                stream.outbox.send_frames(frames).await?;
            }
        }
    }
    Ok(())
}

fn subscribed(plan: Plan) -> Subscribed {
    Subscribed {
        cursor: Cursor { epoch: 1, seq: 0 },
        oldest: 1,
        newest: Cursor {
            epoch: 1,
            seq: plan.lines as u64,
        },
    }
}

fn welcome(runner_id: RunnerId) -> Welcome {
    Welcome {
        minor: MINOR,
        features: Vec::new(),
        runner_id,
        harnesses: Vec::new(),
        limits: Limits {
            frame_len_max: FRAME_LEN_MAX as u64,
            sessions_max: 1,
            streams_max: 256,
        },
        build: BuildInfo {
            name: "bench".to_owned(),
            version: "0".to_owned(),
        },
        role: None,
    }
}

/// A bare runner in a process of its own, and a control connected with it.
pub struct Bare {
    /// The control's end.
    pub runner: Runner,
    child: Child,
    control: Control,
    _bed: TempDir,
}

impl Bare {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn open() -> Self {
        let bed = open_bed();
        let control =
            Control::open(Options::under(bed.path().join("control"))).expect("a control of our own");
        let mut child = this_program()
            .arg("--bare")
            .arg(bed.path().join("identity"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let at = enrol(&control, stdin.expect("piped"), stdout.expect("piped"));
        let runner = control.connect(at).await.expect("a runner that listens");
        Self {
            runner,
            child,
            control,
            _bed: bed,
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it.
    pub async fn close(mut self) {
        self.control.close().await;
        end(&mut self.child);
    }
}

/// This program once more, to be the other end.
#[must_use]
pub fn this_program() -> Command {
    Command::new(std::env::current_exe().expect("Linux"))
}

/// Ends the other end.
pub fn end(child: &mut Child) {
    // It fails only for one that is gone.
    let _gone = child.kill();
    let _reaped = child.wait();
}

/// quinn and nothing else, with the settings of the house on both sides, the server in a process of its own.
pub struct Raw {
    connection: quinn::Connection,
    endpoint: Endpoint,
    child: Child,
    _bed: TempDir,
}

impl Raw {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn open() -> Self {
        let bed = open_bed();
        let certificates = Certificates::make(bed.path());
        let mut server = this_program();
        server.arg("--raw").arg(bed.path());
        let (child, address) = announced(server);
        let endpoint = client_endpoint();
        let tls = QuicClientConfig::try_from(certificates.client(ALPN)).expect("TLS 1.3");
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(client_transport()));
        let connecting = endpoint
            .connect_with(config, address, SERVER_NAME)
            .expect("an address");
        let connection = connecting.await.expect("a server that listens");
        Self {
            connection,
            endpoint,
            child,
            _bed: bed,
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads all of a plan that is not paced, looks at nothing, and says how many bytes came in how many seconds.
    ///
    /// # Panics
    /// When the stream breaks.
    pub async fn read(&self, plan: Plan) -> (usize, f64) {
        let (mut send, mut recv) = self.connection.open_bi().await.expect("a live link");
        let mut asked = Vec::new();
        let subscribe = Subscribe {
            session_id: session_of(plan),
            cursor: Cursor::default(),
            max_frame: 0,
            on_behalf_of: None,
        };
        frame::append(&subscribe, &mut asked).expect("a short frame");
        send.write_all(&asked).await.expect("a live link");
        let mut answer = Vec::new();
        frame::append(&subscribed(plan), &mut answer).expect("a short frame");
        recv.read_exact(&mut answer).await.expect("an answer");
        let began = std::time::Instant::now();
        let mut len = 0;
        while let Some(chunk) = recv.read_chunk(usize::MAX, true).await.expect("a live link") {
            len += chunk.bytes.len();
        }
        (len, began.elapsed().as_secs_f64())
    }

    /// Ends it.
    pub async fn close(mut self) {
        self.endpoint.close(VarInt::from_u32(0), b"done");
        self.endpoint.wait_idle().await;
        end(&mut self.child);
    }
}

/// Starts a server that says first where it listens, as a runner does.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn announced(mut server: Command) -> (Child, SocketAddr) {
    let mut child = server.stdout(Stdio::piped()).spawn().expect("this program");
    let mut line = String::new();
    let mut said = BufReader::new(child.stdout.take().expect("piped"));
    said.read_line(&mut line).expect("a pipe");
    let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let address = serde_json::from_value(said["listening"].clone()).expect("an address");
    (child, address)
}

/// As the control's: its buffers and its packets.
fn client_endpoint() -> Endpoint {
    use nix::sys::socket::{setsockopt, sockopt};
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
    let len = 4 * 1024 * 1024;
    // The kernel clamps what it is asked for.
    let _clamped = setsockopt(&socket, sockopt::RcvBuf, &len);
    let _clamped = setsockopt(&socket, sockopt::SndBuf, &len);
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(65_527).expect("the largest there is");
    Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime)).expect("a socket of ours")
}

/// As the control's.
fn client_transport() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(6500);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(10))
        .max_ack_delay(Some(std::time::Duration::from_millis(5)));
    let mut config = TransportConfig::default();
    config
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .send_window(1024 * 1024)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    config
}
