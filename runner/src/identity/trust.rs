//! Whom this runner trusts: the roots and revocations that its authority has signed, the whole of them each time.

use std::collections::HashSet;

use oqto_protocol::codec::{DecodeError, decode_all};
use oqto_protocol::id::{AuthorityId, ControlId, RunnerId};
use oqto_protocol::trust::{REVOKED_MAX, TRUST_CONTEXT, Trust, TrustStatement};
use webpki::EndEntityCert;

use super::certificate::{Roots, RootsError};

/// The longest serial number that can be revoked, bytes: no certificate has a longer one (RFC 5280, 4.1.2.2), but for
/// the zero that makes a number positive.
const SERIAL_LEN_MAX: usize = 21;

/// A trust statement that is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It was not signed by anybody whom this runner trusts already.
    #[error("no root that this runner trusts has signed the statement")]
    Signature,
    /// It cannot be read.
    #[error("the statement is malformed")]
    Malformed(#[source] DecodeError),
    /// Another authority says it.
    #[error("the statement is of authority {found}, this runner belongs to {expected}")]
    OtherAuthority {
        /// Who says it.
        found: AuthorityId,
        /// Who should.
        expected: AuthorityId,
    },
    /// It was replaced by one that is known already.
    #[error("the statement has number {found}, and number {kept} is known already")]
    Old {
        /// Its number.
        found: u64,
        /// That of the newest that was believed.
        kept: u64,
    },
    /// It is not the one that is known, and has its number.
    #[error("the statement is another than the one that is known, and both have number {number}")]
    Twice {
        /// The number of both.
        number: u64,
    },
    /// Its roots are none.
    #[error("the statement's roots cannot be trusted")]
    Roots(#[source] RootsError),
    /// It revokes too many, or what cannot be.
    #[error(
        "the statement revokes more than {REVOKED_MAX} of a kind, or a serial number of more than {SERIAL_LEN_MAX} bytes"
    )]
    Bounds,
}

/// A statement that was believed.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    /// As it was signed, for who gets it again.
    pub(super) signed: Trust,
    pub(super) number: u64,
    pub(super) roots: Roots,
    revoked_runners: HashSet<RunnerId>,
    revoked_controls: HashSet<ControlId>,
    revoked_serials: HashSet<Vec<u8>>,
}

/// What of a runner was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Revoked {
    /// Its name, for good.
    Name,
    /// One certificate: it may be enrolled again.
    Certificate,
}

/// Decides on a statement that somebody brings. It has to be signed by one of `roots`, whoever brings it, and to be newer
/// than the one that is known; `None` when it is that one.
pub(super) fn judge(
    signed: Trust,
    authority: &AuthorityId,
    roots: &Roots,
    kept: Option<&Statement>,
) -> Result<Option<Statement>, TrustError> {
    if let Some(kept) = kept
        && kept.signed.statement == signed.statement
    {
        // Its signature was seen, maybe of a root that the statement itself has let go.
        return Ok(None);
    }
    let message = [TRUST_CONTEXT, &signed.statement.0].concat();
    if !roots.iter().any(|root| {
        EndEntityCert::try_from(root).is_ok_and(|root| {
            root.verify_signature(
                webpki::aws_lc_rs::ECDSA_P256_SHA256,
                &message,
                &signed.signature.0,
            )
            .is_ok()
        })
    }) {
        return Err(TrustError::Signature);
    }
    let new = Statement::read(signed, authority)?;
    match kept {
        Some(kept) if kept.number > new.number => Err(TrustError::Old {
            found: new.number,
            kept: kept.number,
        }),
        Some(kept) if kept.number == new.number => Err(TrustError::Twice { number: new.number }),
        _ => Ok(Some(new)),
    }
}

impl Statement {
    /// Reads a statement whose signature was checked, now or before it was kept.
    pub(super) fn read(signed: Trust, authority: &AuthorityId) -> Result<Self, TrustError> {
        let TrustStatement {
            authority_id,
            number,
            issued_at: _,
            roots,
            revoked_runners,
            revoked_controls,
            revoked_serials,
        } = decode_all(&signed.statement.0).map_err(TrustError::Malformed)?;
        if authority_id != *authority {
            return Err(TrustError::OtherAuthority {
                found: authority_id,
                expected: authority.clone(),
            });
        }
        let most = revoked_runners
            .len()
            .max(revoked_controls.len())
            .max(revoked_serials.len());
        let is_long = |serial: &oqto_protocol::codec::Blob| serial.0.len() > SERIAL_LEN_MAX;
        if most > REVOKED_MAX || revoked_serials.iter().any(is_long) {
            return Err(TrustError::Bounds);
        }
        Ok(Self {
            number,
            roots: Roots::read(&roots).map_err(TrustError::Roots)?,
            revoked_runners: revoked_runners.into_iter().collect(),
            revoked_controls: revoked_controls.into_iter().collect(),
            revoked_serials: revoked_serials
                .iter()
                .map(|serial| plain(&serial.0).to_vec())
                .collect(),
            signed,
        })
    }

    /// Whether a control, or its certificate, is trusted no more.
    pub(super) fn revokes(&self, control: &ControlId, serial: &[u8]) -> bool {
        self.revoked_controls.contains(control) || self.revoked_serials.contains(plain(serial))
    }

    /// What of a runner is trusted no more.
    pub(super) fn revoked_of_runner(&self, runner: &RunnerId, serial: &[u8]) -> Option<Revoked> {
        if self.revoked_runners.contains(runner) {
            Some(Revoked::Name)
        } else if self.revoked_serials.contains(plain(serial)) {
            Some(Revoked::Certificate)
        } else {
            None
        }
    }
}

/// A serial number without the zeros before it: the same number may be written with one or without.
fn plain(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

#[cfg(test)]
pub(super) mod tests {
    use oqto_protocol::codec::{Blob, Wire};

    use super::super::grant::tests::Signer;
    use super::*;

    fn encode(statement: &TrustStatement) -> Vec<u8> {
        let mut bytes = Vec::new();
        statement.encode(&mut bytes);
        bytes
    }

    pub(crate) fn statement(signer: &Signer, number: u64) -> TrustStatement {
        TrustStatement {
            authority_id: signer.id.clone(),
            number,
            issued_at: 0,
            roots: vec![Blob(signer.root.to_vec())],
            revoked_runners: Vec::new(),
            revoked_controls: Vec::new(),
            revoked_serials: Vec::new(),
        }
    }

    pub(crate) fn signed(signer: &Signer, statement: &TrustStatement) -> Trust {
        let statement = encode(statement);
        let signature = signer.sign(&[TRUST_CONTEXT, &statement].concat());
        Trust {
            statement: Blob(statement),
            signature: Blob(signature),
        }
    }

    fn judged(
        signer: &Signer,
        trust: Trust,
        kept: Option<&Statement>,
    ) -> Result<Option<Statement>, TrustError> {
        judge(trust, &signer.id, &signer.roots(), kept)
    }

    fn kept(signer: &Signer, trust: Trust) -> Statement {
        judged(signer, trust, None).unwrap().expect("nothing was known")
    }

    #[test]
    fn a_newer_statement_is_believed_an_older_or_other_one_is_not() {
        let signer = Signer::new("a");
        let first = signed(&signer, &statement(&signer, 5));
        let five = kept(&signer, first.clone());
        assert!(matches!(judged(&signer, first, Some(&five)), Ok(None)));
        let six = signed(&signer, &statement(&signer, 6));
        assert!(matches!(
            judged(&signer, six, Some(&five)),
            Ok(Some(Statement { number: 6, .. }))
        ));
        let four = signed(&signer, &statement(&signer, 4));
        assert!(matches!(
            judged(&signer, four, Some(&five)),
            Err(TrustError::Old { found: 4, kept: 5 })
        ));
        let mut other = statement(&signer, 5);
        other.issued_at = 1;
        let error = judged(&signer, signed(&signer, &other), Some(&five)).unwrap_err();
        assert!(matches!(error, TrustError::Twice { number: 5 }), "{error:?}");
    }

    #[test]
    fn only_who_is_trusted_already_can_say_whom_to_trust() {
        let (ours, theirs) = (Signer::new("a"), Signer::new("a"));
        let forged = signed(&theirs, &statement(&theirs, 9));
        assert!(matches!(judged(&ours, forged, None), Err(TrustError::Signature)));
        // Signed by us, and changed on its way.
        let mut changed = signed(&ours, &statement(&ours, 1));
        changed.statement.0[3] ^= 1;
        assert!(matches!(judged(&ours, changed, None), Err(TrustError::Signature)));
        // A signature over the statement without what it is for is one for something else.
        let bare = encode(&statement(&ours, 1));
        let bare = Trust {
            signature: Blob(ours.sign(&bare)),
            statement: Blob(bare),
        };
        assert!(matches!(judged(&ours, bare, None), Err(TrustError::Signature)));
        let mut other = statement(&ours, 1);
        other.authority_id = "b".parse().unwrap();
        let error = judged(&ours, signed(&ours, &other), None).unwrap_err();
        assert!(matches!(error, TrustError::OtherAuthority { .. }), "{error:?}");
    }

    #[test]
    fn a_statement_without_roots_or_past_its_bounds_is_refused() {
        let signer = Signer::new("a");
        let refused = |change: &dyn Fn(&mut TrustStatement)| {
            let mut statement = statement(&signer, 1);
            change(&mut statement);
            judged(&signer, signed(&signer, &statement), None).unwrap_err()
        };
        let error = refused(&|statement| statement.roots.clear());
        assert!(
            matches!(error, TrustError::Roots(RootsError::Count(0))),
            "{error:?}"
        );
        let error = refused(&|statement| statement.roots = vec![statement.roots[0].clone(); 9]);
        assert!(
            matches!(error, TrustError::Roots(RootsError::Count(9))),
            "{error:?}"
        );
        let error = refused(&|statement| statement.roots.push(Blob(b"root".to_vec())));
        assert!(
            matches!(error, TrustError::Roots(RootsError::Malformed(_))),
            "{error:?}"
        );
        let error = refused(&|statement| statement.revoked_serials = vec![Blob(vec![1]); REVOKED_MAX + 1]);
        assert!(matches!(error, TrustError::Bounds), "{error:?}");
        let error = refused(&|statement| statement.revoked_serials = vec![Blob(vec![1; 22])]);
        assert!(matches!(error, TrustError::Bounds), "{error:?}");
    }

    #[test]
    fn who_is_revoked_is_revoked_by_name_or_by_number() {
        let signer = Signer::new("a");
        let mut statement = statement(&signer, 1);
        statement.revoked_controls = vec!["evil".parse().unwrap()];
        statement.revoked_runners = vec!["r-9".parse().unwrap()];
        statement.revoked_serials = vec![Blob(vec![0, 0x90, 1]), Blob(vec![7])];
        let kept = kept(&signer, signed(&signer, &statement));
        let (good, evil) = ("good".parse().unwrap(), "evil".parse().unwrap());
        assert!(!kept.revokes(&good, &[1]));
        assert!(kept.revokes(&evil, &[1]));
        assert!(kept.revokes(&good, &[0x90, 1]) && kept.revokes(&good, &[0, 0x90, 1]));
        assert!(kept.revokes(&good, &[7]));
        let of = |runner: &str, serial: &[u8]| kept.revoked_of_runner(&runner.parse().unwrap(), serial);
        assert_eq!(of("r-9", &[7]), Some(Revoked::Name));
        assert_eq!(of("r-8", &[7]), Some(Revoked::Certificate));
        assert_eq!(of("r-8", &[1]), None);
    }
}
