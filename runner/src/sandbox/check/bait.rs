//! What the attempts are after, laid out on the host in a directory of its own.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A variable of this process that no policy names.
pub(super) const VARIABLE: &str = "OQTO_SANDBOX_CHECK";

/// Where everything is. It is known inside too: knowing where something is must not help.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bait {
    /// The sandbox's workspace: a repository.
    pub(super) workspace: PathBuf,
    /// The directory above, which the policy does not name.
    pub(super) outside: PathBuf,
    /// A readable file there.
    pub(super) secret: PathBuf,
    /// A listening unix socket there.
    pub(super) socket: PathBuf,
    /// The name of a listening abstract unix socket.
    pub(super) abstract_name: String,
    /// The port of a listener on the host's 127.0.0.1.
    pub(super) port: u16,
    /// A process of the same user outside.
    pub(super) pid: i32,
}

/// Listens for as long as it lives.
pub(super) struct Laid {
    pub(super) bait: Bait,
    _listeners: (UnixListener, UnixListener, TcpListener),
}

impl Laid {
    /// Lays everything out below `outside`, an empty directory of the caller.
    pub(super) fn below(outside: &Path) -> io::Result<Self> {
        let workspace = outside.join("workspace");
        for directory in [".git/hooks", ".oqto"] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(workspace.join(directory))?;
        }
        fs::write(workspace.join(".git/config"), "[core]\n")?;
        let (secret, socket) = (outside.join("secret"), outside.join("socket"));
        File::create_new(&secret)?.write_all(b"not for the sandbox\n")?;
        // The directory's name is nobody else's, so this one is not either.
        let abstract_name = outside.display().to_string();
        let listeners = (
            UnixListener::bind(&socket)?,
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name)?)?,
            TcpListener::bind("127.0.0.1:0")?,
        );
        let bait = Bait {
            workspace,
            outside: outside.to_owned(),
            secret,
            socket,
            abstract_name,
            port: listeners.2.local_addr()?.port(),
            pid: nix::unistd::getpid().as_raw(),
        };
        Ok(Self {
            bait,
            _listeners: listeners,
        })
    }
}
