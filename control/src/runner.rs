//! A runner's handle: one connection that is dialled anew when it was lost, commands, queries.

use std::sync::Arc;

use oqto_protocol::attest::{Attest, Attestation};
use oqto_protocol::codec::Blob;
use oqto_protocol::command::{Command, CommandEnvelope, SessionCreate};
use oqto_protocol::event::Envelope;
use oqto_protocol::hello::Welcome;
use oqto_protocol::id::{CommandId, RunnerId, SessionId};
use oqto_protocol::policy::{PolicyInfo, PolicyText};
use oqto_protocol::query::{Answer, PolicyList, PolicyShow, Query, RunnerSessions, RunnerStatus, Status};
use oqto_protocol::reply::{Reply, ReplyData};
use oqto_protocol::session::{SessionConfig, SessionInfo};
use tokio::sync::{Mutex, broadcast};

use crate::connection::{ConnectError, Connection, Dialer, ExchangeError, Refusal, RunnerAddr, encode};
use crate::history::HistoryStore;
use crate::link::{Flight, Lost};
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

/// A runner that is connected. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Runner {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dialer: Arc<Dialer>,
    at: RunnerAddr,
    live: Mutex<Arc<Connection>>,
    history: Option<Arc<dyn HistoryStore>>,
}

impl Runner {
    pub(crate) async fn connect(
        dialer: Arc<Dialer>,
        at: RunnerAddr,
        history: Option<Arc<dyn HistoryStore>>,
    ) -> Result<Self, ConnectError> {
        let live = Mutex::new(Arc::new(dialer.dial(&at).await?));
        Ok(Self {
            inner: Arc::new(Inner {
                dialer,
                at,
                live,
                history,
            }),
        })
    }

    /// Its name, as its certificate says.
    #[must_use]
    pub fn id(&self) -> &RunnerId {
        &self.inner.at.id
    }

    /// Where it is.
    #[must_use]
    pub fn addr(&self) -> &RunnerAddr {
        &self.inner.at
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

    /// What it is, signed over `nonce`: 16 to 64 bytes that were never used before. The signature is not checked here.
    ///
    /// # Errors
    /// When the runner does not attest, or no answer comes.
    pub async fn attest(&self, nonce: Vec<u8>) -> Result<Attestation, QueryError> {
        match self
            .query(Query::RunnerAttest(Attest { nonce: Blob(nonce) }))
            .await?
        {
            Answer::Attested(attestation) => Ok(attestation),
            _ => Err(QueryError::Answer {
                query: "runner.attest",
            }),
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
    /// once more: a command has its effect once.
    ///
    /// # Errors
    /// When the runner refuses, or no answer comes.
    pub async fn command(
        &self,
        session: &SessionId,
        command: Command,
    ) -> Result<Option<ReplyData>, CommandError> {
        let cmd = command.name();
        let exchange = |source| CommandError::Exchange { cmd, source };
        let id = CommandId(random()?);
        let envelope = CommandEnvelope {
            id,
            session_id: session.clone(),
            runner_id: None,
            command,
        };
        let bytes = encode(&envelope).map_err(|error| exchange(error.into()))?;
        let mut flight = Flight::new(id);
        let reply: Reply = loop {
            match self.connection().await?.exchange(&bytes).await {
                Ok(reply) => break reply,
                Err(ExchangeError::Refused(source)) => return Err(CommandError::Refused { cmd, source }),
                Err(error) if error.is_lost() && flight.lost() == Lost::Resend => {
                    tracing::debug!(%id, cmd, "the link was lost; the command is sent again");
                }
                Err(error) => return Err(exchange(error)),
            }
        };
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

    /// Asks the runner something; a question without effect is asked again when the link is lost.
    ///
    /// # Errors
    /// When the runner refuses, or no answer comes.
    pub async fn query(&self, query: Query) -> Result<Answer, QueryError> {
        let name = query.name();
        let exchange = |source| QueryError::Exchange { query: name, source };
        let bytes = encode(&query).map_err(|error| exchange(error.into()))?;
        let mut answer = self.connection().await?.exchange(&bytes).await;
        if answer.as_ref().is_err_and(ExchangeError::is_lost) && is_harmless(&query) {
            answer = self.connection().await?.exchange(&bytes).await;
        }
        match answer {
            Ok(Answer::Fault(fault)) => Err(QueryError::Refused {
                query: name,
                source: Refusal(fault),
            }),
            Err(ExchangeError::Refused(source)) => Err(QueryError::Refused { query: name, source }),
            Ok(answer) => Ok(answer),
            Err(error) => Err(exchange(error)),
        }
    }

    /// The connection; dialled again when it was lost. Who comes while it is dialled waits for the same one.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>, ConnectError> {
        let mut live = self.inner.live.lock().await;
        if live.is_closed() {
            *live = Arc::new(self.inner.dialer.dial(&self.inner.at).await?);
        }
        Ok(Arc::clone(&live))
    }

    pub(crate) fn history(&self) -> Option<Arc<dyn HistoryStore>> {
        self.inner.history.clone()
    }
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
