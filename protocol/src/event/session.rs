//! The life of a session.

use serde::{Deserialize, Serialize};

use crate::codec::grows;
use crate::policy::SandboxReport;
use crate::session::Capability;

/// The session exists and its sandbox holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionCreated {
    /// Whether it goes on with an earlier session of the harness.
    pub resumed: bool,
    /// The harness.
    pub harness: String,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// What holds it.
    pub sandbox: SandboxReport,
    /// The harness's version, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

grows!(SessionCreated {
    resumed,
    harness,
    capabilities,
    sandbox,
    version
});

/// The session has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionClosed {
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

grows!(SessionClosed { reason });

/// Nothing of the session runs any more, and it can be started again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionDormant {
    /// Why, for people.
    pub reason: String,
}

grows!(SessionDormant { reason });

/// The session has another title.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TitleChanged {
    /// The title.
    pub title: String,
    /// A short form of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readable_id: Option<String>,
}

grows!(TitleChanged { title, readable_id });

/// How the session's process does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The process.
    pub process: ProcessHealth,
}

grows!(Heartbeat { process });

/// How a process does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessHealth {
    /// Whether it lives.
    pub alive: bool,
    /// Its id on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its resident memory, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// Its share of one processor, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<f64>,
    /// How long it lives, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_s: Option<u64>,
}

grows!(ProcessHealth {
    alive,
    pid,
    rss_bytes,
    cpu_pct,
    uptime_s
});

/// The session goes on after something died.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovered {
    /// What was done.
    pub how: String,
    /// What is lost, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// What holds it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxReport>,
}

grows!(Recovered { how, lost, sandbox });
