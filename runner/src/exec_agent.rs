//! The exec harness's agent: runs shell commands inside the sandbox, one at a time.
//!
//! Floor: shell. Uses `bounds`, `sys`, `waits`, `harness` (its lines and what they say). Reads [`ExecOrder`]s on standard input and
//! writes [`ExecLine`]s on standard output: one thread, one poll loop, no runtime. Promises:
//! - a command's standard input is empty, and its end is said once its own process has ended and what it wrote is
//!   passed on, even if something that it left behind holds its pipes open;
//! - when nobody reads what it says, it stops reading the command's output, and still obeys an abort;
//! - when its standard input ends it ends what runs, and itself.
//!
//! Bounds: one run, and of its output what a pipe holds.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, read, write};
use oqto_protocol::codec::Blob;
use serde::Serialize;

use crate::harness::{ExecLine, ExecOrder, Lines};
use crate::sys::never_block;
use crate::waits::{Place, Waits};

/// How much of a command's output is read at once, in bytes: one line of ours, half of what a pipe holds.
const PIECE_LEN_MAX: usize = 32 * 1024;

/// How much is read from a pipe after its process has ended, in bytes. A pipe holds 64 KiB unless its writer made
/// it larger, up to this; more is of somebody who still writes.
const DRAIN_LEN_MAX: usize = 1024 * 1024;

/// How long a command that is aborted may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the agent until its standard input ends.
#[must_use]
pub fn serve() -> ExitCode {
    match Agent::new().and_then(Agent::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong on standard error; if that is gone nobody listens.
fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "exec agent: {what}");
}

struct Agent {
    orders: Lines,
    input: Input,
    /// What waits to be written.
    says: Vec<u8>,
    children: SignalFd,
    run: Option<Run>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
}

/// A command that runs.
struct Run {
    id: String,
    child: Child,
    pipes: [Pipe; 2],
    abort: Abort,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Abort {
    No,
    Asked { kill_at: Instant },
    Killed,
}

/// One of a command's two outputs.
struct Pipe {
    stream: Stream,
    from: Option<OwnedFd>,
    /// The beginning of a character whose rest was not there yet.
    cut: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

/// What can be done without waiting.
struct Ready {
    children: bool,
    orders: bool,
    output: bool,
    pipes: [bool; 2],
}

impl Agent {
    fn new() -> io::Result<Self> {
        let mut ended = SigSet::empty();
        ended.add(Signal::SIGCHLD);
        ended.thread_block()?;
        never_block(io::stdout().as_fd())?;
        let mut agent = Self {
            orders: Lines::default(),
            input: Input::Open,
            says: Vec::new(),
            children: SignalFd::with_flags(&ended, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
            run: None,
        };
        agent.say(&ExecLine::Ready {});
        Ok(agent)
    }

    fn run(mut self) -> io::Result<()> {
        while self.input == Input::Open || self.run.is_some() || !self.says.is_empty() {
            let ready = self.wait()?;
            if ready.output {
                self.write()?;
            }
            if ready.orders {
                self.listen()?;
            }
            if let Some(run) = &mut self.run {
                for (pipe, _) in run.pipes.iter_mut().zip(ready.pipes).filter(|(_, is)| *is) {
                    pipe.pass_on(&mut self.says)?;
                }
                run.kill_when_due();
            }
            if ready.children {
                self.reap()?;
            }
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<Ready> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let mut waits = Waits::default();
        let children = waits.add(Some(self.children.as_fd()), PollFlags::POLLIN);
        let listens = self.input == Input::Open;
        let orders = waits.add(listens.then(|| stdin.as_fd()), PollFlags::POLLIN);
        let speaks = !self.says.is_empty();
        let output = waits.add(speaks.then(|| stdout.as_fd()), PollFlags::POLLOUT);
        let mut pipes = [Place::default(); 2];
        // What waits goes first: so a full pipe behind us becomes a full pipe before us.
        if let Some(run) = self.run.as_ref().filter(|_| !speaks) {
            for (at, pipe) in pipes.iter_mut().zip(&run.pipes) {
                *at = waits.add(pipe.from.as_ref().map(AsFd::as_fd), PollFlags::POLLIN);
            }
        }
        waits.wait(self.run.as_ref().map_or(PollTimeout::NONE, Run::timeout))?;
        Ok(Ready {
            children: waits.is_ready(children),
            orders: waits.is_ready(orders),
            output: waits.is_ready(output),
            pipes: pipes.map(|pipe| waits.is_ready(pipe)),
        })
    }

    fn write(&mut self) -> io::Result<()> {
        match write(io::stdout(), &self.says) {
            Ok(len) => {
                self.says.drain(..len);
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads orders and obeys them.
    fn listen(&mut self) -> io::Result<()> {
        let mut piece = vec![0; PIECE_LEN_MAX];
        let len = match read(io::stdin(), &mut piece) {
            Ok(0) => {
                self.input = Input::Ended;
                self.abort();
                return Ok(());
            }
            Ok(len) => len,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut rest = &piece[..len];
        loop {
            let order = match self.orders.next(&mut rest) {
                Ok(Some(line)) => serde_json::from_slice(line),
                Ok(None) => return Ok(()),
                Err(too_long) => return Err(io::Error::other(too_long)),
            };
            match order {
                Ok(ExecOrder::Run { id, text }) => self.begin(id, &text)?,
                Ok(ExecOrder::Abort {}) => self.abort(),
                Err(error) => complain(&format!("an order is malformed: {error}")),
            }
        }
    }

    fn begin(&mut self, id: String, text: &str) -> io::Result<()> {
        if self.run.is_some() {
            self.refuse(&id, "another command runs");
            return Ok(());
        }
        let mut shell = Command::new("/bin/sh");
        shell
            .arg("-c")
            .arg(text)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match shell.process_group(0).spawn() {
            Ok(child) => child,
            Err(error) => {
                self.refuse(&id, &format!("cannot start /bin/sh: {error}"));
                return Ok(());
            }
        };
        let pipes = [
            Pipe::new(Stream::Out, child.stdout.take().map(OwnedFd::from))?,
            Pipe::new(Stream::Err, child.stderr.take().map(OwnedFd::from))?,
        ];
        self.say(&ExecLine::Started {
            id: Cow::Borrowed(&id),
        });
        self.run = Some(Run {
            id,
            child,
            pipes,
            abort: Abort::No,
        });
        Ok(())
    }

    fn refuse(&mut self, id: &str, error: &str) {
        self.say(&ExecLine::Refused {
            id: Cow::Borrowed(id),
            error: Cow::Borrowed(error),
        });
    }

    fn abort(&mut self) {
        if let Some(run) = self.run.as_mut().filter(|run| run.abort == Abort::No) {
            let kill_at = Instant::now() + GRACE;
            run.abort = Abort::Asked { kill_at };
            run.signal(Signal::SIGTERM);
        }
    }

    /// Says the end of a command whose process has ended.
    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some(_)) = self.children.read_signal() {}
        let Some(run) = &mut self.run else {
            return Ok(());
        };
        let Some(status) = run.child.try_wait()? else {
            return Ok(());
        };
        for pipe in &mut run.pipes {
            pipe.drain(&mut self.says)?;
        }
        // What an abort is to end is all of the command, not only its first process.
        if run.abort != Abort::No {
            run.signal(Signal::SIGKILL);
        }
        if let Some(run) = self.run.take() {
            self.say(&run.end(status));
        }
        Ok(())
    }

    fn say(&mut self, line: &ExecLine<'_, &str>) {
        append(line, &mut self.says);
    }
}

impl Run {
    fn signal(&self, signal: Signal) {
        // A group that is gone is what was wanted.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }

    fn timeout(&self) -> PollTimeout {
        let Abort::Asked { kill_at } = self.abort else {
            return PollTimeout::NONE;
        };
        let left = kill_at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn kill_when_due(&mut self) {
        if let Abort::Asked { kill_at } = self.abort
            && kill_at <= Instant::now()
        {
            self.abort = Abort::Killed;
            self.signal(Signal::SIGKILL);
        }
    }

    fn end(&self, status: ExitStatus) -> ExecLine<'_, &'static str> {
        ExecLine::Ended {
            id: Cow::Borrowed(&self.id),
            code: status.code(),
            signal: status.signal(),
        }
    }
}

impl Pipe {
    fn new(stream: Stream, from: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(from) = &from {
            never_block(from.as_fd())?;
        }
        Ok(Self {
            stream,
            from,
            cut: Vec::new(),
        })
    }

    /// Passes on what one reading gives, and says how much that was.
    fn pass_on(&mut self, says: &mut Vec<u8>) -> io::Result<usize> {
        let Some(from) = &self.from else {
            return Ok(0);
        };
        let mut piece = vec![0; PIECE_LEN_MAX];
        let had = self.cut.len();
        piece[..had].copy_from_slice(&self.cut);
        let len = match read(from, &mut piece[had..]) {
            Ok(len) => len,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        self.cut.clear();
        piece.truncate(had + len);
        if len == 0 {
            self.from = None;
        } else if let Err(error) = std::str::from_utf8(&piece)
            && error.error_len().is_none()
        {
            self.cut = piece.split_off(error.valid_up_to());
        }
        self.say(piece, says);
        Ok(len)
    }

    /// Passes on what is there already, and no more: its writer has ended, and whoever else writes may never.
    fn drain(&mut self, says: &mut Vec<u8>) -> io::Result<()> {
        let mut total = 0;
        while total < DRAIN_LEN_MAX {
            match self.pass_on(says)? {
                0 => break,
                len => total += len,
            }
        }
        let cut = std::mem::take(&mut self.cut);
        self.say(cut, says);
        Ok(())
    }

    fn say(&self, piece: Vec<u8>, says: &mut Vec<u8>) {
        if piece.is_empty() {
            return;
        }
        match (String::from_utf8(piece), self.stream) {
            (Ok(text), Stream::Out) => append(&ExecLine::Out(text), says),
            (Ok(text), Stream::Err) => append(&ExecLine::Err(text), says),
            (Err(bytes), Stream::Out) => append(&ExecLine::OutB64(Blob(bytes.into_bytes())), says),
            (Err(bytes), Stream::Err) => append(&ExecLine::ErrB64(Blob(bytes.into_bytes())), says),
        }
    }
}

fn append<T: Serialize>(line: &ExecLine<'_, T>, says: &mut Vec<u8>) {
    // Texts and numbers always have a JSON form, and a vector takes every byte.
    let written = serde_json::to_writer(&mut *says, line);
    debug_assert!(written.is_ok());
    says.push(b'\n');
}
