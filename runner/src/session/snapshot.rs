//! A session at rest, as it is written down so that not all of its tape has to be read again.

use oqto_protocol::codec::{Blob, DecodeError, Wire, decode_all};
use oqto_protocol::cursor::Cursor;
use oqto_protocol::policy::SandboxReport;
use oqto_protocol::reply::Reply;
use serde::{Deserialize, Serialize};

use super::fact::Violations;
use super::machine::Session;
use super::setup::Setup;
use super::stage::Stage;
use super::strays::Strays;
use super::transcript::{Spoken, Transcript};
use crate::harness::{Dialect, Harness, HarnessState};

/// The form of snapshots; another one's are not read.
const VERSION: u32 = 1;

/// A session at rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    version: u32,
    now: u64,
    cursor: Cursor,
    next_idx: u64,
    own_writes: u64,
    dialect: Dialect,
    known: HarnessState,
    sandbox: Option<SandboxReport>,
    spoken: Vec<Spoken>,
    /// In their form on the wire, which keeps free-form values as they came.
    replies: Vec<Blob>,
    strays: Strays,
    /// Not there in those of before violations were told.
    #[serde(default)]
    violations: Violations,
    stderr: Vec<u8>,
}

/// A snapshot that cannot be gone on from. The whole tape can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSnapshot {
    /// Another version of the runner wrote it.
    #[error("the snapshot is of form {found}, not {VERSION}")]
    Version {
        /// Its form.
        found: u32,
    },
    /// It is of another harness.
    #[error("the snapshot is not of {harness}")]
    Harness {
        /// The harness that the session has.
        harness: Harness,
    },
    /// A reply in it cannot be read.
    #[error("a reply of the snapshot is malformed")]
    Reply(#[source] DecodeError),
}

fn encoded(reply: &Reply) -> Blob {
    let mut bytes = Vec::new();
    reply.encode(&mut bytes);
    Blob(bytes)
}

impl Session {
    /// The session, to be gone on with from here; `None` unless it is at rest.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.at_rest().then(|| Snapshot {
            version: VERSION,
            now: self.now,
            cursor: self.cursor,
            next_idx: self.transcript.next_idx(),
            own_writes: self.own_writes,
            dialect: self.dialect.clone(),
            known: self.known.clone(),
            sandbox: self.sandbox.clone(),
            spoken: self.transcript.spoken().to_vec(),
            replies: self.replies.kept().map(encoded).collect(),
            strays: self.strays,
            violations: self.violations.clone(),
            stderr: self.stderr.clone(),
        })
    }

    /// Goes on from a snapshot. `setup` is that of the session which it was taken of.
    ///
    /// # Errors
    /// When the snapshot is another version's, another harness's or damaged; the whole tape then has to be read.
    pub fn restore(snapshot: Snapshot, setup: Setup) -> Result<Self, BadSnapshot> {
        let Snapshot {
            version,
            now,
            cursor,
            next_idx,
            own_writes,
            dialect,
            known,
            sandbox,
            spoken,
            replies,
            strays,
            violations,
            stderr,
        } = snapshot;
        if version != VERSION {
            return Err(BadSnapshot::Version { found: version });
        }
        let harness = setup.harness;
        if dialect.harness() != harness {
            return Err(BadSnapshot::Harness { harness });
        }
        let mut session = Self {
            stage: Stage::Idle,
            dialect,
            known,
            sandbox,
            transcript: Transcript::new(next_idx, spoken),
            strays,
            violations,
            stderr,
            cursor,
            own_writes,
            ..Self::new(setup, now)
        };
        for Blob(bytes) in replies {
            session
                .replies
                .keep(decode_all::<Reply>(&bytes).map_err(BadSnapshot::Reply)?);
        }
        Ok(session)
    }
}
