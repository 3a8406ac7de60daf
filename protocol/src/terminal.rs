//! Terminals inside a session's sandbox.

use serde::{Deserialize, Serialize};

use crate::codec::{Blob, grows};
use crate::id::SessionId;

/// Opens a terminal, or goes on with one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TerminalOpen {
    /// In whose sandbox.
    pub session_id: SessionId,
    /// Which one to go on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_id: Option<String>,
    /// Its height, characters.
    pub rows: u16,
    /// Its width, characters.
    pub cols: u16,
    /// What to run; empty for a shell.
    #[serde(default)]
    pub command: Vec<String>,
}

grows!(TerminalOpen {
    session_id,
    terminal_id,
    rows,
    cols,
    command
});

/// The terminal stands; its output follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TerminalOpened {
    /// Its name.
    pub terminal_id: String,
    /// Where its output goes on, bytes since its start.
    pub offset: u64,
}

grows!(TerminalOpened { terminal_id, offset });

/// What was typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TerminalInput {
    /// The bytes.
    pub data: Blob,
}

grows!(TerminalInput { data });

/// What it shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TerminalOutput {
    /// Where it stands, bytes since its start.
    pub offset: u64,
    /// The bytes.
    pub data: Blob,
}

grows!(TerminalOutput { offset, data });

/// It has another size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TerminalResize {
    /// Its height, characters.
    pub rows: u16,
    /// Its width, characters.
    pub cols: u16,
}

grows!(TerminalResize { rows, cols });

/// Its program has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TerminalExit {
    /// Its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

grows!(TerminalExit { code, signal });
