//! How a session is ended and forgotten.

use std::path::Path;
use std::sync::Arc;

use oqto_protocol::command::{Command, CommandEnvelope, SessionClose};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::{CommandId, SessionId};
use tokio::sync::oneshot;

use super::again::FindError;
use super::create::remove;
use super::fleet::{Entry, Supervisor};
use super::handle::{Ask, Handle};
use super::record::SessionRecord;
use crate::event_log::Health;
use crate::{cause, event_log};

impl Supervisor {
    /// Ends a session and forgets it.
    pub(super) async fn delete(self: &Arc<Self>, id: &SessionId, command: CommandId) -> Result<(), Fault> {
        let handle = {
            let _loading = self.loading.lock().await;
            let mut sessions = self.lock();
            match sessions.get_mut(id) {
                Some(entry @ Entry::Made(_)) => std::mem::replace(entry, Entry::Leaving),
                _ => {
                    drop(sessions);
                    return self.handle(id).map(drop);
                }
            }
        };
        let Entry::Made(handle) = handle else {
            return Ok(());
        };
        // On a task of its own, like the making of one.
        let (supervisor, id) = (self.clone(), id.clone());
        let deleted = tokio::spawn(async move {
            let forgotten = supervisor.forget(&handle, command).await;
            match forgotten {
                Ok(()) => supervisor.lock().remove(&id),
                Err(_) => supervisor.lock().insert(id, Entry::Made(handle)),
            };
            forgotten
        });
        deleted
            .await
            .map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))?
    }

    async fn forget(self: &Arc<Self>, handle: &Handle, command: CommandId) -> Result<(), Fault> {
        let id = &handle.record.id;
        let mut ended = handle.ended.clone();
        if let Some(asks) = &handle.asks
            && !*ended.borrow()
        {
            let close = Command::SessionClose(SessionClose {});
            let envelope = CommandEnvelope {
                id: command,
                session_id: id.clone(),
                runner_id: None,
                command: close,
                on_behalf_of: None,
            };
            let (reply, _unheard) = oneshot::channel();
            // A driver that is gone has ended its session.
            let _ = asks.send(Ask::Command(Box::new(envelope), reply)).await;
            if let Some(log) = handle.log.upgrade() {
                let mut health = log.health();
                let is_stuck = tokio::select! {
                    _ = ended.wait_for(|ended| *ended) => false,
                    _ = health.wait_for(|health| *health != Health::Fine) => true,
                };
                if is_stuck {
                    // Its last events wait for room in vain, and to forget it makes some.
                    log.abandon();
                }
            }
            // A driver that is gone has said so, or has nothing more to say.
            let _ = ended.wait_for(|ended| *ended).await;
        }
        let forgotten = self.forget_record(&handle.record, &handle.dir).await;
        forgotten.map_err(|error| Fault::new(FaultCode::Storage, cause::chain(&error)))
    }

    /// Removes what is kept of a session that has ended. Whatever cuts this off, the next runner finishes it.
    pub(super) async fn forget_record(
        self: &Arc<Self>,
        record: &SessionRecord,
        dir: &Path,
    ) -> Result<(), FindError> {
        tokio::task::block_in_place(|| SessionRecord::begin_to_leave(dir))?;
        let store = self.store(&record.store).await?;
        match store.delete_session(record.id.as_str()).await {
            // A deletion that was cut off left only directories.
            Ok(()) | Err(event_log::ChangeError::Unknown) => {}
            Err(error) => return Err(error.into()),
        }
        remove(dir);
        remove(&self.settings.workspace_dir(&record.id));
        Ok(())
    }
}
