//! How a value becomes bytes, and how bytes that nobody vouches for become a value.
//!
//! The rules that let old and new talk are kept here and nowhere else:
//! - a struct is length-framed where it stands, inside lists too (`grows!`); fields are only appended, a longer
//!   value is read as far as it is known, a shorter one gets defaults for the fields that later versions added;
//! - a variant is `kind, length, body` (`kinds!`); an unknown one is kept as [`Unknown`] and goes on intact;
//! - a word (an enum without data) is a number (`words!`); an unknown one is kept as its number.
//!
//! Primitive values are bincode 2's: varints, and strings as length and bytes. Only `primitive` names bincode.
//! What is not in the one form that a writer would have chosen is refused, so equal bytes and equal values are the
//! same thing. Decoding is bounded by the input's length and by [`ELEMENTS_MAX`](crate::bounds::ELEMENTS_MAX),
//! never panics, and its recursion is bounded by the types: none contains itself.

mod blob;
#[cfg(test)]
mod growth;
mod json;
mod primitive;
mod vocabulary;
mod wire;

pub use blob::Blob;
pub use json::Json;
pub use vocabulary::{Unknown, UnknownWord};
pub use wire::{DecodeError, Input, Wire, decode_all, framed};

pub(crate) use primitive::{decode_str, encode_str};
pub(crate) use vocabulary::{grows, kinds, words};
