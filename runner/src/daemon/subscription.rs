//! One subscription: a session's events from a cursor on, as they are kept.

use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::{Event, Numbered, StreamReset};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::frame::Kind;
use oqto_protocol::stream::{Ack, Subscribe, Subscribed};

use super::Daemon;
use super::authorise::authorise;
use super::connection::{StreamError, malformed};
use crate::clock;
use crate::event_log::Resume;
use crate::identity::Peer;
use crate::supervisor::Followed;
use crate::transport::{Inbox, Outbox, Received, Stream};

/// How much is read from the log at once, bytes: large enough that a busy session is one write, small enough that
/// a thousand subscribers fit in memory.
const CHUNK_LEN_MAX: usize = 64 * 1024;

/// Serves one subscription until its session or its peer is at an end.
pub(super) async fn serve(
    mut stream: Stream,
    frame: &Received,
    peer: &Peer,
    daemon: &Daemon,
) -> Result<(), StreamError> {
    let asked = match frame.body::<Subscribe>() {
        Ok(subscribe) => authorise(peer, &daemon.runner_id, subscribe),
        Err(error) => Err(malformed("subscription", &error)),
    };
    let opened = match asked {
        Ok(asked) => open(asked.into_asked(), daemon).await,
        Err(fault) => Err(fault),
    };
    match opened {
        Ok((followed, subscribed, reset)) => {
            stream.outbox.send(&subscribed).await?;
            if let Some(reset) = reset {
                stream.outbox.send(&reset).await?;
            }
            let Stream {
                mut inbox,
                mut outbox,
            } = stream;
            let from = subscribed.cursor.seq;
            let unwanted = outbox.unwanted();
            tokio::select! {
                () = unwanted => {}
                sent = send(&mut outbox, &followed, from) => sent?,
                heard = hear(&mut inbox) => heard?,
            }
            outbox.flush().await;
        }
        Err(fault) => {
            stream.outbox.send(&fault).await?;
            stream.outbox.flush().await;
        }
    }
    Ok(())
}

/// What is followed, from where, and what a reader is told first that saw events which were lost.
async fn open(
    subscribe: Subscribe,
    daemon: &Daemon,
) -> Result<(Followed, Subscribed, Option<Numbered>), Fault> {
    let Subscribe {
        session_id,
        cursor,
        max_frame,
    } = subscribe;
    if max_frame != 0 && (max_frame as usize) < oqto_protocol::bounds::FRAME_LEN_MAX {
        // A finished message cannot be cut, so a shorter bound would be a promise that cannot be kept.
        let message = "this runner sends frames up to the protocol's own bound; ask with max_frame 0";
        return Err(Fault::new(FaultCode::Unsupported, message));
    }
    let followed = daemon.supervisor.follow(&session_id).await?;
    let Cursor { epoch, seq: newest } = followed.newest();
    if cursor.epoch > epoch || (cursor.epoch == epoch && cursor.seq > newest) {
        let message = format!(
            "session {session_id} has no event {} of epoch {}; its newest is {newest} of epoch {epoch}",
            cursor.seq, cursor.epoch
        );
        return Err(Fault::new(FaultCode::NotFound, message));
    }
    let (seq, reset) = match followed.resume(cursor) {
        Resume::After(seq) => (seq, None),
        Resume::Reset { seq, .. } => (seq, Some(reset(epoch, seq))),
    };
    let cursor = Cursor { epoch, seq };
    let newest = Cursor { epoch, seq: newest };
    Ok((
        followed,
        Subscribed {
            cursor,
            oldest: 1,
            newest,
        },
        reset,
    ))
}

/// What a reader has beyond `seq` never happened.
fn reset(epoch: u32, seq: u64) -> Numbered {
    Numbered {
        epoch,
        seq,
        first_seq: None,
        ts: clock::unix_ms(),
        event: Event::StreamReset(StreamReset { epoch, seq }),
    }
}

/// Sends what is kept, as it is kept, until the session has ended and all of it is sent.
async fn send(outbox: &mut Outbox, followed: &Followed, from: u64) -> Result<(), StreamError> {
    let mut seq = from;
    let mut ended = followed.ended.clone();
    loop {
        let over = *ended.borrow_and_update();
        match followed.log.read(seq, CHUNK_LEN_MAX).await {
            Ok(Some(chunk)) => {
                seq = chunk.last_seq;
                outbox.send_frames(chunk.into_inner().bytes).await?;
            }
            Ok(None) if over => return Ok(()),
            Ok(None) => {
                tokio::select! {
                    past = followed.log.wait_past(seq) => {
                        if past.is_err() {
                            return Ok(());
                        }
                    }
                    // An end that nobody can tell any more is an end.
                    _ = ended.changed() => {}
                }
            }
            Err(error) => {
                let message = format!("the event log cannot be read: {}", crate::cause::chain(&error));
                tracing::error!("{message}");
                outbox.send(&Fault::new(FaultCode::Storage, message)).await?;
                return Ok(());
            }
        }
    }
}

/// Takes acknowledgements until the peer leaves.
async fn hear(inbox: &mut Inbox) -> Result<(), StreamError> {
    while let Some(frame) = inbox.read().await? {
        if frame.kind() == Kind::ACK
            && let Ok(Ack { seq }) = frame.body()
        {
            // Nothing is forgotten before its session is, so there is nothing to do but to know it.
            tracing::trace!(seq, "acknowledged");
        }
    }
    // The peer has finished its side and may still be reading.
    std::future::pending().await
}
