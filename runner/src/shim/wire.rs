//! What the runner and a shim say to each other: small frames, a version, bounds.
//!
//! A frame is `length u32 LE · kind u8 · body`; the length counts what follows it. Old shims outlive new runners,
//! so a kind's number and body never change: a new idea is a new kind and the next [`VERSION`].

use super::tape::{self, Exit};

/// The version of the wire that this program speaks. The shim names its own first, the runner answers with the
/// one that both will use.
pub const VERSION: u16 = 1;

/// The longest bytes of one [`ToShim::Write`].
pub const WRITE_MAX: usize = crate::bounds::WRITE_LEN_MAX;

const _: () = assert!(
    WRITE_MAX + ID_LEN <= tape::PAYLOAD_MAX,
    "a write and its id are one record"
);

/// The longest frame after its length: a write with its kind, id and target.
pub(super) const FRAME_MAX: usize = 1 + ID_LEN + 1 + WRITE_MAX;

/// The longest text of a [`FromShim::Trouble`]. It names one error of the kernel.
const TROUBLE_MAX: usize = 1024;

const ID_LEN: usize = 16;
/// The length of a frame's length.
pub(super) const LEN_LEN: usize = 4;

/// Names one write. The same id again has no second effect.
pub type WriteId = [u8; ID_LEN];

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The tape, then the program's standard input.
    Stdin,
    /// The tape alone: a remark of the runner to its successor.
    Note,
}

/// Why a write had no effect. The same id may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The program does not read what it was given before.
    Busy,
    /// The program's input is closed.
    Closed,
    /// The tape cannot grow: the disk is full.
    NoSpace,
}

/// What the runner says.
#[derive(Debug, PartialEq, Eq)]
pub enum ToShim<'a> {
    /// First of all: the version that both speak from now on.
    Hello {
        /// At most the one that the shim named.
        version: u16,
    },
    /// Puts bytes on the tape and on to their target.
    Write {
        /// Names this write.
        id: WriteId,
        /// Where it goes.
        to: Target,
        /// At most [`WRITE_MAX`].
        bytes: &'a [u8],
    },
    /// Closes the program's input once what is queued for it is written.
    CloseStdin,
    /// Kills the program.
    Kill,
    /// How far the tape was read: it may grow so far ahead of this and no further.
    Consumed {
        /// A record's start.
        read: u64,
        /// Another one's, at most `read`: nothing below will be read again, by no successor either.
        needed: u64,
    },
    /// The exit was read: the shim may end.
    Release,
}

/// What the shim says.
#[derive(Debug, PartialEq, Eq)]
pub enum FromShim<'a> {
    /// First of all, to every connection.
    Hello {
        /// The newest version that this shim speaks.
        version: u16,
        /// How long the tape is.
        tape_len: u64,
        /// The program's process id.
        harness_pid: u32,
        /// How it ended, once that stands on the tape.
        exited: Option<Exit>,
    },
    /// The tape is this long now. It names the newest length only.
    Grown {
        /// A record's end.
        len: u64,
    },
    /// The write is on the tape and on its way; it will not happen again.
    Wrote {
        /// The write.
        id: WriteId,
    },
    /// The write had no effect.
    Refused {
        /// The write.
        id: WriteId,
        /// Why.
        why: Refusal,
    },
    /// The tape cannot grow and the program is not read until it can. Nothing is lost.
    Trouble {
        /// What the kernel said.
        text: &'a str,
    },
    /// The trouble is over.
    Recovered,
    /// The program ended, and the tape ends with that.
    Exited {
        /// How.
        exit: Exit,
    },
}

/// The other side does not speak this wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// Longer than any frame.
    #[error("a frame of {len} bytes is longer than any may be")]
    TooLong {
        /// What its length says.
        len: usize,
    },
    /// Not a frame of the version that was agreed on.
    #[error("a frame of kind {kind} is unknown or not in order")]
    Malformed {
        /// Its kind, or zero when it is empty.
        kind: u8,
    },
}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const WRITE: u8 = 2;
    pub(super) const CLOSE_STDIN: u8 = 3;
    pub(super) const KILL: u8 = 4;
    pub(super) const CONSUMED: u8 = 5;
    pub(super) const RELEASE: u8 = 6;
    pub(super) const SHIM_HELLO: u8 = 65;
    pub(super) const GROWN: u8 = 66;
    pub(super) const WROTE: u8 = 67;
    pub(super) const REFUSED: u8 = 68;
    pub(super) const TROUBLE: u8 = 69;
    pub(super) const RECOVERED: u8 = 70;
    pub(super) const EXITED: u8 = 71;
}

impl<'a> ToShim<'a> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello { version } => frame(out, kind::HELLO, &[&version.to_le_bytes()]),
            Self::Write { id, to, bytes } => {
                let to = match to {
                    Target::Stdin => 0,
                    Target::Note => 1,
                };
                frame(out, kind::WRITE, &[id, &[to], bytes]);
            }
            Self::CloseStdin => frame(out, kind::CLOSE_STDIN, &[]),
            Self::Kill => frame(out, kind::KILL, &[]),
            Self::Consumed { read, needed } => {
                frame(out, kind::CONSUMED, &[&read.to_le_bytes(), &needed.to_le_bytes()]);
            }
            Self::Release => frame(out, kind::RELEASE, &[]),
        }
    }

    /// Reads a frame that the socket brought, without its length.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn decode(frame: &'a [u8]) -> Result<Self, BadFrame> {
        let (kind, mut body) = Body::of(frame)?;
        let message = match kind {
            kind::HELLO => body.array().map(|raw| Self::Hello {
                version: u16::from_le_bytes(raw),
            }),
            kind::WRITE => body.array().zip(body.array()).and_then(|(id, to)| {
                let to = match to {
                    [0] => Target::Stdin,
                    [1] => Target::Note,
                    _ => return None,
                };
                Some(Self::Write {
                    id,
                    to,
                    bytes: body.rest(),
                })
            }),
            kind::CLOSE_STDIN => Some(Self::CloseStdin),
            kind::KILL => Some(Self::Kill),
            kind::CONSUMED => body
                .array()
                .zip(body.array())
                .map(|(read, needed)| Self::Consumed {
                    read: u64::from_le_bytes(read),
                    needed: u64::from_le_bytes(needed),
                }),
            kind::RELEASE => Some(Self::Release),
            _ => None,
        };
        body.whole(kind, message)
    }
}

impl<'a> FromShim<'a> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello {
                version,
                tape_len,
                harness_pid,
                exited,
            } => {
                let (version, len, pid) = (
                    version.to_le_bytes(),
                    tape_len.to_le_bytes(),
                    harness_pid.to_le_bytes(),
                );
                let exited = exited.map(Exit::to_bytes);
                let exited: &[u8] = exited.as_ref().map_or(&[], |bytes| bytes);
                frame(out, kind::SHIM_HELLO, &[&version, &len, &pid, exited]);
            }
            Self::Grown { len } => frame(out, kind::GROWN, &[&len.to_le_bytes()]),
            Self::Wrote { id } => frame(out, kind::WROTE, &[id]),
            Self::Refused { id, why } => {
                let why = match why {
                    Refusal::Busy => 1,
                    Refusal::Closed => 2,
                    Refusal::NoSpace => 3,
                };
                frame(out, kind::REFUSED, &[id, &[why]]);
            }
            Self::Trouble { text } => {
                frame(out, kind::TROUBLE, &[shortened(text).as_bytes()]);
            }
            Self::Recovered => frame(out, kind::RECOVERED, &[]),
            Self::Exited { exit } => frame(out, kind::EXITED, &[&exit.to_bytes()]),
        }
    }

    /// Reads a frame that the socket brought, without its length.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn decode(frame: &'a [u8]) -> Result<Self, BadFrame> {
        let (kind, mut body) = Body::of(frame)?;
        let message = match kind {
            kind::SHIM_HELLO => body.shim_hello(),
            kind::GROWN => body.array().map(|raw| Self::Grown {
                len: u64::from_le_bytes(raw),
            }),
            kind::WROTE => body.array().map(|id| Self::Wrote { id }),
            kind::REFUSED => body.array().zip(body.array()).and_then(|(id, why)| {
                let why = match why {
                    [1] => Refusal::Busy,
                    [2] => Refusal::Closed,
                    [3] => Refusal::NoSpace,
                    _ => return None,
                };
                Some(Self::Refused { id, why })
            }),
            kind::TROUBLE => std::str::from_utf8(body.rest())
                .ok()
                .map(|text| Self::Trouble { text }),
            kind::RECOVERED => Some(Self::Recovered),
            kind::EXITED => body
                .array()
                .and_then(Exit::from_bytes)
                .map(|exit| Self::Exited { exit }),
            _ => None,
        };
        body.whole(kind, message)
    }
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(TROUBLE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn frame(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let len = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    assert!(len <= FRAME_MAX, "a frame is bounded by who makes it");
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.push(kind);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// What is still unread of a frame's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn of(frame: &'a [u8]) -> Result<(u8, Self), BadFrame> {
        match frame {
            [kind, body @ ..] => Ok((*kind, Self(body))),
            [] => Err(BadFrame::Malformed { kind: 0 }),
        }
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn shim_hello(&mut self) -> Option<FromShim<'a>> {
        let version = u16::from_le_bytes(self.array()?);
        let tape_len = u64::from_le_bytes(self.array()?);
        let harness_pid = u32::from_le_bytes(self.array()?);
        let exited = if self.0.is_empty() {
            None
        } else {
            Some(Exit::from_bytes(self.array()?)?)
        };
        Some(FromShim::Hello {
            version,
            tape_len,
            harness_pid,
            exited,
        })
    }

    fn whole<T>(self, kind: u8, message: Option<T>) -> Result<T, BadFrame> {
        message
            .filter(|_| self.0.is_empty())
            .ok_or(BadFrame::Malformed { kind })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The frame behind its length, which must be right.
    fn body(bytes: &[u8]) -> &[u8] {
        let (len, body) = bytes.split_first_chunk().unwrap();
        assert_eq!(u32::from_le_bytes(*len) as usize, body.len());
        body
    }

    #[test]
    fn every_frame_is_read_as_it_was_written() {
        let id = [9; 16];
        let to_shim = [
            ToShim::Hello { version: 1 },
            ToShim::Write {
                id,
                to: Target::Stdin,
                bytes: b"hi\n",
            },
            ToShim::Write {
                id,
                to: Target::Note,
                bytes: b"",
            },
            ToShim::CloseStdin,
            ToShim::Kill,
            ToShim::Consumed { read: 7, needed: 5 },
            ToShim::Release,
        ];
        for message in to_shim {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(ToShim::decode(body(&bytes)), Ok(message));
        }
        let exited = Some(Exit::Signal(9));
        let from_shim = [
            FromShim::Hello {
                version: 1,
                tape_len: 3,
                harness_pid: 4,
                exited,
            },
            FromShim::Hello {
                version: 1,
                tape_len: 3,
                harness_pid: 4,
                exited: None,
            },
            FromShim::Grown { len: 9 },
            FromShim::Wrote { id },
            FromShim::Refused {
                id,
                why: Refusal::NoSpace,
            },
            FromShim::Trouble { text: "no space" },
            FromShim::Recovered,
            FromShim::Exited { exit: Exit::Code(3) },
        ];
        for message in from_shim {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(FromShim::decode(body(&bytes)), Ok(message));
        }
    }

    #[test]
    fn the_bytes_of_version_1_stay_as_they_are() {
        let mut bytes = Vec::new();
        ToShim::Write {
            id: [1; 16],
            to: Target::Stdin,
            bytes: b"x",
        }
        .encode(&mut bytes);
        FromShim::Hello {
            version: 1,
            tape_len: 2,
            harness_pid: 3,
            exited: None,
        }
        .encode(&mut bytes);
        let write = [&[19, 0, 0, 0, 2][..], &[1; 16], &[0], b"x"].concat();
        let hello = [
            &[15, 0, 0, 0, 65, 1, 0][..],
            &2_u64.to_le_bytes(),
            &3_u32.to_le_bytes(),
        ]
        .concat();
        assert_eq!(bytes, [write, hello].concat());
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ToShim::decode(&bytes);
            let _ = FromShim::decode(&bytes);
        }
    }
}
