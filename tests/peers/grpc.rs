//! gRPC: tonic, a stream of messages that are bytes, by a codec that copies them and does nothing else.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Child;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use futures_util::Stream;
use http::uri::PathAndQuery;
use oqto_tests::bench::{
    Certificates, Frames, SERVER_NAME, Taker, announced, end, open_bed, paced, this_program,
};
use tempfile::TempDir;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use tower_service::Service;

use crate::asked::{Asked, Messages, announce};

/// Its one method.
const METHOD: &str = "/oqto.Bench/Events";

/// How much may be on its way, bytes: the default of 64 KiB makes every burst wait for the reader.
const WINDOW: u32 = 8 * 1024 * 1024;

/// The longest HTTP/2 frame, bytes.
const FRAME_LEN: u32 = 256 * 1024;

/// How much is encoded before it is handed on, bytes.
const YIELD_LEN: usize = 64 * 1024;

/// A client, and the server in a process of its own.
pub struct Grpc {
    channel: Channel,
    child: Child,
    _bed: TempDir,
}

impl Grpc {
    /// Starts the server and connects with it.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn open() -> Self {
        let bed = open_bed();
        let certificates = Certificates::make(bed.path());
        let mut server = this_program();
        server.arg("--grpc").arg(bed.path());
        let (child, address) = announced(server);
        let tls = ClientTlsConfig::new()
            .domain_name(SERVER_NAME)
            .ca_certificate(Certificate::from_pem(certificates.pem("root.pem")))
            .identity(identity(&certificates, "client"));
        let channel = Channel::from_shared(format!("https://{address}"))
            .expect("an address")
            .tls_config(tls)
            .expect("our own certificates")
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME_LEN)
            .connect()
            .await
            .expect("a server that listens");
        Self {
            channel,
            child,
            _bed: bed,
        }
    }

    /// The server's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Takes all that is asked for; how long each was on its way, microseconds, where it is paced.
    ///
    /// # Panics
    /// When an event is missing or there twice.
    pub async fn take(&self, asked: Asked) -> Vec<f64> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.expect("a live link");
        let request = Request::new(Bytes::from(asked.to_string()));
        let answer = client
            .server_streaming(request, PathAndQuery::from_static(METHOD), Plain)
            .await;
        let mut messages = answer.expect("a live link").into_inner();
        let mut taker = Taker::new(asked.plan);
        while let Some(bytes) = messages.message().await.expect("a live link") {
            taker.take(&bytes);
        }
        taker.finish()
    }

    /// Ends the server.
    pub fn close(mut self) {
        end(&mut self.child);
    }
}

fn identity(certificates: &Certificates, name: &str) -> Identity {
    Identity::from_pem(
        certificates.pem(&format!("{name}.pem")),
        certificates.pem(&format!("{name}.key")),
    )
}

/// Serves until it is killed.
pub(crate) async fn serve(dir: PathBuf) {
    let certificates = Certificates::found(&dir);
    let tls = ServerTlsConfig::new()
        .identity(identity(&certificates, "server"))
        .client_ca_root(Certificate::from_pem(certificates.pem("root.pem")));
    let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
    announce(incoming.local_addr().expect("a socket of ours"));
    Server::builder()
        .tls_config(tls)
        .expect("our own certificates")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME_LEN)
        .serve_with_incoming(Bench, incoming.with_nodelay(Some(true)))
        .await
        .expect("a socket of ours");
}

/// Answers every call with the frames that it asks for.
#[derive(Clone)]
struct Bench;

type Answering<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for Bench {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(tonic::server::Grpc::new(Plain)
                .server_streaming(Events, request)
                .await)
        })
    }
}

struct Events;

impl tonic::server::ServerStreamingService<Bytes> for Events {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = Answering<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        Box::pin(async move {
            let text = String::from_utf8_lossy(request.get_ref()).into_owned();
            let Asked { plan, messages } = text.parse().expect("a plan");
            let stream: Self::ResponseStream = if plan.per_second.is_some() {
                let mut frames = paced(plan);
                Box::pin(futures_util::stream::poll_fn(move |cx| {
                    frames.poll_recv(cx).map(|frame| frame.map(Ok))
                }))
            } else {
                let frames = Frames::of(plan);
                let all: Vec<Bytes> = match messages {
                    Messages::Each => frames.each().collect(),
                    Messages::Chunks => frames.chunks().collect(),
                };
                Box::pin(tokio_stream::iter(all.into_iter().map(Ok)))
            };
            Ok(Response::new(stream))
        })
    }
}

/// A message is its bytes.
#[derive(Clone, Copy, Debug)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(YIELD_LEN, YIELD_LEN)
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(YIELD_LEN, YIELD_LEN)
    }
}
