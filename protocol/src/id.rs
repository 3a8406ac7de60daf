//! Names of things. Each is a newtype whose only door checks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::bounds::{MESSAGE_ID_LEN_MAX, NAME_LEN_MAX};
use crate::codec::{DecodeError, Input, Wire, decode_str, encode_str};

/// A text that cannot be the id it was read as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {what} is {form}")]
pub struct BadId {
    what: &'static str,
    form: &'static str,
}

macro_rules! names {
    ($($(#[$meta:meta])* $type:ident, $what:literal;)+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                if is_name(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(BadId { what: $what, form: "1 to 63 of a-z, 0-9 and -, neither first nor last a -" })
                }
            }
        }

        text_forms!($type);

        impl Wire for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                encode_str(&self.0, out);
            }

            fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
                decode_str(input)?.parse().map_err(|_| DecodeError::Malformed($what))
            }
        }
    )+};
}

macro_rules! text_forms {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Safe as a file name and as a DNS label.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_LEN_MAX).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

names! {
    /// Names a session within its runner. Safe as a file name: 1 to 63 bytes of `[a-z0-9-]`.
    SessionId, "session id";
    /// Names a runner within its authority. Safe as a file name and a DNS label.
    RunnerId, "runner id";
    /// Names a control within its authority.
    ControlId, "control id";
    /// Names an authority: who signs the certificates of runners and controls.
    AuthorityId, "authority id";
}

/// Names a message within its session: 1 to 31 bytes of `[A-Za-z0-9_.-]`, kept inline since every delta has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    len: u8,
    bytes: [u8; MESSAGE_ID_LEN_MAX],
}

impl MessageId {
    /// The id of the message that the runner numbered `idx`.
    #[must_use]
    pub fn numbered(idx: u64) -> Self {
        let text = format!("m-{idx}");
        let mut bytes = [0; MESSAGE_ID_LEN_MAX];
        // "m-" and at most 20 digits always fit.
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self {
            len: text.len() as u8,
            bytes,
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII passes the door.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl FromStr for MessageId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !(1..=MESSAGE_ID_LEN_MAX).contains(&text.len()) || !text.bytes().all(plain) {
            return Err(BadId {
                what: "message id",
                form: "1 to 31 of A-Z, a-z, 0-9, -, _ and .",
            });
        }
        let mut bytes = [0; MESSAGE_ID_LEN_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self {
            len: text.len() as u8,
            bytes,
        })
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({})", self.as_str())
    }
}

text_forms!(MessageId);

impl Wire for MessageId {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_str(self.as_str(), out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        decode_str(input)?
            .parse()
            .map_err(|_| DecodeError::Malformed("message id"))
    }
}

/// Names a command for ever: the same id again gets the first answer again. 16 random bytes, in text 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub [u8; 16]);

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandId({self})")
    }
}

impl FromStr for CommandId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        read_hex(text).map(Self).ok_or(BadId {
            what: "command id",
            form: "32 lower-case hex digits",
        })
    }
}

/// A SHA-256 digest, in text 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        read_hex(text).map(Self).ok_or(BadId {
            what: "digest",
            form: "64 lower-case hex digits",
        })
    }
}

macro_rules! byte_forms {
    ($($type:ident),+) => {$(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Wire for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }

            fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
                Wire::decode(input).map(Self)
            }
        }
    )+};
}

byte_forms!(CommandId, Digest);

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
