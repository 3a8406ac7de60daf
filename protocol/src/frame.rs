//! Frames: `length · kind · body`. What stands on a stream, and in the event log.
//!
//! The length is a little-endian `u32` and counts the kind, a little-endian `u16`, and the body. A body is one
//! value in its wire form. An unknown kind is for the reader to keep or to answer, never the end of a stream.

use crate::bounds::FRAME_LEN_MAX;
use crate::codec::{DecodeError, Wire, decode_all};

/// Bytes before a frame's body: its length and its kind.
pub const HEADER_LEN: usize = 6;

/// Bytes of the length itself.
pub const LENGTH_LEN: usize = 4;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u16);

macro_rules! frames {
    ($($number:literal $name:ident => $body:path, $doc:literal;)+) => {
        impl Kind {
            $(#[doc = $doc] pub const $name: Self = Self($number);)+

            /// Every kind that this version knows, with its name.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, stringify!($name))),+];
        }

        $(impl Body for $body {
            const KIND: Kind = Kind::$name;
        })+
    };
}

/// A value that is a frame's body.
pub trait Body: Wire {
    /// The kind of the frames that hold it.
    const KIND: Kind;
}

frames! {
    1 HELLO => crate::hello::Hello, "Opens a connection.";
    2 WELCOME => crate::hello::Welcome, "Answers it.";
    3 FAULT => crate::fault::Fault, "Refuses, and ends the stream.";
    4 TRANSIENT => crate::event::Transient, "Telemetry, on the connection's first stream.";
    16 COMMAND => crate::command::CommandEnvelope, "Opens a command's stream.";
    17 REPLY => crate::reply::Reply, "Answers it.";
    18 QUERY => crate::query::Query, "Opens a query's stream.";
    19 ANSWER => crate::query::Answer, "Answers it.";
    32 SUBSCRIBE => crate::stream::Subscribe, "Opens a subscription's stream.";
    33 SUBSCRIBED => crate::stream::Subscribed, "Answers it.";
    34 EVENT => crate::event::Numbered, "One event.";
    35 ACK => crate::stream::Ack, "What the reader has.";
    48 FILE_CHUNK => crate::file::FileChunk, "Bytes of a file.";
    49 FILE_END => crate::file::FileEnd, "The end of a file.";
    64 TERMINAL_INPUT => crate::terminal::TerminalInput, "What was typed.";
    65 TERMINAL_OUTPUT => crate::terminal::TerminalOutput, "What a terminal shows.";
    66 TERMINAL_RESIZE => crate::terminal::TerminalResize, "A terminal's new size.";
    67 TERMINAL_EXIT => crate::terminal::TerminalExit, "A terminal's end.";
}

/// A length that no frame may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than the reader takes.
    #[error("a frame of {len} bytes is longer than {max}")]
    TooLong {
        /// What it says.
        len: usize,
        /// What is taken.
        max: usize,
    },
    /// Too short for its own kind.
    #[error("a frame of {len} bytes has no kind")]
    TooShort {
        /// What it says.
        len: usize,
    },
}

/// A whole frame, its bytes still where they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds.
    pub kind: Kind,
    /// Its body.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Splits the first frame off `bytes`; `None` when it is not whole yet.
    ///
    /// # Errors
    /// When its length is past `len_max`.
    pub fn split(bytes: &'a [u8], len_max: usize) -> Result<Option<(Self, &'a [u8])>, FrameError> {
        let Some(len) = frame_len(bytes, len_max)? else {
            return Ok(None);
        };
        let Some((frame, rest)) = bytes.split_at_checked(len) else {
            return Ok(None);
        };
        let kind = Kind(u16::from_le_bytes([frame[4], frame[5]]));
        Ok(Some((
            Self {
                kind,
                body: &frame[HEADER_LEN..],
            },
            rest,
        )))
    }

    /// Reads the body.
    ///
    /// # Errors
    /// When the frame is of another kind or its body is malformed.
    pub fn body<T: Body>(&self) -> Result<T, DecodeError> {
        if self.kind == T::KIND {
            decode_all(self.body)
        } else {
            Err(DecodeError::Malformed("frame of this kind"))
        }
    }
}

/// The length of the first frame of `bytes`, its header included; `None` when even that is not there yet.
///
/// # Errors
/// When it is past `len_max`, or too short to be a frame.
pub fn frame_len(bytes: &[u8], len_max: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = bytes.first_chunk::<LENGTH_LEN>() else {
        return Ok(None);
    };
    let len = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
    if len > len_max.min(FRAME_LEN_MAX) {
        return Err(FrameError::TooLong {
            len,
            max: len_max.min(FRAME_LEN_MAX),
        });
    }
    if len < HEADER_LEN - LENGTH_LEN {
        return Err(FrameError::TooShort { len });
    }
    Ok(Some(LENGTH_LEN + len))
}

/// Appends `body` as one frame.
///
/// A frame past [`FRAME_LEN_MAX`] is taken back and refused: no peer would read it.
///
/// # Errors
/// When the value is too long for a frame; `out` is then as it was.
pub fn append<T: Body>(body: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let at = out.len();
    out.extend_from_slice(&[0; LENGTH_LEN]);
    out.extend_from_slice(&T::KIND.0.to_le_bytes());
    body.encode(out);
    let len = out.len() - at - LENGTH_LEN;
    match u32::try_from(len) {
        Ok(prefix) if len <= FRAME_LEN_MAX => {
            out[at..at + LENGTH_LEN].copy_from_slice(&prefix.to_le_bytes());
            Ok(())
        }
        _ => {
            out.truncate(at);
            Err(FrameError::TooLong {
                len,
                max: FRAME_LEN_MAX,
            })
        }
    }
}
