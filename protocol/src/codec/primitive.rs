//! The values that everything else is made of: numbers, flags, texts, options, lists and maps.

use std::collections::BTreeMap;

use bincode::config::{Configuration, standard};
use bincode::enc::write::Writer;

use super::{DecodeError, Input, Wire};

const CONFIG: Configuration = standard();

struct Sink<'a>(&'a mut Vec<u8>);

impl Writer for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn write(value: impl bincode::Encode, out: &mut Vec<u8>) {
    // A vector takes every byte, so this cannot fail.
    let written = bincode::encode_into_writer(value, Sink(out), CONFIG);
    debug_assert!(written.is_ok());
}

fn read<T: bincode::Decode<()>>(input: &mut Input<'_>, what: &'static str) -> Result<T, DecodeError> {
    match bincode::decode_from_slice::<T, _>(input.rest(), CONFIG) {
        Ok((value, len)) => {
            input.take(len, what)?;
            Ok(value)
        }
        Err(bincode::error::DecodeError::UnexpectedEnd { .. }) => Err(DecodeError::Short(what)),
        Err(_) => Err(DecodeError::Malformed(what)),
    }
}

macro_rules! primitives {
    ($($type:ty => $what:literal),+ $(,)?) => {$(
        impl Wire for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                write(self, out);
            }

            fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
                read(input, $what)
            }
        }
    )+};
}

primitives! {
    bool => "flag", u8 => "byte", f64 => "number", [u8; 16] => "16-byte id", [u8; 32] => "digest",
}

impl Wire for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        write(self, out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        // As bincode reads it, in a fraction of the time: every event has a dozen numbers. A long form is for what has
        // no shorter one, which bincode does not ask for. One number has one form here, else two readers of the same
        // value could disagree about its digest.
        let (value, least) = match u8::from_le_bytes(fixed(input)?) {
            short @ 0..=250 => return Ok(Self::from(short)),
            251 => (Self::from(u16::from_le_bytes(fixed(input)?)), 251),
            252 => (Self::from(u32::from_le_bytes(fixed(input)?)), 1 << 16),
            253 => (Self::from_le_bytes(fixed(input)?), 1 << 32),
            254.. => return Err(DecodeError::Malformed("number")),
        };
        if value < least {
            return Err(DecodeError::Malformed("number"));
        }
        Ok(value)
    }
}

/// The next bytes, as many as the array has.
fn fixed<const LEN: usize>(input: &mut Input<'_>) -> Result<[u8; LEN], DecodeError> {
    let bytes = input.rest().first_chunk().ok_or(DecodeError::Short("number"))?;
    input.take(LEN, "number")?;
    Ok(*bytes)
}

macro_rules! narrow {
    ($($type:ty),+) => {$(
        impl Wire for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                write(self, out);
            }

            fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
                Self::try_from(u64::decode(input)?).map_err(|_| DecodeError::Malformed("number"))
            }
        }
    )+};
}

narrow!(u16, u32);

impl Wire for i32 {
    fn encode(&self, out: &mut Vec<u8>) {
        write(self, out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        // Zigzag: even numbers are the positive ones.
        let number = u32::decode(input)?;
        let half = (number >> 1).cast_signed();
        Ok(if number & 1 == 0 { half } else { !half })
    }
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
        let count = input.elements()?;
        // Grown as elements are really there: a count alone allocates nothing.
        let mut values = Self::new();
        for _ in 0..count {
            values.push(T::decode(input)?);
        }
        Ok(values)
    }
}

impl<V: Wire> Wire for BTreeMap<String, V> {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.len() as u64).encode(out);
        for (key, value) in self {
            encode_str(key, out);
            value.encode(out);
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let mut map = Self::new();
        for _ in 0..input.elements()? {
            let key = String::decode(input)?;
            // The keys of a map rise. A key that came twice would mean one thing to a reader that keeps the
            // first value and another to one that keeps the last.
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(DecodeError::Malformed("map"));
            }
            map.insert(key, V::decode(input)?);
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
