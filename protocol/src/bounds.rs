//! Every bound of the wire, each with its reason. A decoder refuses what is past them and never allocates first.

/// The longest frame, in bytes, its kind included. A finished message of an agent may hold megabytes of text, and
/// the runner refuses a harness's line past 16 MiB, so nothing honest comes near this.
pub const FRAME_LEN_MAX: usize = 32 * 1024 * 1024;

/// The longest frame that a peer may send before Hello was answered, in bytes: nothing is owed to a stranger.
pub const HELLO_LEN_MAX: usize = 16 * 1024;

/// How many list elements one frame may hold in all. An element can cost some bytes on the wire and hundreds in
/// memory: at worst, bare messages, a hostile frame of 5 MB becomes 110 MB, and no frame more than that beside
/// its own length.
pub const ELEMENTS_MAX: u32 = 262_144;

/// The longest name of a session, runner, authority or control, in bytes: it becomes a file name and a DNS label.
pub const NAME_LEN_MAX: usize = 63;

/// The longest name of whom a control asks for, in bytes: it stands in every record of the audit log.
pub const BEHALF_LEN_MAX: usize = 256;

/// The longest id of a message, in bytes: it stands in every delta, so it is kept inline.
pub const MESSAGE_ID_LEN_MAX: usize = 31;
