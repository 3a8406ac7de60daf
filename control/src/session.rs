//! A session's handle: one method a command.

use std::collections::BTreeMap;
use std::sync::Arc;

use oqto_protocol::command::{
    Abort, Command, Compact, FollowUp, GetMessages, GetModels, GetState, GetStats, InputResponse, Prompt,
    SessionClose, SessionDelete, SessionRestart, SetModel, SetThinkingLevel, Steer,
};
use oqto_protocol::cursor::Cursor;
use oqto_protocol::id::SessionId;
use oqto_protocol::reply::{Messages, ModelInfo, ReplyData};
use oqto_protocol::secret::Secret;
use oqto_protocol::session::{SessionStats, SessionStatus};

use crate::events::{Events, SubscribeError};
use crate::history::{HistoryError, HistoryStore, SessionAddr};
use crate::runner::{CommandError, Runner};

/// One session of a runner. A handle costs nothing, and dropping it ends nothing.
#[derive(Clone, Debug)]
pub struct Session {
    runner: Runner,
    id: SessionId,
}

impl Session {
    pub(crate) fn new(runner: Runner, id: SessionId) -> Self {
        Self { runner, id }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Its runner.
    #[must_use]
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// This session, asked for somebody; see [`Runner::on_behalf_of`].
    #[must_use]
    pub fn on_behalf_of(&self, whom: &str) -> Self {
        self.runner.on_behalf_of(whom).session(self.id.clone())
    }

    /// Says something and lets the agent work. Returns when the runner has taken it, with the newest event before
    /// its effects.
    ///
    /// # Errors
    /// When the runner or the harness refuses, or no answer comes.
    pub async fn prompt(&self, message: impl Into<String>) -> Result<Cursor, CommandError> {
        self.prompt_with(Prompt {
            message: message.into(),
            images: Vec::new(),
            client_id: None,
            resources: Vec::new(),
        })
        .await
    }

    /// The same with pictures, or with a name that comes back in the user message.
    ///
    /// # Errors
    /// When the runner or the harness refuses, or no answer comes.
    pub async fn prompt_with(&self, prompt: Prompt) -> Result<Cursor, CommandError> {
        self.accepted(Command::Prompt(prompt)).await
    }

    /// Says something in the middle of work; when it is idle, a prompt.
    ///
    /// # Errors
    /// When the runner or the harness refuses, or no answer comes.
    pub async fn steer(&self, message: impl Into<String>) -> Result<Cursor, CommandError> {
        self.accepted(Command::Steer(Steer {
            message: message.into(),
            client_id: None,
        }))
        .await
    }

    /// Says something for when the agent is done; when it is idle, a prompt.
    ///
    /// # Errors
    /// When the runner or the harness refuses, or no answer comes.
    pub async fn follow_up(&self, message: impl Into<String>) -> Result<Cursor, CommandError> {
        self.accepted(Command::FollowUp(FollowUp {
            message: message.into(),
            client_id: None,
        }))
        .await
    }

    /// Stops the work at hand; its events say when it has stopped.
    ///
    /// # Errors
    /// When the runner or the harness refuses, or no answer comes.
    pub async fn abort(&self) -> Result<(), CommandError> {
        self.done(Command::Abort(Abort {})).await
    }

    /// Answers what the agent asked.
    ///
    /// # Errors
    /// When nothing of that name is asked, or no answer comes.
    pub async fn respond(&self, response: InputResponse) -> Result<(), CommandError> {
        self.done(Command::InputResponse(response)).await
    }

    /// Allows what the agent asks, this time; also says yes to what it asks to confirm.
    ///
    /// # Errors
    /// When nothing of that name is asked, it offers no such answer, or no answer comes.
    pub async fn allow(&self, request_id: impl Into<String>) -> Result<(), CommandError> {
        self.confirm(request_id.into(), true).await
    }

    /// Refuses what the agent asks, this time; also says no to what it asks to confirm.
    ///
    /// # Errors
    /// When nothing of that name is asked, or no answer comes.
    pub async fn refuse(&self, request_id: impl Into<String>) -> Result<(), CommandError> {
        self.confirm(request_id.into(), false).await
    }

    async fn confirm(&self, request_id: String, confirmed: bool) -> Result<(), CommandError> {
        self.respond(InputResponse {
            request_id,
            value: None,
            confirmed: Some(confirmed),
            cancelled: None,
        })
        .await
    }

    /// Ends it; its history stays.
    ///
    /// # Errors
    /// When the runner refuses, or no answer comes.
    pub async fn close(&self) -> Result<(), CommandError> {
        self.done(Command::SessionClose(SessionClose {})).await
    }

    /// Ends it and forgets it.
    ///
    /// # Errors
    /// When the runner refuses, or no answer comes.
    pub async fn delete(&self) -> Result<(), CommandError> {
        self.done(Command::SessionDelete(SessionDelete {})).await
    }

    /// Starts its harness again, with the harness's own session: one that is dormant, or a living one, which is ended
    /// first. Done when its sandbox holds.
    ///
    /// # Errors
    /// When the runner refuses, or no answer comes.
    pub async fn restart(&self) -> Result<(), CommandError> {
        self.restart_with(BTreeMap::new()).await
    }

    /// As [`restart`](Self::restart), with the variables that it was made with: all of them, or none where its runner
    /// knows them still. A runner keeps their values in its memory alone.
    ///
    /// # Errors
    /// As [`restart`](Self::restart); and when a variable is missing.
    pub async fn restart_with(&self, env: BTreeMap<String, Secret>) -> Result<(), CommandError> {
        self.done(Command::SessionRestart(SessionRestart { env })).await
    }

    /// How it stands.
    ///
    /// # Errors
    /// When there is no such session, or no answer comes.
    pub async fn state(&self) -> Result<SessionStatus, CommandError> {
        match self.command(Command::GetState(GetState {})).await? {
            Some(ReplyData::State(state)) => Ok(*state.status),
            _ => Err(CommandError::Answer { cmd: "get_state" }),
        }
    }

    /// What was said, in order, after the message numbered `after_idx` and at most `limit` of them.
    ///
    /// # Errors
    /// When there is no such session, or no answer comes.
    pub async fn messages(
        &self,
        after_idx: Option<u64>,
        limit: Option<u32>,
    ) -> Result<Messages, CommandError> {
        match self
            .command(Command::GetMessages(GetMessages { after_idx, limit }))
            .await?
        {
            Some(ReplyData::Messages(messages)) => Ok(messages),
            _ => Err(CommandError::Answer { cmd: "get_messages" }),
        }
    }

    /// What it used.
    ///
    /// # Errors
    /// When its harness does not count, or no answer comes.
    pub async fn stats(&self) -> Result<SessionStats, CommandError> {
        match self.command(Command::GetStats(GetStats {})).await? {
            Some(ReplyData::Stats(stats)) => Ok(stats.stats),
            _ => Err(CommandError::Answer { cmd: "get_stats" }),
        }
    }

    /// The models that it can use.
    ///
    /// # Errors
    /// When its harness cannot tell, or no answer comes.
    pub async fn models(&self) -> Result<Vec<ModelInfo>, CommandError> {
        match self
            .command(Command::GetModels(GetModels { workdir: None }))
            .await?
        {
            Some(ReplyData::Models(models)) => Ok(models.models),
            _ => Err(CommandError::Answer { cmd: "get_models" }),
        }
    }

    /// Changes its model.
    ///
    /// # Errors
    /// When its harness cannot, or no answer comes.
    pub async fn set_model(
        &self,
        provider: impl Into<String>,
        model_id: impl Into<String>,
    ) -> Result<(), CommandError> {
        let set = SetModel {
            provider: provider.into(),
            model_id: model_id.into(),
        };
        self.done(Command::SetModel(set)).await
    }

    /// Changes how hard its model thinks.
    ///
    /// # Errors
    /// When its harness cannot, or no answer comes.
    pub async fn set_thinking_level(&self, level: impl Into<String>) -> Result<(), CommandError> {
        self.done(Command::SetThinkingLevel(SetThinkingLevel {
            level: level.into(),
        }))
        .await
    }

    /// Shortens its context.
    ///
    /// # Errors
    /// When its harness cannot, or no answer comes.
    pub async fn compact(&self, instructions: Option<String>) -> Result<(), CommandError> {
        self.done(Command::Compact(Compact { instructions })).await
    }

    /// Its events after the last one that the history store has; without a store all that the runner keeps. The stream
    /// does not end because of a link, nor of a runner that dies and comes back.
    ///
    /// # Errors
    /// When there is no such session, or the runner cannot be reached within a minute.
    pub async fn events(&self) -> Result<Events, SubscribeError> {
        let last = self.last_kept().await?;
        self.subscribe(last, self.runner.history()).await
    }

    /// Its events after `cursor`; the default cursor asks for all that the runner keeps.
    ///
    /// The history store gets them only when it has everything up to `cursor` already: it must never acknowledge
    /// events that it has not.
    ///
    /// # Errors
    /// When there is no such session, events after the cursor are kept no longer, or the runner cannot be reached
    /// within a minute.
    pub async fn events_from(&self, cursor: Cursor) -> Result<Events, SubscribeError> {
        let is_joined = cursor <= self.last_kept().await?;
        self.subscribe(cursor, self.runner.history().filter(|_| is_joined))
            .await
    }

    async fn last_kept(&self) -> Result<Cursor, HistoryError> {
        let Some(store) = self.runner.history() else {
            return Ok(Cursor::default());
        };
        let addr = self.addr();
        let last = tokio::task::spawn_blocking(move || store.last(&addr));
        last.await.map_err(HistoryError::Ended)?
    }

    async fn subscribe(
        &self,
        from: Cursor,
        store: Option<Arc<dyn HistoryStore>>,
    ) -> Result<Events, SubscribeError> {
        let (line, behalf) = (Arc::clone(self.runner.line()), self.runner.behalf());
        Events::subscribe(line, self.addr(), behalf, from, store).await
    }

    /// Any other command.
    ///
    /// # Errors
    /// When the runner refuses, or no answer comes.
    pub async fn command(&self, command: Command) -> Result<Option<ReplyData>, CommandError> {
        self.runner.command(&self.id, command).await
    }

    async fn accepted(&self, command: Command) -> Result<Cursor, CommandError> {
        let cmd = command.name();
        match self.command(command).await? {
            Some(ReplyData::Accepted(accepted)) => Ok(accepted.cursor),
            _ => Err(CommandError::Answer { cmd }),
        }
    }

    async fn done(&self, command: Command) -> Result<(), CommandError> {
        self.command(command).await.map(drop)
    }

    fn addr(&self) -> SessionAddr {
        SessionAddr {
            runner_id: self.runner.id().clone(),
            session_id: self.id.clone(),
        }
    }
}
