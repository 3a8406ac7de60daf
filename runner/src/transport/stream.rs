//! A stream of frames, both ways.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use oqto_protocol::bounds::FRAME_LEN_MAX;
use oqto_protocol::codec::DecodeError;
use oqto_protocol::frame::{self, Body, Frame, FrameError, HEADER_LEN, Kind, LENGTH_LEN, frame_len};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much is asked of the connection at once for a long frame, bytes.
const READ_LEN: usize = 64 * 1024;

/// A frame up to this long is read without asking for room, bytes: nearly every command, so that who holds all the room
/// of a connection holds up none of them. An unfinished one costs up to twice as much.
const SHORT_LEN: usize = 16 * 1024;

/// How much the unfinished long frames of one connection may take together, bytes: one of the longest, and others
/// beside it.
const ROOM_LEN: usize = FRAME_LEN_MAX + 8 * 1024 * 1024;

/// How many streams of a connection may wait for room. What they have not read takes of the window that those share
/// which have room, and must leave some: a stream's own window is 1.25 MB, the connection's 8 MiB.
const WAITING_MAX: usize = 4;

/// What the unfinished long frames of one connection share.
#[derive(Clone)]
pub(super) struct Room {
    bytes: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(ROOM_LEN)),
            places: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }

    /// Room for a whole frame: two halves of frames would wait for each other for ever.
    async fn take(&self, len: usize) -> Result<OwnedSemaphorePermit, ReadError> {
        let wanted = u32::try_from(len).unwrap_or(u32::MAX);
        if let Ok(taken) = self.bytes.clone().try_acquire_many_owned(wanted) {
            return Ok(taken);
        }
        let _place = self.places.try_acquire().map_err(|_| ReadError::Crowded)?;
        let taken = self.bytes.clone().acquire_many_owned(wanted).await;
        taken.map_err(|_| ReadError::Crowded)
    }
}

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
    /// Of the connection, shared by its streams.
    room: Room,
    /// What the long frame takes of it that is being read.
    taken: Option<OwnedSemaphorePermit>,
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
    /// The peer sends more long frames at once than there is room for.
    #[error("too many long frames come at once on this connection")]
    Crowded,
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

/// A frame that came. A long one takes of its connection's room until it is dropped.
pub struct Received {
    bytes: Bytes,
    _taken: Option<OwnedSemaphorePermit>,
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
            if let Some(len) = frame_len(&self.buffered, self.len_max)? {
                if self.buffered.len() >= len {
                    return Ok(Some(Received {
                        bytes: self.buffered.split_to(len).freeze(),
                        _taken: self.taken.take(),
                    }));
                }
                if len > SHORT_LEN && self.taken.is_none() {
                    self.taken = Some(self.room.take(len).await?);
                }
            }
            let read_len = if self.taken.is_some() { READ_LEN } else { SHORT_LEN };
            match self
                .stream
                .read_chunk(read_len, true)
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
    /// Has what is sent here go after what other streams of the connection have to send.
    pub fn give_way(&self) {
        // Only a stream that is over refuses.
        let _ = self.stream.set_priority(-1);
    }

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
    pub(super) fn new(send: quinn::SendStream, recv: quinn::RecvStream, len_max: usize, room: Room) -> Self {
        Self {
            inbox: Inbox {
                stream: recv,
                buffered: BytesMut::new(),
                len_max,
                room,
                taken: None,
            },
            outbox: Outbox {
                stream: send,
                scratch: Vec::new(),
            },
        }
    }
}
