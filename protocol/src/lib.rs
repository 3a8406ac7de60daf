//! The canonical protocol of oqto: the words that every part of the system speaks.
//!
//! Pure types in two forms: JSON for people and other languages, frames for the wire and the disk. No I/O, no
//! clock, no async. `docs/PROTOCOL.md` tells the protocol; here each file is one idea of it, and
//! [`codec`] keeps the rules by which old and new versions talk.
#![forbid(unsafe_code)]

pub mod attest;
pub mod bounds;
pub mod codec;
pub mod command;
pub mod cursor;
pub mod delegation;
pub mod enrol;
pub mod event;
pub mod fault;
pub mod file;
pub mod frame;
pub mod hello;
pub mod id;
pub mod message;
pub mod policy;
pub mod query;
pub mod reply;
pub mod role;
pub mod secret;
pub mod session;
pub mod stream;
pub mod terminal;
pub mod trust;
pub mod version;
