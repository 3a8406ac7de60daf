//! The tape: every byte that a program said or was told, in order, in one append-only file.
//!
//! A record is `payload length u32 LE · kind u8 · unix ms u64 LE · payload`. The shim writes, the runner reads; the
//! tape needs no fsync, since it must outlive processes only: when the host loses power the program is gone too.
//! An offset names the same byte for ever, also after the blocks below it were given back to the file system.

mod reader;
mod record;
mod writer;

pub use reader::{ReadError, Reader};
pub use record::{BURST_MAX, Exit, FILE_NAME, Kind, PAYLOAD_MAX, Record, Start};
pub use writer::{Pulled, Writer};
