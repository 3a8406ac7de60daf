//! Free-form values: JSON text inside a frame.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{DecodeError, Input, Wire, decode_str, encode_str};

/// JSON text that is passed on as it came and parsed only by who needs it.
///
/// Whatever text a peer sends, the JSON form of what holds it is one line that every reader can parse: a text that
/// is not JSON, is nested too deep or says what no reader can hold (`1e999`, half a surrogate pair) is shown as a
/// string. Through the JSON form a value keeps its meaning, not its key order or its spacing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// Takes text that is one JSON value.
    ///
    /// # Errors
    /// When it is not, or when a reader with the usual limits could not hold it.
    pub fn parse(text: impl Into<String>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        serde_json::from_str::<Readable>(&text)?;
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

impl From<&RawValue> for Json {
    fn from(raw: &RawValue) -> Self {
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
        if serde_json::from_str::<Readable>(&self.0).is_err() {
            return serializer.serialize_str(&self.0);
        }
        // Outside of strings, where it is escaped, a line break is only spacing; but who prints one event a line
        // must not be made to print two.
        let line = self.0.replace(['\n', '\r'], " ");
        RawValue::from_string(line)
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not a raw value: serde buffers what stands beside a tag, and a raw value does not survive that.
        serde_json::Value::deserialize(deserializer).map(|value| Self(value.to_string()))
    }
}

impl Wire for Json {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_str(&self.0, out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        decode_str(input).map(|text| Self(text.to_owned()))
    }
}

/// Any JSON value, looked at and not kept. Unlike serde's `IgnoredAny` it goes through every value, so that it
/// finds what would fail a reader who keeps them; unlike a `Value` it costs no memory.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self, A::Error> {
        while elements.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        while entries.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}
