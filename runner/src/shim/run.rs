//! The door `shim`: becomes the session's user, begins the tape, starts the program, then relays.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};

use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::hold;
use super::input::Input;
use super::relay::{Look, Parts, Relay, SOURCES, Source};
use super::start::{ORDER_FILE, Order, READY, SOCKET_FILE};
use super::tape::{self, Kind, Start, Writer};
use super::wire;
use crate::launch::{self, Entrance, SpawnError, Spawned};
use crate::{cause, clock, sys};

/// The longest order. Its data are policies and arguments, and it was written by our own runner.
const ORDER_LEN_MAX: u64 = 16 * 1024 * 1024;

/// The socket before it can be connected to.
const SOCKET_FILE_NEW: &str = "shim.sock.new";

/// Why a shim did not begin. Nothing of the session runs then.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The session's directory is not there.
    #[error("cannot enter the session's directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The order is not there, too long, or cannot be removed.
    #[error("cannot take the order from {ORDER_FILE}")]
    Order(#[source] io::Error),
    /// The order was put there by somebody else.
    #[error("{ORDER_FILE} belongs to user {owner}")]
    ForeignOrder {
        /// Whose it is.
        owner: u32,
    },
    /// The order says nothing that this version knows.
    #[error("{ORDER_FILE} is no order")]
    BadOrder(#[source] serde_json::Error),
    /// The identity could not be dropped.
    #[error("cannot become user {uid}")]
    Identity {
        /// Who should have been become.
        uid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The terminal or the signals could not be left behind.
    #[error("cannot detach from the runner")]
    Detach(#[source] io::Error),
    /// The lock that says that it lives could not be taken.
    #[error("cannot take the lock of the session's directory")]
    Hold(#[source] io::Error),
    /// The tape could not be begun.
    #[error("cannot begin the tape")]
    Tape(#[source] io::Error),
    /// The socket could not be made.
    #[error("cannot listen for the runner")]
    Socket(#[source] io::Error),
    /// The session's group is not there.
    #[error("cannot open the session's cgroup")]
    Cgroup(#[source] io::Error),
    /// The program did not start.
    #[error("cannot start the session's program")]
    Spawn(#[source] SpawnError),
}

/// Runs a shim in `dir` until its program ended and the runner knows it; `look` is asked before the end is put on the
/// tape. Whoever started it reads on its standard
/// output whether it began, and after that nothing.
#[must_use]
pub fn run(dir: &Path, look: Look) -> ExitCode {
    let begun = begin(dir, look);
    let text = match &begun {
        Ok(_) => READY.to_owned(),
        Err(error) => cause::chain(error),
    };
    let told = io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush());
    let Ok(relay) = begun else {
        return ExitCode::FAILURE;
    };
    // Who started it and left before it began still gets its session: it finds the socket later.
    let _who_asked = told;
    let ended = leave_stdout().and_then(|()| relay.run());
    let _nobody_can_connect = fs::remove_file(SOCKET_FILE);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn leave_stdout() -> io::Result<()> {
    let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
    Ok(nix::unistd::dup2_stdout(&nowhere)?)
}

fn begin(dir: &Path, look: Look) -> Result<Relay, RunError> {
    sys::close_inherited().map_err(RunError::Detach)?;
    // Before anything that would have to be ended again: who finds nobody listening looks here.
    hold::take().map_err(RunError::Hold)?;
    // Names are relative from here on: an address longer than a socket's 108 bytes stays usable.
    std::env::set_current_dir(dir).map_err(|source| RunError::Directory {
        path: dir.to_owned(),
        source,
    })?;
    let Order {
        launch,
        principal,
        watch,
        doorway,
    } = take_order()?;
    let entrance = doorway.as_ref().map(Entrance::open).transpose();
    let entrance = entrance.map_err(RunError::Cgroup)?;
    // For the kernel's records to tell this session's processes from others. Where it is not to be had (an unprivileged
    // runner of somebody who is logged in, a kernel without audit) there is nobody to read the records either.
    let uid = principal.map_or_else(sys::effective_uid, |principal| principal.uid);
    let _without = sys::begin_audit_session(uid);
    if let Some(principal) = principal {
        sys::become_user(principal.uid, principal.gid).map_err(|source| RunError::Identity {
            uid: principal.uid,
            source,
        })?;
    }
    let signals = detach().map_err(RunError::Detach)?;
    let mut tape = Writer::create(Path::new(tape::FILE_NAME)).map_err(RunError::Tape)?;
    let listener = listen().map_err(RunError::Socket)?;
    let start = || launch::spawn(&launch, Stdio::piped(), Stdio::piped(), Stdio::piped());
    let spawned = Entrance::through(entrance.as_ref(), start);
    let Spawned { mut child, report } = spawned.map_err(RunError::Spawn)?;
    match record_start(&mut tape, &child).and_then(|()| pipes(&mut child, report)) {
        Ok((input, sources)) => Ok(Relay::new(Parts {
            tape,
            child,
            input,
            sources,
            listener,
            signals,
            watch,
            look,
        })),
        Err(source) => {
            // A program whose beginning is on no tape must not run.
            let _killed = child.kill().and_then(|()| child.wait());
            Err(RunError::Tape(source))
        }
    }
}

/// Reads the order and removes it: it may hold keys, and it is for one start only.
fn take_order() -> Result<Order, RunError> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(ORDER_FILE)
        .map_err(RunError::Order)?;
    // The directory may belong to the session's user, who must not say as whom the session runs.
    let owner = file.metadata().map_err(RunError::Order)?.uid();
    if owner != sys::effective_uid() {
        return Err(RunError::ForeignOrder { owner });
    }
    let mut text = Vec::new();
    (&mut file)
        .take(ORDER_LEN_MAX)
        .read_to_end(&mut text)
        .map_err(RunError::Order)?;
    let order = serde_json::from_slice(&text).map_err(RunError::BadOrder)?;
    fs::remove_file(ORDER_FILE).map_err(RunError::Order)?;
    Ok(order)
}

/// Leaves the runner's session and terminal, and takes the signals that matter as data. What is started begins with them
/// blocked: a sandbox lets them through to what runs in it, while bubblewrap around it stays deaf to what asks all processes
/// of a host to end, since its end would take the others with it at once.
fn detach() -> io::Result<SignalFd> {
    nix::unistd::setsid()?;
    // It was started by a link to its own file, and lists of processes would show the name of that link.
    nix::sys::prctl::set_name(c"oqto-shim")?;
    // What the program leaves behind becomes ours, to be ended with it.
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut taken = SigSet::empty();
    taken.add(Signal::SIGCHLD);
    taken.add(Signal::SIGTERM);
    let mut blocked = taken;
    // A limit on file sizes is then an error of the write, like a full disk.
    blocked.add(Signal::SIGXFSZ);
    blocked.thread_block()?;
    Ok(SignalFd::with_flags(
        &taken,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

fn listen() -> io::Result<UnixListener> {
    let listener = UnixListener::bind(SOCKET_FILE_NEW)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(SOCKET_FILE_NEW, Permissions::from_mode(0o600))?;
    fs::rename(SOCKET_FILE_NEW, SOCKET_FILE)?;
    Ok(listener)
}

fn record_start(tape: &mut Writer, child: &Child) -> io::Result<()> {
    let start = Start {
        shim_version: wire::VERSION,
        shim_pid: std::process::id(),
        harness_pid: child.id(),
        boot_id: sys::boot_id()?,
    };
    tape.append(Kind::Start, clock::unix_ms(), &[&serde_json::to_vec(&start)?])
}

fn pipes(child: &mut Child, report: Option<OwnedFd>) -> io::Result<(Input, [Option<Source>; SOURCES])> {
    let input = pipe(child.stdin.take())?.map_or_else(Input::closed, Input::new);
    let source =
        |kind, end: io::Result<Option<File>>| Ok::<_, io::Error>(end?.map(|pipe| Source { kind, pipe }));
    let out = source(Kind::Out, pipe(child.stdout.take()))?;
    let err = source(Kind::Err, pipe(child.stderr.take()))?;
    Ok((input, [out, err, source(Kind::Report, pipe(report))?]))
}

/// Our end of a pipe, which never blocks; the program's end is its own and does.
fn pipe(end: Option<impl Into<OwnedFd>>) -> io::Result<Option<File>> {
    let Some(end) = end.map(Into::into) else {
        return Ok(None);
    };
    sys::never_block(&end)?;
    Ok(Some(File::from(end)))
}
