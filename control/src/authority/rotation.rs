//! Decisions: whom to trust no more, and which key signs.

use oqto_protocol::id::RunnerId;

use super::disk;
use super::issued::IssuedRecord;
use super::ledger::{Revocable, RevokeError, RotateError};
use super::record::{Outcome, Record};
use super::root::{RootInfo, RootKey, Standing};
use super::store::{Authority, key_path, new_root, now_ms};

impl Authority {
    /// Trusts a runner, a control or a certificate no more. Every process that has this authority open cuts its links
    /// within a second, and tells the runners that it reaches. `false` when it was revoked before.
    ///
    /// # Errors
    /// When it cannot be written, or there is no room for it.
    pub fn revoke(&self, what: &Revocable, reason: Option<String>) -> Result<bool, RevokeError> {
        let held = self.hold()?;
        let mut ledger = self.now().ledger.clone();
        if !ledger.revoke(what, reason.clone(), now_ms())? {
            return Ok(false);
        }
        let mut record = Record::new(Outcome::Revoked);
        match what {
            Revocable::Runner(id) => record.runner_id = Some(id.clone()),
            Revocable::Control(id) => record.control_id = Some(id.clone()),
            Revocable::Serial(serial) => record.serial = Some(serial.clone()),
        }
        record.reason = reason;
        self.write_record(&held, record)?;
        self.decide(&held, ledger)?;
        Ok(true)
    }

    /// Adds a next root: from now on it is trusted beside the one that signs, and every runner is told so.
    ///
    /// # Errors
    /// When there is a next root already, or it cannot be written.
    pub fn rotate(&self) -> Result<RootInfo, RotateError> {
        let held = self.hold()?;
        let mut ledger = self.now().ledger.clone();
        let key = RootKey::generate()?;
        let record = new_root(&self.dir, self.id(), &key, Standing::Next, ledger.number() + 1)?;
        let info = record.info(key.pin());
        let added = ledger.add_next(record);
        if added.is_err() {
            disk::remove(&key_path(&self.dir, &info.id))?;
        }
        added?;
        self.write_record(&held, Record::of_root(Outcome::RootAdded, &info.id))?;
        self.decide(&held, ledger)?;
        Ok(info)
    }

    /// Makes the next root the one that signs. The one before stays trusted.
    ///
    /// # Errors
    /// When there is no next root, it cannot be written, or, unless `is_forced`, a runner with a certificate that is
    /// valid was not told of the next root yet: it would take this control for a stranger.
    pub fn switch(&self, is_forced: bool) -> Result<RootInfo, RotateError> {
        let held = self.hold()?;
        let mut ledger = self.now().ledger.clone();
        let next = ledger.root(Standing::Next).ok_or(RotateError::NoNext)?;
        let (id, since) = (next.id.clone(), next.since);
        if !is_forced {
            self.refuse_lockout(
                |issued| issued.told < since,
                "not yet told of the next root; each is told when a control connects to it (--force leaves them behind, \
                 to be enrolled again)",
            )?;
        }
        ledger.switch()?;
        self.write_record(&held, Record::of_root(Outcome::RootSwitched, &id))?;
        self.decide(&held, ledger)?;
        self.roots()
            .into_iter()
            .find(|root| root.id == id)
            .ok_or(RotateError::NoNext)
    }

    /// Trusts the old roots no more and removes their keys. Says which they were.
    ///
    /// # Errors
    /// When there is no old root, it cannot be written, or, unless `is_forced`, a runner still shows a certificate of an
    /// old one.
    pub fn drop_old(&self, is_forced: bool) -> Result<Vec<String>, RotateError> {
        let held = self.hold()?;
        let mut ledger = self.now().ledger.clone();
        let dropped = ledger.drop_old()?;
        if !is_forced {
            self.refuse_lockout(
                |issued| dropped.contains(&issued.root),
                "not renewed since the switch; each renews by itself at two thirds of its certificate's life while a \
                 control is connected (--force leaves them behind, to be enrolled again)",
            )?;
        }
        for id in &dropped {
            self.write_record(&held, Record::of_root(Outcome::RootDropped, id))?;
        }
        self.decide(&held, ledger)?;
        for id in &dropped {
            disk::remove(&key_path(&self.dir, id))?;
        }
        Ok(dropped)
    }

    /// Refuses what would lock out a runner that is trusted now. One whose certificate has ended is locked out already.
    fn refuse_lockout(
        &self,
        is_locked_out: impl Fn(&IssuedRecord) -> bool,
        why: &'static str,
    ) -> Result<(), RotateError> {
        let (now, state) = (now_ms(), self.now());
        let runners: Vec<RunnerId> = self
            .issued()?
            .into_iter()
            .filter(|issued| issued.not_after > now && !state.is_runner_revoked(&issued.runner_id))
            .filter(|issued| !state.is_serial_revoked(&issued.serial))
            .filter(is_locked_out)
            .map(|issued| issued.runner_id)
            .collect();
        if runners.is_empty() {
            Ok(())
        } else {
            Err(RotateError::LocksOut { runners, why })
        }
    }
}
