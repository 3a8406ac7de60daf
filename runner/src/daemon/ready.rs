//! Says to a service manager how far the daemon is, where one listens (`sd_notify` of systemd).

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::{env, io};

/// Names the socket of the service manager; an `@` in front stands for the zero of an abstract one.
const SOCKET: &str = "NOTIFY_SOCKET";

/// How far the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It serves.
    Ready,
    /// It was told to end.
    Stopping,
}

impl Stage {
    fn words(self) -> &'static [u8] {
        match self {
            Self::Ready => b"READY=1",
            Self::Stopping => b"STOPPING=1",
        }
    }
}

/// Says it, where somebody wants to know.
///
/// # Errors
/// When the socket that is named cannot be written to.
pub(super) fn say(stage: Stage) -> io::Result<()> {
    let Some(name) = env::var_os(SOCKET).filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(stage.words(), &address)?;
    Ok(())
}
