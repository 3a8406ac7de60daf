//! What a session is made of, decided before its harness is started.

use std::collections::BTreeMap;

use oqto_protocol::cursor::Cursor;
use oqto_protocol::id::SessionId;
use oqto_protocol::policy::SandboxReport;

use crate::harness::{Edition, Harness};
use crate::policy::Permissions;

/// What a session is made of. The same for every reading of one tape.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// Its name.
    pub session_id: SessionId,
    /// Its harness.
    pub harness: Harness,
    /// Its workspace.
    pub cwd: String,
    /// What is to hold it; the layers are those that the kernel will have accepted.
    pub sandbox: SandboxReport,
    /// Which edition of its harness it is.
    pub edition: Edition,
    /// Who answers when it asks to be allowed something.
    pub permissions: Permissions,
    /// The session of the harness's own that it goes on with, where its user named one.
    pub continue_session: Option<String>,
    /// What it is called.
    pub title: Option<String>,
    /// Whose model was asked for.
    pub provider: Option<String>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The embedder's marks.
    pub labels: BTreeMap<String, String>,
    /// When it was made, Unix milliseconds.
    pub created_at: u64,
    /// The newest event of before this tape.
    pub cursor: Cursor,
    /// How many messages there were before this tape.
    pub next_idx: u64,
}
