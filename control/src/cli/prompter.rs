//! Questions of the agent on a terminal: asked where its work is shown, one at a time, when nothing else is being said.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::termios::{FlushArg, tcflush};
use oqto_protocol::command::InputResponse;
use oqto_protocol::event::{Envelope, Event, InputRequest};
use tokio::sync::mpsc;

use super::ask::{self, Meant};
use super::output::note;

/// How many questions wait here; an agent has no more open.
const OPEN_MAX: usize = 64;

/// How many lines somebody may be ahead who types.
const LINES_MAX: usize = 16;

/// What is open, and which question stands on the terminal.
pub(super) struct Prompter {
    enabled: bool,
    open: VecDeque<Question>,
    /// Whether the first of them stands on the terminal, and is waited for.
    shown: bool,
    lines: Option<mpsc::Receiver<Option<String>>>,
}

struct Question {
    request: InputRequest,
    /// When it is over, Unix milliseconds.
    until: Option<u64>,
}

impl Prompter {
    /// One that asks, where it is wanted and there is somebody who could answer.
    pub(super) fn new(is_wanted: bool) -> Self {
        Self {
            enabled: is_wanted && io::stdin().is_terminal() && io::stderr().is_terminal(),
            open: VecDeque::new(),
            shown: false,
            lines: None,
        }
    }

    /// Takes an event in. Whether it is a question that is asked here, and need not be shown elsewhere.
    pub(super) fn watch(&mut self, envelope: &Envelope) -> bool {
        if !self.enabled {
            return false;
        }
        match &envelope.event {
            Event::InputNeeded(needed) if ask::name(&needed.request).is_some() => {
                if self.open.len() < OPEN_MAX {
                    let timeout = timeout(&needed.request);
                    self.open.push_back(Question {
                        request: needed.request.clone(),
                        until: timeout.map(|timeout| envelope.ts.saturating_add(timeout)),
                    });
                }
                true
            }
            Event::InputResolved(resolved) => {
                self.forget(&resolved.request_id);
                false
            }
            // With its run, or its process, whatever it asked is over.
            Event::SessionClosed(_) | Event::SessionDormant(_) => {
                self.open.clear();
                self.hide();
                false
            }
            _ => false,
        }
    }

    /// Whether somebody is being asked.
    pub(super) fn is_asking(&self) -> bool {
        self.shown
    }

    /// Whether there is a question to be put now.
    pub(super) fn is_due(&self) -> bool {
        self.enabled && !self.shown && !self.open.is_empty()
    }

    /// Puts the first question. What was typed before it could be read is no answer to it.
    pub(super) fn show(&mut self) {
        let Some(question) = self.open.front() else { return };
        let lines = self.lines.get_or_insert_with(read_lines);
        // A terminal that cannot be emptied is emptied below of what was read.
        let _emptied = tcflush(io::stdin(), FlushArg::TCIFLUSH);
        while lines.try_recv().is_ok() {}
        let until = question
            .until
            .map(|until| until.saturating_sub(now_ms()).div_ceil(1000));
        let until = until.map(|seconds| format!("in {seconds} s"));
        let text = ask::question(&question.request, until.as_deref());
        write!(io::stderr(), "{text}").ok();
        self.shown = true;
    }

    /// Makes room for something else; the question is put again after it.
    pub(super) fn hide(&mut self) {
        if std::mem::take(&mut self.shown) {
            writeln!(io::stderr()).ok();
        }
    }

    /// The next line that is typed while a question stands there; pending otherwise. `None` when there will be none.
    pub(super) async fn line(&mut self) -> Option<String> {
        match &mut self.lines {
            Some(lines) if self.shown => lines.recv().await.flatten(),
            _ => std::future::pending().await,
        }
    }

    /// What the line answers; a hint is shown where it answers nothing.
    pub(super) fn take(&mut self, line: Option<String>) -> Option<InputResponse> {
        let question = self.open.front()?;
        let Some(line) = line else {
            // Nobody can answer here any more. What is open is refused, not left to whoever waits.
            self.hide();
            self.enabled = false;
            note("standard input has ended: the question is refused, and later ones are only shown");
            return self
                .open
                .pop_front()
                .map(|question| ask::refused(&question.request));
        };
        self.shown = false;
        match ask::meant(&question.request, &line) {
            Meant::Answer(response) => {
                self.open.pop_front();
                Some(response)
            }
            Meant::Unclear(hint) => {
                note(&format!("  {hint}"));
                None
            }
        }
    }

    fn forget(&mut self, request_id: &str) {
        let at = self
            .open
            .iter()
            .position(|question| ask::name(&question.request) == Some(request_id));
        let Some(at) = at else { return };
        if at == 0 {
            self.hide();
        }
        self.open.remove(at);
    }
}

fn timeout(request: &InputRequest) -> Option<u64> {
    match request {
        InputRequest::SelectRequest(it) => it.timeout,
        InputRequest::ConfirmRequest(it) => it.timeout,
        InputRequest::TextRequest(it) => it.timeout,
        InputRequest::PermissionRequest(it) => it.timeout,
        InputRequest::Unknown(_) => None,
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Reads the terminal on a thread of its own, which ends with the process: such a read cannot be ended otherwise.
fn read_lines() -> mpsc::Receiver<Option<String>> {
    let (lines, read) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            // Bytes that are no text are no answer, and no end either.
            let line = line.unwrap_or_else(|_| "\u{fffd}".to_owned());
            if lines.blocking_send(Some(line)).is_err() {
                return;
            }
        }
        // Who asked may be gone.
        let _gone = lines.blocking_send(None);
    });
    read
}
