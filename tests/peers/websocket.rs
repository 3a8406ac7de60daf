//! WebSocket: tokio-tungstenite over tokio-rustls, a binary message at a time, flushed when nothing more is ready.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use oqto_tests::bench::{
    Certificates, Frames, SERVER_NAME, Taker, announced, end, open_bed, paced, this_program,
};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::asked::{Asked, Messages, announce};

const ALPN: &[u8] = b"http/1.1";

/// A client, and the server in a process of its own. Each question has a connection of its own.
pub struct WebSocket {
    address: SocketAddr,
    certificates: Certificates,
    child: Child,
    _bed: TempDir,
}

impl WebSocket {
    /// Starts the server.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn open() -> Self {
        let bed = open_bed();
        let certificates = Certificates::make(bed.path());
        let mut server = this_program();
        server.arg("--websocket").arg(bed.path());
        let (child, address) = announced(server);
        Self {
            address,
            certificates,
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
        let connector = TlsConnector::from(Arc::new(self.certificates.client(ALPN)));
        let tcp = TcpStream::connect(self.address)
            .await
            .expect("a server that listens");
        tcp.set_nodelay(true).expect("a socket of ours");
        let name = ServerName::try_from(SERVER_NAME).expect("a name");
        let tls = connector.connect(name, tcp).await.expect("our own certificates");
        let (mut socket, _) = client_async(format!("ws://{SERVER_NAME}/"), tls)
            .await
            .expect("a server of ours");
        socket
            .send(Message::text(asked.to_string()))
            .await
            .expect("a live link");
        let mut taker = Taker::new(asked.plan);
        while let Some(message) = socket.next().await {
            match message.expect("a live link") {
                Message::Binary(bytes) => taker.take(&bytes),
                Message::Close(_) => break,
                _ => {}
            }
        }
        taker.finish()
    }

    /// Ends the server.
    pub fn close(mut self) {
        end(&mut self.child);
    }
}

/// Serves until it is killed.
pub(crate) async fn serve(dir: PathBuf) {
    let acceptor = TlsAcceptor::from(Arc::new(Certificates::found(&dir).server(ALPN)));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free port");
    announce(listener.local_addr().expect("a socket of ours"));
    loop {
        let (tcp, _) = listener.accept().await.expect("a socket of ours");
        tcp.set_nodelay(true).expect("a socket of ours");
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let tls = acceptor.accept(tcp).await.expect("our own certificates");
            let mut socket = accept_async(tls).await.expect("a client of ours");
            // Who hung up has heard enough.
            let _gone = answer(&mut socket).await;
        });
    }
}

type Failed = tokio_tungstenite::tungstenite::Error;

async fn answer(
    socket: &mut WebSocketStream<tokio_rustls::server::TlsStream<TcpStream>>,
) -> Result<(), Failed> {
    let Some(Ok(Message::Text(text))) = socket.next().await else {
        return Ok(());
    };
    let Asked { plan, messages } = text.parse().expect("a plan");
    if plan.per_second.is_some() {
        let mut frames = paced(plan);
        while let Some(frame) = frames.recv().await {
            socket.feed(Message::Binary(frame)).await?;
            while let Ok(frame) = frames.try_recv() {
                socket.feed(Message::Binary(frame)).await?;
            }
            socket.flush().await?;
        }
    } else {
        let frames = Frames::of(plan);
        let all: Vec<Bytes> = match messages {
            Messages::Each => frames.each().collect(),
            Messages::Chunks => frames.chunks().collect(),
        };
        for bytes in all {
            socket.feed(Message::Binary(bytes)).await?;
        }
    }
    socket.close(None).await
}
