//! One value of every type of the protocol: full, bare, or as a string of choices says.

#![allow(
    clippy::allow_attributes,
    dead_code,
    reason = "each test file uses the part of this that it needs"
)]

pub(crate) mod source;
pub(crate) mod types;

pub(crate) use source::{Sample, Source};
pub(crate) use types::Variants;
