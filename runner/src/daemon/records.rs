//! The audit log as an owner reads it over a connection: one answer a record, until either side goes.

use oqto_protocol::codec::Json;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::query::{Answer, AuditRecord, AuditTail};

use super::Daemon;
use super::connection::StreamError;
use crate::audit::{Tail, TailError};
use crate::transport::{Inbox, Outbox, Stream};

/// Sends records from where it was asked for on.
pub(super) async fn serve(stream: Stream, asked: &AuditTail, daemon: &Daemon) -> Result<(), StreamError> {
    let Stream {
        mut inbox,
        mut outbox,
    } = stream;
    tokio::select! {
        sent = send(&mut outbox, asked, daemon) => {
            sent?;
            outbox.flush().await;
            Ok(())
        }
        () = over(&mut inbox) => Ok(()),
    }
}

/// Whoever reads has nothing more to say: what comes, or a reset, is the end. A side that is finished is still read to.
async fn over(inbox: &mut Inbox) {
    if matches!(inbox.read().await, Ok(None)) {
        std::future::pending::<()>().await;
    }
}

async fn send(outbox: &mut Outbox, asked: &AuditTail, daemon: &Daemon) -> Result<(), StreamError> {
    let mut newest = daemon.audit.newest();
    let next = asked.from.unwrap_or(*newest.borrow() + 1).max(1);
    let mut tail = daemon.audit.tail(next);
    let unwanted = outbox.unwanted();
    tokio::pin!(unwanted);
    loop {
        let last = *newest.borrow_and_update();
        let (lines, read) = match read(tail, last).await {
            Ok(read) => read,
            Err(fault) => {
                outbox.send(&Answer::Fault(fault)).await?;
                return Ok(());
            }
        };
        tail = read;
        if lines.is_empty() {
            tokio::select! {
                changed = newest.changed() => if changed.is_err() {
                    // The log is closed, and all of it is sent.
                    return Ok(());
                },
                () = &mut unwanted => return Ok(()),
            }
        }
        for line in lines {
            match String::from_utf8(line)
                .ok()
                .and_then(|line| Json::parse(line).ok())
            {
                Some(record) => outbox.send(&Answer::AuditRecord(AuditRecord { record })).await?,
                None => {
                    let fault = Fault::new(FaultCode::Storage, "a record of the audit log is no JSON");
                    outbox.send(&Answer::Fault(fault)).await?;
                    return Ok(());
                }
            }
        }
    }
}

/// Reads on, where it holds nobody up.
async fn read(mut tail: Tail, last: u64) -> Result<(Vec<Vec<u8>>, Tail), Fault> {
    let read = tokio::task::spawn_blocking(move || tail.read(last).map(|lines| (lines, tail)));
    let read = read
        .await
        .map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))?;
    read.map_err(|error| {
        let code = match &error {
            TailError::Gone { .. } => FaultCode::NotFound,
            TailError::Damaged { .. } | TailError::Io { .. } => FaultCode::Storage,
        };
        Fault::new(code, crate::cause::chain(&error))
    })
}
