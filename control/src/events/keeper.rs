//! From the stream to the store, and from the store to the acknowledgement.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use oqto_protocol::event::{Envelope, Event};
use quinn::SendStream;
use tokio::task::JoinHandle;

use crate::bounds::UNKEPT_MAX;
use crate::connection::encode;
use crate::history::{HistoryError, HistoryStore, Kept, SessionAddr};
use crate::link::Acks;

/// A batch that the store is keeping.
type Appending = JoinHandle<Result<Kept, HistoryError>>;

/// Hands events to the store, one batch at a time, and acknowledges what it has on disk.
pub(super) struct Keeper {
    store: Arc<dyn HistoryStore>,
    session: SessionAddr,
    waiting: Vec<Envelope>,
    appending: Option<Appending>,
    acks: Acks,
    /// Bytes of acknowledgements that the stream has not taken yet.
    unsent: VecDeque<u8>,
}

impl Keeper {
    pub(super) fn new(store: Arc<dyn HistoryStore>, session: SessionAddr) -> Self {
        Self {
            store,
            session,
            waiting: Vec::new(),
            appending: None,
            acks: Acks::default(),
            unsent: VecDeque::new(),
        }
    }

    pub(super) fn push(&mut self, event: &Envelope) {
        if let Event::StreamReset(reset) = &event.event {
            self.acks.reset(reset.seq);
        }
        self.waiting.push(event.clone());
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= UNKEPT_MAX
    }

    /// There is another subscription, which goes on behind `from_seq`: half an acknowledgement of the old one, and all
    /// that was told last, is told anew.
    pub(super) fn again(&mut self, from_seq: u64) {
        self.unsent.clear();
        self.acks.again(from_seq);
    }

    /// Moves keeping and acknowledging on as far as it goes without waiting. Without a link only keeping goes on.
    pub(super) fn poll_keep(
        &mut self,
        cx: &mut Context<'_>,
        epoch: u32,
        up: Option<&mut SendStream>,
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
        if let Some(up) = up {
            self.send(cx, up);
        }
        Ok(())
    }

    /// Begins to keep what waits, on a thread that may block.
    fn append(&mut self) -> Appending {
        let (store, session) = (Arc::clone(&self.store), self.session.clone());
        let batch = std::mem::take(&mut self.waiting);
        tokio::task::spawn_blocking(move || store.append(&session, &batch))
    }

    /// Keeps all that waits.
    pub(super) fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        epoch: u32,
        up: &mut SendStream,
    ) -> Poll<Result<(), HistoryError>> {
        self.poll_keep(cx, epoch, Some(&mut *up))?;
        if self.appending.is_some() {
            return Poll::Pending;
        }
        // The runner may have gone already: an acknowledgement that is not heard is only sent again later.
        up.finish().ok();
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, cx: &mut Context<'_>, up: &mut SendStream) {
        if self.unsent.is_empty()
            && let Some(ack) = self.acks.take()
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
