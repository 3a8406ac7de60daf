//! One subscription on one connection, and how it is made again on the next.

use std::sync::Arc;
use std::time::Duration;

use oqto_protocol::cursor::Cursor;
use oqto_protocol::fault::FaultCode;
use oqto_protocol::id::SessionId;
use oqto_protocol::stream::{Subscribe, Subscribed};
use quinn::SendStream;

use crate::connection::{ConnectError, Connection, ExchangeError, FrameReader, Line, Patience, random};
use crate::history::HistoryError;
use crate::link::Backoff;

/// Why a subscription was not made.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The runner cannot be reached.
    #[error("cannot reach the runner")]
    Connect(#[from] ConnectError),
    /// The runner did not answer with a subscription.
    #[error("cannot subscribe to session {session}")]
    Exchange {
        /// Whose events.
        session: SessionId,
        /// Why.
        source: ExchangeError,
    },
    /// Events behind the cursor are kept no longer.
    #[error("events after {asked} are kept no longer; the oldest is {oldest}")]
    Expired {
        /// The last event that the reader has.
        asked: u64,
        /// The oldest that there is.
        oldest: u64,
    },
    /// The history store cannot say what it has.
    #[error("cannot read the history")]
    History(#[from] HistoryError),
}

impl SubscribeError {
    /// Whether asking again may help, although nothing has changed but the time.
    fn is_passing(&self) -> bool {
        match self {
            Self::Exchange { source, .. } => match source {
                ExchangeError::Refused(refusal) => is_passing(refusal.0.code),
                ExchangeError::Lost(_)
                | ExchangeError::Ended
                | ExchangeError::Broken(_)
                // The line says it better.
                | ExchangeError::Revoked
                | ExchangeError::Stopped(_)
                | ExchangeError::Slow => true,
                ExchangeError::Frame(_) | ExchangeError::Malformed(_) | ExchangeError::Unexpected(_) => false,
            },
            // Whoever waits for the line has waited as long as it wants to.
            Self::Connect(_) | Self::Expired { .. } | Self::History(_) => false,
        }
    }
}

/// Whether a runner that says so may say otherwise soon.
pub(super) fn is_passing(code: FaultCode) -> bool {
    matches!(
        code,
        FaultCode::Busy | FaultCode::Closing | FaultCode::Timeout | FaultCode::Storage | FaultCode::Limit
    )
}

/// What is subscribed to, and for whom.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) session_id: SessionId,
    pub(super) on_behalf_of: Option<Arc<str>>,
}

/// A subscription that stands.
pub(super) struct Subscription {
    pub(super) reader: FrameReader,
    pub(super) up: SendStream,
    /// From where it goes on, by the runner's word.
    pub(super) from: Cursor,
    /// The oldest event that is kept.
    pub(super) oldest: u64,
    /// The newest event there was.
    pub(super) newest: u64,
    /// The connection lives as long as somebody reads from it.
    _connection: Arc<Connection>,
}

/// Subscribes to what happens after `from`, after a pause, on one connection after the other, until it is done or of no
/// use.
pub(super) async fn subscribe(
    line: Arc<Line>,
    wanted: Wanted,
    from: Cursor,
    patience: Patience,
    mut pause: Duration,
    mut backoff: Backoff,
) -> Result<(Subscription, Backoff), SubscribeError> {
    loop {
        tokio::time::sleep(pause).await;
        let connection = line.connection(patience).await?;
        match subscribe_once(connection, &wanted, from).await {
            Ok(subscription) => return Ok((subscription, backoff)),
            Err(error) if error.is_passing() && !patience.is_over() => {
                tracing::debug!(error = &error as &dyn std::error::Error, "subscribing again");
                pause = backoff.next(random());
            }
            Err(error) => return Err(error),
        }
    }
}

async fn subscribe_once(
    connection: Arc<Connection>,
    wanted: &Wanted,
    from: Cursor,
) -> Result<Subscription, SubscribeError> {
    let ask = Subscribe {
        session_id: wanted.session_id.clone(),
        cursor: from,
        max_frame: 0,
        on_behalf_of: wanted.on_behalf_of.as_deref().map(str::to_owned),
    };
    let (subscribed, up, reader) =
        connection
            .subscribe(&ask)
            .await
            .map_err(|source| SubscribeError::Exchange {
                session: wanted.session_id.clone(),
                source,
            })?;
    let Subscribed {
        cursor,
        oldest,
        newest,
    } = subscribed;
    if from != Cursor::default() && cursor.seq > from.seq {
        return Err(SubscribeError::Expired {
            asked: from.seq,
            oldest,
        });
    }
    Ok(Subscription {
        reader,
        up,
        from: cursor,
        oldest,
        newest: newest.seq,
        _connection: connection,
    })
}
