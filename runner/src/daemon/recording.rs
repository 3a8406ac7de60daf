//! The table `[audit]` of the configuration: how much of the disk the audit log may take, and who else hears of its records.

use std::path::PathBuf;

use serde::Deserialize;

use crate::audit::{AtBound, KEEP_LEN, Settings, Sink};

/// The least that it may be bounded to, bytes: some files, so that one that goes leaves others.
const KEEP_LEN_LEAST: u64 = 256 * 1024 * 1024;

/// Where the journal listens.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The table as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditDocument {
    keep_bytes: Option<u64>,
    at_bound: Option<AtBoundDocument>,
    #[serde(default)]
    journald: bool,
    syslog: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AtBoundDocument {
    Stop,
    Rotate,
}

/// A table that says nothing that can be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAudit {
    /// Too little to hold what a busy day brings.
    #[error("keep_bytes is {value}, it must be at least {KEEP_LEN_LEAST}")]
    KeepBytes {
        /// What it says.
        value: u64,
    },
    /// A path that is not absolute would mean another place at each start.
    #[error("syslog is {path}, it must be the absolute path of a socket, such as /dev/log")]
    Syslog {
        /// What it says.
        path: PathBuf,
    },
}

impl TryFrom<AuditDocument> for Settings {
    type Error = BadAudit;

    fn try_from(document: AuditDocument) -> Result<Self, BadAudit> {
        let AuditDocument {
            keep_bytes,
            at_bound,
            journald,
            syslog,
        } = document;
        let keep_len = keep_bytes.unwrap_or(KEEP_LEN);
        if keep_len < KEEP_LEN_LEAST {
            return Err(BadAudit::KeepBytes { value: keep_len });
        }
        let mut sinks = Vec::new();
        if journald {
            sinks.push(Sink::Journal(JOURNAL.into()));
        }
        match syslog {
            Some(path) if !path.is_absolute() => return Err(BadAudit::Syslog { path }),
            Some(path) => sinks.push(Sink::Syslog(path)),
            None => {}
        }
        Ok(Self {
            keep_len,
            at_bound: match at_bound {
                Some(AtBoundDocument::Rotate) => AtBound::Rotate,
                Some(AtBoundDocument::Stop) | None => AtBound::Stop,
            },
            sinks,
        })
    }
}
