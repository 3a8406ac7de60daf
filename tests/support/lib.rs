//! What the tests share: a private home, a runner of its own, the scripted model.
#![forbid(unsafe_code)]

pub mod bench;
