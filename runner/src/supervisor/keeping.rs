//! How a driver has kept what was decided: events and marks go to the log, and whoever waits is answered once they are
//! committed.

use std::pin::pin;

use oqto_protocol::command::Command;

use super::driver::{DriveError, Driver};
use super::handle::Ask;
use super::mind::Said;
use crate::clock;
use crate::event_log::{Batch, Health, Pending};

impl Driver {
    /// Has a mark kept that no event comes with. Nobody waits for it: only a tape that can be shorter depends on it.
    pub(super) async fn keep_lone_mark(&mut self) -> Result<(), DriveError> {
        if let Some((at, generation, kept)) = &mut self.lone_mark
            && let Ok(()) = kept.try_recv()
        {
            if *generation == self.mind.generation() {
                let at = *at;
                self.mind.reading().kept(at);
            }
            self.lone_mark = None;
        }
        if self.lone_mark.is_some() {
            return Ok(());
        }
        if let Some((at, mark)) = self.mind.reading().lone_mark() {
            let kept = self.log.put_mark(mark).await?;
            self.lone_mark = Some((at, self.mind.generation(), kept));
        }
        Ok(())
    }

    /// Appends a batch. While the store cannot be written the session waits here, and whoever asks something of it is
    /// answered instead of waiting along.
    async fn append(&mut self, batch: Batch) -> Result<Pending, DriveError> {
        let Self {
            mind,
            log,
            asks,
            shim,
            leaving,
            ..
        } = self;
        let mut health = log.health();
        let mut appended = pin!(log.append(batch));
        loop {
            // A moment's wait is no reason to refuse anybody.
            let trouble = match &*health.borrow_and_update() {
                Health::Fine => None,
                Health::Failing { text } => {
                    Some(format!("the session's event log cannot be written: {text}"))
                }
            };
            tokio::select! {
                biased;
                pending = &mut appended => return Ok(pending?),
                _ = health.changed() => {}
                Some(ask) = asks.recv(), if trouble.is_some() => match ask {
                    Ask::State(reply) => {
                        // Who asked may be gone.
                        let _ = reply.send(mind.status());
                    }
                    Ask::Command(envelope, reply) => {
                        // What cannot be recorded has no effect; but an agent that is to go goes.
                        if let (Command::SessionClose(_), Some(shim)) = (&envelope.command, &mut *shim) {
                            shim.kill().await;
                        }
                        if let Some((waiter, reply)) = mind.ask_while_full(&envelope, &trouble.unwrap_or_default(), reply) {
                            let _ = waiter.send(reply);
                        }
                    }
                    Ask::Stop(id) => {
                        *leaving = true;
                        mind.runner_stops(id, clock::unix_ms());
                    }
                },
            }
        }
    }

    /// Appends what was said; whoever waits is answered once it is committed.
    pub(super) async fn flush(&mut self) -> Result<(), DriveError> {
        let Said {
            batch,
            answers,
            outcome,
        } = self.mind.take()?;
        let committed = match batch {
            Some(batch) => {
                let last_seq = batch.last_seq();
                let pending = self.append(batch).await?;
                self.appended = last_seq;
                Some(pending)
            }
            None => None,
        };
        // Also when there was nothing new: a tape that is read again only repeats, and ends in another state.
        if committed.is_some() || self.info.borrow().state != self.mind.state() {
            self.info.send_if_modified(|info| {
                let now = self.mind.info();
                let changed = info.state != now.state || info.message_count != now.message_count;
                if changed {
                    *info = now;
                }
                changed
            });
        }
        let outcome = outcome.and_then(|outcome| Some((self.born.take()?, outcome)));
        if answers.is_empty() && outcome.is_none() {
            return Ok(());
        }
        tokio::spawn(async move {
            if let Some(pending) = committed
                && pending.committed().await.is_err()
            {
                // The log is closed, and with it the runner; an answer now could be a lie.
                return;
            }
            for (waiter, reply) in answers {
                let _ = waiter.send(reply);
            }
            if let Some((born, outcome)) = outcome {
                let _ = born.send(outcome);
            }
        });
        Ok(())
    }
}
