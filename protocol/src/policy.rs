//! Sandbox policies as seen from outside, and what holds a session.

use serde::{Deserialize, Serialize};

use crate::codec::{grows, words};
use crate::id::Digest;

/// What holds a session: made from what the kernel accepted, not from what was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxReport {
    /// The policy's name.
    pub policy: String,
    /// The digest of the effective policy.
    pub digest: Digest,
    /// What of the network is there.
    pub network: NetworkAccess,
    /// Each layer.
    #[serde(default)]
    pub layers: Vec<LayerReport>,
}

grows!(SandboxReport {
    policy,
    digest,
    network,
    layers
});

words! {
    /// What a sandbox has of the network.
    pub enum NetworkAccess {
        /// Its own loopback, nothing else.
        0 "none" => None,
        /// What the policy names, through the egress gateway.
        1 "gateway" => Gateway,
        /// All that the host has.
        2 "host" => Host,
    }
}

/// How one layer stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Its name: `namespaces`, `mounts`, `capabilities`, `no_new_privs`, `landlock`, `seccomp`, `rlimits`.
    pub layer: String,
    /// Whether it holds.
    pub state: LayerState,
    /// More, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

grows!(LayerReport { layer, state, detail });

words! {
    /// Whether a layer holds.
    pub enum LayerState {
        /// The kernel accepted it.
        0 "enforced" => Enforced,
        /// The host lacks it, and the policy said that it may.
        1 "absent" => Absent,
        /// The policy leaves it out.
        2 "off" => Off,
    }
}

/// A policy in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// Its name.
    pub name: String,
    /// For whom it is.
    pub description: String,
    /// The digest of what it says.
    pub digest: Digest,
}

grows!(PolicyInfo {
    name,
    description,
    digest
});

/// A policy as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyText {
    /// What a list says of it.
    pub info: PolicyInfo,
    /// The TOML.
    pub text: String,
}

grows!(PolicyText { info, text });
