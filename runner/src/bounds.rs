//! Every bound of the runner that more than one module needs, each with its reason.
//!
//! Floor: ground. A bound that only one module knows stands at the top of that module.

/// The longest line a harness may print, in bytes. Real agents print up to 3 MB in one line (whole messages
/// repeated); past this the harness is broken or hostile and its session ends with an error.
pub const HARNESS_LINE_MAX: usize = 16 * 1024 * 1024;

/// How much of a session's tape may wait unread before the shim stops reading the harness's pipe, in bytes. This
/// is where back-pressure becomes a full pipe at the harness.
pub const TAPE_BACKLOG_MAX: u64 = 64 * 1024 * 1024;

/// The longest bytes that a session takes at once, be it a command or what its harness is told for one: a prompt with
/// its images fits, and it is the most memory that a shim ever holds for its runner.
pub const WRITE_LEN_MAX: usize = 16 * 1024 * 1024 - 16;
