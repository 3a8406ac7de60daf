//! Attempts on the network and on sockets.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::attempt::{Answer, Attempt, Forbidden};
use crate::sandbox::report::Layer;

/// How long a connection may take, where something lets it out: the answer is then the wrong one anyway.
const PATIENCE: Duration = Duration::from_secs(2);

/// There is no way there from a loopback alone.
const NO_WAY: &[(Answer, Layer)] = &[
    (Answer::errno(Errno::ENETUNREACH), Layer::Namespaces),
    (Answer::errno(Errno::EADDRNOTAVAIL), Layer::Namespaces),
    (Answer::errno(Errno::EACCES), Layer::Landlock),
    // A filter that knows no such family at all.
    (Answer::errno(Errno::EPERM), Layer::Seccomp),
    (Answer::errno(Errno::EAFNOSUPPORT), Layer::Seccomp),
];

const REFUSED: &[(Answer, Layer)] = &[(Answer::errno(Errno::EPERM), Layer::Seccomp)];

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "host-loopback",
        what: "connect to a service on the host's 127.0.0.1",
        forbidden: Forbidden::NoNetwork,
        stops: &[
            (Answer::errno(Errno::ECONNREFUSED), Layer::Namespaces),
            (Answer::errno(Errno::EACCES), Layer::Landlock),
            (Answer::errno(Errno::EPERM), Layer::Seccomp),
        ],
        attempt: |bait| connect(SocketAddr::from(([127, 0, 0, 1], bait.port))),
    },
    Attempt {
        name: "metadata",
        what: "connect to the metadata service of a cloud",
        forbidden: Forbidden::NoNetwork,
        stops: NO_WAY,
        attempt: |_| connect(SocketAddr::from(([169, 254, 169, 254], 80))),
    },
    Attempt {
        name: "internet",
        what: "connect to an address of the internet",
        forbidden: Forbidden::NoNetwork,
        stops: NO_WAY,
        attempt: |_| connect(SocketAddr::from(([192, 0, 2, 1], 443))),
    },
    Attempt {
        name: "internet-6",
        what: "connect to an address of the internet by IPv6",
        forbidden: Forbidden::NoNetwork,
        stops: NO_WAY,
        attempt: |_| connect(SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 443))),
    },
    Attempt {
        name: "name-server",
        what: "ask a name server by UDP",
        forbidden: Forbidden::NoNetwork,
        stops: NO_WAY,
        attempt: |_| {
            let asked =
                UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"?", ("192.0.2.53", 53)));
            asked.into()
        },
    },
    Attempt {
        name: "abstract-socket",
        what: "connect to an abstract unix socket of the host",
        forbidden: Forbidden::Always,
        stops: &[
            (Answer::errno(Errno::ECONNREFUSED), Layer::Namespaces),
            (Answer::errno(Errno::EPERM), Layer::Landlock),
        ],
        attempt: |bait| {
            UnixAddress::from_abstract_name(&bait.abstract_name)
                .and_then(|address| UnixStream::connect_addr(&address))
                .into()
        },
    },
    Attempt {
        name: "unix-socket",
        what: "connect to a unix socket of the host by its path",
        forbidden: Forbidden::Always,
        stops: &[
            (Answer::errno(Errno::ENOENT), Layer::Mounts),
            (Answer::errno(Errno::EACCES), Layer::Landlock),
            (Answer::errno(Errno::EPERM), Layer::Seccomp),
        ],
        attempt: |bait| UnixStream::connect(&bait.socket).into(),
    },
    Attempt {
        name: "packet-socket",
        what: "open a socket that sees every packet",
        forbidden: Forbidden::Call("socket"),
        stops: REFUSED,
        attempt: |_| open(AddressFamily::Packet, SockType::Raw, None),
    },
    Attempt {
        name: "raw-socket",
        what: "open a raw socket",
        forbidden: Forbidden::Call("socket"),
        stops: REFUSED,
        attempt: |_| open(AddressFamily::Inet, SockType::Raw, SockProtocol::Raw),
    },
    Attempt {
        name: "audit-socket",
        what: "open a socket to the kernel's audit",
        forbidden: Forbidden::Call("socket"),
        stops: REFUSED,
        attempt: |_| open(AddressFamily::Netlink, SockType::Raw, SockProtocol::NetlinkAudit),
    },
    Attempt {
        name: "machine-socket",
        what: "open a socket to the machine below (vsock)",
        forbidden: Forbidden::Call("socket"),
        stops: REFUSED,
        attempt: |_| open(AddressFamily::Vsock, SockType::Stream, None),
    },
    Attempt {
        name: "crypto-socket",
        what: "open a socket to the kernel's cryptography",
        forbidden: Forbidden::Call("socket"),
        stops: REFUSED,
        attempt: |_| open(AddressFamily::Alg, SockType::SeqPacket, None),
    },
];

fn connect(address: SocketAddr) -> Answer {
    match TcpStream::connect_timeout(&address, PATIENCE) {
        // It went out, and nobody answered.
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Answer::Done,
        other => other.into(),
    }
}

fn open(family: AddressFamily, kind: SockType, protocol: impl Into<Option<SockProtocol>>) -> Answer {
    socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol).into()
}
