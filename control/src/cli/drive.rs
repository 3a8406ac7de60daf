//! Following a session until its run is done, and what Ctrl-C does meanwhile.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream as _;
use oqto_protocol::command::InputResponse;
use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::{DoneReason, Envelope, Event};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::error::CliError;
use super::output::{Output, note};
use super::prompter::Prompter;
use super::spinner::TICK;
use crate::{Events, EventsError, Session};

/// How long closing may take when the human wants to be gone.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Shows events in one of the ways that there are.
pub(super) trait View {
    /// Shows one event.
    fn show(&mut self, envelope: &Envelope, output: &mut Output) -> Result<(), CliError>;
    /// Whether questions are asked where it shows events.
    fn asks_in_place(&self) -> bool {
        false
    }
    /// Whether it moves while nothing happens.
    fn is_moving(&self) -> bool {
        false
    }
    /// Whether an event will be seen: a question that stands on the terminal makes room for it.
    fn is_worth_a_line(&self, _envelope: &Envelope) -> bool {
        true
    }
    /// Moves.
    fn tick(&mut self) {}
    /// Makes room for a note.
    fn pause(&mut self) {}
    /// Nothing more will be shown.
    fn end(&mut self, _output: &mut Output) -> Result<(), CliError> {
        Ok(())
    }
}

/// One canonical event a line.
pub(super) struct JsonLines;

impl View for JsonLines {
    fn show(&mut self, envelope: &Envelope, output: &mut Output) -> Result<(), CliError> {
        output.json(envelope)
    }
}

/// Until when a session is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The run that a prompt began, whose events come after this one, is done.
    Done(Cursor),
    /// The session has ended.
    Closed,
}

/// How a run stands. Pure.
#[derive(Debug)]
pub(super) struct Progress {
    until: Until,
    worked: bool,
    failed: bool,
    over: bool,
}

impl Progress {
    pub(super) fn new(until: Until) -> Self {
        Self {
            until,
            worked: false,
            failed: false,
            over: false,
        }
    }

    /// Takes the next event in.
    pub(super) fn watch(&mut self, envelope: &Envelope) {
        let is_run = match self.until {
            Until::Done(after) => envelope.seq.is_some_and(|seq| seq > after.seq),
            Until::Closed => false,
        };
        match &envelope.event {
            Event::SessionClosed(_) => {
                // A run whose end was not told was cut off.
                self.failed |= is_run && !self.over;
                self.over = true;
            }
            _ if !is_run => {}
            Event::SessionDormant(_) => {
                self.failed |= !self.over;
                self.over = true;
            }
            Event::AgentWorking(_) => self.worked = true,
            Event::StreamDone(done) => {
                self.worked = true;
                self.failed |= done.reason == DoneReason::Error;
            }
            Event::AgentIdle(_) => self.over |= self.worked,
            Event::AgentError(_) => {
                self.failed = true;
                self.over = true;
            }
            _ => {}
        }
    }
}

/// How following ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The run is done, or the session has ended.
    Done,
    /// The agent reported an error, or the session ended in the middle of the run.
    Failed,
    /// The human interrupted.
    Interrupted,
    /// The human interrupted while the runner was out of reach: its agent goes on.
    Left,
}

/// Ctrl-C from here on: none of it is lost, whenever it is looked at.
pub(super) fn interrupts() -> Result<Signal, CliError> {
    signal(SignalKind::interrupt()).map_err(CliError::Signals)
}

/// Waits for something, unless Ctrl-C comes first: then it is let go.
pub(super) async fn or_interrupted<T>(
    waiting: impl Future<Output = T>,
    interrupts: &mut Signal,
) -> Option<T> {
    tokio::select! {
        done = waiting => Some(done),
        _ = interrupts.recv() => None,
    }
}

/// How it ends for a human who interrupts at a moment when nothing is shown yet.
pub(super) fn interrupted(session: &Session) -> Ending {
    if session.runner().link().borrow().is_connected() {
        return Ending::Interrupted;
    }
    note(&format!(
        "the runner is out of reach and the session goes on; oqtoctl attach {}",
        session.id()
    ));
    Ending::Left
}

/// Makes a session, unless Ctrl-C comes first; what was made by then is closed again.
pub(super) async fn unless_interrupted(
    making: impl Future<Output = Result<Session, CliError>>,
    interrupts: &mut Signal,
) -> Result<Option<Session>, CliError> {
    let mut making = pin!(making);
    tokio::select! {
        made = &mut making => return made.map(Some),
        _ = interrupts.recv() => note("stopping"),
    }
    if let Ok(Ok(session)) = timeout(CLOSE_WAIT, making).await {
        close_quickly(&session).await;
    }
    Ok(None)
}

/// Shows a session's events until the end that was asked for.
pub(super) async fn follow(
    session: &Session,
    mut events: Events,
    until: Until,
    interrupts: &mut Signal,
    view: &mut dyn View,
    output: &mut Output,
) -> Result<Ending, CliError> {
    let mut progress = Progress::new(until);
    let mut prompter = Prompter::new(view.asks_in_place());
    let mut interrupted = false;
    while !progress.over {
        let step = step(&mut events, interrupts, view, &mut prompter, output).await?;
        if let Step::Interrupt = step {
            prompter.hide();
        }
        match step {
            Step::Event(None) => break,
            Step::Event(Some(Ok(envelope))) => {
                if view.is_worth_a_line(&envelope) {
                    prompter.hide();
                }
                if !prompter.watch(&envelope) {
                    view.show(&envelope, output)?;
                }
                progress.watch(&envelope);
            }
            Step::Event(Some(Err(source))) => {
                view.end(output)?;
                output.flush()?;
                let session = session.id().to_string();
                return Err(CliError::Events {
                    session,
                    source: Box::new(source),
                });
            }
            Step::Line(line) => {
                if let Some(response) = prompter.take(line) {
                    tokio::spawn(answer(session.clone(), response));
                }
            }
            Step::Interrupt if until == Until::Closed => {
                view.pause();
                note(&format!(
                    "detached; oqtoctl attach {} --from {}",
                    session.id(),
                    events.cursor().seq.saturating_add(1)
                ));
                interrupted = true;
                break;
            }
            Step::Interrupt if !session.runner().link().borrow().is_connected() => {
                view.end(output)?;
                output.flush()?;
                return Ok(self::interrupted(session));
            }
            Step::Interrupt if interrupted => {
                close_quickly(session).await;
                break;
            }
            Step::Interrupt => {
                interrupted = true;
                view.pause();
                note("stopping; again to close the session");
                tokio::spawn(abort(session.clone()));
            }
        }
    }
    view.end(output)?;
    output.flush()?;
    Ok(match (interrupted, progress.failed) {
        (true, _) => Ending::Interrupted,
        (false, true) => Ending::Failed,
        (false, false) => Ending::Done,
    })
}

#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on the stack, instead of a box per event"
)]
enum Step {
    Event(Option<Result<Envelope, EventsError>>),
    /// What was typed as an answer; `None` when nothing will be any more.
    Line(Option<String>),
    Interrupt,
}

/// The next thing that happens. What is there already is taken without flushing, since more will follow.
async fn step(
    events: &mut Events,
    interrupts: &mut Signal,
    view: &mut dyn View,
    prompter: &mut Prompter,
    output: &mut Output,
) -> Result<Step, CliError> {
    let ready = poll_fn(|cx| {
        if interrupts.poll_recv(cx).is_ready() {
            return Poll::Ready(Some(Step::Interrupt));
        }
        match Pin::new(&mut *events).poll_next(cx) {
            Poll::Ready(event) => Poll::Ready(Some(Step::Event(event))),
            Poll::Pending => Poll::Ready(None),
        }
    });
    if let Some(step) = ready.await {
        return Ok(step);
    }
    if prompter.is_due() {
        view.end(output)?;
        output.flush()?;
        prompter.show();
    }
    output.flush()?;
    let mut ticks = pin!(interval(TICK));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // The first tick is due at once.
    ticks.tick().await;
    let is_asking = prompter.is_asking();
    loop {
        tokio::select! {
            event = events.next() => return Ok(Step::Event(event)),
            _ = interrupts.recv() => return Ok(Step::Interrupt),
            line = prompter.line() => return Ok(Step::Line(line)),
            _ = ticks.tick(), if view.is_moving() && !is_asking => view.tick(),
        }
    }
}

async fn answer(session: Session, response: InputResponse) {
    if let Err(error) = session.respond(response).await {
        let error = CliError::Command {
            action: "answer the agent",
            source: Box::new(error),
        };
        note(&error.explain());
    }
}

async fn abort(session: Session) {
    if let Err(error) = session.abort().await {
        let error = CliError::Command {
            action: "stop the work at hand",
            source: Box::new(error),
        };
        note(&error.explain());
    }
}

async fn close_quickly(session: &Session) {
    match timeout(CLOSE_WAIT, session.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = CliError::Command {
                action: "close the session",
                source: Box::new(error),
            };
            note(&error.explain());
        }
        Err(_) => note("the session does not close; it may go on"),
    }
}

#[cfg(test)]
mod tests {
    use oqto_protocol::event::{AgentError, AgentIdle, AgentWorking, Phase, SessionClosed, StreamDone};

    use super::*;

    fn progress(until: Until, events: &[Event]) -> (bool, bool) {
        let mut progress = Progress::new(until);
        for (event, seq) in events.iter().zip(1..) {
            progress.watch(&Envelope {
                session_id: "s-1".parse().unwrap(),
                runner_id: "r-1".parse().unwrap(),
                epoch: 1,
                seq: Some(seq),
                first_seq: None,
                ts: 0,
                event: event.clone(),
            });
        }
        (progress.over, progress.failed)
    }

    #[test]
    fn a_run_is_over_when_its_own_end_was_told() {
        let idle = || Event::AgentIdle(AgentIdle {});
        let working = || {
            Event::AgentWorking(AgentWorking {
                phase: Phase::Thinking,
                detail: None,
            })
        };
        let done = |reason| Event::StreamDone(StreamDone { reason });
        let closed = || Event::SessionClosed(SessionClosed { reason: None });
        let error = || {
            Event::AgentError(AgentError {
                error: "no key".to_owned(),
                recoverable: true,
                phase: None,
            })
        };
        // The run's events come after the first.
        let run = Until::Done(Cursor { epoch: 1, seq: 1 });
        let table = [
            (run, vec![idle()], (false, false)),
            (run, vec![idle(), idle()], (false, false)),
            (run, vec![error(), working()], (false, false)),
            (run, vec![idle(), working()], (false, false)),
            (
                run,
                vec![idle(), working(), done(DoneReason::Stop)],
                (false, false),
            ),
            (
                run,
                vec![idle(), working(), done(DoneReason::Stop), idle()],
                (true, false),
            ),
            (
                run,
                vec![idle(), working(), done(DoneReason::Error), idle()],
                (true, true),
            ),
            (
                run,
                vec![idle(), working(), done(DoneReason::Aborted), idle()],
                (true, false),
            ),
            (run, vec![idle(), working(), error()], (true, true)),
            (run, vec![idle(), working(), closed()], (true, true)),
            (
                Until::Closed,
                vec![idle(), working(), error(), idle()],
                (false, false),
            ),
            (Until::Closed, vec![idle(), closed()], (true, false)),
        ];
        for (until, events, wanted) in table {
            assert_eq!(progress(until, &events), wanted, "{events:?}");
        }
    }
}
