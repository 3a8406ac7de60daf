//! The stream of events that outlives its links.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use oqto_protocol::codec::DecodeError;
use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::{Envelope, Event, Numbered};
use oqto_protocol::fault::Fault;
use oqto_protocol::frame::{FrameError, Kind};
use quinn::ReadError;

use super::keeper::Keeper;
use super::subscription::{SubscribeError, Subscription, Wanted, is_passing, subscribe};
use crate::bounds::ANSWER_WAIT;
use crate::connection::{Fill, Line, Patience, Refusal, random};
use crate::history::{HistoryError, HistoryStore, SessionAddr};
use crate::link::{Admitted, Backoff, Order, OrderError};

/// Why a stream of events ended before its session did. A lost link is not among the reasons.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The stream cannot go on: the session was deleted, events behind the cursor are kept no longer, this program has
    /// closed the link, or it did not come back within the stream's [patience](Events::patience).
    #[error("the stream of events cannot go on")]
    Subscribe(#[from] SubscribeError),
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

/// What happened to a stream itself, for who asks by [`Events::update`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mark {
    /// The link is lost. What the agent does meanwhile is told when it is back.
    Lost,
    /// The stream goes on where it was, with no event missing and none twice.
    Reconnected {
        /// How long it was interrupted.
        after: Duration,
    },
    /// So many events have happened that were not handed out yet; they follow. Told when the stream begins and when it
    /// goes on.
    Lagging {
        /// How many.
        events: u64,
    },
    /// All that is kept was asked for, and what happened before this event is kept no longer.
    CutOff {
        /// The first event that is handed out.
        oldest: u64,
    },
}

/// The next thing of a stream.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on the stack, instead of a box per event"
)]
pub enum Update {
    /// An event of the session.
    Event(Envelope),
    /// Something about the stream.
    Mark(Mark),
}

/// The events of one session, in order.
///
/// Ends when the session has ended and all was read, or after its first error. When the link is lost, the runner dies or
/// is replaced, it subscribes again from its exact cursor while it is polled, for as long as its patience says, which
/// is for ever unless it was [limited](Self::patience). Dropping it ends the subscription; the agent does not notice.
///
/// With a history store, what was handed out is kept and then acknowledged while the stream is polled; what was not yet
/// acknowledged when it is dropped is kept as well, and comes again.
pub struct Events {
    line: Arc<Line>,
    session: SessionAddr,
    on_behalf_of: Option<Arc<str>>,
    order: Order,
    keeper: Option<Keeper>,
    source: Source,
    marks: VecDeque<Mark>,
    backoff: Backoff,
    patience: Option<Duration>,
    /// Since when the stream is interrupted.
    lost: Option<Instant>,
    end: End,
}

/// Where events come from.
enum Source {
    Live(Subscription),
    Resuming(Resuming),
    Ended,
}

type Resuming = Pin<Box<dyn Future<Output = Result<(Subscription, Backoff), SubscribeError>> + Send>>;

/// What the end of a subscription would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Not the session's: that was not told. The runner may be leaving, so it is asked once more.
    Unexplained,
    /// The session's, since a second subscription said nothing else.
    Confirmed,
    /// The session's, since it was told.
    Told,
}

/// Why a stream subscribes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The link was lost.
    Link,
    /// The stream alone broke.
    Stream,
    /// It ended in good order and nobody had said that the session did.
    End,
}

impl Events {
    /// Subscribes to what happens after `from`; the default cursor asks for all that is kept.
    pub(crate) async fn subscribe(
        line: Arc<Line>,
        session: SessionAddr,
        on_behalf_of: Option<Arc<str>>,
        from: Cursor,
        store: Option<Arc<dyn HistoryStore>>,
    ) -> Result<Self, SubscribeError> {
        let patience = Patience::Until(Instant::now() + ANSWER_WAIT);
        let wanted = Wanted {
            session_id: session.session_id.clone(),
            on_behalf_of: on_behalf_of.clone(),
        };
        let (subscription, backoff) = subscribe(
            Arc::clone(&line),
            wanted,
            from,
            patience,
            Duration::ZERO,
            Backoff::default(),
        )
        .await?;
        // Judged from where the reader stands, what it has is a repeat, and a reset is about another epoch than its own.
        let start = if from == Cursor::default() {
            subscription.from
        } else {
            from
        };
        let mut marks = VecDeque::new();
        if from == Cursor::default() && start.seq > 0 {
            let oldest = subscription.oldest;
            marks.push_back(Mark::CutOff { oldest });
        }
        marks.extend(lagging(start, &subscription));
        Ok(Self {
            line,
            keeper: store.map(|store| Keeper::new(store, session.clone())),
            session,
            on_behalf_of,
            order: Order::after(start),
            source: Source::Live(subscription),
            marks,
            backoff,
            patience: None,
            lost: None,
            end: End::Unexplained,
        })
    }

    /// Limits how long one interruption may last before the stream ends with an error.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
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

    /// The next event or [mark](Mark); `None` at the end. Marks that nobody asks for by this are passed over.
    pub async fn update(&mut self) -> Option<Result<Update, EventsError>> {
        poll_fn(|cx| self.poll_update(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Envelope, EventsError>>> {
        loop {
            match ready!(self.poll_update(cx)) {
                Some(Ok(Update::Event(event))) => return Poll::Ready(Some(Ok(event))),
                Some(Ok(Update::Mark(_))) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn poll_update(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Update, EventsError>>> {
        if let Some(mark) = self.marks.pop_front() {
            return Poll::Ready(Some(Ok(Update::Mark(mark))));
        }
        let next = ready!(self.poll_next_update(cx));
        if !matches!(next, Ok(Some(_))) {
            self.source = Source::Ended;
        }
        Poll::Ready(next.transpose())
    }

    fn poll_next_update(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Update>, EventsError>> {
        loop {
            let epoch = self.epoch();
            if let Some(keeper) = &mut self.keeper {
                let up = match &mut self.source {
                    Source::Live(subscription) => Some(&mut subscription.up),
                    Source::Resuming(_) | Source::Ended => None,
                };
                keeper.poll_keep(cx, epoch, up)?;
                if keeper.is_full() {
                    return Poll::Pending;
                }
            }
            match &mut self.source {
                Source::Ended => return Poll::Ready(Ok(None)),
                Source::Resuming(resuming) => {
                    let (subscription, backoff) = ready!(resuming.as_mut().poll(cx))?;
                    self.resumed(subscription, backoff);
                }
                Source::Live(_) => {
                    if let Some(numbered) = self.take()? {
                        return Poll::Ready(Ok(Some(Update::Event(self.hand_out(numbered)))));
                    }
                    if let Some(end) = ready!(self.poll_fill(cx))? {
                        return Poll::Ready(Ok(end));
                    }
                }
            }
            if let Some(mark) = self.marks.pop_front() {
                return Poll::Ready(Ok(Some(Update::Mark(mark))));
            }
        }
    }

    /// The next event that is new among what was read, if there is one.
    fn take(&mut self) -> Result<Option<Numbered>, EventsError> {
        loop {
            let Source::Live(subscription) = &mut self.source else {
                return Ok(None);
            };
            let Some(frame) = subscription.reader.take()? else {
                return Ok(None);
            };
            match frame.kind {
                Kind::EVENT => {
                    let numbered: Numbered = frame.body()?;
                    if self.order.admit(&numbered)? == Admitted::New {
                        return Ok(Some(numbered));
                    }
                }
                Kind::FAULT => {
                    let fault: Fault = frame.body()?;
                    if !is_passing(fault.code) {
                        return Err(EventsError::Refused(Refusal(fault)));
                    }
                    tracing::debug!(message = fault.message, "the runner broke the stream off");
                    self.resume(Cause::Stream);
                }
                // A newer runner may say more than we know; what it must be known for is an event.
                _ => {}
            }
        }
    }

    fn hand_out(&mut self, numbered: Numbered) -> Envelope {
        self.backoff.reset();
        self.end = match &numbered.event {
            Event::SessionClosed(_) => End::Told,
            _ => End::Unexplained,
        };
        let envelope = self.envelope(numbered);
        if let Some(keeper) = &mut self.keeper {
            keeper.push(&envelope);
        }
        envelope
    }

    /// Reads once; `Some(None)` when that was the end.
    #[expect(
        clippy::option_option,
        reason = "the outer one is whether there is anything to hand out"
    )]
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Option<Update>>, EventsError>> {
        let Source::Live(subscription) = &mut self.source else {
            return Poll::Ready(Ok(None));
        };
        match ready!(subscription.reader.poll_fill(cx)) {
            Ok(Fill::More) => return Poll::Ready(Ok(None)),
            Ok(Fill::Ended { torn: false }) if self.end != End::Unexplained => {
                // What was handed out must be kept and acknowledged before the end is told.
                if let Some(keeper) = &mut self.keeper {
                    let epoch = self.order.cursor().epoch;
                    ready!(keeper.poll_finish(cx, epoch, &mut subscription.up))?;
                }
                return Poll::Ready(Ok(Some(None)));
            }
            Ok(Fill::Ended { torn: false }) => self.resume(Cause::End),
            Ok(Fill::Ended { torn: true }) => self.resume(Cause::Stream),
            Err(ReadError::ConnectionLost(error)) => {
                tracing::debug!(%error, "the link was lost");
                self.resume(Cause::Link);
            }
            Err(error) => {
                tracing::debug!(%error, "the stream of events broke");
                self.resume(Cause::Stream);
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Subscribes again.
    fn resume(&mut self, cause: Cause) {
        let now = Instant::now();
        if cause != Cause::End && self.lost.is_none() {
            self.lost = Some(now);
            self.marks.push_back(Mark::Lost);
        }
        self.end = match (cause, self.end) {
            (_, End::Told) => End::Told,
            (Cause::End, _) => End::Confirmed,
            (Cause::Link | Cause::Stream, _) => End::Unexplained,
        };
        let pause = match cause {
            // Whoever dials waits already.
            Cause::Link => Duration::ZERO,
            Cause::Stream | Cause::End => self.backoff.next(random()),
        };
        let patience = self.patience.map_or(Patience::Endless, |patience| {
            Patience::Through(self.lost.unwrap_or(now) + patience)
        });
        let line = Arc::clone(&self.line);
        let wanted = Wanted {
            session_id: self.session.session_id.clone(),
            on_behalf_of: self.on_behalf_of.clone(),
        };
        let (cursor, backoff) = (self.order.cursor(), self.backoff.clone());
        let resuming = subscribe(line, wanted, cursor, patience, pause, backoff);
        self.source = Source::Resuming(Box::pin(resuming));
    }

    fn resumed(&mut self, subscription: Subscription, backoff: Backoff) {
        if let Some(keeper) = &mut self.keeper {
            keeper.again(subscription.from.seq);
        }
        self.backoff = backoff;
        if let Some(lost) = self.lost.take() {
            let after = lost.elapsed();
            self.marks.push_back(Mark::Reconnected { after });
            self.marks.extend(lagging(self.order.cursor(), &subscription));
        }
        self.source = Source::Live(subscription);
    }

    /// Whose numbers are acknowledged: on a subscription that begins with a reset those of the epoch that it is about,
    /// also before it is read.
    fn epoch(&self) -> u32 {
        let read = self.order.cursor().epoch;
        match &self.source {
            Source::Live(subscription) => read.max(subscription.from.epoch),
            Source::Resuming(_) | Source::Ended => read,
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

/// What a reader at `cursor` is behind, if it is.
fn lagging(cursor: Cursor, subscription: &Subscription) -> Option<Mark> {
    let events = subscription.newest.saturating_sub(cursor.seq);
    (events > 0).then_some(Mark::Lagging { events })
}
