//! The history: where events are kept on this side. The port that an embedder implements, and two stores.
//!
//! Promise: what a store calls durable is acknowledged, and the runner may then forget it; nothing else ever is.
//! Uses the protocol. Not here: when a store is called (`events`).

mod file;
mod memory;
mod store;

pub use file::File;
pub use memory::Memory;
pub use store::{HistoryError, HistoryStore, Kept, SessionAddr};
