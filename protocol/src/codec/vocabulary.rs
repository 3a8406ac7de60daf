//! The three forms that a type of the protocol can have, each with its rule of growth.

use serde::{Deserialize, Serialize};

use super::Blob;

/// A variant, or a kind of frame, that this version does not know: kept, stored and passed on intact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// Its number on the wire.
    pub kind: u32,
    /// Its body.
    pub bytes: Blob,
}

/// A text that is none of the words expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of {}", known.join(", "))]
pub struct UnknownWord {
    /// The words that this version knows.
    pub known: &'static [&'static str],
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
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
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

            /// Reads the body of a variant. `Unknown` is only what this version does not know: were it to hold a
            /// known kind too, whoever looks at the variant would see another thing than the peer that it goes to.
            fn of_kind(
                kind: u32,
                input: &mut $crate::codec::Input<'_>,
            ) -> Result<Self, $crate::codec::DecodeError> {
                Ok(match kind {
                    $($kind => Self::$variant($crate::codec::Wire::decode(input)?),)+
                    kind => {
                        let bytes = $crate::codec::Wire::decode(input)?;
                        Self::Unknown($crate::codec::Unknown { kind, bytes })
                    }
                })
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(tag = $tag)]
                enum Written {
                    $(#[serde(rename = $name)] $variant($body),)+
                    #[serde(rename = "x-unknown")]
                    Unknown($crate::codec::Unknown),
                }

                match Written::deserialize(deserializer)? {
                    $(Written::$variant(body) => Ok(Self::$variant(body)),)+
                    // An older version may have written down what this one knows.
                    Written::Unknown(unknown) => {
                        let mut framed = Vec::new();
                        $crate::codec::Wire::encode(&unknown.bytes, &mut framed);
                        Self::of_kind(unknown.kind, &mut $crate::codec::Input::new(&framed))
                            .map_err(serde::de::Error::custom)
                    }
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
                let kind = $crate::codec::Wire::decode(input)?;
                Self::of_kind(kind, input)
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

            /// The word with this number on the wire.
            #[must_use]
            pub fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$variant,)+
                    number => Self::Unknown(number),
                }
            }

            /// Its number on the wire.
            #[must_use]
            pub fn number(self) -> u32 {
                match self {
                    $(Self::$variant => $number,)+
                    Self::Unknown(number) => number,
                }
            }
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
                        .map(Self::from_number)
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
                $crate::codec::Wire::encode(&self.number(), out);
            }

            fn decode(input: &mut $crate::codec::Input<'_>) -> Result<Self, $crate::codec::DecodeError> {
                $crate::codec::Wire::decode(input).map(Self::from_number)
            }
        }
    };
}

pub(crate) use {grows, kinds, words};
