//! Audit sessions: the number under which the kernel's records name all processes that came of one. A shim begins its
//! own by `sys::begin_audit_session`.

use std::fs;

use serde::{Deserialize, Serialize};

/// What the kernel says where no session was begun.
const UNSET: u32 = u32::MAX;

/// An audit session that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuditSession(u32);

impl AuditSession {
    /// The session of that number; `None` for the number that means none.
    #[must_use]
    pub fn numbered(number: u32) -> Option<Self> {
        (number != UNSET).then_some(Self(number))
    }

    /// The session of a process; `None` when it has none, is gone, or the kernel was built without audit.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        Self::read(&pid.to_string())
    }

    /// The session of this process.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::read("self")
    }

    fn read(process: &str) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/sessionid")).ok()?;
        Self::numbered(text.trim().parse().ok()?)
    }
}
