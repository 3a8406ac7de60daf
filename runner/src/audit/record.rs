//! One record: what is said in it, and the line that it is. Pure.
//!
//! A line is an object of JSON whose first field is its number and whose last two are the hash of the record before and
//! its own: the SHA-256 of the line's bytes up to the comma before `"hash"`. So anybody can check one with `sha256sum`.

use std::borrow::Cow;
use std::net::SocketAddr;

use aws_lc_rs::digest;
use oqto_protocol::codec::Blob;
use oqto_protocol::id::{AuthorityId, CommandId, ControlId, Digest, RunnerId, SessionId};
use serde::{Deserialize, Serialize};

/// The longest line, bytes, without its end: names are short, and of arguments only the digest is here.
pub const LINE_LEN_MAX: usize = 4096;

/// How much of a reason and of a detail stands in a record, bytes: a text that is longer, such as an error with all its causes, must
/// not keep the record from being written, nor those beside it.
const REASON_LEN_MAX: usize = 64;
const DETAIL_LEN_MAX: usize = 512;

/// What the first record has for the hash of the one before.
pub const NO_HASH: Digest = Digest([0; 32]);

/// The name of a record that the runner's key has signed.
pub const CHECKPOINT: &str = "audit.checkpoint";

/// The name of a record of what a rule or the clock answered an agent that asked to be allowed something.
pub const PERMISSION: &str = "permission";

/// The name of a record that says that the oldest files were removed; its count is the number of the last record in them.
pub const REMOVED: &str = "audit.removed";

/// The number of hexadecimal digits of a hash.
const HEX_LEN: usize = 64;

const SEQ: &[u8] = b"{\"seq\":";
const PREV: &[u8] = b",\"prev\":\"";
const HASH: &[u8] = b",\"hash\":\"";

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It may be done, and whoever asked was told what became of it.
    Allowed,
    /// It was not done.
    Refused,
    /// Nobody asked: the runner says something of its own log.
    Noted,
}

/// What is to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The command's or query's name, or what happened.
    pub what: Cow<'static, str>,
    /// What was decided.
    pub outcome: Outcome,
    /// Who vouches for who asked.
    pub authority: Option<AuthorityId>,
    /// Who asked.
    pub control: Option<ControlId>,
    /// On which session.
    pub session: Option<SessionId>,
    /// The command's name for ever: one that was sent again is recorded again, under the same.
    pub command: Option<CommandId>,
    /// Why it was refused, as the fault's code.
    pub reason: Option<String>,
    /// The digest of what was asked, as it came.
    pub arguments: Option<Digest>,
    /// The digest of the policy that a session is asked to have.
    pub policy: Option<Digest>,
    /// From where a connection came.
    pub address: Option<SocketAddr>,
    /// How many of them this record stands for.
    pub count: Option<u64>,
    /// More, for people.
    pub detail: Option<String>,
    /// For whom it was asked, as who asked says: nobody has checked it.
    pub on_behalf_of: Option<String>,
}

impl Entry {
    /// An entry that says no more than this.
    #[must_use]
    pub fn new(what: impl Into<Cow<'static, str>>, outcome: Outcome) -> Self {
        Self {
            what: what.into(),
            outcome,
            authority: None,
            control: None,
            session: None,
            command: None,
            reason: None,
            arguments: None,
            policy: None,
            address: None,
            count: None,
            detail: None,
            on_behalf_of: None,
        }
    }
}

/// A record as it stands in the log, but for its own hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number: the first is 1, and none is left out.
    pub seq: u64,
    /// When, Unix milliseconds, by the host's clock. It may run backwards; the numbers do not.
    pub at: u64,
    /// See [`Entry`], as all that follow.
    pub what: Cow<'static, str>,
    #[expect(missing_docs, reason = "see `Entry`")]
    pub outcome: Outcome,
    #[expect(missing_docs, reason = "see `Entry`")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<AuthorityId>,
    #[expect(missing_docs, reason = "see `Entry`")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlId>,
    #[expect(missing_docs, reason = "see `Entry`")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[expect(missing_docs, reason = "see `Entry`")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandId>,
    #[expect(missing_docs, reason = "see `Entry`")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[expect(missing_docs, reason = "see `Entry`")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Digest>,
    #[expect(missing_docs, reason = "see `Entry`")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Digest>,
    #[expect(missing_docs, reason = "see `Entry`")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    #[expect(missing_docs, reason = "see `Entry`")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[expect(missing_docs, reason = "see `Entry`")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[expect(missing_docs, reason = "see `Entry`")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// Whose log this is; said in checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerId>,
    /// The runner's signature of all records before this one; in checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Blob>,
    /// The hash of the record before.
    pub prev: Digest,
}

impl Record {
    /// The record of an entry.
    #[must_use]
    pub fn new(seq: u64, at: u64, prev: Digest, entry: Entry) -> Self {
        let Entry {
            what,
            outcome,
            authority,
            control,
            session,
            command,
            reason,
            arguments,
            policy,
            address,
            count,
            detail,
            on_behalf_of,
        } = entry;
        Self {
            seq,
            at,
            what,
            outcome,
            authority,
            control,
            session,
            command,
            reason: reason.map(|reason| clipped(&reason, REASON_LEN_MAX)),
            arguments,
            policy,
            address,
            count,
            detail: detail.map(|detail| clipped(&detail, DETAIL_LEN_MAX)),
            on_behalf_of,
            runner: None,
            signature: None,
            prev,
        }
    }

    /// Appends the record's line with its end, and gives its hash.
    ///
    /// # Errors
    /// When it has no form in JSON or is longer than a line may be: we are wrong, and nothing is appended.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<Digest, BadRecord> {
        let begin = out.len();
        let body = serde_json::to_vec(self).map_err(BadRecord::Form)?;
        // Without the brace: the hash comes before it.
        let body = body.strip_suffix(b"}").unwrap_or(&body);
        if body.len() + HASH.len() + HEX_LEN + 2 > LINE_LEN_MAX {
            return Err(BadRecord::TooLong { len: body.len() });
        }
        let hash = hash(body);
        out.extend_from_slice(body);
        out.extend_from_slice(HASH);
        out.extend_from_slice(&hex(&hash));
        out.extend_from_slice(b"\"}\n");
        debug_assert!(out.len() - begin <= LINE_LEN_MAX + 1);
        Ok(hash)
    }
}

/// Whether a letter is what it looks like wherever it is shown: it moves no cursor and turns no line around.
#[must_use]
pub fn is_plain(letter: char) -> bool {
    !letter.is_control()
        && !matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The beginning of a text, without what would take more room in JSON than it has.
fn clipped(text: &str, len_max: usize) -> String {
    let mut clipped = String::new();
    for letter in text.chars() {
        let letter = if is_plain(letter) { letter } else { ' ' };
        if clipped.len() + letter.len_utf8() > len_max {
            break;
        }
        clipped.push(letter);
    }
    clipped
}

/// A record that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BadRecord {
    /// It has no form in JSON.
    #[error("a record has no form in JSON")]
    Form(#[source] serde_json::Error),
    /// It is too long.
    #[error("a record of {len} bytes is longer than the {LINE_LEN_MAX} of a line")]
    TooLong {
        /// How long.
        len: usize,
    },
}

/// A line whose own hash is right: what a chain is made of.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
    prev: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line, without its end; `None` when any byte of it is not as it was written.
    #[must_use]
    pub fn read(whole: &'a [u8]) -> Option<Self> {
        if whole.len() > LINE_LEN_MAX {
            return None;
        }
        let (body, said) = quoted(whole.strip_suffix(b"}")?, HASH)?;
        let (_, prev) = quoted(body, PREV)?;
        let hash = hash(body);
        if hex(&hash) != said {
            return None;
        }
        let digits = body.strip_prefix(SEQ)?;
        let digits = &digits[..digits.iter().position(|byte| *byte == b',')?];
        let seq = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some(Self {
            seq,
            hash,
            prev,
            whole,
        })
    }

    /// Whether it says that it follows the record of that hash.
    #[must_use]
    pub fn follows(&self, hash: &Digest) -> bool {
        self.prev == hex(hash)
    }

    /// What it says; `None` when that is no record.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        serde_json::from_slice(self.whole).ok()
    }

    /// Whether that is what it says happened.
    #[must_use]
    pub fn says(&self, what: &str) -> bool {
        // The third field, after two numbers: nothing that a peer chose stands before it.
        let field = [b",\"what\":\"", what.as_bytes(), b"\""].concat();
        let head = &self.whole[..self.whole.len().min(SEQ.len() + 2 * 20 + 6 + field.len())];
        memchr::memmem::find(head, &field).is_some()
    }
}

/// Cuts a quoted hash after `name` off the end.
fn quoted<'a>(text: &'a [u8], name: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let text = text.strip_suffix(b"\"")?;
    let (rest, value) = text.split_at_checked(text.len().checked_sub(HEX_LEN)?)?;
    Some((rest.strip_suffix(name)?, value))
}

fn hash(bytes: &[u8]) -> Digest {
    digest_of(&[bytes])
}

/// The SHA-256 of these bytes, one after the other.
#[must_use]
pub fn digest_of(parts: &[&[u8]]) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Digest(bytes)
}

fn hex(digest: &Digest) -> [u8; HEX_LEN] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; HEX_LEN];
    for (pair, byte) in text.chunks_exact_mut(2).zip(digest.0) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}
