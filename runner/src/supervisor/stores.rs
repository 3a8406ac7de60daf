//! The event logs of workspaces, open while somebody uses them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::event_log::{EventLog, Health, OpenError};

/// How long an event log stays open at least that nobody uses, and half of how long at most: who lists sessions reads
/// some of them next, and to open one takes milliseconds, to keep one open two threads and their memory.
pub(super) const UNUSED_MAX: Duration = Duration::from_secs(5);

/// How many may be open before those that nobody uses are closed at once: a look at each of a thousand old sessions
/// must not cost two thousand threads.
const OPEN_MAX: usize = 16;

/// The event logs of this runner.
#[derive(Default)]
pub(super) struct Stores {
    slots: Mutex<BTreeMap<PathBuf, Arc<Slot>>>,
}

/// Locked while one is opened or closed, so that no other has to wait for it.
type Slot = tokio::sync::Mutex<Open>;

#[derive(Default)]
struct Open {
    log: Option<Arc<EventLog>>,
    /// Nobody used it at the last look.
    unused: bool,
}

impl Stores {
    /// The event log at `path`, opened by `open` where it is not.
    pub(super) async fn open(
        &self,
        path: &Path,
        open: impl FnOnce() -> Result<EventLog, OpenError>,
    ) -> Result<Arc<EventLog>, OpenError> {
        let (slot, count) = {
            let mut slots = self.slots();
            let slot = slots.entry(path.to_owned()).or_default().clone();
            (slot, slots.len())
        };
        let mut slot = slot.lock().await;
        slot.unused = false;
        if let Some(log) = &slot.log {
            return Ok(log.clone());
        }
        if count > OPEN_MAX {
            self.close_unused(true).await;
        }
        let log = tokio::task::block_in_place(open).map(Arc::new)?;
        slot.log = Some(log.clone());
        Ok(log)
    }

    /// Closes what nobody uses: at once, or where nobody did at the last look either.
    pub(super) async fn close_unused(&self, at_once: bool) {
        let slots: Vec<_> = self.slots().values().cloned().collect();
        for slot in slots {
            // One that is being opened or closed is looked at the next time.
            let Ok(mut slot) = slot.try_lock() else { continue };
            let was_unused = std::mem::replace(&mut slot.unused, true);
            match slot.log.take_if(|log| !is_used(log)) {
                Some(log) if was_unused || at_once => log.close().await,
                Some(log) => slot.log = Some(log),
                None => slot.unused = false,
            }
        }
        // Whoever opens one holds its slot.
        self.slots().retain(|_, slot| {
            let is_open = slot.try_lock().map_or(true, |slot| slot.log.is_some());
            is_open || Arc::strong_count(slot) > 1
        });
    }

    /// Those that cannot be written now, and why not.
    pub(super) fn failing(&self) -> Vec<(PathBuf, String)> {
        let slots = self.slots();
        let failing = slots.iter().filter_map(|(path, slot)| {
            // One that is being opened is not asked: that waits for the disk.
            let slot = slot.try_lock().ok()?;
            let health = slot.log.as_ref()?.health();
            match &*health.borrow() {
                Health::Fine => None,
                Health::Failing { text } => Some((path.clone(), text.clone())),
            }
        });
        failing.collect()
    }

    /// Closes all of them, used or not.
    pub(super) async fn close(&self) {
        let slots = std::mem::take(&mut *self.slots());
        for slot in slots.into_values() {
            if let Some(log) = slot.lock().await.log.take() {
                log.close().await;
            }
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, Arc<Slot>>> {
        // What a panic left behind is as whole as each single insertion.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether somebody has it, or one of its sessions, or it has something to do. Nobody can come by it but through its slot,
/// so that what is unused stays so while that is locked.
fn is_used(log: &Arc<EventLog>) -> bool {
    Arc::strong_count(log) > 1 || log.is_busy()
}
