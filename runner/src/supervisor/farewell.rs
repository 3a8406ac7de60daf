//! How a driver parts with its shim: everything is told and committed, nothing of it runs, and its directory goes.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::driver::Driver;
use crate::event_log::AppendError;
use crate::shim::Notice;
use crate::sys;

/// How long a released shim may take to end.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// Where tapes are that could not be read to their end, in a session's directory.
const DAMAGED: &str = "shim.damaged";

/// What becomes of a tape.
#[derive(Clone, Copy)]
pub(super) enum Tape {
    /// All of it is in the log.
    Told,
    /// It could not be read to its end, and somebody may want to know why.
    SetAside,
}

/// How many tapes of one start are kept there: who does not look at the first ones needs no more.
const ASIDES_MAX: u32 = 8;

/// Puts the directory of one start where somebody may look at it, beside what is there already.
pub(super) fn put_aside(session_dir: &Path, shim_dir: &Path) -> io::Result<()> {
    let aside = session_dir.join(DAMAGED);
    fs::create_dir_all(&aside)?;
    let name = shim_dir.file_name().unwrap_or_default();
    let names = (0..ASIDES_MAX).map(|n| {
        let mut name = name.to_owned();
        if n > 0 {
            name.push(format!(".{n}"));
        }
        aside.join(name)
    });
    for path in names {
        if path.symlink_metadata().is_err() {
            return fs::rename(shim_dir, path);
        }
    }
    sys::remove_tree(shim_dir)
}

impl Driver {
    /// Ends the session's part in this runner, once all that its tape told is committed.
    pub(super) async fn end(mut self, tape: Tape) {
        if self.part(tape).await.is_err() {
            tracing::warn!(session = self.log.id(), "left to the next runner");
            return;
        }
        // What has ended stays so, whatever becomes of its log.
        self.record.own_session = None;
        if !self.log.is_abandoned()
            && let Err(error) = self.keep_unloaded()
        {
            tracing::warn!(session = self.log.id(), error = %crate::cause::chain(&error), "the next runner has to look");
        }
        let info = self.record.unloaded.take();
        self.info.send_replace(info.unwrap_or_else(|| self.mind.info()));
        // Who follows leaves when the session has ended and all that is committed was read.
        self.ended.send_replace(true);
        tracing::info!(session = self.log.id(), "session ended");
    }

    /// Waits until all that was said is committed.
    pub(super) async fn committed(&self) -> Result<(), AppendError> {
        if self.appended > 0
            && let Err(closed) = self.log.wait_past(self.appended - 1).await
            && !self.log.is_abandoned()
        {
            return Err(closed.into());
        }
        Ok(())
    }

    /// Lets the shim go, once all that its tape told is committed: nothing of this start of the harness is left.
    pub(super) async fn part(&mut self, tape: Tape) -> Result<(), AppendError> {
        self.committed().await?;
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
        self.hold = None;
        self.tape = None;
        if let Some(shim_dir) = self.shim_dir.send_replace(None) {
            tokio::task::block_in_place(|| self.put_away(&shim_dir, tape));
        }
        tokio::task::block_in_place(|| super::group::end(self.log.id()));
        Ok(())
    }

    /// Puts away what the shim had on disk.
    fn put_away(&self, shim_dir: &Path, tape: Tape) {
        let put_away = match tape {
            Tape::Told => sys::remove_tree(shim_dir),
            Tape::SetAside => put_aside(&self.dir, shim_dir),
        };
        if let Err(error) = put_away {
            tracing::warn!(dir = %shim_dir.display(), %error, "cannot put the shim's directory away");
        }
        // It stays while another start's is in it.
        let _ = fs::remove_dir(self.dir.join("shim"));
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
