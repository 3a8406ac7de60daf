//! Between the runner and an agent of the Agent Client Protocol, inside the agent's sandbox: serves the files and
//! terminals that the agent asks its client for, with what the sandbox allows, and passes everything else on.
//!
//! Floor: shell. Uses `bounds`, `sys`, `waits`, `harness` (what may be served). One thread, one poll loop, no runtime.
//! Promises:
//! - every byte of the runner reaches the agent, and every line of the agent the runner, in order and as it was, except
//!   the requests that are served: they are served in order, and their answers stand between the runner's lines;
//! - nothing is read from one side while the other does not take what was read before;
//! - the agent's end is this program's: what it said is passed on, its terminals are ended, its exit code or signal taken.
//!
//! What the agent may not do it is not served: a file or a command is opened and started by this process, which the
//! same kernel holds by the same rules. Lines that cannot be such a request are searched and never parsed.
//!
//! Bounds: of a line of the agent's [`HARNESS_LINE_MAX`] are held, and one that is longer is passed on in pieces; as much of
//! requests, which are served while less than [`ANSWERS_LEN_MAX`] wait to be written; files in `files`, terminals in
//! `terminal` and `terminals`.

mod files;
mod message;
mod queue;
mod terminal;
mod terminals;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use memchr::{memchr, memmem, memrchr};
use nix::errno::Errno;
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::read;

use crate::bounds::HARNESS_LINE_MAX;
use crate::harness::Serve;
use crate::sys::never_block;
use crate::waits::Waits;
use message::{Asked, Request};
use queue::Queue;
use terminals::Terminals;

/// How much is read from a pipe at once, in bytes: what a pipe holds.
const PIECE_LEN_MAX: usize = 64 * 1024;

/// How much room is kept for the agent's next lines, in bytes: more than nearly every line needs.
const KEPT_MAX: usize = 256 * 1024;

/// How much may wait to be written to the agent before its next request is looked at, in bytes.
const ANSWERS_LEN_MAX: usize = 1024 * 1024;

/// How much of an agent's output is read after it has ended, in bytes. A pipe holds 64 KiB unless its writer made it
/// larger, up to this; more is of somebody who still writes.
const DRAIN_LEN_MAX: usize = 1024 * 1024;

/// Starts the agent and serves it until it ends; its exit code is the program's.
#[must_use]
pub fn serve(serve: Serve, program: &OsStr, args: impl Iterator<Item = OsString>) -> ExitCode {
    let ended = Host::new(serve, program, args).and_then(|mut host| {
        let ended = host.run();
        if ended.is_err() {
            // It may have ended meanwhile.
            let _ = host.agent.kill();
            host.terminals.end();
        }
        ended
    });
    match ended {
        Ok(status) => end_as(status),
        Err(error) => {
            // If standard error is gone nobody listens.
            let _ = writeln!(io::stderr(), "acp host: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends as the agent did.
fn end_as(status: ExitStatus) -> ExitCode {
    if let Some(number) = status.signal() {
        if let Ok(of_agent) = Signal::try_from(number) {
            let mut it = SigSet::empty();
            it.add(of_agent);
            // A signal that this program is deaf to would leave it alive.
            let _ = it.thread_unblock();
            let _ = raise(of_agent);
        }
        return ExitCode::from(128_u8.saturating_add(u8::try_from(number).unwrap_or(0)));
    }
    ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
    )
}

struct Host {
    serve: Serve,
    agent: Child,
    /// The agent's standard input; gone when it or the runner has closed it.
    input: Option<OwnedFd>,
    /// The agent's standard output; gone when it has ended.
    output: Option<OwnedFd>,
    runner: Runner,
    /// What the agent is to be told.
    down: Queue,
    /// Answers that wait for the end of a line of the runner's.
    answers: Vec<u8>,
    /// Whether what the runner said so far ends with a line.
    line: Line,
    /// What the agent said and nobody looked at yet.
    heard: Heard,
    /// Requests that wait until there is room for their answers, lines, and how long they are together.
    held: VecDeque<Box<[u8]>>,
    held_len: usize,
    /// What the runner is to be told.
    up: Queue,
    terminals: Terminals,
    signals: SignalFd,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Runner {
    Speaks,
    /// It has closed our standard input.
    Silent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Whole,
    Open,
}

/// What the agent said and was not passed on yet.
#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    /// How much of it stands in whole lines.
    whole: usize,
    /// Whether it begins within a line whose beginning was too long to be held.
    within: bool,
}

/// What can be done without waiting.
struct Ready {
    signals: bool,
    runner: bool,
    up: bool,
    agent: bool,
    down: bool,
    terminals: Vec<u64>,
}

impl Host {
    fn new(serve: Serve, program: &OsStr, args: impl Iterator<Item = OsString>) -> io::Result<Self> {
        let mut agent = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                let named = format!("cannot start {}: {error}", program.to_string_lossy());
                io::Error::new(error.kind(), named)
            })?;
        let input = agent.stdin.take().map(OwnedFd::from);
        let output = agent.stdout.take().map(OwnedFd::from);
        for pipe in input.iter().chain(&output) {
            never_block(pipe.as_fd())?;
        }
        never_block(io::stdout().as_fd())?;
        let taken = taken_signals();
        taken.thread_block()?;
        let signals = SignalFd::with_flags(&taken, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self {
            serve,
            agent,
            input,
            output,
            runner: Runner::Speaks,
            down: Queue::default(),
            answers: Vec::new(),
            line: Line::Whole,
            heard: Heard::default(),
            held: VecDeque::new(),
            held_len: 0,
            up: Queue::default(),
            terminals: Terminals::default(),
            signals,
        })
    }

    fn run(&mut self) -> io::Result<ExitStatus> {
        loop {
            // Not only when a signal says so: it may have come while a command was started, which lets signals through.
            if let Some(status) = self.reap()? {
                return self.end(status);
            }
            let ready = self.wait()?;
            if ready.signals {
                while let Ok(Some(_)) = self.signals.read_signal() {}
            }
            if ready.up {
                self.up.write_to(io::stdout().as_fd())?;
            }
            if ready.down {
                self.tell()?;
            }
            if ready.runner {
                self.listen()?;
            }
            if ready.agent {
                self.hear()?;
            }
            for id in ready.terminals {
                self.terminals.read(id)?;
            }
            self.terminals.kill_when_due();
            self.consider();
            self.close_input();
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let mut waits = Waits::default();
        let signals = waits.add(Some(self.signals.as_fd()), PollFlags::POLLIN);
        let listens = self.runner == Runner::Speaks && self.input.is_some() && self.down.is_empty();
        // What stands behind requests that wait is read: an agent must come to reading its answers.
        let hears = self.up.is_empty() && self.held_len <= HARNESS_LINE_MAX;
        let output = self.output.as_ref().filter(|_| hears).map(AsFd::as_fd);
        let input = self.input.as_ref().filter(|_| !self.down.is_empty());
        let runner = waits.add(listens.then(|| stdin.as_fd()), PollFlags::POLLIN);
        let speaks = !self.up.is_empty();
        let up = waits.add(speaks.then(|| stdout.as_fd()), PollFlags::POLLOUT);
        let agent = waits.add(output, PollFlags::POLLIN);
        let down = waits.add(input.map(AsFd::as_fd), PollFlags::POLLOUT);
        let pipes = self.terminals.pipes();
        let pipes: Vec<_> = pipes
            .map(|(id, pipe)| (id, waits.add(Some(pipe), PollFlags::POLLIN)))
            .collect();
        let timeout = self.terminals.due_in().map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        waits.wait(timeout)?;
        Ok(Ready {
            signals: waits.is_ready(signals),
            runner: waits.is_ready(runner),
            up: waits.is_ready(up),
            agent: waits.is_ready(agent),
            down: waits.is_ready(down),
            terminals: pipes
                .into_iter()
                .filter(|(_, at)| waits.is_ready(*at))
                .map(|(id, _)| id)
                .collect(),
        })
    }

    /// Takes what the runner says. Answers go where one of its lines ends.
    fn listen(&mut self) -> io::Result<()> {
        let mut piece = vec![0; PIECE_LEN_MAX];
        let said = match read(io::stdin(), &mut piece) {
            Ok(0) => {
                self.runner = Runner::Silent;
                // Of a line that will never end the agent understands nothing, and no answer behind it.
                self.line = Line::Whole;
                return Ok(());
            }
            Ok(len) => &piece[..len],
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let whole = memrchr(b'\n', said).map_or(0, |end| end + 1);
        self.down.push(&said[..whole]);
        if whole > 0 {
            self.down.push(&std::mem::take(&mut self.answers));
            self.line = Line::Whole;
        }
        self.down.push(&said[whole..]);
        if whole < said.len() {
            self.line = Line::Open;
        }
        Ok(())
    }

    /// Writes to the agent. One that has closed its input is told nothing more, and lives on.
    fn tell(&mut self) -> io::Result<()> {
        let Some(input) = &self.input else {
            return Ok(());
        };
        match self.down.write_to(input.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.input = None;
                self.down.clear();
                Ok(())
            }
            done => done,
        }
    }

    /// Closes the agent's input when the runner has closed ours and everything is said.
    fn close_input(&mut self) {
        if self.runner == Runner::Silent && self.down.is_empty() {
            self.input = None;
        }
    }

    /// Reads what the agent says, and says how much that was.
    fn hear(&mut self) -> io::Result<usize> {
        let Some(output) = &self.output else {
            return Ok(0);
        };
        let had = self.heard.bytes.len();
        self.heard.bytes.resize(had + PIECE_LEN_MAX, 0);
        let got = read(output, &mut self.heard.bytes[had..]);
        self.heard.bytes.truncate(had + got.unwrap_or(0));
        match got {
            Ok(0) => self.output = None,
            Ok(_) => {
                if let Some(end) = memrchr(b'\n', &self.heard.bytes[had..]) {
                    self.heard.whole = had + end + 1;
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(got.unwrap_or(0))
    }

    /// Passes on or takes what was heard in whole lines, and serves what there is room for the answer of.
    fn consider(&mut self) {
        let mut heard = std::mem::take(&mut self.heard);
        let mut lines = &heard.bytes[..heard.whole];
        if heard.within && !lines.is_empty() {
            let end = memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
            self.up.push(&lines[..end]);
            lines = &lines[end..];
            heard.within = false;
        }
        if !self.may_ask(lines) {
            self.up.push(lines);
            lines = &[];
        }
        while !lines.is_empty() {
            let end = memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
            if !(self.may_ask(&lines[..end]) && self.take(&lines[..end])) {
                self.up.push(&lines[..end]);
            }
            lines = &lines[end..];
        }
        heard.bytes.drain(..heard.whole);
        heard.whole = 0;
        if heard.within || heard.bytes.len() > HARNESS_LINE_MAX {
            // The runner says what becomes of a line that is too long; nobody has to hold it for that.
            self.up.push(&heard.bytes);
            heard.within = true;
            heard.bytes.clear();
        }
        if heard.bytes.capacity() > KEPT_MAX && heard.bytes.len() < PIECE_LEN_MAX {
            heard.bytes.shrink_to(PIECE_LEN_MAX * 2);
        }
        self.heard = heard;
        while self.owes() < ANSWERS_LEN_MAX
            && let Some(line) = self.held.pop_front()
        {
            self.held_len -= line.len();
            self.serve(&line);
        }
    }

    /// How much the agent is to be told, in bytes.
    fn owes(&self) -> usize {
        self.down.len() + self.answers.len()
    }

    /// Whether something in these lines may be for us.
    fn may_ask(&self, lines: &[u8]) -> bool {
        let has = |needle: &[u8]| memmem::find(lines, needle).is_some();
        (self.serve.fs && has(b"\"fs"))
            || (self.serve.terminal && has(b"\"terminal"))
            || (self.terminals.has_waiting() && has(b"\"$"))
    }

    /// Takes a line that is for us; else says that it is not.
    fn take(&mut self, line: &[u8]) -> bool {
        match message::read(line, self.serve) {
            Some(Asked::Request { .. }) => {
                self.held_len += line.len();
                self.held.push_back(line.into());
                true
            }
            Some(Asked::Cancel { id }) => {
                let waited = self.terminals.cancel(id);
                if waited {
                    self.answer(id.get(), &Err(message::Refusal::cancelled()));
                }
                waited
            }
            None => false,
        }
    }

    fn serve(&mut self, line: &[u8]) {
        let Some(Asked::Request { id, request }) = message::read(line, self.serve) else {
            return;
        };
        let outcome = match request {
            Request::Read(params) => Some(files::read(&params)),
            Request::Write(params) => Some(files::write(&params)),
            Request::Terminal(request) => self.terminals.serve(request, id),
            Request::Malformed(refusal) => Some(Err(refusal)),
        };
        if let Some(outcome) = outcome {
            self.answer(id.get(), &outcome);
        }
    }

    fn answer(&mut self, id: &str, outcome: &message::Outcome) {
        if self.input.is_none() {
            return;
        }
        message::answer(id, outcome, &mut self.answers);
        if self.line == Line::Whole {
            self.down.push(&std::mem::take(&mut self.answers));
        }
    }

    /// Answers who waited for a terminal that has ended; gives the agent's status when that has.
    fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        for (id, outcome) in self.terminals.reap()? {
            self.answer(id.get(), &outcome);
        }
        self.agent.try_wait()
    }

    /// Passes on what the agent said last, and ends what it left in terminals.
    fn end(&mut self, status: ExitStatus) -> io::Result<ExitStatus> {
        self.input = None;
        self.down.clear();
        let mut left = DRAIN_LEN_MAX;
        while left > 0 {
            let len = self.hear()?;
            if len == 0 {
                break;
            }
            left = left.saturating_sub(len);
            self.consider();
        }
        self.up.push(&std::mem::take(&mut self.heard.bytes));
        self.terminals.end();
        while !self.up.is_empty() {
            let stdout = io::stdout();
            let mut waits = Waits::default();
            waits.add(Some(stdout.as_fd()), PollFlags::POLLOUT);
            waits.wait(PollTimeout::NONE)?;
            self.up.write_to(stdout.as_fd())?;
        }
        Ok(status)
    }
}

/// What is taken as it comes. Whoever asks a session's processes to end asks the agent too, and its end is ours.
fn taken_signals() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals
}

/// Starts a command that hears every signal: what is blocked here would be blocked there.
fn spawn(command: &mut Command) -> io::Result<Child> {
    taken_signals().thread_unblock()?;
    let child = command.spawn();
    taken_signals().thread_block()?;
    child
}
