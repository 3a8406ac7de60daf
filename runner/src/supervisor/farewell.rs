//! How a driver parts with its shim: everything is told and committed, nothing of it runs, and its directory goes.

use std::time::Duration;

use super::driver::Driver;
use crate::shim::Notice;
use crate::sys;

/// How long a released shim may take to end.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// What becomes of a tape.
pub(super) enum Tape {
    /// All of it is in the log.
    Told,
    /// It could not be read to its end, and somebody may want to know why.
    SetAside,
}

impl Driver {
    /// Lets the shim go, once all that its tape told is committed.
    pub(super) async fn end(mut self, tape: Tape) {
        if self.appended > 0
            && self.log.wait_past(self.appended - 1).await.is_err()
            && !self.log.is_abandoned()
        {
            tracing::warn!(session = self.log.id(), "left to the next runner");
            return;
        }
        if let Some(mut shim) = self.shim.take() {
            shim.release().await;
            let gone = async {
                loop {
                    match shim.next().await {
                        Notice::Gone => return,
                        // Before its program's end is on the tape a shim lets nobody send it away.
                        Notice::Exited { .. } => shim.release().await,
                        Notice::Grown { .. }
                        | Notice::Wrote { .. }
                        | Notice::Refused { .. }
                        | Notice::Trouble { .. }
                        | Notice::Recovered => {}
                    }
                }
            };
            if tokio::time::timeout(RELEASE_MAX, gone).await.is_err() {
                tracing::warn!(session = self.log.id(), "the shim does not end by itself");
            }
        }
        self.see_it_gone().await;
        let put_away = match tape {
            Tape::Told => sys::remove_tree(&self.shim_dir),
            Tape::SetAside => std::fs::rename(&self.shim_dir, self.shim_dir.with_extension("damaged")),
        };
        if let Err(error) = put_away {
            tracing::warn!(dir = %self.shim_dir.display(), %error, "cannot put the shim's directory away");
        }
        tokio::task::block_in_place(|| super::group::end(self.log.id()));
        self.info.send_replace(self.mind.info());
        // Who follows leaves when the session has ended and all that is committed was read.
        self.ended.send_replace(true);
        tracing::info!(session = self.log.id(), "session ended");
    }

    /// Sees to it that the shim is gone, and what it ran with it: nobody will look for either again.
    async fn see_it_gone(&self) {
        let Some(hold) = &self.hold else { return };
        let gone = match hold.let_go(RELEASE_MAX).await {
            Ok(false) => hold.kill().await,
            gone => gone,
        };
        match gone {
            Ok(true) => {}
            Ok(false) => tracing::error!(session = self.log.id(), "the shim does not die"),
            Err(error) => tracing::error!(session = self.log.id(), %error, "cannot see the shim's end"),
        }
    }
}
