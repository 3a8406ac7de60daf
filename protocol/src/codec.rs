//! How a value becomes bytes, and how bytes that nobody vouches for become a value.
//!
//! The rules that let old and new talk are kept here and nowhere else:
//! - a struct is length-framed where it stands, inside lists too ([`grows!`]); fields are only appended, a longer
//!   value is read as far as it is known, a shorter one gets defaults for the fields that later versions added;
//! - a variant is `kind, length, body` ([`kinds!`]); an unknown one is kept as [`Unknown`] and goes on intact;
//! - a word (an enum without data) is a number ([`words!`]); an unknown one is kept as its number.
//!
//! Primitive values are bincode 2's: varints, and strings as length and bytes. Only this file names bincode.
//! Decoding is bounded by the input's length and by [`ELEMENTS_MAX`], never panics, and
//! its recursion is bounded by the types: none contains itself.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bincode::config::{Configuration, standard};
use bincode::enc::write::Writer;
use serde::{Deserialize, Serialize};

use crate::bounds::ELEMENTS_MAX;

/// Bytes that are not the value that they were read as. The peer's fault: answer and close, never retry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside the value.
    #[error("the bytes end inside a {0}")]
    Short(&'static str),
    /// A number, flag or text is not of its form.
    #[error("a {0} is malformed")]
    Malformed(&'static str),
    /// More list elements than one frame may hold.
    #[error("more than {ELEMENTS_MAX} list elements in one frame")]
    TooMany,
    /// Bytes are left behind a value that cannot grow.
    #[error("{0} bytes are left behind the value")]
    Left(usize),
}

/// A value that has a form on the wire.
pub trait Wire: Sized {
    /// Appends the value to `out`.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads the value from the front of `input`.
    ///
    /// # Errors
    /// When the bytes are no such value.
    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError>;
}

/// The bytes of one frame that are still to be read, and what may still be allocated for them.
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
    elements_left: u32,
}

impl<'a> Input<'a> {
    /// Reads `bytes`, with a whole frame's budget.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            elements_left: ELEMENTS_MAX,
        }
    }

    /// What is not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.bytes.split_at_checked(len).ok_or(DecodeError::Short(what))?;
        self.bytes = tail;
        Ok(head)
    }

    fn length(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        usize::try_from(u64::decode(self)?).map_err(|_| DecodeError::Short(what))
    }

    /// Reads a length-framed value: `read` sees its bytes alone, and what it leaves is skipped, since a newer
    /// writer may have appended fields.
    ///
    /// # Errors
    /// When the frame is longer than the input or `read` fails.
    pub fn framed<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Input<'a>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let len = self.length(what)?;
        let mut inner = Input {
            bytes: self.take(len, what)?,
            elements_left: self.elements_left,
        };
        let value = read(&mut inner)?;
        self.elements_left = inner.elements_left;
        Ok(value)
    }

    /// Reads a field that a later version appended: its default when the writer was older.
    ///
    /// # Errors
    /// When the field is there and malformed.
    pub fn appended<T: Wire + Default>(&mut self) -> Result<T, DecodeError> {
        if self.bytes.is_empty() {
            Ok(T::default())
        } else {
            T::decode(self)
        }
    }
}

/// Appends a length-framed value: what `write` appends, behind its length.
pub fn framed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    write(out);
    let len = out.len() - at - 1;
    // Nearly every value is short: its length is one byte, which is there already.
    match u8::try_from(len) {
        Ok(len @ 0..=250) => out[at] = len,
        _ => {
            let mut prefix = Vec::with_capacity(9);
            (len as u64).encode(&mut prefix);
            out.splice(at..=at, prefix);
        }
    }
}

/// Reads a value that is all of `bytes`.
///
/// # Errors
/// When the bytes are no such value, or bytes are left.
pub fn decode_all<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut input = Input::new(bytes);
    let value = T::decode(&mut input)?;
    if input.rest().is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::Left(input.rest().len()))
    }
}

/// A variant, or a kind of frame, that this version does not know: kept, stored and passed on intact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// Its number on the wire.
    pub kind: u32,
    /// Its body.
    pub bytes: Blob,
}

/// Bytes; base64 in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Blob(pub Vec<u8>);

/// JSON text that is passed on as it came and parsed only by who needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// Takes text that is one JSON value.
    ///
    /// # Errors
    /// When it is not.
    pub fn parse(text: impl Into<String>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        serde_json::from_str::<&serde_json::value::RawValue>(&text)?;
        Ok(Self(text))
    }

    /// The text. From the wire it may be anything: parse it before you believe it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The value; a text that is not JSON reads as that text in a string.
    #[must_use]
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).unwrap_or_else(|_| serde_json::Value::String(self.0.clone()))
    }
}

impl Default for Json {
    fn default() -> Self {
        Self("null".to_owned())
    }
}

impl From<&serde_json::value::RawValue> for Json {
    fn from(raw: &serde_json::value::RawValue) -> Self {
        Self(raw.get().to_owned())
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        Self(value.to_string())
    }
}

impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&serde_json::value::RawValue>(&self.0) {
            Ok(raw) => raw.serialize(serializer),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not a raw value: serde buffers what stands beside a tag, and a raw value does not survive that.
        serde_json::Value::deserialize(deserializer).map(|value| Self(value.to_string()))
    }
}

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        BASE64
            .decode(text.as_bytes())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

const CONFIG: Configuration = standard();

struct Sink<'a>(&'a mut Vec<u8>);

impl Writer for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

macro_rules! primitives {
    ($($type:ty => $what:literal),+ $(,)?) => {$(
        impl Wire for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                // A vector takes every byte, so this cannot fail.
                let written = bincode::encode_into_writer(self, Sink(out), CONFIG);
                debug_assert!(written.is_ok());
            }

            fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
                match bincode::decode_from_slice::<$type, _>(input.bytes, CONFIG) {
                    Ok((value, len)) => {
                        input.take(len, $what)?;
                        Ok(value)
                    }
                    Err(bincode::error::DecodeError::UnexpectedEnd { .. }) => Err(DecodeError::Short($what)),
                    Err(_) => Err(DecodeError::Malformed($what)),
                }
            }
        }
    )+};
}

primitives! {
    bool => "flag", u8 => "byte", u16 => "number", u32 => "number", u64 => "number", i32 => "number",
    f64 => "number", [u8; 16] => "16-byte id", [u8; 32] => "digest",
}

impl Wire for String {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_str(self, out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        decode_str(input).map(str::to_owned)
    }
}

/// Appends a text: its length and its bytes.
pub(crate) fn encode_str(text: &str, out: &mut Vec<u8>) {
    (text.len() as u64).encode(out);
    out.extend_from_slice(text.as_bytes());
}

/// Reads a text without copying it.
pub(crate) fn decode_str<'a>(input: &mut Input<'a>) -> Result<&'a str, DecodeError> {
    let len = input.length("text")?;
    std::str::from_utf8(input.take(len, "text")?).map_err(|_| DecodeError::Malformed("text"))
}

impl Wire for Blob {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.0.len() as u64).encode(out);
        out.extend_from_slice(&self.0);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let len = input.length("blob")?;
        Ok(Self(input.take(len, "blob")?.to_vec()))
    }
}

impl Wire for Json {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_str(&self.0, out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        String::decode(input).map(Self)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        if bool::decode(input)? {
            T::decode(input).map(Some)
        } else {
            Ok(None)
        }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.len() as u64).encode(out);
        for value in self {
            value.encode(out);
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let count = u64::decode(input)?;
        let left = u64::from(input.elements_left)
            .checked_sub(count)
            .ok_or(DecodeError::TooMany)?;
        input.elements_left = u32::try_from(left).unwrap_or(0);
        // Grown as elements are really there: a count alone allocates nothing.
        let mut values = Self::new();
        for _ in 0..count {
            values.push(T::decode(input)?);
        }
        Ok(values)
    }
}

impl Wire for BTreeMap<String, String> {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.len() as u64).encode(out);
        for (key, value) in self {
            encode_str(key, out);
            encode_str(value, out);
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let count = u64::decode(input)?;
        let left = u64::from(input.elements_left)
            .checked_sub(count)
            .ok_or(DecodeError::TooMany)?;
        input.elements_left = u32::try_from(left).unwrap_or(0);
        let mut map = Self::new();
        for _ in 0..count {
            map.insert(String::decode(input)?, String::decode(input)?);
        }
        Ok(map)
    }
}

impl<T: Wire> Wire for Box<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        T::encode(self, out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        T::decode(input).map(Box::new)
    }
}

/// Gives a struct its form on the wire: length-framed, the named fields in this order.
///
/// Fields of the first version are named first; what a later minor version appends stands behind `; since N:`. A
/// field that is left out does not compile.
macro_rules! grows {
    ($type:ident { $($field:ident),* $(,)? $(; since $minor:literal : $($more:ident),+)* }) => {
        impl $crate::codec::Wire for $type {
            #[allow(clippy::allow_attributes, unused_variables, reason = "a struct may have no field yet")]
            fn encode(&self, out: &mut Vec<u8>) {
                let Self { $($field,)* $($($more,)+)* } = self;
                $crate::codec::framed(out, |out| {
                    $($crate::codec::Wire::encode($field, out);)*
                    $($($crate::codec::Wire::encode($more, out);)+)*
                });
            }

            #[allow(clippy::allow_attributes, unused_variables, reason = "a struct may have no field yet")]
            fn decode(input: &mut $crate::codec::Input<'_>) -> Result<Self, $crate::codec::DecodeError> {
                input.framed(stringify!($type), |input| {
                    $(let $field = $crate::codec::Wire::decode(input)?;)*
                    $($(let $more = input.appended()?;)+)*
                    Ok(Self { $($field,)* $($($more,)+)* })
                })
            }
        }
    };
}

/// Declares an enum whose variants each hold a struct: on the wire `kind, length, body`, in JSON the struct's
/// object with the variant's name under the tag. Each variant says which minor version brought it.
macro_rules! kinds {
    (
        $(#[$meta:meta])*
        pub enum $type:ident, $tag:literal {
            $($(#[$doc:meta])* $kind:literal $name:literal since $minor:literal => $variant:ident($body:ty),)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = $tag)]
        pub enum $type {
            $($(#[$doc])* #[serde(rename = $name)] $variant($body),)+
            /// A variant of a newer version: kept and passed on intact.
            #[serde(rename = "x-unknown")]
            Unknown($crate::codec::Unknown),
        }

        impl $type {
            /// Every name that this version knows, in the order of their kinds, with the minor version that brought it.
            pub const NAMES: &'static [(&'static str, u16)] = &[$(($name, $minor)),+];

            /// The name, as JSON has it.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                    Self::Unknown(_) => "x-unknown",
                }
            }

            /// The minor version that brought this variant; `None` for a newer one than this crate knows.
            #[must_use]
            pub fn since(&self) -> Option<u16> {
                match self {
                    $(Self::$variant(_) => Some($minor),)+
                    Self::Unknown(_) => None,
                }
            }
        }

        impl $crate::codec::Wire for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(body) => {
                        $crate::codec::Wire::encode(&($kind as u32), out);
                        $crate::codec::Wire::encode(body, out);
                    })+
                    Self::Unknown(unknown) => {
                        $crate::codec::Wire::encode(&unknown.kind, out);
                        $crate::codec::Wire::encode(&unknown.bytes, out);
                    }
                }
            }

            fn decode(input: &mut $crate::codec::Input<'_>) -> Result<Self, $crate::codec::DecodeError> {
                Ok(match <u32 as $crate::codec::Wire>::decode(input)? {
                    $($kind => Self::$variant($crate::codec::Wire::decode(input)?),)+
                    kind => {
                        let bytes = $crate::codec::Wire::decode(input)?;
                        Self::Unknown($crate::codec::Unknown { kind, bytes })
                    }
                })
            }
        }
    };
}

/// Declares an enum of words: a number on the wire, a text in JSON. An unknown one keeps its number.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $type:ident { $($(#[$doc:meta])* $number:literal $word:literal => $variant:ident,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $($(#[$doc])* $variant,)+
            /// A word of a newer version.
            Unknown(u32),
        }

        impl $type {
            /// Every word that this version knows.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($word),)+
                    Self::Unknown(number) => write!(f, "x-unknown-{number}"),
                }
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::codec::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => text
                        .strip_prefix("x-unknown-")
                        .and_then(|number| number.parse().ok())
                        .map(Self::Unknown)
                        .ok_or($crate::codec::UnknownWord { known: &[$($word),+] }),
                }
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl $crate::codec::Wire for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                let number: u32 = match self {
                    $(Self::$variant => $number,)+
                    Self::Unknown(number) => *number,
                };
                $crate::codec::Wire::encode(&number, out);
            }

            fn decode(input: &mut $crate::codec::Input<'_>) -> Result<Self, $crate::codec::DecodeError> {
                Ok(match <u32 as $crate::codec::Wire>::decode(input)? {
                    $($number => Self::$variant,)+
                    number => Self::Unknown(number),
                })
            }
        }
    };
}

pub(crate) use {grows, kinds, words};

/// A text that is none of the words expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of {}", known.join(", "))]
pub struct UnknownWord {
    /// The words that this version knows.
    pub known: &'static [&'static str],
}
