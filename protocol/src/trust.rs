//! Whom a runner trusts, as its authority says it: signed, numbered, and the whole of it each time.

use serde::{Deserialize, Serialize};

use crate::codec::{Blob, grows};
use crate::id::{AuthorityId, ControlId, RunnerId};

/// What stands before the statement in what is signed, so that no signature made for this is one for anything else.
pub const TRUST_CONTEXT: &[u8] = b"oqto trust statement v1\0";

/// How many names and numbers a trust statement may revoke, each of the three kinds by itself. Certificates are short:
/// what has expired is left out of the next statement.
pub const REVOKED_MAX: usize = 10_000;

/// How many roots may be trusted at once: the one in use, the next, and one more by accident.
pub const ROOTS_MAX: usize = 8;

/// Says whom to trust from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// The bytes that were signed, behind [`TRUST_CONTEXT`]: a `TrustStatement` in its wire form.
    pub statement: Blob,
    /// By the key of a root that the reader trusts already: ECDSA on P-256 with SHA-256, ASN.1 DER.
    pub signature: Blob,
}

grows!(Trust { statement, signature });

/// Whom to trust. A statement replaces the one before it; one with a lower number is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrustStatement {
    /// Who says it.
    pub authority_id: AuthorityId,
    /// The number of this statement; each is higher than all before it.
    pub number: u64,
    /// When, Unix milliseconds.
    pub issued_at: u64,
    /// The roots to trust, DER; at least one, and at most [`ROOTS_MAX`].
    pub roots: Vec<Blob>,
    /// Runners that are trusted no more, whatever they show.
    #[serde(default)]
    pub revoked_runners: Vec<RunnerId>,
    /// Controls that are trusted no more, whatever they show.
    #[serde(default)]
    pub revoked_controls: Vec<ControlId>,
    /// The serial numbers of certificates that are trusted no more, as their DER has them.
    #[serde(default)]
    pub revoked_serials: Vec<Blob>,
}

grows!(TrustStatement {
    authority_id,
    number,
    issued_at,
    roots,
    revoked_runners,
    revoked_controls,
    revoked_serials
});
