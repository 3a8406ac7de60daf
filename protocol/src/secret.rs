//! Text that is nobody else's to see: it has no Debug that shows it, and is zeroed when it is dropped.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::codec::{DecodeError, Input, Wire, decode_str, encode_str};

/// A secret text, such as a join token or the value of a session's variable. What it stands in can be shown and logged;
/// its text is in its wire and JSON forms alone, and there because it has to be.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for who checks, passes on or sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl Wire for Secret {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_str(&self.0, out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        decode_str(input).map(|text| Self::new(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_a_secret_can_be_shown_without_it() {
        let config = crate::session::SessionConfig {
            env: [("API_KEY".to_owned(), Secret::from("sk-1234"))].into(),
            ..Default::default()
        };
        let shown = format!("{config:?} {config:#?}");
        assert!(shown.contains("API_KEY") && !shown.contains("1234"), "{shown}");
    }
}
