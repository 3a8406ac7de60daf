//! A runner's handle: its line, commands, queries.

use std::sync::Arc;
use std::time::Instant;

use oqto_protocol::command::{Command, CommandEnvelope, SessionCreate};
use oqto_protocol::event::Envelope;
use oqto_protocol::hello::Welcome;
use oqto_protocol::id::{CommandId, RunnerId, SessionId};
use oqto_protocol::policy::{PolicyInfo, PolicyText};
use oqto_protocol::query::{Answer, PolicyList, PolicyShow, Query, RunnerSessions, RunnerStatus, Status};
use oqto_protocol::reply::{Reply, ReplyData};
use oqto_protocol::session::{SessionConfig, SessionInfo};
use tokio::sync::{broadcast, watch};
use tokio::time::timeout_at;

use crate::bounds::{ANSWER_WAIT, SENDS_MAX};
use crate::connection::{
    AttestError, ConnectError, Connection, ExchangeError, Line, LinkState, Patience, Refusal, RunnerAddr,
    Unfit, encode,
};
use crate::history::HistoryStore;
use crate::link::{Flight, Lost};
use crate::posture::{Finding, Posture, Verified};
use crate::session::Session;

/// Why a command has no effect, or none that is known of.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The runner cannot be reached.
    #[error("cannot reach the runner")]
    Connect(#[from] ConnectError),
    /// The command was sent, and no answer came: whether it had its effect is not known.
    #[error("{cmd} has no answer")]
    Exchange {
        /// Which command.
        cmd: &'static str,
        /// Why.
        source: ExchangeError,
    },
    /// The runner said no.
    #[error("the runner refused {cmd}")]
    Refused {
        /// Which command.
        cmd: &'static str,
        /// Why.
        source: Refusal,
    },
    /// The runner is not what this control wants it to be; it was not asked for anything.
    #[error("the runner is not what the posture asks for: {0}")]
    Posture(Finding),
    /// There is a posture, and it is not known what the runner is; it was not asked for anything.
    #[error("it is not known whether the runner is what the posture asks for")]
    Attest(#[source] AttestError),
    /// The answer is not one to this command.
    #[error("the runner answered {cmd} with something else")]
    Answer {
        /// Which command.
        cmd: &'static str,
    },
    /// The system gave no random bytes for the command's name.
    #[error("the system gives no random bytes")]
    Random,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The runner cannot be reached.
    #[error("cannot reach the runner")]
    Connect(#[from] ConnectError),
    /// No answer came.
    #[error("{query} has no answer")]
    Exchange {
        /// Which query.
        query: &'static str,
        /// Why.
        source: ExchangeError,
    },
    /// The runner said no.
    #[error("the runner refused {query}")]
    Refused {
        /// Which query.
        query: &'static str,
        /// Why.
        source: Refusal,
    },
    /// The answer is not one to this query.
    #[error("the runner answered {query} with something else")]
    Answer {
        /// Which query.
        query: &'static str,
    },
}

/// A runner that was connected once. Clones share its link, which is dialled again when it was lost, as long as a
/// command waits or events are read: with back-off and jitter, through a circuit breaker of its own and a budget that
/// all runners of a control share. Dropping the last handle closes it.
#[derive(Clone, Debug)]
pub struct Runner {
    inner: Arc<Inner>,
    on_behalf_of: Option<Arc<str>>,
}

#[derive(Debug)]
struct Inner {
    id: RunnerId,
    line: Arc<Line>,
    history: Option<Arc<dyn HistoryStore>>,
}

impl Runner {
    pub(crate) fn new(id: RunnerId, line: Arc<Line>, history: Option<Arc<dyn HistoryStore>>) -> Self {
        Self {
            inner: Arc::new(Inner { id, line, history }),
            on_behalf_of: None,
        }
    }

    /// This runner, asked for somebody: whom this control serves, in its own words, 1 to 256 bytes without control
    /// characters. The runner writes it into its audit log with each command and subscription, and believes nothing of
    /// it; what does not look like that it refuses.
    #[must_use]
    pub fn on_behalf_of(&self, whom: &str) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            on_behalf_of: Some(whom.into()),
        }
    }

    /// Its name, as its certificate says.
    #[must_use]
    pub fn id(&self) -> &RunnerId {
        &self.inner.id
    }

    /// Where it was reached last.
    #[must_use]
    pub fn addr(&self) -> RunnerAddr {
        self.inner.line.at()
    }

    /// How its link stands, now and whenever that changes. Looking at it makes nobody dial.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<LinkState> {
        self.inner.line.state()
    }

    /// Closes its link for good, for all clones: what waits for it, commands and streams of events, ends with
    /// [`ConnectError::Closed`]. Its agents do not notice.
    pub fn close(&self) {
        self.inner.line.close();
    }

    /// What it said of itself when it was connected: its harnesses, its limits.
    ///
    /// # Errors
    /// When the connection was lost and cannot be made again.
    pub async fn welcome(&self) -> Result<Welcome, ConnectError> {
        Ok(self.connection().await?.welcome().clone())
    }

    /// Makes a session, under a fresh name, and waits until its sandbox holds or the runner says why not.
    ///
    /// # Errors
    /// When the runner refuses, or no answer comes.
    pub async fn create(&self, config: SessionConfig) -> Result<Session, CommandError> {
        let id = fresh_session_id()?;
        let create = Command::SessionCreate(SessionCreate {
            config: Box::new(config),
        });
        match self.command(&id, create).await? {
            Some(ReplyData::Created(created)) => Ok(self.session(created.session.session_id)),
            _ => Err(CommandError::Answer {
                cmd: "session.create",
            }),
        }
    }

    /// A session that exists; nothing is asked yet.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Session {
        Session::new(self.clone(), id)
    }

    /// Its sessions, those that have ended included until they are deleted.
    ///
    /// # Errors
    /// When no list comes.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>, QueryError> {
        match self.query(Query::RunnerSessions(RunnerSessions {})).await? {
            Answer::SessionList(list) => Ok(list.sessions),
            _ => Err(QueryError::Answer {
                query: "runner.sessions",
            }),
        }
    }

    /// How it stands.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn status(&self) -> Result<Status, QueryError> {
        match self.query(Query::RunnerStatus(RunnerStatus {})).await? {
            Answer::Status(status) => Ok(status),
            _ => Err(QueryError::Answer {
                query: "runner.status",
            }),
        }
    }

    /// Its sandbox policies.
    ///
    /// # Errors
    /// When no list comes.
    pub async fn policies(&self) -> Result<Vec<PolicyInfo>, QueryError> {
        match self.query(Query::PolicyList(PolicyList {})).await? {
            Answer::Policies(list) => Ok(list.policies),
            _ => Err(QueryError::Answer { query: "policy.list" }),
        }
    }

    /// One sandbox policy, as written.
    ///
    /// # Errors
    /// When there is none of that name, or no answer comes.
    pub async fn policy(&self, name: impl Into<String>) -> Result<PolicyText, QueryError> {
        match self
            .query(Query::PolicyShow(PolicyShow { name: name.into() }))
            .await?
        {
            Answer::Policy(policy) => Ok(policy),
            _ => Err(QueryError::Answer { query: "policy.show" }),
        }
    }

    /// What it is, as it says with the key of its certificate, for this asking and this connection: its program, its
    /// kernel, whether its sandbox holds, its policies. Asking makes the runner check its sandbox if it did not of late.
    ///
    /// # Errors
    /// When no answer comes, the runner refuses, or what it says is not believed.
    pub async fn attest(&self) -> Result<Verified, AttestError> {
        let until = Instant::now() + ANSWER_WAIT;
        let mut sends = 0;
        loop {
            let connection = self.connection_by(until).await?;
            sends += 1;
            let attested = timeout_at(until.into(), connection.attest()).await;
            match attested.unwrap_or(Err(ExchangeError::Slow.into())) {
                Err(error) if error.is_lost() && sends < SENDS_MAX => {}
                attested => return attested,
            }
        }
    }

    /// Telemetry of all its sessions from now on, on this connection. It is not kept: who reads slowly loses the
    /// oldest, and it ends with the connection.
    ///
    /// # Errors
    /// When the connection was lost and cannot be made again.
    pub async fn telemetry(&self) -> Result<broadcast::Receiver<Envelope>, ConnectError> {
        Ok(self.connection().await?.transients())
    }

    /// Gives a session a command under a fresh id. When the link is lost before the answer, the same id is sent
    /// again on the next, for a minute in all: a command has its effect once.
    ///
    /// # Errors
    /// When the runner refuses, or no answer comes. Only [`CommandError::Exchange`] leaves open whether it had its
    /// effect.
    pub async fn command(
        &self,
        session: &SessionId,
        command: Command,
    ) -> Result<Option<ReplyData>, CommandError> {
        self.command_as(CommandId(random()?), session, command).await
    }

    /// The same under a name that the caller chose, sixteen bytes that no other command of the session ever had. Who
    /// wrote it down before can send the command again after a crash of this program: what had its effect has no
    /// second one, and the answer is the first one.
    ///
    /// # Errors
    /// As for [`Self::command`].
    pub async fn command_as(
        &self,
        id: CommandId,
        session: &SessionId,
        command: Command,
    ) -> Result<Option<ReplyData>, CommandError> {
        let cmd = command.name();
        let posture = self.inner.line.posture().filter(|_| starts_agent(&command));
        let envelope = CommandEnvelope {
            id,
            session_id: session.clone(),
            runner_id: None,
            command,
            on_behalf_of: self.on_behalf_of.as_deref().map(str::to_owned),
        };
        let bytes = encode(&envelope).map_err(|error| CommandError::Exchange {
            cmd,
            source: error.into(),
        })?;
        let mut flight = Flight::new(id, Instant::now() + ANSWER_WAIT);
        let reply = self.send(&bytes, cmd, &mut flight, posture).await?;
        if !flight.is_answered_by(&reply) {
            return Err(CommandError::Answer { cmd });
        }
        match reply.error {
            Some(fault) => Err(CommandError::Refused {
                cmd,
                source: Refusal(fault),
            }),
            None if reply.success => Ok(reply.data),
            None => Err(CommandError::Answer { cmd }),
        }
    }

    /// Sends a command's bytes until they are answered, to a runner that is as the posture wants it.
    async fn send(
        &self,
        bytes: &[u8],
        cmd: &'static str,
        flight: &mut Flight,
        posture: Option<&Posture>,
    ) -> Result<Reply, CommandError> {
        let unanswered = |source| CommandError::Exchange { cmd, source };
        let mut lost = None;
        loop {
            let connection = match (self.fit_connection(posture, flight.until()).await, lost.take()) {
                (Ok(connection), _) => connection,
                // That it was sent says more than that it cannot be sent again.
                (Err(error), Some(lost)) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, cmd, "not sent again");
                    return Err(unanswered(lost));
                }
                (Err(error), None) => return Err(error),
            };
            flight.sent();
            let answer = timeout_at(flight.until().into(), connection.exchange(bytes)).await;
            match answer.unwrap_or(Err(ExchangeError::Slow)) {
                Ok(reply) => return Ok(reply),
                Err(ExchangeError::Refused(source)) => return Err(CommandError::Refused { cmd, source }),
                Err(error) if error.is_lost() && flight.lost(Instant::now()) == Lost::Resend => {
                    lost = Some(error);
                }
                Err(error) => return Err(unanswered(error)),
            }
        }
    }

    /// Asks the runner something; a question without effect is asked again when the link is lost.
    ///
    /// # Errors
    /// When the runner refuses, or no answer comes within a minute.
    pub async fn query(&self, query: Query) -> Result<Answer, QueryError> {
        let name = query.name();
        let exchange = |source| QueryError::Exchange { query: name, source };
        let bytes = encode(&query).map_err(|error| exchange(error.into()))?;
        let until = Instant::now() + ANSWER_WAIT;
        let mut sends = 0;
        loop {
            let connection = self.connection_by(until).await?;
            sends += 1;
            let answer = timeout_at(until.into(), connection.exchange(&bytes)).await;
            match answer.unwrap_or(Err(ExchangeError::Slow)) {
                Ok(Answer::Fault(fault)) => {
                    return Err(QueryError::Refused {
                        query: name,
                        source: Refusal(fault),
                    });
                }
                Err(ExchangeError::Refused(source)) => {
                    return Err(QueryError::Refused { query: name, source });
                }
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_lost() && is_harmless(&query) && sends < SENDS_MAX => {}
                Err(error) => return Err(exchange(error)),
            }
        }
    }

    /// The connection; dialled again when it was lost. Who comes while it is dialled waits for the same one.
    async fn connection(&self) -> Result<Arc<Connection>, ConnectError> {
        self.connection_by(Instant::now() + ANSWER_WAIT).await
    }

    async fn connection_by(&self, until: Instant) -> Result<Arc<Connection>, ConnectError> {
        self.inner.line.connection(Patience::Until(until)).await
    }

    /// A connection to a runner that is known, on that very connection, to be as it should.
    async fn fit_connection(
        &self,
        posture: Option<&Posture>,
        until: Instant,
    ) -> Result<Arc<Connection>, CommandError> {
        let mut asked = 0;
        loop {
            let connection = self.connection_by(until).await?;
            let Some(posture) = posture else {
                return Ok(connection);
            };
            asked += 1;
            let satisfied = timeout_at(until.into(), connection.satisfy(posture)).await;
            match satisfied.unwrap_or_else(|_| Err(Unfit::Attest(ExchangeError::Slow.into()))) {
                Ok(()) => return Ok(connection),
                Err(Unfit::Attest(error)) if error.is_lost() && asked < SENDS_MAX => {}
                Err(Unfit::Attest(error)) => return Err(CommandError::Attest(error)),
                Err(Unfit::Posture(finding)) => return Err(CommandError::Posture(finding)),
            }
        }
    }

    pub(crate) fn line(&self) -> &Arc<Line> {
        &self.inner.line
    }

    pub(crate) fn behalf(&self) -> Option<Arc<str>> {
        self.on_behalf_of.clone()
    }

    pub(crate) fn history(&self) -> Option<Arc<dyn HistoryStore>> {
        self.inner.history.clone()
    }
}

/// Whether a command makes an agent run that does not: the runner has to be as it should before.
fn starts_agent(command: &Command) -> bool {
    matches!(command, Command::SessionCreate(_) | Command::SessionRestart(_))
}

/// Whether asking twice is the same as asking once.
fn is_harmless(query: &Query) -> bool {
    matches!(
        query,
        Query::RunnerStatus(_)
            | Query::RunnerAttest(_)
            | Query::RunnerSessions(_)
            | Query::PolicyList(_)
            | Query::PolicyShow(_)
            | Query::FilesList(_)
            | Query::FilesStat(_)
    )
}

/// A name that no session ever had: `s-` and 16 random hex digits.
fn fresh_session_id() -> Result<SessionId, CommandError> {
    let bytes: [u8; 8] = random()?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("s-{hex}").parse().map_err(|_| CommandError::Random)
}

fn random<const N: usize>() -> Result<[u8; N], CommandError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| CommandError::Random)?;
    Ok(bytes)
}
