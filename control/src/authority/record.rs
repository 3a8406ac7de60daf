//! What the authority did and refused, a line each: `audit.jsonl`, appended, synced, turned over by size.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use oqto_protocol::id::{ControlId, RunnerId};
use serde::{Deserialize, Serialize};

use super::disk::{self, failed};
use super::ledger::Serial;
use super::store::{Authority, AuthorityError, Held, now_ms};
use crate::bounds::{AUDIT_FILES_MAX, AUDIT_LEN_MAX};

/// What came of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A runner got its first certificate for a token.
    Enrolled,
    /// A runner got a new certificate for the one it had.
    Renewed,
    /// A runner got nothing.
    Refused,
    /// A token was made.
    TokenCreated,
    /// A token was taken back before it was used.
    TokenRevoked,
    /// A runner, a control or a certificate is trusted no more.
    Revoked,
    /// A next root is trusted beside the one that signs.
    RootAdded,
    /// The next root signs from now on.
    RootSwitched,
    /// An old root is trusted no more.
    RootDropped,
}

/// One line. There is no secret in it: a token stands there by its public id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// When, Unix milliseconds.
    pub at: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// Which runner, as it calls itself when it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_id: Option<RunnerId>,
    /// Which control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_id: Option<ControlId>,
    /// Which certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
    /// From where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The public id of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Which root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Why, for people. The runner is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many refusals before this one were counted and not written, since they came too fast, from who failed in the
    /// handshake and may have made up its address, or while the disk took nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unwritten: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Record {
    pub(crate) fn new(outcome: Outcome) -> Self {
        Self {
            at: now_ms(),
            outcome,
            runner_id: None,
            control_id: None,
            serial: None,
            address: None,
            token: None,
            root: None,
            reason: None,
            unwritten: 0,
        }
    }

    pub(super) fn of_root(outcome: Outcome, root: &str) -> Self {
        Self {
            root: Some(root.to_owned()),
            ..Self::new(outcome)
        }
    }
}

impl Authority {
    /// Appends a line and syncs it, before what it tells of is done.
    pub(super) fn write_record(&self, _held: &Held, record: Record) -> Result<Record, AuthorityError> {
        let path = self.dir.join("audit.jsonl");
        let mut line = serde_json::to_vec(&record).map_err(|source| AuthorityError::Malformed {
            path: path.clone(),
            source,
        })?;
        line.push(b'\n');
        let mut len = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(failed("look at", &path)(source)),
        };
        if len > 0 && len + line.len() as u64 > AUDIT_LEN_MAX {
            self.turn_over()?;
            len = 0;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        append(&file, len, &line).map_err(failed("write", &path))?;
        if len == 0 {
            disk::sync_dir(&self.dir)?;
        }
        Ok(record)
    }

    /// Writes a line that no decision waits for.
    pub(crate) fn write_refusal(&self, record: Record) -> Result<Record, AuthorityError> {
        let held = self.hold()?;
        self.write_record(&held, record)
    }

    /// Every file becomes one older, and the oldest goes.
    fn turn_over(&self) -> Result<(), AuthorityError> {
        let name = |age: u32| match age {
            0 => self.dir.join("audit.jsonl"),
            age => self.dir.join(format!("audit.{age}.jsonl")),
        };
        for age in (0..AUDIT_FILES_MAX - 1).rev() {
            match fs::rename(name(age), name(age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("rename", &name(age))(error));
                }
                _ => {}
            }
        }
        disk::sync_dir(&self.dir)
    }
}

/// Puts a line behind the first `len` bytes of a file. A line that a crash has torn is ended before, so that it takes no
/// other with it; of one that cannot be written nothing stays.
fn append(file: &File, len: u64, line: &[u8]) -> io::Result<()> {
    let mut last = [b'\n'];
    if len > 0 {
        file.read_exact_at(&mut last, len - 1)?;
    }
    let end: &[u8] = if last == *b"\n" { b"" } else { b"\n" };
    let written = file
        .write_all_at(&[end, line].concat(), len)
        .and_then(|()| file.sync_data());
    if written.is_err() {
        // Where this fails too, the next line ends it.
        file.set_len(len).ok();
    }
    written
}
