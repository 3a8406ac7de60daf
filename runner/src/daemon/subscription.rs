//! One subscription: a session's events from a cursor on, as they are kept.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::{Event, Numbered, StreamReset};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::frame::Kind;
use oqto_protocol::stream::{Ack, Subscribe, Subscribed};

use super::Daemon;
use super::authorise::{authorise, may_acknowledge};
use super::connection::{StreamError, malformed};
use crate::clock;
use crate::event_log::{ReadError, Resume};
use crate::identity::Peer;
use crate::supervisor::Followed;
use crate::transport::{Inbox, Outbox, Received, Stream};

/// How much is read from the log at once, bytes: as long as the rows of a busy session, so that one is one write, and
/// small enough that a thousand subscribers fit in memory. A single event may be longer.
const CHUNK_LEN_MAX: usize = 128 * 1024;

/// The longest frame that a subscriber sends, bytes. An acknowledgement takes a few.
const ACK_LEN_MAX: usize = 1024;

/// How long a subscriber that has got all may take to acknowledge the last of it: its disk may be busy.
const LAST_ACK_MAX: Duration = Duration::from_secs(30);

/// The epoch in which every session begins.
const FIRST_EPOCH: u32 = 1;

/// Serves one subscription until its session or its peer is at an end.
pub(super) async fn serve(
    mut stream: Stream,
    frame: &Received,
    peer: &Peer,
    daemon: &Daemon,
) -> Result<(), StreamError> {
    let asked = match frame.body::<Subscribe>() {
        Ok(subscribe) => authorise(daemon, peer, subscribe, frame).await,
        Err(error) => Err(malformed("subscription", &error)),
    };
    let opened = match asked {
        Ok(asked) => {
            let asked = asked.into_asked();
            let forgets = may_acknowledge(daemon, peer, &asked.session_id);
            open(asked, daemon).await.map(|opened| (opened, forgets))
        }
        Err(fault) => Err(fault),
    };
    match opened {
        Ok(((followed, subscribed, reset), forgets)) => {
            stream.outbox.send(&subscribed).await?;
            if let Some(reset) = reset {
                stream.outbox.send(&reset).await?;
            }
            follow(stream, &followed, subscribed.cursor.seq, forgets).await?;
        }
        Err(fault) => {
            stream.outbox.send(&fault).await?;
            stream.outbox.flush().await;
        }
    }
    Ok(())
}

/// Sends events past `from`, and hears what the reader has of them; `forgets` says whether that may go here.
async fn follow(stream: Stream, followed: &Followed, from: u64, forgets: bool) -> Result<(), StreamError> {
    let Stream {
        mut inbox,
        mut outbox,
    } = stream;
    inbox.set_len_max(ACK_LEN_MAX);
    let sent = AtomicU64::new(from);
    let unwanted = outbox.unwanted();
    let hearing = hear(&mut inbox, followed, &sent, forgets);
    let sending = async {
        send(&mut outbox, followed, &sent).await?;
        outbox.flush().await;
        Ok::<_, StreamError>(())
    };
    let (mut hearing, mut sending) = (pin!(hearing), pin!(sending));
    tokio::select! {
        () = unwanted => return Ok(()),
        all_sent = &mut sending => all_sent?,
        heard = &mut hearing => {
            heard?;
            // It has finished its side and may still be reading.
            return sending.await;
        }
    }
    // Who is never heard again only keeps the runner from forgetting.
    match tokio::time::timeout(LAST_ACK_MAX, hearing).await {
        Ok(heard) => heard,
        Err(_) => Ok(()),
    }
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
        on_behalf_of: _,
    } = subscribe;
    if max_frame != 0 && (max_frame as usize) < oqto_protocol::bounds::FRAME_LEN_MAX {
        // A finished message cannot be cut, so a shorter bound would be a promise that cannot be kept.
        let message = "this runner sends frames up to the protocol's own bound; ask with max_frame 0";
        return Err(Fault::new(FaultCode::Unsupported, message));
    }
    let followed = daemon.supervisor.follow(&session_id).await?;
    let newest = followed.newest();
    let oldest = followed.log.oldest_seq();
    if cursor.epoch > newest.epoch || (cursor.epoch == newest.epoch && cursor.seq > newest.seq) {
        let message = format!(
            "session {session_id} has no event {} of epoch {}; its newest is {} of epoch {}",
            cursor.seq, cursor.epoch, newest.seq, newest.epoch
        );
        return Err(Fault::new(FaultCode::NotFound, message));
    }
    // Not the newest epoch: what follows was told in the epoch where it goes on, and in later ones.
    let (from, reset) = match followed.resume(cursor) {
        // What is forgotten is passed over here, and the answer says so.
        Resume::After(seq) => {
            let epoch = cursor.epoch.max(FIRST_EPOCH);
            let seq = seq.max(oldest - 1);
            (Cursor { epoch, seq }, None)
        }
        Resume::Reset { seq, .. } if seq + 1 < oldest => return Err(expired(seq + 1, oldest)),
        Resume::Reset { epoch, seq } => {
            let epoch = u32::try_from(epoch).unwrap_or(u32::MAX);
            let from = Cursor { epoch, seq };
            (from, Some(reset(from)))
        }
    };
    let subscribed = Subscribed {
        cursor: from,
        oldest,
        newest,
    };
    Ok((followed, subscribed, reset))
}

fn expired(from: u64, oldest: u64) -> Fault {
    let message = format!(
        "events from {from} on were acknowledged and are kept no longer; the oldest is {oldest}: follow the session from \
         its beginning"
    );
    Fault::new(FaultCode::NotFound, message)
}

/// What a reader has beyond the cursor never happened.
fn reset(Cursor { epoch, seq }: Cursor) -> Numbered {
    Numbered {
        epoch,
        seq,
        first_seq: None,
        ts: clock::unix_ms(),
        event: Event::StreamReset(StreamReset { epoch, seq }),
    }
}

/// Sends what is kept, as it is kept, until the session has ended and all of it is sent. Who reads slowly is behind
/// QUIC's flow control here, and costs the chunk that it has not taken.
async fn send(outbox: &mut Outbox, followed: &Followed, sent: &AtomicU64) -> Result<(), StreamError> {
    let mut seq = sent.load(Ordering::Acquire);
    let mut ended = followed.ended.clone();
    loop {
        let over = *ended.borrow_and_update();
        match followed.log.read(seq, CHUNK_LEN_MAX).await {
            Ok(Some(chunk)) => {
                seq = chunk.last_seq;
                // Before it is sent: it can be acknowledged before the sending is done.
                sent.store(seq, Ordering::Release);
                outbox.send_frames(chunk.into_inner().bytes).await?;
            }
            Ok(None) if over => return Ok(()),
            Ok(None) => {
                let is_left = tokio::select! {
                    past = followed.log.wait_past(seq) => past.is_err(),
                    changed = ended.changed() => changed.is_err(),
                };
                if is_left && !*ended.borrow() {
                    // Not the session's end: a stream that just ended would say so.
                    let message = "this runner lets go of the session; follow it again at the next one";
                    outbox.send(&Fault::new(FaultCode::Closing, message)).await?;
                    return Ok(());
                }
            }
            Err(ReadError::Expired { from, oldest }) => {
                outbox.send(&expired(from, oldest)).await?;
                return Ok(());
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

/// Takes acknowledgements until the peer has no more to say. Of what was not sent there is nothing to have.
async fn hear(
    inbox: &mut Inbox,
    followed: &Followed,
    sent: &AtomicU64,
    forgets: bool,
) -> Result<(), StreamError> {
    while let Some(frame) = inbox.read().await? {
        if forgets
            && frame.kind() == Kind::ACK
            && let Ok(Ack { seq }) = frame.body()
        {
            followed.log.acknowledge(seq.min(sent.load(Ordering::Acquire)));
        }
    }
    Ok(())
}
