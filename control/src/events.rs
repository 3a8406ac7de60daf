//! A session's events as a stream: in order, repeats dropped, gaps named, kept before they are acknowledged.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use oqto_protocol::codec::DecodeError;
use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::{Envelope, Event, Numbered};
use oqto_protocol::frame::{FrameError, Kind};
use oqto_protocol::stream::{Subscribe, Subscribed};
use quinn::{ReadError, SendStream};
use tokio::task::JoinHandle;

use crate::bounds::UNKEPT_MAX;
use crate::connection::{ConnectError, Connection, ExchangeError, Fill, FrameReader, Refusal, encode};
use crate::history::{HistoryError, HistoryStore, Kept, SessionAddr};
use crate::link::{Acks, Admitted, Order, OrderError};

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
        session: oqto_protocol::id::SessionId,
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

/// Why a stream of events ended before its session did. Subscribe again from [`Events::cursor`].
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The connection is gone, or the runner broke the stream off.
    #[error("the stream of events was lost")]
    Lost(#[from] ReadError),
    /// The stream ended in the middle of a frame.
    #[error("the stream ended in the middle of an event")]
    Torn,
    /// A frame's length is not acceptable.
    #[error("a frame is not one")]
    Frame(#[from] FrameError),
    /// An event cannot be read.
    #[error("an event is malformed")]
    Malformed(#[from] DecodeError),
    /// Events are missing or out of order.
    #[error("the events are out of order")]
    Order(#[from] OrderError),
    /// The runner says why it ends the stream.
    #[error("the runner ended the stream")]
    Refused(#[source] Refusal),
    /// The history store failed: what it has not kept is not acknowledged.
    #[error("the history cannot be kept")]
    History(#[from] HistoryError),
}

/// The events of one session, in order.
///
/// Ends when the session has ended and all was read, or after its first error. Dropping it ends the subscription; the
/// agent does not notice. With a history store, what was handed out is kept and then acknowledged while the stream is
/// polled; what was not yet acknowledged when it is dropped is kept as well, and comes again.
pub struct Events {
    session: SessionAddr,
    reader: FrameReader,
    order: Order,
    keeper: Option<Keeper>,
    up: SendStream,
    ended: bool,
    /// The connection lives as long as somebody reads from it.
    _connection: Arc<Connection>,
}

impl Events {
    /// Subscribes to what happens after `from`; the default cursor asks for all that is kept.
    pub(crate) async fn subscribe(
        connection: Arc<Connection>,
        session: SessionAddr,
        from: Cursor,
        store: Option<Arc<dyn HistoryStore>>,
    ) -> Result<Self, SubscribeError> {
        let ask = Subscribe {
            session_id: session.session_id.clone(),
            cursor: from,
            max_frame: 0,
        };
        let (subscribed, up, reader) =
            connection
                .subscribe(&ask)
                .await
                .map_err(|source| SubscribeError::Exchange {
                    session: session.session_id.clone(),
                    source,
                })?;
        let Subscribed {
            cursor,
            oldest,
            newest: _,
        } = subscribed;
        if from != Cursor::default() && cursor.epoch == from.epoch && cursor.seq > from.seq {
            return Err(SubscribeError::Expired {
                asked: from.seq,
                oldest,
            });
        }
        // Judged from where the reader stands, what it has is a repeat, and a reset is about another epoch than its own.
        let start = if from == Cursor::default() { cursor } else { from };
        Ok(Self {
            keeper: store.map(|store| Keeper::new(store, session.clone())),
            session,
            reader,
            order: Order::after(start),
            up,
            ended: false,
            _connection: connection,
        })
    }

    /// The last event that was handed out.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.order.cursor()
    }

    /// The next event; `None` at the end. The same as polling the stream, for who has no combinators.
    pub async fn next(&mut self) -> Option<Result<Envelope, EventsError>> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Envelope, EventsError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let numbered = match ready!(self.poll_numbered(cx)) {
            Ok(Some(numbered)) => numbered,
            end => {
                self.ended = true;
                return Poll::Ready(end.err().map(Err));
            }
        };
        let envelope = self.envelope(numbered);
        if let Some(keeper) = &mut self.keeper {
            keeper.push(&envelope);
        }
        Poll::Ready(Some(Ok(envelope)))
    }

    /// The next event that is new; `None` at the end.
    fn poll_numbered(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Numbered>, EventsError>> {
        loop {
            if let Some(keeper) = &mut self.keeper {
                keeper.poll_keep(cx, self.order.cursor().epoch, &mut self.up)?;
                if keeper.is_full() {
                    return Poll::Pending;
                }
            }
            while let Some(frame) = self.reader.take()? {
                let numbered: Numbered = match frame.kind {
                    Kind::EVENT => frame.body()?,
                    Kind::FAULT => return Poll::Ready(Err(EventsError::Refused(Refusal(frame.body()?)))),
                    // A newer runner may say more than we know; what it must be known for is an event.
                    _ => continue,
                };
                match self.order.admit(&numbered)? {
                    Admitted::New => return Poll::Ready(Ok(Some(numbered))),
                    Admitted::Repeat => {}
                }
            }
            match ready!(self.reader.poll_fill(cx))? {
                Fill::More => {}
                Fill::Ended { torn: true } => return Poll::Ready(Err(EventsError::Torn)),
                Fill::Ended { torn: false } => {
                    // What was handed out must be kept and acknowledged before the end is told.
                    if let Some(keeper) = &mut self.keeper {
                        ready!(keeper.poll_finish(cx, self.order.cursor().epoch, &mut self.up))?;
                    }
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }

    fn envelope(&self, numbered: Numbered) -> Envelope {
        let Numbered {
            epoch,
            seq,
            first_seq,
            ts,
            event,
        } = numbered;
        Envelope {
            session_id: self.session.session_id.clone(),
            runner_id: self.session.runner_id.clone(),
            epoch,
            seq: Some(seq),
            first_seq,
            ts,
            event,
        }
    }
}

impl Stream for Events {
    type Item = Result<Envelope, EventsError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(cx)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("session", &self.session)
            .field("cursor", &self.order.cursor())
            .finish_non_exhaustive()
    }
}

/// A batch that the store is keeping.
type Appending = JoinHandle<Result<Kept, HistoryError>>;

/// Hands events to the store, one batch at a time, and acknowledges what it has on disk.
struct Keeper {
    store: Arc<dyn HistoryStore>,
    session: SessionAddr,
    waiting: Vec<Envelope>,
    appending: Option<Appending>,
    acks: Acks,
    /// Bytes of acknowledgements that the stream has not taken yet.
    unsent: VecDeque<u8>,
}

impl Keeper {
    fn new(store: Arc<dyn HistoryStore>, session: SessionAddr) -> Self {
        Self {
            store,
            session,
            waiting: Vec::new(),
            appending: None,
            acks: Acks::default(),
            unsent: VecDeque::new(),
        }
    }

    fn push(&mut self, event: &Envelope) {
        if let Event::StreamReset(reset) = &event.event {
            self.acks.reset(reset.seq);
        }
        self.waiting.push(event.clone());
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= UNKEPT_MAX
    }

    /// Moves keeping and acknowledging on as far as it goes without waiting.
    fn poll_keep(
        &mut self,
        cx: &mut Context<'_>,
        epoch: u32,
        up: &mut SendStream,
    ) -> Result<(), HistoryError> {
        loop {
            match &mut self.appending {
                Some(task) => match Pin::new(task).poll(cx) {
                    Poll::Pending => break,
                    Poll::Ready(kept) => {
                        self.appending = None;
                        self.acks.kept(kept.map_err(HistoryError::Ended)??, epoch);
                    }
                },
                None if self.waiting.is_empty() => break,
                None => {
                    self.appending = Some(self.append());
                }
            }
        }
        self.send(cx, up);
        Ok(())
    }

    /// Begins to keep what waits, on a thread that may block.
    fn append(&mut self) -> Appending {
        let (store, session) = (Arc::clone(&self.store), self.session.clone());
        let batch = std::mem::take(&mut self.waiting);
        tokio::task::spawn_blocking(move || store.append(&session, &batch))
    }

    /// Keeps all that waits.
    fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        epoch: u32,
        up: &mut SendStream,
    ) -> Poll<Result<(), HistoryError>> {
        self.poll_keep(cx, epoch, up)?;
        if self.appending.is_some() {
            return Poll::Pending;
        }
        // The runner may have gone already: an acknowledgement that is not heard is only sent again later.
        up.finish().ok();
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, cx: &mut Context<'_>, up: &mut SendStream) {
        if self.unsent.is_empty()
            && let Some(ack) = self.acks.next()
            && let Ok(bytes) = encode(&ack)
        {
            self.unsent.extend(bytes);
        }
        while !self.unsent.is_empty() {
            match Pin::new(&mut *up).poll_write(cx, self.unsent.make_contiguous()) {
                Poll::Ready(Ok(len)) => drop(self.unsent.drain(..len)),
                // Reading will say that the stream is lost.
                Poll::Ready(Err(_)) => return self.unsent.clear(),
                Poll::Pending => return,
            }
        }
    }
}

/// What was handed out is kept, also when nobody asks for more: behind the batch that is being kept, if any.
impl Drop for Keeper {
    fn drop(&mut self) {
        let (Ok(runtime), false) = (tokio::runtime::Handle::try_current(), self.waiting.is_empty()) else {
            return;
        };
        let (store, session) = (Arc::clone(&self.store), self.session.clone());
        let (before, batch) = (self.appending.take(), std::mem::take(&mut self.waiting));
        runtime.spawn(async move {
            if let Some(before) = before
                && !matches!(before.await, Ok(Ok(_)))
            {
                return;
            }
            let kept = tokio::task::spawn_blocking(move || store.append(&session, &batch)).await;
            if let Ok(Err(error)) = kept {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "the last events of a stream were not kept; they will come again"
                );
            }
        });
    }
}
