//! The socket that the kernel sends its records to.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};

/// The group of those who read records beside the audit daemon.
const READERS: u32 = 1;

/// The longest message of audit, and then some: `MAX_AUDIT_MESSAGE_LENGTH` is 8970.
const MESSAGE_MAX: usize = 16 * 1024;

/// The number of the host's own process namespace, the same on every Linux. In any other one the numbers of processes in
/// the records are not those that are seen here.
const HOST_PROCESSES: &str = "pid:[4026531836]";

/// Why the kernel's records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Only a privileged runner may.
    #[error("this process may not read audit records; run the runner as root or with CAP_AUDIT_READ")]
    NotPermitted,
    /// The runner is in a container.
    #[error(
        "this process is not in the host's own process and network namespaces, which audit records are told in; run the \
         runner on the host itself"
    )]
    Container,
    /// The kernel has none, or said no for another reason.
    #[error("the kernel gives no audit records")]
    Kernel(#[from] Errno),
    /// Which namespace this is cannot be told.
    #[error("cannot tell whose processes audit records are of")]
    Namespace(#[source] io::Error),
}

/// A socket that the kernel sends its records to.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    message: Box<[u8]>,
}

/// What came.
#[derive(Debug)]
pub enum Received<'a> {
    /// A message of the kernel.
    Message(&'a [u8]),
    /// Records were lost, since nobody took them in time.
    Lost,
}

impl Socket {
    /// Asks the kernel for its records, from now on.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open() -> Result<Self, OpenError> {
        let message = vec![0; MESSAGE_MAX].into_boxed_slice();
        Ok(Self {
            fd: reader()?,
            message,
        })
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    /// When the kernel ends this.
    pub fn receive(&mut self) -> io::Result<Received<'_>> {
        loop {
            match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut self.message) {
                // Anybody may write to anybody's netlink socket; the kernel's own number is zero.
                Ok((len, Some(from))) if from.pid() == 0 => {
                    return Ok(Received::Message(&self.message[..len]));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Ok(Received::Lost),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether this process could read the kernel's records; for people who ask what their host can do.
///
/// # Errors
/// Why not.
pub fn probe() -> Result<(), OpenError> {
    reader().map(drop)
}

fn reader() -> Result<OwnedFd, OpenError> {
    let family = AddressFamily::Netlink;
    let fd = socket(
        family,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkAudit,
    )?;
    match bind(fd.as_raw_fd(), &NetlinkAddr::new(0, READERS)) {
        Ok(()) => {}
        Err(Errno::EPERM) => return Err(OpenError::NotPermitted),
        Err(error) => return Err(error.into()),
    }
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}"));
    let processes = namespace("self/ns/pid").map_err(OpenError::Namespace)?;
    // The kernel tells nobody in another network namespace, and lets everybody ask. Whose is whose only root may see.
    let elsewhere = match (namespace("self/ns/net"), namespace("1/ns/net")) {
        (Ok(own), Ok(host)) => own != host,
        (Err(_), _) | (_, Err(_)) => false,
    };
    if processes == Path::new(HOST_PROCESSES) && !elsewhere {
        Ok(fd)
    } else {
        Err(OpenError::Container)
    }
}
