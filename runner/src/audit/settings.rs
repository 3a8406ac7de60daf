//! How a log is kept, and who else hears of its records.

use std::path::PathBuf;

/// The most that a log takes of the disk where nothing else is said, bytes: some ten million records.
pub const KEEP_LEN: u64 = 4 * 1024 * 1024 * 1024;

/// How a log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How much of the disk it may take, bytes.
    pub keep_len: u64,
    /// What happens when it has that.
    pub at_bound: AtBound,
    /// Who else hears of its records, each when it is on disk.
    pub sinks: Vec<Sink>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keep_len: KEEP_LEN,
            at_bound: AtBound::Stop,
            sinks: Vec::new(),
        }
    }
}

/// What happens when a log has all that it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtBound {
    /// What needs a record is refused until somebody makes room: who floods a runner must not get rid of what it did before.
    Stop,
    /// The oldest file goes, and a record says so.
    Rotate,
}

/// Who else hears of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// The journal, in its own protocol, over this socket.
    Journal(PathBuf),
    /// A collector of RFC 5424 messages, over this socket.
    Syslog(PathBuf),
}
