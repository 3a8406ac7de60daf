//! Standard output and standard error.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};

use serde::Serialize;

use super::error::CliError;

/// Standard output, buffered until [`flush`](Self::flush). When nobody reads it any more that is an error of its own.
pub(super) struct Output {
    stdout: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(super) fn new() -> Self {
        Self {
            stdout: BufWriter::with_capacity(64 * 1024, io::stdout().lock()),
        }
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.stdout.write_all(bytes).map_err(CliError::Stdout)
    }

    /// One JSON value on a line.
    pub(super) fn json<T: Serialize>(&mut self, value: &T) -> Result<(), CliError> {
        serde_json::to_writer(&mut self.stdout, value).map_err(|error| CliError::Stdout(error.into()))?;
        self.bytes(b"\n")
    }

    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        self.stdout.flush().map_err(CliError::Stdout)
    }
}

/// Whether standard output takes colours.
pub(super) fn has_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A line for the human on standard error. When nobody reads that, nobody misses it.
pub(super) fn note(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}
