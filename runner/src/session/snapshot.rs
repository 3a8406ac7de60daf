//! A session at rest, as it is written down so that not all of its tape has to be read again.
//!
//! It has two parts. The [`Outline`] is what any build has to know to go on under the right numbers, and stays readable
//! by every other build. The rest is of one build: another one whose form differs goes on from the outline alone, and
//! asks the harness again what it is.

use oqto_protocol::codec::{Blob, Wire, decode_all};
use oqto_protocol::cursor::Cursor;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::policy::SandboxReport;
use oqto_protocol::reply::Reply;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::action::Action;
use super::bounds::REPLY_NOTED_MAX;
use super::fact::Violations;
use super::machine::{Session, kept_max};
use super::setup::Setup;
use super::stage::{Down, Stage};
use super::strays::Strays;
use super::transcript::{Spoken, Transcript};
use crate::harness::{Dialect, HarnessState, Tongue};

/// The form of what is of one build.
const VERSION: u32 = 2;

/// A session at rest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    outline: Outline,
    /// What only builds of this version understand; anything at all to others.
    version: u32,
    inside: Box<RawValue>,
}

/// What every build has to know of a session. A field that is not there has its default, one that is not known is
/// left out; what a field means never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outline {
    /// When it was, Unix milliseconds.
    now: u64,
    /// The newest event.
    cursor: Cursor,
    /// The number of the next message.
    next_idx: u64,
    /// How many writes were the session's own.
    own_writes: u64,
    /// The harness's own session.
    #[serde(default)]
    own_session: Option<String>,
    /// Whose model it used.
    #[serde(default)]
    provider: Option<String>,
    /// The model that it used.
    #[serde(default)]
    model: Option<String>,
    /// Nothing of it runs.
    #[serde(default)]
    down: Option<Down>,
    /// It has ended.
    #[serde(default)]
    closed: bool,
    /// When its harness died, lately.
    #[serde(default)]
    falls: Vec<u64>,
    /// The replies that are kept, in their form on the wire.
    #[serde(default)]
    replies: Vec<Blob>,
}

/// What is of one build.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inside {
    dialect: Dialect,
    known: HarnessState,
    sandbox: Option<SandboxReport>,
    spoken: Vec<Spoken>,
    strays: Strays,
    violations: Violations,
    stderr: String,
}

/// A snapshot of which only the outline can be used.
#[derive(Debug, thiserror::Error)]
pub enum BadSnapshot {
    /// Another version of the runner wrote it.
    #[error("the snapshot is of form {found}, not {VERSION}")]
    Version {
        /// Its form.
        found: u32,
    },
    /// It is of another harness.
    #[error("the snapshot is not of what its harness speaks")]
    Harness,
    /// It cannot be read.
    #[error("the snapshot is malformed")]
    Malformed(#[source] serde_json::Error),
}

impl Snapshot {
    /// What every build has to know.
    #[must_use]
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    fn inside(&self, tongue: Tongue) -> Result<Inside, BadSnapshot> {
        if self.version != VERSION {
            return Err(BadSnapshot::Version { found: self.version });
        }
        let inside: Inside = serde_json::from_str(self.inside.get()).map_err(BadSnapshot::Malformed)?;
        if inside.dialect.tongue() != tongue {
            return Err(BadSnapshot::Harness);
        }
        Ok(inside)
    }
}

impl Outline {
    /// Whether nothing of the session runs.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.down.is_some()
    }

    /// Whether the session has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The number of the last event before.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.cursor.seq
    }
}

/// A reply as it is written down: one with much in it, which somebody only asked for, can be asked for again.
fn noted(reply: &Reply) -> Blob {
    let encoded = |reply: &Reply| {
        let mut bytes = Vec::new();
        reply.encode(&mut bytes);
        bytes
    };
    let bytes = encoded(reply);
    if bytes.len() <= REPLY_NOTED_MAX {
        return Blob(bytes);
    }
    let message = format!(
        "{} was answered before the runner was started again, and its answer of {} bytes is not kept; ask again",
        reply.cmd,
        bytes.len()
    );
    Blob(encoded(&Reply {
        success: false,
        data: None,
        error: Some(Fault::new(FaultCode::Limit, message)),
        ..reply.clone()
    }))
}

impl Session {
    /// The session, to be gone on with from here; `None` unless it is at rest.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        if !self.at_rest() {
            return None;
        }
        let inside = Inside {
            dialect: self.dialect.clone(),
            known: self.known.clone(),
            sandbox: self.sandbox.clone(),
            spoken: self.transcript.spoken().to_vec(),
            strays: self.strays,
            violations: self.violations.clone(),
            stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
        };
        let down = match &self.stage {
            Stage::Down(down) => Some(down.clone()),
            _ => None,
        };
        let continuation = self.continuation();
        Some(Snapshot {
            outline: Outline {
                now: self.now,
                cursor: self.cursor,
                next_idx: self.transcript.next_idx(),
                own_writes: self.own_writes,
                own_session: continuation.own_session,
                provider: continuation.provider,
                model: continuation.model,
                down,
                closed: matches!(self.stage, Stage::Closed),
                falls: self.falls.clone(),
                replies: self.replies.kept().map(noted).collect(),
            },
            version: VERSION,
            inside: serde_json::value::to_raw_value(&inside).ok()?,
        })
    }

    /// Goes on from a snapshot. `setup` is that of the session which it was taken of.
    ///
    /// # Errors
    /// When it is another build's or damaged; [`Session::resume`] can still go on from its outline.
    pub fn restore(snapshot: &Snapshot, setup: Setup) -> Result<Self, BadSnapshot> {
        let Inside {
            dialect,
            known,
            sandbox,
            spoken,
            strays,
            violations,
            stderr,
        } = snapshot.inside(setup.harness.tongue())?;
        let dialect_tongue = dialect.tongue();
        let outlined = Self::outlined(&snapshot.outline, setup);
        Ok(Self {
            dialect,
            known,
            sandbox,
            transcript: Transcript::new(snapshot.outline.next_idx, kept_max(dialect_tongue), spoken),
            strays,
            violations,
            stderr: stderr.into_bytes(),
            ..outlined
        })
    }

    /// Goes on from an outline alone: the harness is asked again what it is.
    pub fn resume(outline: &Outline, setup: Setup, out: &mut Vec<Action>) -> Self {
        let mut session = Self::outlined(outline, setup);
        if let Stage::Idle = session.stage {
            // What held it is what was to hold it; which layers there were only the lost part said.
            session.sandbox = Some(session.setup.sandbox.clone());
            session.probe(out);
        }
        session
    }

    fn outlined(outline: &Outline, setup: Setup) -> Self {
        let mut session = Self::new(setup, outline.now);
        session.stage = match &outline.down {
            _ if outline.closed => Stage::Closed,
            Some(down) => Stage::Down(down.clone()),
            None => Stage::Idle,
        };
        let kept_max = kept_max(session.setup.harness.tongue());
        session.transcript = Transcript::new(outline.next_idx, kept_max, Vec::new());
        // In the epoch that holds now.
        session.cursor.seq = outline.cursor.seq;
        session.own_writes = outline.own_writes;
        session.falls.clone_from(&outline.falls);
        session.known.own_session.clone_from(&outline.own_session);
        session.known.provider.clone_from(&outline.provider);
        session.known.model.clone_from(&outline.model);
        for Blob(bytes) in &outline.replies {
            // Of a build with another form of replies: who sends that command again is not known to have had an answer.
            if let Ok(reply) = decode_all::<Reply>(bytes) {
                session.replies.keep(reply);
            }
        }
        session
    }
}
