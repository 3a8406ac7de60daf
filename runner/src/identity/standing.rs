//! How a runner stands with its authority: its certificate, the newest trust statement, and what a human should know of both.

use std::path::Path;

use oqto_protocol::id::RunnerId;
use rustls::pki_types::CertificateDer;
use webpki::{EndEntityCert, KeyUsage};

use super::certificate::{Dates, Roots};
use super::grant::GrantError;
use super::kept::{self, Kept, Seen};
use super::key::Key;
use super::life::Life;
use super::store::StoreError;
use super::trust::{Revoked, Statement};
use crate::clock;

/// How this runner stands with its authority at one moment.
pub struct Standing {
    pub(super) kept: Kept,
    /// By what it shows that the file was replaced.
    pub(super) seen: Option<Seen>,
    pub(super) life: Life,
    /// When it is renewed.
    renewed_at: u64,
    serial: Vec<u8>,
    pub(super) statement: Option<Statement>,
    pub(super) roots: Roots,
}

impl Standing {
    pub(super) fn read(dir: &Path, key: &Key, runner_id: &RunnerId) -> Result<Option<Self>, StoreError> {
        let Some((kept, seen)) = Kept::read(dir)? else {
            return Ok(None);
        };
        let statement = kept::read_statement(dir, &kept.grant.authority_id)?;
        Self::new(dir, kept, Some(seen), statement, key, runner_id).map(Some)
    }

    pub(super) fn new(
        dir: &Path,
        kept: Kept,
        seen: Option<Seen>,
        statement: Option<Statement>,
        key: &Key,
        runner_id: &RunnerId,
    ) -> Result<Self, StoreError> {
        let wrong = |source| StoreError::Certificate {
            dir: dir.to_owned(),
            source,
        };
        let der = CertificateDer::from(kept.grant.certificate.0.as_slice());
        let leaf = EndEntityCert::try_from(&der).map_err(|e| wrong(GrantError::Malformed(e)))?;
        if leaf.subject_public_key_info().as_ref() != key.public_key_info() {
            return Err(wrong(GrantError::OtherKey));
        }
        if kept.grant.runner_id != *runner_id {
            return Err(wrong(GrantError::OtherRunner {
                found: kept.grant.runner_id.clone(),
                expected: runner_id.clone(),
            }));
        }
        let dates = Dates::of(&leaf).map_err(|e| wrong(GrantError::Malformed(e)))?;
        let roots = match &statement {
            Some(statement) if statement.number > kept.statement => statement.roots.clone(),
            _ => Roots::read(&kept.grant.trust).map_err(|source| StoreError::Roots {
                dir: dir.to_owned(),
                source,
            })?,
        };
        let life = Life::new(dates, kept.taken_at.min(clock::unix_ms()));
        let mut random = [0; 8];
        // Without random bytes it is renewed at the last moment that is planned.
        let _ = getrandom::fill(&mut random);
        Ok(Self {
            life,
            renewed_at: life.renewed_at(u64::from_le_bytes(random)),
            serial: leaf.serial().to_vec(),
            kept,
            seen,
            statement,
            roots,
        })
    }

    /// The life of the certificate.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// When the certificate is to be renewed, Unix milliseconds: at once when its own root is trusted no more.
    #[must_use]
    pub fn renewed_at(&self) -> u64 {
        if self.is_of_a_root_that_is_gone() {
            0
        } else {
            self.renewed_at
        }
    }

    /// What a human should know of it, at a time of our clock (Unix milliseconds).
    #[must_use]
    pub fn notes(&self, now: u64) -> Vec<String> {
        let id = &self.kept.grant.runner_id;
        let way = format!(
            "on the control `oqtoctl token create --runner-id {id}`, then here `oqto-runner enrol --again` with what it \
             prints; this runner takes the new certificate while it runs"
        );
        let ends_at = self.life.ends_at();
        let mut notes = Vec::new();
        if now > ends_at {
            let ago_s = (now - ends_at) / 1000;
            notes.push(format!(
                "the certificate of this runner expired {ago_s} s ago: links that stand go on, and no new one is made; the \
                 way back: {way}"
            ));
        } else if now >= self.life.late_at() {
            let left_s = (ends_at - now) / 1000;
            notes.push(format!(
                "the certificate of this runner expires in {left_s} s, and no control that is connected has renewed it; \
                 connect one that can, or enrol it anew: {way}"
            ));
        }
        match self.revoked() {
            Some(Revoked::Name) => notes.push(format!(
                "the authority has revoked runner {id} for good: no control connects to it any more; if its host is to serve \
                 again, enrol it under another name with another --state-dir"
            )),
            Some(Revoked::Certificate) => notes.push(format!(
                "the authority has revoked the certificate of this runner: no control connects to it any more; the way back: \
                 {way}"
            )),
            None => {}
        }
        notes
    }

    /// Its serial number, hex.
    #[must_use]
    pub fn serial(&self) -> String {
        hex(&self.serial)
    }

    /// The number of the newest trust statement; 0 before the first.
    #[must_use]
    pub fn statement_number(&self) -> u64 {
        self.statement.as_ref().map_or(0, |statement| statement.number)
    }

    /// Whether this runner's own certificate is signed by a root that it no longer trusts.
    fn is_of_a_root_that_is_gone(&self) -> bool {
        let der = CertificateDer::from(self.kept.grant.certificate.0.as_slice());
        let Ok(leaf) = EndEntityCert::try_from(&der) else {
            return true;
        };
        let then = self.life.ends_at();
        self.roots
            .verify(&leaf, &[], then, KeyUsage::client_auth())
            .is_err()
    }

    /// What the authority has revoked of this very runner.
    fn revoked(&self) -> Option<Revoked> {
        let statement = self.statement.as_ref()?;
        statement.revoked_of_runner(&self.kept.grant.runner_id, &self.serial)
    }
}

/// Bytes for people.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
