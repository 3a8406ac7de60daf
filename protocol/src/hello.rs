//! The first words on a connection. Nobody is connected before Hello was answered.

use serde::{Deserialize, Serialize};

use crate::codec::grows;
use crate::id::RunnerId;
use crate::role::ControlRole;
use crate::session::Capability;

/// What a control says first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest minor version that it speaks.
    pub minor: u16,
    /// The oldest that it still speaks.
    pub minor_min: u16,
    /// What it can do besides.
    #[serde(default)]
    pub features: Vec<String>,
    /// Its software, for people.
    pub build: BuildInfo,
}

grows!(Hello {
    minor,
    minor_min,
    features,
    build
});

/// What a runner answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The minor version that is spoken from here on.
    pub minor: u16,
    /// What it can do besides.
    #[serde(default)]
    pub features: Vec<String>,
    /// Its name; the same as in its certificate.
    pub runner_id: RunnerId,
    /// What it can start.
    #[serde(default)]
    pub harnesses: Vec<HarnessInfo>,
    /// What it takes.
    pub limits: Limits,
    /// Its software, for people.
    pub build: BuildInfo,
    /// What this control may do in every workspace; without it nothing but in those that it has a role in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<ControlRole>,
}

grows!(Welcome {
    minor,
    features,
    runner_id,
    harnesses,
    limits,
    build,
    role
});

/// A harness of a runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HarnessInfo {
    /// Its name.
    pub name: String,
    /// Where its program is; without it it is not installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Why it cannot be started, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// Its version, as its installation says; without it nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The versions that this runner was tested with, such as `0.74 to 0.87`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tested: Option<String>,
    /// What a human should know who starts it, such as a version that was not tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

grows!(HarnessInfo {
    name,
    program,
    problem,
    capabilities,
    version,
    tested,
    warning
});

/// What a runner takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// The longest frame, bytes.
    pub frame_len_max: u64,
    /// How many sessions may live.
    pub sessions_max: u32,
    /// How many streams of one connection may be open.
    pub streams_max: u32,
}

grows!(Limits {
    frame_len_max,
    sessions_max,
    streams_max
});

/// Software, for people; never acted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildInfo {
    /// Which.
    pub name: String,
    /// Its version.
    pub version: String,
}

grows!(BuildInfo { name, version });
