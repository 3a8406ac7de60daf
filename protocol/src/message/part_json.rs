//! The JSON form of a part: one flat object, `{"id", "type", …}`, where the type of an extension is `x-` and its
//! name. Written by hand, since no derive can take a tag from a field.

use serde::de::Error as _;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::codec::Json;

use super::{Content, Extension, Part};

const EXTENSION: &str = "x-";

/// A part of any other type.
#[derive(Serialize)]
struct Plain<'a> {
    id: &'a str,
    #[serde(flatten)]
    content: &'a Content,
}

impl Serialize for Part {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { id, content } = self;
        let Content::Extension(Extension { name, payload, meta }) = content else {
            return Plain { id, content }.serialize(serializer);
        };
        let mut part = serializer.serialize_map(None)?;
        part.serialize_entry("id", id)?;
        part.serialize_entry("type", &format_args!("{EXTENSION}{name}"))?;
        if let Some(payload) = payload {
            part.serialize_entry("payload", payload)?;
        }
        if let Some(meta) = meta {
            part.serialize_entry("meta", meta)?;
        }
        part.end()
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut part = Map::deserialize(deserializer)?;
        let Some(Value::String(id)) = part.remove("id") else {
            return Err(D::Error::missing_field("id"));
        };
        let name = match part.get("type") {
            // `x-unknown` with a `kind` is the form of what this version does not know. A harness may still call an
            // extension of its own so.
            Some(Value::String(tag)) if tag == "x-unknown" && part.contains_key("kind") => None,
            Some(Value::String(tag)) => tag.strip_prefix(EXTENSION).map(str::to_owned),
            _ => None,
        };
        let content = match name {
            Some(name) => Content::Extension(Extension {
                name,
                payload: present(&part, "payload"),
                meta: present(&part, "meta"),
            }),
            None => Content::deserialize(Value::Object(part)).map_err(D::Error::custom)?,
        };
        Ok(Self { id, content })
    }
}

/// A field that is there; `null` is not, as everywhere in the JSON form.
fn present(part: &Map<String, Value>, field: &str) -> Option<Json> {
    part.get(field).filter(|value| !value.is_null()).map(Json::from)
}
