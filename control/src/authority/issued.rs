//! What each runner got last: one small file a runner, `runners/ID.json`.

use std::time::Duration;

use oqto_protocol::codec::Blob;
use oqto_protocol::enrol::{Grant, SigningRequest};
use oqto_protocol::id::{Digest, RunnerId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::disk;
use super::issue::{Issued, SignError};
use super::ledger::Serial;
use super::record::{Outcome, Record};
use super::store::{Authority, AuthorityError, Held, now_ms};
use crate::bounds::{RECORD_LEN_MAX, RECORDS_MAX};

/// What a runner got last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedRecord {
    /// Who.
    pub runner_id: RunnerId,
    /// The digest of its public key: the name belongs to whoever has the private half.
    pub key: Digest,
    /// The serial number of its certificate.
    pub serial: Serial,
    /// When it was given, Unix milliseconds.
    pub issued_at: u64,
    /// Until when it is valid, Unix milliseconds.
    pub not_after: u64,
    /// The root that signed it.
    pub root: String,
    /// The number of the newest trust statement that it has; a grant over a channel of its own counts as all that was said before.
    pub told: u64,
}

/// Why a runner got no certificate from its own channel.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request is not one.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The name belongs to another key.
    #[error("the name {runner} was given to another key; a token made for it gives it away")]
    Taken {
        /// Which name.
        runner: RunnerId,
    },
    /// What it gets cannot be written down.
    #[error("cannot write down what the runner gets")]
    Authority(#[from] AuthorityError),
}

impl Authority {
    /// What each runner got last, by name.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn issued(&self) -> Result<Vec<IssuedRecord>, AuthorityError> {
        let names = disk::names(&self.dir.join("runners"), 2 * RECORDS_MAX)?;
        let ids = names
            .iter()
            .filter_map(|name| name.strip_suffix(".json")?.parse().ok());
        let mut all = Vec::new();
        for id in ids {
            all.extend(self.issued_to(&id)?);
        }
        Ok(all)
    }

    /// What a runner got last; `None` when it never got anything.
    pub(super) fn issued_to(&self, id: &RunnerId) -> Result<Option<IssuedRecord>, AuthorityError> {
        let path = self.dir.join("runners").join(format!("{id}.json"));
        let record: Option<IssuedRecord> = disk::read_json(&path, RECORD_LEN_MAX)?;
        match record {
            Some(record) if record.runner_id != *id => Err(AuthorityError::Mismatch { path }),
            record => Ok(record),
        }
    }

    /// Signs and writes down what the runner got. It is for who asks over a channel that was trusted before, such as a
    /// process that this program has started: no token is asked for.
    ///
    /// # Errors
    /// When it cannot be signed, the name was given to another key, or it cannot be written down.
    pub fn grant(
        &self,
        request: &SigningRequest,
        runner_id: &RunnerId,
        life: Duration,
    ) -> Result<Grant, IssueError> {
        let held = self.hold()?;
        let key = key_digest(&request.public_key);
        if self.issued_to(runner_id)?.is_some_and(|before| before.key != key) {
            let runner = runner_id.clone();
            return Err(IssueError::Taken { runner });
        }
        let issued = self.issue(request, runner_id, life)?;
        let record = Record {
            runner_id: Some(runner_id.clone()),
            serial: Some(issued.serial.clone()),
            reason: Some("it was asked for over a channel that was trusted before".to_owned()),
            ..Record::new(Outcome::Enrolled)
        };
        self.write_record(&held, record)?;
        self.note_issued(&held, request, &issued, self.now().ledger.number())?;
        Ok(issued.grant)
    }

    /// Writes down what a runner got. Over a channel of its own that is all roots of now, for a token the one with the pin;
    /// a renewal changes nothing of what it trusts.
    pub(super) fn note_issued(
        &self,
        _held: &Held,
        request: &SigningRequest,
        issued: &Issued,
        told: u64,
    ) -> Result<(), AuthorityError> {
        self.write_issued(&IssuedRecord {
            runner_id: issued.grant.runner_id.clone(),
            key: key_digest(&request.public_key),
            serial: issued.serial.clone(),
            issued_at: now_ms(),
            not_after: issued.grant.not_after,
            root: issued.root.clone(),
            told,
        })
    }

    /// Writes down that a runner has taken a trust statement.
    pub(crate) fn note_told(&self, runner_id: &RunnerId, number: u64) -> Result<(), AuthorityError> {
        let _held = self.hold()?;
        match self.issued_to(runner_id)? {
            Some(record) if record.told < number => self.write_issued(&IssuedRecord {
                told: number,
                ..record
            }),
            _ => Ok(()),
        }
    }

    fn write_issued(&self, record: &IssuedRecord) -> Result<(), AuthorityError> {
        let dir = self.dir.join("runners");
        disk::private_dir(&dir)?;
        disk::write_json(&dir, &format!("{}.json", record.runner_id), record).map(drop)
    }
}

/// The digest of a public key, by which one runner is told from another that wants its name.
pub(super) fn key_digest(public_key: &Blob) -> Digest {
    Digest(Sha256::digest(&public_key.0).into())
}
