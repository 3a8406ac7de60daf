//! The event log: every event of a workspace's sessions, numbered, in order, on disk.
//!
//! Floor: record. Uses `sys`, `clock`. One [`EventLog`] is one SQLite store with one writing thread, which commits
//! for all its sessions at once, and one reading thread. Events are frames here: a `u32 LE` length, then that many
//! bytes, and one number each when they are appended. Only who is behind gets frames that stand for several.
//!
//! Promises: within a session numbers have no gaps and are given out once; a number that was lost with the host's
//! power comes back only under a greater epoch. Whoever holds a [`Durable`] holds what is committed, and only this
//! module makes one. Messages are committed with the event that ends them, so history and stream agree. A store
//! that cannot be written (full disk) keeps what it accepted, stops accepting more and tries again; nothing is
//! dropped. A damaged store is an error that names the file, and is never replaced. What is forgotten was
//! acknowledged before ([`Retention`]), and who asks for it is told.
//!
//! Bounds: what waits for the disk ([`EventLog`] accepts no more), and what is kept in memory for readers that
//! follow closely; everybody else reads from the disk.
//!
//! Not here: what a frame means (`oqto_protocol`), who may read it (`daemon`), how it is sent (`transport`).

mod batch;
mod durable;
mod log;
mod reader;
mod resume;
mod retention;
mod schema;
mod session;
mod tail;
mod trim;
mod writer;

pub use batch::{BadBatch, Batch, Chunk, MessageRow, Sync};
pub use durable::Durable;
pub use log::{ChangeError, CreateError, EventLog, Health, SessionRow};
pub use reader::ReadError;
pub use resume::{Resume, resume};
pub use retention::{Retention, Standing, Thinned, Trim, thin};
pub use schema::{OpenError, set_aside, set_asides};
pub use session::{AppendError, Closed, Pending, SessionLog};
