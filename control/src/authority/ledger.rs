//! What an authority has decided, as its one file has it: roots, revocations, and the last word that it signed on both.

use std::time::Duration;

use oqto_protocol::codec::{Blob, Wire as _};
use oqto_protocol::id::{AuthorityId, ControlId, RunnerId};
use oqto_protocol::trust::{REVOKED_MAX, ROOTS_MAX, TRUST_CONTEXT, Trust, TrustStatement};
use rcgen::SigningKey as _;
use serde::{Deserialize, Serialize};

use super::root::{RootKey, RootRecord, Standing};
use crate::bounds::{LEAF_LIFE_MAX, REASON_LEN_MAX};

/// The form of the file. Another one is refused: an older program would forget what a newer one revoked.
pub(super) const VERSION: u32 = 1;

/// Something that is trusted no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocable {
    /// A runner, whatever it shows, for ever.
    Runner(RunnerId),
    /// A control, whatever it shows, for ever.
    Control(ControlId),
    /// One certificate, by its serial number.
    Serial(Serial),
}

impl std::fmt::Display for Revocable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Runner(id) => write!(f, "runner {id}"),
            Self::Control(id) => write!(f, "control {id}"),
            Self::Serial(serial) => write!(f, "certificate {serial}"),
        }
    }
}

/// The serial number of a certificate, as its DER has it: 1 to 20 bytes, in text hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(Vec<u8>);

/// A text that is no serial number.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a serial number is 2 to 40 hex digits, two for each byte")]
pub struct BadSerial;

/// Bytes of a serial number at most, as RFC 5280 has it.
const SERIAL_LEN_MAX: usize = 20;

impl Serial {
    /// As a certificate has it.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl std::str::FromStr for Serial {
    type Err = BadSerial;

    fn from_str(text: &str) -> Result<Self, BadSerial> {
        let text = text.replace(':', "");
        // A number may have a sign, a digit none.
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit())
            || !text.len().is_multiple_of(2)
            || !(1..=SERIAL_LEN_MAX).contains(&(text.len() / 2))
        {
            return Err(BadSerial);
        }
        let byte =
            |at| u8::from_str_radix(text.get(at..at + 2).unwrap_or_default(), 16).map_err(|_| BadSerial);
        (0..text.len())
            .step_by(2)
            .map(byte)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl std::fmt::Display for Serial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.to_string()
    }
}

impl TryFrom<String> for Serial {
    type Error = BadSerial;

    fn try_from(text: String) -> Result<Self, BadSerial> {
        text.parse()
    }
}

/// Why something was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The reason is too long, or would not stand on a line.
    #[error("a reason has {REASON_LEN_MAX} bytes at most and is one line")]
    Reason,
    /// There is no room for it.
    #[error(
        "{REVOKED_MAX} are revoked already, which is as many as a trust statement holds; rotate the authority"
    )]
    Full,
    /// It could not be written.
    #[error(transparent)]
    Authority(#[from] super::AuthorityError),
}

/// Why a rotation does not go on.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// A next root is there already.
    #[error("a next root is there already; oqtoctl authority switch makes it the one that signs")]
    HasNext,
    /// There is no next root.
    #[error("there is no next root; oqtoctl authority rotate makes one")]
    NoNext,
    /// There is no old root.
    #[error("there is no old root; oqtoctl authority switch leaves one")]
    NoOld,
    /// There are as many roots as there may be.
    #[error("there are {ROOTS_MAX} roots already; oqtoctl authority drop drops the old ones")]
    TooMany,
    /// Runners that are trusted would be locked out.
    #[error("{} would be locked out: {why}", some(runners))]
    LocksOut {
        /// Which.
        runners: Vec<RunnerId>,
        /// Why, and what to do.
        why: &'static str,
    },
    /// It could not be written.
    #[error(transparent)]
    Authority(#[from] super::AuthorityError),
}

/// The first few of many names.
fn some(runners: &[RunnerId]) -> String {
    const SHOWN: usize = 5;
    let mut text = runners
        .iter()
        .take(SHOWN)
        .map(RunnerId::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if runners.len() > SHOWN {
        text.push_str(&format!(" and {} more", runners.len() - SHOWN));
    }
    text
}

/// Something that was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked<T> {
    /// What.
    pub id: T,
    /// When, Unix milliseconds.
    pub at: u64,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// All that is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// Runners, for ever.
    pub runners: Vec<Revoked<RunnerId>>,
    /// Controls, for ever.
    pub controls: Vec<Revoked<ControlId>>,
    /// Certificates, until none of their age can be valid.
    pub serials: Vec<Revoked<Serial>>,
}

/// The last word that was signed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Word {
    pub(super) number: u64,
    pub(super) trust: Trust,
}

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ledger {
    pub(super) version: u32,
    pub(super) authority_id: AuthorityId,
    pub(super) roots: Vec<RootRecord>,
    pub(super) revoked: Revocations,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) word: Option<Word>,
}

impl Ledger {
    /// That of a new authority with one root.
    pub(super) fn new(authority_id: AuthorityId, root: RootRecord) -> Self {
        Self {
            version: VERSION,
            authority_id,
            roots: vec![root],
            revoked: Revocations::default(),
            word: None,
        }
    }

    /// The number of the last word; 0 when there was none.
    pub(super) fn number(&self) -> u64 {
        self.word.as_ref().map_or(0, |word| word.number)
    }

    /// The root of that standing, the newest if there are several.
    pub(super) fn root(&self, standing: Standing) -> Option<&RootRecord> {
        self.roots.iter().rev().find(|root| root.standing == standing)
    }

    /// Revokes; `false` when it was revoked before.
    pub(super) fn revoke(
        &mut self,
        what: &Revocable,
        reason: Option<String>,
        now_ms: u64,
    ) -> Result<bool, RevokeError> {
        // A control character takes six bytes in the file, which has a bound.
        let is_line = |reason: &String| reason.len() <= REASON_LEN_MAX && !reason.contains(char::is_control);
        if !reason.as_ref().is_none_or(is_line) {
            return Err(RevokeError::Reason);
        }
        match what {
            Revocable::Runner(id) => add(&mut self.revoked.runners, id, reason, now_ms),
            Revocable::Control(id) => add(&mut self.revoked.controls, id, reason, now_ms),
            Revocable::Serial(serial) => {
                let life_ms = ms(LEAF_LIFE_MAX);
                // No certificate that was made before then is valid now.
                self.revoked
                    .serials
                    .retain(|revoked| revoked.at.saturating_add(life_ms) > now_ms);
                add(&mut self.revoked.serials, serial, reason, now_ms)
            }
        }
    }

    /// Adds a root that will sign after a switch.
    pub(super) fn add_next(&mut self, root: RootRecord) -> Result<(), RotateError> {
        if self.root(Standing::Next).is_some() {
            return Err(RotateError::HasNext);
        }
        if self.roots.len() >= ROOTS_MAX {
            return Err(RotateError::TooMany);
        }
        self.roots.push(root);
        Ok(())
    }

    /// Makes the next root the one that signs.
    pub(super) fn switch(&mut self) -> Result<(), RotateError> {
        if self.root(Standing::Next).is_none() {
            return Err(RotateError::NoNext);
        }
        for root in &mut self.roots {
            root.standing = match root.standing {
                Standing::Next => Standing::Signs,
                Standing::Signs | Standing::Old => Standing::Old,
            };
        }
        Ok(())
    }

    /// Lets the old roots go, and says which they were.
    pub(super) fn drop_old(&mut self) -> Result<Vec<String>, RotateError> {
        let old = |root: &RootRecord| root.standing == Standing::Old;
        let dropped: Vec<String> = self
            .roots
            .iter()
            .filter(|root| old(root))
            .map(|root| root.id.clone())
            .collect();
        if dropped.is_empty() {
            return Err(RotateError::NoOld);
        }
        self.roots.retain(|root| !old(root));
        Ok(dropped)
    }

    /// Says all of it anew, under the next number, signed by `key`.
    pub(super) fn speak(&mut self, key: &RootKey, now_ms: u64) -> Result<(), rcgen::Error> {
        let number = self.number() + 1;
        let statement = TrustStatement {
            authority_id: self.authority_id.clone(),
            number,
            issued_at: now_ms,
            roots: self.roots.iter().map(|root| root.certificate.clone()).collect(),
            revoked_runners: ids(&self.revoked.runners),
            revoked_controls: ids(&self.revoked.controls),
            revoked_serials: ids(&self.revoked.serials)
                .into_iter()
                .map(|serial| Blob(serial.0))
                .collect(),
        };
        let mut bytes = TRUST_CONTEXT.to_vec();
        statement.encode(&mut bytes);
        let signature = key.pair().sign(&bytes)?;
        bytes.drain(..TRUST_CONTEXT.len());
        self.word = Some(Word {
            number,
            trust: Trust {
                statement: Blob(bytes),
                signature: Blob(signature),
            },
        });
        Ok(())
    }
}

fn ids<T: Clone>(revoked: &[Revoked<T>]) -> Vec<T> {
    revoked.iter().map(|revoked| revoked.id.clone()).collect()
}

fn add<T: Clone + PartialEq>(
    list: &mut Vec<Revoked<T>>,
    id: &T,
    reason: Option<String>,
    at: u64,
) -> Result<bool, RevokeError> {
    if list.iter().any(|revoked| revoked.id == *id) {
        return Ok(false);
    }
    if list.len() >= REVOKED_MAX {
        return Err(RevokeError::Full);
    }
    list.push(Revoked {
        id: id.clone(),
        at,
        reason,
    });
    Ok(true)
}

/// A duration in milliseconds.
pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
