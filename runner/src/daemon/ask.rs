//! What a runner asks a control: for a certificate.

use std::time::Duration;

use oqto_protocol::codec::DecodeError;
use oqto_protocol::enrol::Grant;
use oqto_protocol::fault::Fault;
use oqto_protocol::frame::Kind;
use oqto_protocol::query::{Answer, Query};

use crate::transport::{Connection, HandshakeError, ReadError, WriteError};

/// How long a control may take to answer: it signs, and writes down that it did.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The longest answer, bytes: a certificate and up to eight roots are a few kilobytes.
const ANSWER_LEN_MAX: usize = 64 * 1024;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The link went.
    #[error("the link is gone")]
    Gone(#[source] Option<HandshakeError>),
    /// The question cannot be sent.
    #[error("cannot ask")]
    Write(#[from] WriteError),
    /// The answer cannot be read.
    #[error("cannot read the answer")]
    Read(#[from] ReadError),
    /// The answer is malformed.
    #[error("the answer is malformed")]
    Malformed(#[from] DecodeError),
    /// It answered something else, or nothing.
    #[error("the control answered something else")]
    Other,
    /// It took too long.
    #[error("the control did not answer within {} s", ANSWER_MAX.as_secs())]
    Slow,
    /// The control says no.
    #[error("the control refuses: {}", .0.message)]
    Refused(Fault),
}

/// Asks for a certificate on a stream of its own.
pub(super) async fn grant(connection: &Connection, query: &Query) -> Result<Grant, AskError> {
    let answered = tokio::time::timeout(ANSWER_MAX, exchange(connection, query)).await;
    match answered.unwrap_or(Err(AskError::Slow)) {
        // Why the link went is the better reason.
        Err(AskError::Write(_) | AskError::Read(ReadError::Broken(_))) if connection.why_gone().is_some() => {
            Err(AskError::Gone(connection.why_gone()))
        }
        answered => answered,
    }
}

async fn exchange(connection: &Connection, query: &Query) -> Result<Grant, AskError> {
    let Some(mut stream) = connection.open_stream().await else {
        return Err(AskError::Gone(connection.why_gone()));
    };
    stream.inbox.set_len_max(ANSWER_LEN_MAX);
    stream.outbox.send(query).await?;
    stream.outbox.finish();
    let frame = stream.inbox.read().await?.ok_or(AskError::Other)?;
    match frame.kind() {
        Kind::ANSWER => match frame.body()? {
            Answer::Grant(grant) => Ok(grant),
            Answer::Fault(fault) => Err(AskError::Refused(fault)),
            _ => Err(AskError::Other),
        },
        Kind::FAULT => Err(AskError::Refused(frame.body()?)),
        _ => Err(AskError::Other),
    }
}
