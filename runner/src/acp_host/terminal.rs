//! One command of an agent's, and the end of what it printed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, pipe2, read};

use super::message::{Create, Done, Exit, Refusal};

/// How much of a command's output is kept, in bytes, also where the agent asks for more: it gives it to a model.
const OUTPUT_LEN_MAX: usize = 1024 * 1024;

/// How much is read from a command's pipe at once, in bytes: what it holds.
const PIECE_LEN_MAX: usize = 64 * 1024;

/// How much is read after a command has ended, in bytes: more is of somebody that it left behind.
const DRAIN_LEN_MAX: usize = 1024 * 1024;

/// How long a command that is to end may take to do that by itself.
const GRACE: Duration = Duration::from_secs(2);

/// A command that runs, or ran.
pub(super) struct Terminal {
    child: Child,
    /// What it writes to both of its outputs, in order; gone when nobody can any more.
    pipe: Option<OwnedFd>,
    kept: Kept,
    status: Option<ExitStatus>,
    kill: Kill,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kill {
    No,
    Asked { kill_at: Instant },
    Done,
}

impl Terminal {
    pub(super) fn start(asked: Create) -> Result<Self, Refusal> {
        if let Some(cwd) = asked.cwd.as_ref().filter(|cwd| !cwd.is_absolute()) {
            let message = format!("the directory {} is relative, it must be absolute", cwd.display());
            return Err(Refusal::invalid(message));
        }
        let named = asked.command.clone();
        Self::spawn(asked).map_err(|error| {
            let message = format!("cannot start {named}: {error}");
            match error.kind() {
                io::ErrorKind::NotFound => Refusal::not_found(message),
                _ => Refusal::failed(message),
            }
        })
    }

    fn spawn(asked: Create) -> io::Result<Self> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        crate::sys::never_block(ours.as_fd())?;
        let args = asked.args.unwrap_or_default();
        // Agents that give no arguments give a line for a shell.
        let mut command = match args.is_empty() {
            true => Command::new("/bin/sh"),
            false => Command::new(&asked.command),
        };
        match args.is_empty() {
            true => command.args(["-c", &asked.command]),
            false => command.args(args),
        };
        if let Some(cwd) = asked.cwd {
            command.current_dir(cwd);
        }
        let env = asked.env.into_iter().flatten();
        command
            .envs(env.map(|variable| (variable.name, variable.value)))
            .stdin(Stdio::null())
            .stdout(Stdio::from(theirs.try_clone()?))
            .stderr(Stdio::from(theirs))
            .process_group(0);
        let child = super::spawn(&mut command)?;
        // While this is held, the pipe has no end.
        drop(command);
        let limit = asked.output_byte_limit.map_or(OUTPUT_LEN_MAX, |limit| {
            usize::try_from(limit).unwrap_or(OUTPUT_LEN_MAX)
        });
        Ok(Self {
            child,
            pipe: Some(ours),
            kept: Kept::new(limit.min(OUTPUT_LEN_MAX)),
            status: None,
            kill: Kill::No,
        })
    }

    pub(super) fn pipe(&self) -> Option<&OwnedFd> {
        self.pipe.as_ref()
    }

    /// Reads what it printed, once, and says how much that was.
    pub(super) fn read(&mut self) -> io::Result<usize> {
        let Some(pipe) = &self.pipe else {
            return Ok(0);
        };
        let mut piece = [0; PIECE_LEN_MAX];
        match read(pipe, &mut piece) {
            Ok(0) => {
                self.pipe = None;
                Ok(0)
            }
            Ok(len) => {
                self.kept.push(&piece[..len]);
                Ok(len)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has ended since this was asked last; what it printed is then read.
    pub(super) fn ends(&mut self) -> io::Result<bool> {
        if self.status.is_some() {
            return Ok(false);
        }
        let Some(status) = self.child.try_wait()? else {
            return Ok(false);
        };
        let mut left = DRAIN_LEN_MAX;
        while left > 0 {
            match self.read()? {
                0 => break,
                len => left = left.saturating_sub(len),
            }
        }
        // What is to end is all of the command, not only its first process.
        if self.kill != Kill::No {
            self.signal(Signal::SIGKILL);
        }
        self.kill = Kill::Done;
        self.status = Some(status);
        Ok(true)
    }

    /// Asks it to end, and ends it when it has not after a while.
    pub(super) fn kill(&mut self) {
        if self.status.is_none() && self.kill == Kill::No {
            let kill_at = Instant::now() + GRACE;
            self.kill = Kill::Asked { kill_at };
            self.signal(Signal::SIGTERM);
        }
    }

    /// Ends it at once.
    pub(super) fn end(&mut self) {
        if self.status.is_none() {
            self.kill = Kill::Done;
            self.signal(Signal::SIGKILL);
        }
    }

    /// When it is ended, where it was asked to end.
    pub(super) fn kill_at(&self) -> Option<Instant> {
        match self.kill {
            Kill::Asked { kill_at } => Some(kill_at),
            Kill::No | Kill::Done => None,
        }
    }

    fn signal(&self, signal: Signal) {
        // A group that is gone is what was wanted.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        self.status.map(|status| Exit {
            exit_code: status.code(),
            signal: status
                .signal()
                .map(|number| Signal::try_from(number).map_or("unknown", Signal::as_str)),
        })
    }

    pub(super) fn output(&mut self) -> Done {
        Done::Output {
            output: self.kept.text(self.pipe.is_none() || self.status.is_some()),
            truncated: self.kept.truncated,
            exit_status: self.exit(),
        }
    }
}

/// The end of what was printed.
struct Kept {
    bytes: VecDeque<u8>,
    limit: usize,
    truncated: bool,
}

impl Kept {
    fn new(limit: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            limit,
            truncated: false,
        }
    }

    fn push(&mut self, piece: &[u8]) {
        let surplus = (self.bytes.len() + piece.len()).saturating_sub(self.limit);
        self.truncated |= surplus > 0;
        self.bytes.drain(..surplus.min(self.bytes.len()));
        self.bytes
            .extend(&piece[piece.len().saturating_sub(self.limit)..]);
    }

    /// The text of it. While more may come, a character whose rest is not there yet is left out.
    fn text(&mut self, whole: bool) -> String {
        let mut bytes: &[u8] = self.bytes.make_contiguous();
        if self.truncated {
            // The rest of a character whose beginning is gone: at most three bytes.
            let rest = bytes
                .iter()
                .take(3)
                .take_while(|byte| *byte & 0xc0 == 0x80)
                .count();
            bytes = &bytes[rest..];
        }
        if !whole && let Some(cut) = cut_character(bytes) {
            bytes = &bytes[..cut];
        }
        let text = String::from_utf8_lossy(bytes);
        // What stands for bytes that are no text can be longer than they were.
        let surplus = text.len().saturating_sub(self.limit);
        let at = (surplus..=text.len())
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(text.len());
        self.truncated |= at > 0;
        text[at..].to_owned()
    }
}

/// Where the last character begins, if its end is not there.
fn cut_character(bytes: &[u8]) -> Option<usize> {
    let tail = bytes.len().saturating_sub(3);
    (tail..bytes.len()).find(|at| {
        std::str::from_utf8(&bytes[*at..])
            .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_the_end_and_no_character_is_cut() {
        let text = "日本語 🦀 café".repeat(7);
        for limit in 0..text.len() + 2 {
            for size in [1, 2, 3, 5, 64, 1000] {
                let mut kept = Kept::new(limit);
                for piece in text.as_bytes().chunks(size) {
                    kept.push(piece);
                    assert!(!kept.text(false).contains('\u{fffd}'));
                }
                let end = kept.text(true);
                assert!(text.ends_with(&end) && end.len() <= limit, "{limit}: {end}");
                assert!(end.len() + 4 > limit.min(text.len()), "{limit}: {end}");
                assert_eq!(kept.truncated, end != text);
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_stay_within_the_limit() {
        let mut kept = Kept::new(100);
        kept.push(&[0xff; 100]);
        let text = kept.text(true);
        assert_eq!(text, "\u{fffd}".repeat(33));
        assert!(kept.truncated);
    }
}
