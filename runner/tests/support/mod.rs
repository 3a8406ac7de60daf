//! What more than one of these tests begins with.

use oqto_protocol::cursor::Cursor;
use oqto_protocol::id::Digest;
use oqto_protocol::policy::{NetworkAccess, SandboxReport};
use oqto_runner::harness::{Edition, Harness};
use oqto_runner::session::Setup;

/// When a session begins, Unix milliseconds.
pub(crate) const T0: u64 = 1_000_000;

/// What a session of that harness is made of.
pub(crate) fn setup(harness: Harness) -> Setup {
    Setup {
        session_id: "s".parse().expect("a name"),
        harness,
        cwd: "/workspace".to_owned(),
        sandbox: SandboxReport {
            policy: "workspace".to_owned(),
            digest: Digest([0; 32]),
            network: NetworkAccess::None,
            layers: Vec::new(),
        },
        edition: Edition::default(),
        permissions: oqto_runner::policy::Permissions::default(),
        continue_session: None,
        title: None,
        provider: None,
        model: None,
        labels: std::collections::BTreeMap::default(),
        created_at: T0,
        cursor: Cursor { epoch: 1, seq: 0 },
        next_idx: 0,
    }
}
