//! The daemon: starts, listens, authorises, dispatches, stops.
//!
//! Floor: daemon. Everything a peer asks passes [`authorise`](authorise), which alone makes what
//! dispatch takes, after it is in the audit log.

mod ask;
mod authorise;
mod backoff;
mod config;
mod connection;
mod dial;
pub mod enrol;
mod health;
mod needs;
mod query;
mod ready;
mod recording;
mod records;
mod renewal;
mod roles;
#[cfg(test)]
mod roles_tests;
mod run;
mod subscription;

pub use config::{Config, ConfigError, Listen, Overrides};
pub use dial::{BadTarget, Target};
pub use recording::BadAudit;
pub use roles::{BadRole, Roles};
pub use run::{Options, RunError, run};

use std::sync::Arc;
use std::time::Instant;

use oqto_protocol::hello::BuildInfo;
use oqto_protocol::id::RunnerId;
use tokio::sync::{Mutex, watch};

use crate::attestation::Attestor;
use crate::audit;
use crate::identity::Credentials;
use crate::supervisor::Supervisor;

/// What every connection shares.
struct Daemon {
    runner_id: RunnerId,
    /// What it shows and whom it trusts.
    credentials: Arc<Credentials>,
    /// Held by the link that asks for a certificate anew: one at a time.
    renewing: Arc<Mutex<()>>,
    supervisor: Arc<Supervisor>,
    /// Which control may do what where.
    roles: Roles,
    /// What was decided, on disk.
    audit: Arc<audit::Log>,
    attestor: Attestor,
    /// How many peers are connected.
    present: watch::Sender<u32>,
    started: Instant,
}

/// Somebody is connected for as long as this lives.
struct Presence<'a>(&'a watch::Sender<u32>);

impl Daemon {
    fn presence(&self) -> Presence<'_> {
        self.present.send_modify(|present| *present += 1);
        Presence(&self.present)
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|present| *present = present.saturating_sub(1));
    }
}

/// This software, for people.
fn build_info() -> BuildInfo {
    BuildInfo {
        name: "oqto-runner".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
