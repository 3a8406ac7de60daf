//! Connections and streams: QUIC today, and nothing above this module knows it.
//!
//! Floor: shell. A [`Listener`] and a [`Dialler`] give [`Connection`]s whose peer is verified and named; a connection gives
//! [`Stream`]s of frames. Every stream is bounded in what it buffers, and QUIC's flow control is the back-pressure.
//! The same interface can stand on TLS over TCP where UDP is blocked. Not here: what a frame means (`daemon`).

mod dialler;
mod handshake;
mod listener;
mod strangers;
mod stream;
mod turns;

pub use dialler::{DialError, Dialler};
pub use handshake::HandshakeError;
pub use listener::{BindError, Connection, ExportError, Incoming, Listener, STREAMS_MAX};
pub use strangers::Place;
pub use stream::{Inbox, Outbox, ReadError, Received, Stream, WriteError};
pub use turns::{Turn, Turns};
