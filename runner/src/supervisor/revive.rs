//! How the harness of a session that is down is started again: prepared anew, in the home that it had.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::secret::Secret;
use oqto_protocol::session::SessionConfig;

use super::begin::Body;
use super::create::{CreateError, start_shim};
use super::driver::{DriveError, Driver};
use super::fleet::Supervisor;
use super::prepare::{Home, prepare};
use super::record::SessionRecord;
use crate::clock;
use crate::harness::Harness;
use crate::session::{Continuation, NotStarted};

/// Why a harness was not started again.
#[derive(Debug, thiserror::Error)]
enum ReviveError {
    #[error("the runner is stopping")]
    Stopping,
    #[error(transparent)]
    Variables(#[from] MissingVariables),
    #[error("its workspace is {found} now, and was {was}", found = found.display(), was = was.display())]
    Moved { was: PathBuf, found: PathBuf },
    #[error(
        "its sandbox would be another than the one that held it, since policy {policy} or what narrows it has changed; \
         session.restart starts it in that"
    )]
    OtherSandbox { policy: String },
    #[error(transparent)]
    Create(Box<CreateError>),
}

/// Variables without which a session is not what it was made to be.
#[derive(Debug, thiserror::Error)]
#[error(
    "the values of its variables {} are not known any more, since no runner keeps them on disk; session.restart takes \
     them",
    names.join(", ")
)]
pub(super) struct MissingVariables {
    names: Vec<String>,
}

impl<E: Into<CreateError>> From<E> for ReviveError {
    fn from(error: E) -> Self {
        Self::Create(Box::new(error.into()))
    }
}

impl ReviveError {
    /// What the session is told. What somebody has to mend first is not tried again.
    fn told(self) -> NotStarted {
        let text = format!(
            "the harness was not started again: {}",
            crate::cause::chain(&self)
        );
        let refused = |code| NotStarted::Refused(Fault::new(code, text.clone()));
        match &self {
            Self::Stopping => refused(FaultCode::Closing),
            Self::Variables(_) | Self::Moved { .. } => refused(FaultCode::Invalid),
            Self::OtherSandbox { .. } => refused(FaultCode::Policy),
            Self::Create(error) => match &**error {
                CreateError::Prepare(error) => refused(error.fault().code),
                _ => NotStarted::Failed(text),
            },
        }
    }
}

impl Driver {
    /// Starts the harness again, or says why it was not started.
    pub(super) async fn start_again(&mut self) -> Result<(), DriveError> {
        self.start_due = false;
        // What the next runner finds its way by.
        self.committed().await?;
        let Some(house) = self.house.upgrade() else {
            return Ok(());
        };
        let generation = self.mind.generation() + 1;
        let continuation = self.mind.continuation();
        let mut brought = std::mem::take(&mut self.restart_envs).into_iter();
        if let Some((_, env)) = brought.find(|(id, _)| continuation.asked_by == Some(*id)) {
            self.env = Some(env);
        }
        match self.revive(&house, generation, continuation).await {
            Ok((record, harness, body)) => {
                let (sandbox, edition) = (record.sandbox.clone(), record.edition.clone());
                let permissions = record.permissions.clone();
                self.mind.prepared(harness, sandbox, edition, permissions);
                self.record = record;
                self.mind.begin_tape(body.tape_len());
                self.take_up(body, &house);
                tracing::info!(session = self.log.id(), generation, "started again");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(session = self.log.id(), error = %crate::cause::chain(&error), "not started again");
                tokio::task::block_in_place(|| super::group::end(self.log.id()));
                self.mind.not_started(&error.told(), clock::unix_ms());
                self.flush().await
            }
        }
    }

    async fn revive(
        &self,
        house: &Arc<Supervisor>,
        generation: u64,
        continuation: Continuation,
    ) -> Result<(SessionRecord, Harness, Body), ReviveError> {
        if house.stopping.load(Ordering::Acquire) {
            return Err(ReviveError::Stopping);
        }
        let Continuation {
            own_session,
            provider,
            model,
            asked_by,
        } = continuation;
        missing_variables(&self.record, self.env.as_ref())?;
        let config = SessionConfig {
            cwd: Some(self.record.workspace.display().to_string()),
            continue_session: own_session,
            provider,
            model,
            env: self.env.clone().unwrap_or_default(),
            ..self.record.config.clone()
        };
        let id = &self.record.id;
        let prepared = tokio::task::block_in_place(|| {
            // What may be left of the last start in its group is not to be taken for the next one's.
            super::group::end(id.as_str());
            prepare(&house.settings, id, &self.dir, &config, None, Home::Kept)
        });
        let prepared = prepared?;
        if prepared.workspace != self.record.workspace {
            return Err(ReviveError::Moved {
                was: self.record.workspace.clone(),
                found: prepared.workspace,
            });
        }
        // What it could change from inside must not be a way out: it would only have to die.
        if asked_by.is_none() && prepared.sandbox.digest != self.record.sandbox.digest {
            return Err(ReviveError::OtherSandbox {
                policy: prepared.sandbox.policy,
            });
        }
        let record = SessionRecord {
            sandbox: prepared.sandbox,
            permissions: prepared.permissions,
            watch: prepared.order.watch.clone(),
            edition: prepared.edition,
            manner: Some(prepared.harness.definition().manner()),
            ..self.record.clone()
        };
        record.keep(&self.dir)?;
        let body = start_shim(&self.dir, generation, &prepared.order).await?;
        Ok((record, prepared.harness, body))
    }
}

/// Whether these are all the variables that the session was made with.
pub(super) fn missing_variables(
    record: &SessionRecord,
    known: Option<&BTreeMap<String, Secret>>,
) -> Result<(), MissingVariables> {
    let is_known = |name: &String| known.is_some_and(|known| known.contains_key(name));
    let wanted = record.config.env.keys();
    let names: Vec<_> = wanted.filter(|name| !is_known(name)).cloned().collect();
    if names.is_empty() {
        Ok(())
    } else {
        Err(MissingVariables { names })
    }
}
