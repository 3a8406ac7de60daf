//! Frames off a stream: large reads into one buffer, frames split where they stand.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use oqto_protocol::bounds::FRAME_LEN_MAX;
use oqto_protocol::frame::{Frame, FrameError, LENGTH_LEN, frame_len};
use quinn::{ReadError, RecvStream};

use super::ExchangeError;

/// What reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// More bytes.
    More,
    /// The peer has finished the stream, in the middle of a frame or not.
    Ended {
        /// Whether bytes of an unfinished frame are left.
        torn: bool,
    },
}

/// Reads frames.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: RecvStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    len_max: usize,
}

impl FrameReader {
    /// Reads frames of at most `len_max` bytes, with a buffer of `buffer_len` that grows when a frame needs it.
    pub(crate) fn new(stream: RecvStream, buffer_len: usize, len_max: usize) -> Self {
        Self {
            stream,
            buffer: vec![0; buffer_len],
            start: 0,
            end: 0,
            len_max: len_max.min(FRAME_LEN_MAX),
        }
    }

    /// The next frame that is whole in the buffer.
    pub(crate) fn take(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
        Ok(Frame::split(bytes, self.len_max)?.map(|(frame, rest)| {
            self.start = self.end - rest.len();
            frame
        }))
    }

    /// Reads once. Call it when [`take`](Self::take) has nothing more.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, ReadError>> {
        self.make_room();
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let len = ready!(self.stream.poll_read(cx, room))?;
        self.end += len;
        Poll::Ready(Ok(if len == 0 {
            Fill::Ended {
                torn: self.start < self.end,
            }
        } else {
            Fill::More
        }))
    }

    /// Waits for one frame and hands it to `read`.
    pub(crate) async fn next<T>(
        &mut self,
        read: impl FnOnce(Frame<'_>) -> Result<T, ExchangeError>,
    ) -> Result<T, ExchangeError> {
        loop {
            if let Some(frame) = self.take()? {
                return read(frame);
            }
            match poll_fn(|cx| self.poll_fill(cx)).await? {
                Fill::More => {}
                Fill::Ended { .. } => return Err(ExchangeError::Ended),
            }
        }
    }

    /// Leaves room for at least one byte. A buffer grows only when it is full, so a peer pays for every byte of
    /// ours with half a byte that it really sent.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
            let wanted = frame_len(bytes, self.len_max)
                .ok()
                .flatten()
                .unwrap_or(LENGTH_LEN);
            let len = wanted.clamp(self.buffer.len() + LENGTH_LEN, 2 * self.buffer.len() + LENGTH_LEN);
            self.buffer.resize(len, 0);
        }
    }
}
