//! What the agent is at, in place, on a terminal's standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use oqto_protocol::event::{Event, Phase};

use super::clean::one_line;

/// How often the picture moves.
pub(super) const TICK: Duration = Duration::from_millis(120);

const PICTURES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const TEXT_WIDTH_MAX: usize = 60;

/// Shows nothing unless standard error is a terminal.
pub(super) struct Spinner {
    enabled: bool,
    shown: bool,
    turn: usize,
    text: String,
}

impl Spinner {
    pub(super) fn new(wanted: bool) -> Self {
        Self {
            enabled: wanted && io::stderr().is_terminal(),
            shown: false,
            turn: 0,
            text: "starting".to_owned(),
        }
    }

    /// Whether it wants ticks.
    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Takes from an event what the agent is at.
    pub(super) fn watch(&mut self, event: &Event) {
        let text = match event {
            Event::AgentWorking(working) => {
                let phase = phase(working.phase);
                working
                    .detail
                    .as_ref()
                    .map_or(phase.to_owned(), |detail| format!("{phase}: {detail}"))
            }
            Event::ToolStart(tool) => format!("running {}", tool.name),
            Event::ToolEnd(_) => "thinking".to_owned(),
            Event::Status(status) => match &status.text {
                Some(text) => text.clone(),
                None => return,
            },
            _ => return,
        };
        self.text = one_line(&text, TEXT_WIDTH_MAX);
    }

    /// Shows the next picture.
    pub(super) fn tick(&mut self) {
        if self.enabled {
            self.turn = (self.turn + 1) % PICTURES.len();
            let picture = PICTURES.get(self.turn).unwrap_or(&"");
            write!(io::stderr(), "\r{picture} {}\x1b[K", self.text).ok();
            self.shown = true;
        }
    }

    /// Takes itself away, so that something else can be written.
    pub(super) fn hide(&mut self) {
        if std::mem::take(&mut self.shown) {
            write!(io::stderr(), "\r\x1b[K").ok();
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.hide();
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Generating => "writing",
        Phase::Thinking => "thinking",
        Phase::ToolRunning => "running a tool",
        Phase::Compacting => "shortening its context",
        Phase::Retrying => "waiting to try again",
        Phase::Initializing => "starting",
        _ => "working",
    }
}
