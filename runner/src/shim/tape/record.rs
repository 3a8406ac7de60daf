//! What stands on a tape, and how.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

use crate::shim::wire::WriteId;

/// The tape's name in a session's directory.
pub const FILE_NAME: &str = "tape";

/// The longest payload of a record. Only a write of the runner comes near it; a program's output is cut into
/// pieces of [`BURST_MAX`].
pub const PAYLOAD_MAX: usize = 16 * 1024 * 1024;

/// How much is read from a program's pipe at once, in bytes: all that a pipe holds by default, so one write to the
/// tape carries everything that was ready.
pub const BURST_MAX: usize = 64 * 1024;

/// The length of what stands before a record's payload.
pub(super) const HEADER_LEN: usize = 13;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`Start`] as JSON. The first record of every tape, and nowhere else.
    Start,
    /// What the program wrote on its standard output.
    Out,
    /// What the program wrote on its standard error.
    Err,
    /// A [`WriteId`] and what the program was then given on its standard input.
    In,
    /// What the runner noted for its successor. The program never sees it.
    Note,
    /// What was written on the report pipe before the program began.
    Report,
    /// An [`Exit`]. The last record of every tape that was ended in order.
    Exit,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Start,
        Self::Out,
        Self::Err,
        Self::In,
        Self::Note,
        Self::Report,
        Self::Exit,
    ];

    fn number(self) -> u8 {
        match self {
            Self::Start => 1,
            Self::Out => 2,
            Self::Err => 3,
            Self::In => 4,
            Self::Note => 5,
            Self::Report => 6,
            Self::Exit => 7,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// Who began a tape, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The version of the wire that the shim speaks.
    pub shim_version: u16,
    /// The shim's process id.
    pub shim_pid: u32,
    /// The program's process id.
    pub harness_pid: u32,
    /// The boot in which these ids mean something.
    pub boot_id: String,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    pub(in crate::shim) const LEN: usize = 5;

    pub(in crate::shim) fn to_bytes(self) -> [u8; Self::LEN] {
        let (tag, number) = match self {
            Self::Code(number) => (0, number),
            Self::Signal(number) => (1, number),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [tag, a, b, c, d]
    }

    pub(in crate::shim) fn from_bytes([tag, number @ ..]: [u8; Self::LEN]) -> Option<Self> {
        let number = i32::from_le_bytes(number);
        match tag {
            0 => Some(Self::Code(number)),
            1 => Some(Self::Signal(number)),
            _ => None,
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            // Only a stopped process has neither, and nobody asks the kernel about those.
            (None, None) => Self::Code(status.into_raw()),
        }
    }
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it starts.
    pub offset: u64,
    /// Where the next one starts.
    pub end: u64,
    /// What it holds.
    pub kind: Kind,
    /// When the shim wrote it.
    pub unix_ms: u64,
    /// Its bytes.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// The id and the bytes of an [`Kind::In`].
    #[must_use]
    pub fn input(&self) -> Option<(WriteId, &'a [u8])> {
        let (id, bytes) = self.payload.split_first_chunk()?;
        (self.kind == Kind::In).then_some((*id, bytes))
    }

    /// How the program ended, of an [`Kind::Exit`].
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        let exit = Exit::from_bytes(self.payload.try_into().ok()?)?;
        (self.kind == Kind::Exit).then_some(exit)
    }
}

/// What stands before a payload.
pub(super) fn header(kind: Kind, len: usize, unix_ms: u64) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&(len as u32).to_le_bytes());
    header[4] = kind.number();
    header[5..].copy_from_slice(&unix_ms.to_le_bytes());
    header
}

/// The payload's length, the kind and the time of a header, if it is one.
pub(super) fn parse(bytes: &[u8]) -> Option<(usize, Kind, u64)> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (&[kind], rest) = rest.split_first_chunk()?;
    let (unix_ms, _) = rest.split_first_chunk()?;
    let len = u32::from_le_bytes(*len) as usize;
    let kind = Kind::from_number(kind)?;
    (len <= PAYLOAD_MAX).then(|| (len, kind, u64::from_le_bytes(*unix_ms)))
}
