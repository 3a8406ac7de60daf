//! One question and its answer, on a stream of their own.

use oqto_protocol::bounds::FRAME_LEN_MAX;
use oqto_protocol::codec::DecodeError;
use oqto_protocol::fault::Fault;
use oqto_protocol::frame::{self, Body, Frame, FrameError, Kind};
use oqto_protocol::stream::{Subscribe, Subscribed};
use quinn::{ConnectionError, ReadError, SendStream, WriteError};

use super::{Connection, FrameReader};
use crate::bounds::{ANSWER_BUFFER_LEN, ANSWER_WAIT, EVENT_BUFFER_LEN};

/// What the runner said no to, and why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", .0.message)]
pub struct Refusal(pub Fault);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection is gone.
    #[error("the connection to the runner was lost")]
    Lost(#[source] ConnectionError),
    /// The runner was revoked while it was asked.
    #[error("the link was cut, since the runner was revoked")]
    Revoked,
    /// The runner does not take the question's bytes.
    #[error("the runner stopped reading")]
    Stopped(#[source] WriteError),
    /// The runner broke its answer off.
    #[error("the runner broke its answer off")]
    Broken(#[source] ReadError),
    /// The stream ended before the answer.
    #[error("the stream ended before the answer")]
    Ended,
    /// No answer came in time.
    #[error("no answer within {} s", ANSWER_WAIT.as_secs())]
    Slow,
    /// The question, or the answer, is longer than a frame may be.
    #[error("a frame is not one")]
    Frame(#[from] FrameError),
    /// The answer cannot be read.
    #[error("the answer is malformed")]
    Malformed(#[from] DecodeError),
    /// The answer is of another kind.
    #[error("the runner answered with a frame of kind {}", .0.0)]
    Unexpected(Kind),
    /// The runner said no.
    #[error("the runner refused")]
    Refused(#[source] Refusal),
}

impl ExchangeError {
    /// Whether a new connection may help.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Ended)
    }
}

impl From<ReadError> for ExchangeError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(source) => Self::Lost(source),
            other => Self::Broken(other),
        }
    }
}

impl From<WriteError> for ExchangeError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(source) => Self::Lost(source),
            other => Self::Stopped(other),
        }
    }
}

impl Connection {
    /// Sends one question and waits for its answer, within bounds.
    pub(crate) async fn exchange<A: Body>(&self, question: &[u8]) -> Result<A, ExchangeError> {
        let exchange = async {
            let (mut send, receive) = self.quic().open_bi().await.map_err(ExchangeError::Lost)?;
            let sent = send.write_all(question).await;
            // A runner that refuses may stop reading first: its answer says more than our failed write.
            let finished = sent.is_ok() && send.finish().is_ok();
            let mut reader = FrameReader::new(receive, ANSWER_BUFFER_LEN, FRAME_LEN_MAX);
            match reader.next(expect::<A>).await {
                Err(ExchangeError::Ended | ExchangeError::Broken(_)) if !finished => {
                    Err(sent.err().map_or(ExchangeError::Ended, ExchangeError::from))
                }
                other => other,
            }
        };
        let answer = tokio::time::timeout(ANSWER_WAIT, exchange).await;
        match answer.unwrap_or(Err(ExchangeError::Slow)) {
            Err(error) if error.is_lost() && self.is_revoked() => Err(ExchangeError::Revoked),
            other => other,
        }
    }

    /// Opens a subscription: from here on the reader gives its events and the sender takes acknowledgements.
    pub(crate) async fn subscribe(
        &self,
        subscribe: &Subscribe,
    ) -> Result<(Subscribed, SendStream, FrameReader), ExchangeError> {
        let question = encode(subscribe)?;
        let exchange = async {
            let (mut send, receive) = self.quic().open_bi().await.map_err(ExchangeError::Lost)?;
            send.write_all(&question).await?;
            let mut reader = FrameReader::new(receive, EVENT_BUFFER_LEN, FRAME_LEN_MAX);
            let subscribed = reader.next(expect::<Subscribed>).await?;
            Ok((subscribed, send, reader))
        };
        tokio::time::timeout(ANSWER_WAIT, exchange)
            .await
            .unwrap_or(Err(ExchangeError::Slow))
    }
}

/// One value as one frame.
pub(crate) fn encode<T: Body>(value: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::with_capacity(256);
    frame::append(value, &mut bytes)?;
    Ok(bytes)
}

/// Reads a frame that should be a `T`, or says no.
pub(super) fn expect<T: Body>(frame: Frame<'_>) -> Result<T, ExchangeError> {
    match frame.kind {
        Kind::FAULT if T::KIND != Kind::FAULT => Err(ExchangeError::Refused(Refusal(frame.body()?))),
        kind if kind == T::KIND => Ok(frame.body()?),
        kind => Err(ExchangeError::Unexpected(kind)),
    }
}
