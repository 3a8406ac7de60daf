//! A stream of frames, both ways.

use bytes::{Buf, Bytes, BytesMut};
use oqto_protocol::codec::DecodeError;
use oqto_protocol::frame::{self, Body, Frame, FrameError, HEADER_LEN, Kind, LENGTH_LEN, frame_len};

/// How much is asked of the connection at once, bytes.
const READ_LEN: usize = 64 * 1024;

/// A stream of frames, both ways.
pub struct Stream {
    /// What comes.
    pub inbox: Inbox,
    /// What goes.
    pub outbox: Outbox,
}

/// The reading half of a stream.
pub struct Inbox {
    stream: quinn::RecvStream,
    buffered: BytesMut,
    len_max: usize,
}

/// The writing half of a stream.
pub struct Outbox {
    stream: quinn::SendStream,
    scratch: Vec<u8>,
}

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream or its connection broke; nobody is to blame.
    #[error("the stream broke")]
    Broken(#[source] quinn::ReadError),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Cut,
    /// The peer's fault: a frame that may not be.
    #[error("the peer sent a frame that may not be")]
    Frame(#[from] FrameError),
    /// The peer's fault: a body that is not what its kind says.
    #[error("the peer sent a malformed frame")]
    Body(#[from] DecodeError),
}

/// Why a frame was not sent.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The stream or its connection broke, or the peer wants no more.
    #[error("the stream broke")]
    Broken(#[from] quinn::WriteError),
    /// Ours: the frame is longer than any peer takes.
    #[error("the frame cannot be sent")]
    Frame(#[from] FrameError),
}

/// A frame that came.
pub struct Received {
    bytes: Bytes,
}

impl Received {
    /// What it holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind(u16::from_le_bytes([
            self.bytes[LENGTH_LEN],
            self.bytes[LENGTH_LEN + 1],
        ]))
    }

    /// Reads its body.
    ///
    /// # Errors
    /// When it is of another kind or malformed.
    pub fn body<T: Body>(&self) -> Result<T, DecodeError> {
        Frame {
            kind: self.kind(),
            body: self.body_bytes(),
        }
        .body()
    }

    /// Its body's bytes.
    #[must_use]
    pub fn body_bytes(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..]
    }
}

impl Inbox {
    /// The longest frame that is taken from here on, bytes.
    pub fn set_len_max(&mut self, len_max: usize) {
        self.len_max = len_max;
    }

    /// The next frame; `None` when the peer has said all.
    ///
    /// Cancel safe: what was read is kept for the next call.
    ///
    /// # Errors
    /// When the stream breaks or the peer breaks a rule.
    pub async fn read(&mut self) -> Result<Option<Received>, ReadError> {
        loop {
            if let Some(len) = frame_len(&self.buffered, self.len_max)?
                && self.buffered.len() >= len
            {
                return Ok(Some(Received {
                    bytes: self.buffered.split_to(len).freeze(),
                }));
            }
            match self
                .stream
                .read_chunk(READ_LEN, true)
                .await
                .map_err(ReadError::Broken)?
            {
                Some(chunk) => self.buffered.extend_from_slice(chunk.bytes.chunk()),
                None if self.buffered.is_empty() => return Ok(None),
                None => return Err(ReadError::Cut),
            }
        }
    }

    /// Tells the peer that nothing more will be read.
    pub fn stop(&mut self) {
        // The stream may be at its end already; then there is nothing to stop.
        let _ = self.stream.stop(quinn::VarInt::from_u32(0));
    }
}

impl Outbox {
    /// Sends one frame.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn send<T: Body>(&mut self, body: &T) -> Result<(), WriteError> {
        self.scratch.clear();
        frame::append(body, &mut self.scratch)?;
        self.stream.write_all(&self.scratch).await?;
        Ok(())
    }

    /// Sends bytes that are whole frames already, without copying them.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn send_frames(&mut self, frames: Bytes) -> Result<(), WriteError> {
        self.stream.write_chunk(frames).await?;
        Ok(())
    }

    /// Waits until the peer wants no more of this stream, or has all of it.
    pub fn unwanted(&self) -> impl Future<Output = ()> + Send + use<> {
        let stopped = self.stream.stopped();
        async move {
            let _ = stopped.await;
        }
    }

    /// Says that all is said; the peer still gets what was sent.
    pub fn finish(&mut self) {
        // Only a stream that is finished or reset already refuses.
        let _ = self.stream.finish();
    }

    /// Finishes, and waits until the peer has acknowledged everything or is gone.
    pub async fn flush(&mut self) {
        self.finish();
        let _ = self.stream.stopped().await;
    }
}

impl Stream {
    pub(super) fn new(send: quinn::SendStream, recv: quinn::RecvStream, len_max: usize) -> Self {
        Self {
            inbox: Inbox {
                stream: recv,
                buffered: BytesMut::new(),
                len_max,
            },
            outbox: Outbox {
                stream: send,
                scratch: Vec::new(),
            },
        }
    }
}
