//! Which words a peer knows.
//!
//! The major version is the ALPN name; within it a minor version only adds. Peers settle on the lower minor of the
//! two in [`Hello`](crate::hello::Hello); the software's version is shown to humans and never acted on.

/// The major version, as TLS names it.
pub const ALPN: &[u8] = b"oqto/1";

/// The name of the only other talk: a runner without a certificate asks a control for its first.
pub const ALPN_ENROL: &[u8] = b"oqto-enrol/1";

/// The newest minor version that this crate speaks.
pub const MINOR: u16 = 1;

/// The oldest minor version that this crate still speaks.
pub const MINOR_MIN: u16 = 1;

/// The minor version that two peers speak: the lower of both newest, if neither finds it too old.
#[must_use]
pub fn settle(theirs: u16, theirs_min: u16) -> Option<u16> {
    let minor = MINOR.min(theirs);
    (minor >= MINOR_MIN && minor >= theirs_min).then_some(minor)
}
