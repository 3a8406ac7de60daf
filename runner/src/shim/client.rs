//! The runner's end of the connection with one shim.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::inbox::Inbox;
use super::start::SOCKET_FILE;
use super::tape::Exit;
use super::wire::{self, BadFrame, FromShim, Refusal, Target, ToShim, WriteId};
use crate::sys;

/// How long a shim may take to greet. A hung one must not hold up the others.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// What a shim tells without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The tape is this long now.
    Grown {
        /// A record's end.
        len: u64,
    },
    /// The write is on the tape and on its way to its target.
    Wrote {
        /// The write.
        id: WriteId,
    },
    /// The write had no effect.
    Refused {
        /// The write.
        id: WriteId,
        /// Why.
        why: Refusal,
    },
    /// The tape cannot grow; the program waits, and nothing is lost.
    Trouble {
        /// What the kernel said.
        text: String,
    },
    /// The trouble is over.
    Recovered,
    /// The program ended, and the tape ends with that.
    Exited {
        /// How.
        exit: Exit,
    },
    /// The connection is over: the shim ended, or another client took its place. Nothing follows.
    Gone,
}

/// Why a shim cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No shim listens there.
    #[error("cannot reach a shim in {dir}")]
    Reach {
        /// Its directory.
        dir: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("what listens in {dir} belongs to user {uid}, not to the directory's owner")]
    Stranger {
        /// The directory.
        dir: PathBuf,
        /// Whose process it is.
        uid: u32,
    },
    /// It is no shim, or none that we know.
    #[error("what listens in {dir} does not greet like a shim")]
    Greeting {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with the greeting; none when there was none.
        source: Option<BadFrame>,
    },
    /// It did not greet in time.
    #[error("the shim in {dir} does not answer")]
    Silent {
        /// The directory.
        dir: PathBuf,
    },
}

impl ConnectError {
    /// Whether there is no shim: it was never there, or it ended. Any other may live, and its program with it.
    #[must_use]
    pub fn nobody_listens(&self) -> bool {
        match self {
            Self::Reach { source, .. } => {
                matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
            }
            Self::Stranger { .. } | Self::Greeting { .. } | Self::Silent { .. } => false,
        }
    }
}

/// What a shim said of its session when it was connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// How long the tape was.
    pub tape_len: u64,
    /// The program's process id.
    pub harness_pid: u32,
    /// How the program ended, if it did.
    pub exited: Option<Exit>,
}

/// A connection with a shim.
///
/// Every method may be dropped before it is done and called again: what was begun is finished by the next one.
/// Memory is bounded by what the caller writes without waiting for the answer.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    greeting: Greeting,
    inbox: Inbox,
    outbox: Vec<u8>,
    gone: bool,
}

impl Client {
    /// Connects with the shim in a session's directory. Whoever was connected before is cut off.
    ///
    /// # Errors
    /// When none is there or it does not speak our wire.
    pub async fn connect(dir: &Path) -> Result<Self, ConnectError> {
        let reach = |source| ConnectError::Reach {
            dir: dir.to_owned(),
            source,
        };
        let owner = Directory::open(dir).map_err(reach)?;
        let stream = UnixStream::connect(owner.socket()).await.map_err(reach)?;
        let uid = sys::peer_uid(&stream).map_err(reach)?;
        if uid != owner.uid().map_err(reach)? {
            return Err(ConnectError::Stranger {
                dir: dir.to_owned(),
                uid,
            });
        }
        let greeting = Greeting {
            tape_len: 0,
            harness_pid: 0,
            exited: None,
        };
        let (inbox, outbox) = (Inbox::default(), Vec::new());
        let mut client = Self {
            stream,
            greeting,
            inbox,
            outbox,
            gone: false,
        };
        match tokio::time::timeout(HELLO_MAX, client.greet()).await {
            Ok(Ok(())) => Ok(client),
            Ok(Err(source)) => Err(ConnectError::Greeting {
                dir: dir.to_owned(),
                source,
            }),
            Err(_elapsed) => Err(ConnectError::Silent { dir: dir.to_owned() }),
        }
    }

    /// What the shim said when it was connected to.
    #[must_use]
    pub fn greeting(&self) -> Greeting {
        self.greeting
    }

    /// Asks for bytes to be put on the tape and on to their target. [`Notice::Wrote`] or [`Notice::Refused`]
    /// answers; the same id again has no second effect.
    ///
    /// # Panics
    /// When the bytes are longer than [`wire::WRITE_MAX`].
    pub async fn write(&mut self, id: WriteId, to: Target, bytes: &[u8]) {
        self.say(&ToShim::Write { id, to, bytes }).await;
    }

    /// Closes the program's input once what was written is read.
    pub async fn close_stdin(&mut self) {
        self.say(&ToShim::CloseStdin).await;
    }

    /// Kills the program.
    pub async fn kill(&mut self) {
        self.say(&ToShim::Kill).await;
    }

    /// Says that the tape was read up to `read`, and that nothing below `needed` will ever be read again.
    pub async fn consumed(&mut self, read: u64, needed: u64) {
        self.say(&ToShim::Consumed { read, needed }).await;
    }

    /// Lets a shim end whose exit was read. [`Notice::Gone`] follows.
    pub async fn release(&mut self) {
        self.say(&ToShim::Release).await;
    }

    /// What the shim tells next.
    pub async fn next(&mut self) -> Notice {
        loop {
            match self.inbox.frame().map(|frame| frame.map(FromShim::decode)) {
                Ok(Some(Ok(frame))) => {
                    if let Some(notice) = notice(&frame) {
                        return notice;
                    }
                    self.gone = true;
                }
                Ok(None) if self.gone => return Notice::Gone,
                Ok(None) => self.exchange().await,
                // A shim that stops making sense is as good as none; what it did is on the tape.
                Ok(Some(Err(_))) | Err(_) => {
                    self.inbox = Inbox::default();
                    self.gone = true;
                }
            }
        }
    }

    async fn greet(&mut self) -> Result<(), Option<BadFrame>> {
        loop {
            if let Some(frame) = self.inbox.frame()? {
                let FromShim::Hello {
                    version,
                    tape_len,
                    harness_pid,
                    exited,
                } = FromShim::decode(frame)?
                else {
                    return Err(None);
                };
                self.greeting = Greeting {
                    tape_len,
                    harness_pid,
                    exited,
                };
                self.say(&ToShim::Hello {
                    version: version.min(wire::VERSION),
                })
                .await;
                return Ok(());
            }
            if self.gone {
                return Err(None);
            }
            self.exchange().await;
        }
    }

    async fn say(&mut self, frame: &ToShim<'_>) {
        frame.encode(&mut self.outbox);
        // It also reads, so that a shim which waits for us to read is not waited for.
        while !self.outbox.is_empty() && !self.gone {
            self.exchange().await;
        }
    }

    /// Waits until the socket is ready, then reads and writes what it takes.
    async fn exchange(&mut self) {
        // Most often there is room, and then nothing is waited for.
        if !self.outbox.is_empty() && self.flush() {
            return;
        }
        let interest = if self.outbox.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        if self.stream.ready(interest).await.is_err() {
            self.gone = true;
        }
        match self.inbox.fill(|room| self.stream.try_read(room)) {
            Ok(0) => self.gone = true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.gone = true,
        }
    }

    /// Writes what the socket takes now. Whether anything was done.
    fn flush(&mut self) -> bool {
        match self.stream.try_write(&self.outbox) {
            Ok(len) => {
                self.outbox.drain(..len);
                if self.outbox.is_empty() {
                    self.outbox = Vec::new();
                }
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                // What it said before it went is still read: the reading end notices by itself.
                self.outbox = Vec::new();
                true
            }
        }
    }
}

fn notice(frame: &FromShim<'_>) -> Option<Notice> {
    Some(match *frame {
        FromShim::Grown { len } => Notice::Grown { len },
        FromShim::Wrote { id } => Notice::Wrote { id },
        FromShim::Refused { id, why } => Notice::Refused { id, why },
        FromShim::Trouble { text } => Notice::Trouble {
            text: text.to_owned(),
        },
        FromShim::Recovered => Notice::Recovered,
        FromShim::Exited { exit } => Notice::Exited { exit },
        FromShim::Hello { .. } => return None,
    })
}

/// A session's directory, held open: its socket has a short address however deep it lies.
struct Directory(File);

impl Directory {
    fn open(dir: &Path) -> io::Result<Self> {
        let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
        Ok(Self(File::options().read(true).custom_flags(flags).open(dir)?))
    }

    fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_FILE}", self.0.as_raw_fd()))
    }

    fn uid(&self) -> io::Result<u32> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(self.0.metadata()?.uid())
    }
}
