//! The line to one runner: a connection, and the task that dials it anew while somebody needs it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use oqto_protocol::id::RunnerId;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::registrar::Registrar;
use super::{ConnectError, Connection, Dialer, RunnerAddr};
use crate::bounds::STEADY;
use crate::link::{Admission, Backoff, Breaker};
use crate::posture::Posture;

/// How the link to a runner stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LinkState {
    /// It stands.
    Connected,
    /// It was lost and nobody needs it: who does next has it dialled.
    Lost,
    /// It was lost and is dialled again.
    Connecting {
        /// Which attempt this is, from 1.
        attempt: u32,
        /// When it begins, if it has not begun.
        next: Instant,
        /// Why the attempt before it failed.
        failed: Option<Arc<ConnectError>>,
    },
    /// The circuit is open: after several attempts that failed, nobody dials for a while.
    Open {
        /// Until when.
        until: Instant,
        /// Why the last attempt failed.
        failed: Option<Arc<ConnectError>>,
    },
    /// The circuit is half open: one attempt finds out how it stands, and everybody waits for it.
    HalfOpen {
        /// Why the attempt before it failed.
        failed: Option<Arc<ConnectError>>,
    },
    /// It was cut, for good, since its runner is trusted no more.
    Revoked,
    /// This program has closed it.
    Closed,
}

impl LinkState {
    /// Whether it stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected)
    }

    /// Why the last attempt failed, if one did since the link was lost.
    #[must_use]
    pub fn failed(&self) -> Option<&Arc<ConnectError>> {
        match self {
            Self::Connecting { failed, .. } | Self::Open { failed, .. } | Self::HalfOpen { failed } => {
                failed.as_ref()
            }
            Self::Connected | Self::Lost | Self::Revoked | Self::Closed => None,
        }
    }
}

/// A dial that is under way.
pub(crate) type Dialling =
    Pin<Box<dyn Future<Output = Result<(RunnerAddr, Connection), ConnectError>> + Send>>;

/// How a runner is reached: where it was, or wherever it is by then.
pub(crate) trait Way: fmt::Debug + Send + Sync {
    /// Dials once.
    fn dial(&self) -> Dialling;
}

/// The way to a runner that stays where it is.
#[derive(Debug)]
pub(crate) struct Fixed {
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) at: RunnerAddr,
}

impl Way for Fixed {
    fn dial(&self) -> Dialling {
        let (dialer, at) = (Arc::clone(&self.dialer), self.at.clone());
        Box::pin(async move {
            let connection = dialer.dial(&at, dialer.registrar().runner_life).await?;
            Ok((at, connection))
        })
    }
}

/// The way to a runner that dials by itself: whoever needs it waits, and the listener gives the line what comes.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) registrar: Arc<Registrar>,
    pub(super) id: RunnerId,
}

impl Way for Awaited {
    fn dial(&self) -> Dialling {
        let (mut state, runner) = (self.registrar.authority.watch(), self.id.clone());
        Box::pin(async move {
            match state.wait_for(|state| state.is_runner_revoked(&runner)).await {
                Ok(_) => Err(ConnectError::Revoked {
                    runner: runner.clone(),
                }),
                Err(_) => Err(ConnectError::Closed),
            }
        })
    }
}

/// How long somebody waits for a line that was lost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Until then. A circuit that is open, and what dialling again cannot mend, are told at once.
    Until(Instant),
    /// Until then, whatever is heard meanwhile.
    Through(Instant),
    /// As long as this program runs.
    Endless,
}

impl Patience {
    /// Whether it is used up.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Until(until) | Self::Through(until) if until <= Instant::now())
    }
}

/// The line. Whoever needs a connection waits for the same one, and as long as somebody waits a task dials.
#[derive(Debug)]
pub(crate) struct Line {
    dialer: Arc<Dialer>,
    way: Box<dyn Way>,
    inner: Mutex<Inner>,
    state: watch::Sender<LinkState>,
    /// Who waits holds a receiver, and looks again whenever something is sent; without any the task ends.
    wanted: watch::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    at: RunnerAddr,
    live: Option<Arc<Connection>>,
    since: Instant,
    breaker: Breaker,
    backoff: Backoff,
    failed: Option<(Instant, Arc<ConnectError>)>,
    is_dialling: bool,
    end: Option<End>,
}

/// Why a line is one no more.
#[derive(Clone, Copy, Debug)]
enum End {
    /// This program has closed it.
    Closed,
    /// Its runner is trusted no more.
    Revoked,
}

impl Line {
    /// A line that stands.
    pub(crate) fn new(
        dialer: Arc<Dialer>,
        way: Box<dyn Way>,
        at: RunnerAddr,
        connection: Connection,
    ) -> Arc<Self> {
        let inner = Inner {
            at,
            live: None,
            since: Instant::now(),
            breaker: Breaker::default(),
            backoff: Backoff::default(),
            failed: None,
            is_dialling: false,
            end: None,
        };
        let line = Arc::new(Self {
            dialer,
            way,
            inner: Mutex::new(inner),
            state: watch::Sender::new(LinkState::Connected),
            wanted: watch::Sender::new(()),
        });
        let at = line.at();
        line.stands(at, connection);
        line
    }

    /// Where the runner was when it was reached last.
    pub(crate) fn at(&self) -> RunnerAddr {
        self.inner().at.clone()
    }

    /// What the runner must be before it is given work.
    pub(crate) fn posture(&self) -> Option<&Posture> {
        self.dialer.posture()
    }

    /// How it stands, now and when that changes.
    pub(crate) fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// The connection; one that was lost is dialled again.
    pub(crate) async fn connection(
        self: &Arc<Self>,
        patience: Patience,
    ) -> Result<Arc<Connection>, ConnectError> {
        let begun = Instant::now();
        if let Some(live) = self.live()? {
            return Ok(live);
        }
        let (mut wanted, mut closed) = (self.wanted.subscribe(), self.dialer.closed());
        if let Patience::Until(_) = patience {
            self.refuse_open(begun)?;
        }
        loop {
            // Marked as seen before it is looked at: what changes from here on wakes.
            wanted.mark_unchanged();
            if *closed.borrow_and_update() {
                return Err(ConnectError::Closed);
            }
            if let Some(live) = self.live()? {
                return Ok(live);
            }
            self.dial_unless_dialled()?;
            let failed = self.failed_since(begun);
            let away = || ConnectError::Away {
                waited: begun.elapsed(),
                source: failed.clone(),
            };
            match patience {
                Patience::Until(_) if failed.as_ref().is_some_and(|failed| failed.is_lasting()) => {
                    return Err(away());
                }
                Patience::Until(until) | Patience::Through(until) => tokio::select! {
                    _ = wanted.changed() => {}
                    _ = closed.changed() => {}
                    () = sleep_until(until.into()) => return Err(away()),
                },
                Patience::Endless => tokio::select! {
                    _ = wanted.changed() => {}
                    _ = closed.changed() => {}
                },
            }
        }
    }

    /// Closes it for good.
    pub(crate) fn close(&self) {
        let mut inner = self.inner();
        if inner.end.is_none() {
            self.end(&mut inner, End::Closed);
        }
    }

    /// Whether it is one no more.
    pub(super) fn is_over(&self) -> bool {
        self.inner().end.is_some()
    }

    fn end(&self, inner: &mut Inner, end: End) {
        inner.end = Some(end);
        if let Some(live) = inner.live.take() {
            live.close();
        }
        self.tell(match end {
            End::Closed => LinkState::Closed,
            End::Revoked => LinkState::Revoked,
        });
    }

    /// Says how it stands.
    fn tell(&self, state: LinkState) {
        self.state.send_replace(state);
        self.wanted.send_replace(());
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> Result<Option<Arc<Connection>>, ConnectError> {
        let inner = self.inner();
        match inner.end {
            Some(End::Closed) => return Err(ConnectError::Closed),
            Some(End::Revoked) => {
                let runner = inner.at.id.clone();
                return Err(ConnectError::Revoked { runner });
            }
            None => {}
        }
        Ok(inner.live.clone().filter(|live| !live.is_closed()))
    }

    /// Who comes while the circuit is open is told so.
    fn refuse_open(&self, now: Instant) -> Result<(), ConnectError> {
        let inner = self.inner();
        match inner.breaker.open_until() {
            Some(until) if until > now => Err(ConnectError::Open {
                retry_in: until - now,
                source: inner.failed.as_ref().map(|(_, error)| Arc::clone(error)),
            }),
            _ => Ok(()),
        }
    }

    /// Why the last dial failed, if one did since then.
    fn failed_since(&self, then: Instant) -> Option<Arc<ConnectError>> {
        let inner = self.inner();
        let (_, error) = inner.failed.as_ref().filter(|(at, _)| *at >= then)?;
        Some(Arc::clone(error))
    }

    fn dial_unless_dialled(self: &Arc<Self>) -> Result<(), ConnectError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(ConnectError::NoRuntime)?;
        let mut inner = self.inner();
        if !inner.is_dialling {
            inner.is_dialling = true;
            runtime.spawn(dial(Dialler(Arc::clone(self))));
        }
        Ok(())
    }

    /// It stands from now on, with this connection and no other.
    pub(super) fn stands(self: &Arc<Self>, at: RunnerAddr, connection: Connection) {
        let connection = Arc::new(connection);
        tokio::spawn(watch_for_loss(Arc::downgrade(self), Arc::downgrade(&connection)));
        let mut inner = self.inner();
        if inner.end.is_some() {
            return;
        }
        inner.at = at;
        if let Some(before) = inner.live.replace(connection) {
            before.close();
        }
        inner.since = Instant::now();
        inner.failed = None;
        inner.breaker.succeeded();
        self.tell(LinkState::Connected);
    }

    /// The connection is gone. What it had of memory goes with it, also when nobody needs another.
    fn lost(&self) {
        let mut inner = self.inner();
        if inner.end.is_some() || inner.live.as_ref().is_some_and(|live| !live.is_closed()) {
            return;
        }
        if inner.live.as_ref().is_some_and(|live| live.is_revoked()) {
            self.end(&mut inner, End::Revoked);
        } else if inner.live.take().is_some() {
            if inner.since.elapsed() >= STEADY {
                inner.backoff.reset();
            }
            self.tell(LinkState::Lost);
        }
    }
}

/// Tells a line that its connection is gone; neither is kept alive by it.
async fn watch_for_loss(line: Weak<Line>, connection: Weak<Connection>) {
    let Some(quic) = connection.upgrade().map(|connection| connection.quic().clone()) else {
        return;
    };
    quic.closed().await;
    if let Some(line) = line.upgrade() {
        line.lost();
    }
}

/// The one task that dials for a line. When it goes, by whatever way, the next who needs the line may begin another.
struct Dialler(Arc<Line>);

impl Drop for Dialler {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.is_dialling = false;
        inner.breaker.abandoned(Instant::now());
        let is_rest = inner.live.is_none() && inner.end.is_none();
        if is_rest && !matches!(*self.0.state.borrow(), LinkState::Lost) {
            self.0.state.send_replace(LinkState::Lost);
        }
        // Whoever came while this one was leaving must not wait for it.
        self.0.wanted.send_replace(());
    }
}

/// What the dialling task does next.
enum Step {
    /// Waits until then, and asks again.
    Wait(Instant),
    /// Waits until then, and dials.
    Dial(Instant),
}

/// Dials until the line stands, or nobody needs it.
async fn dial(dialler: Dialler) {
    let line = Arc::clone(&dialler.0);
    let dialling = async {
        loop {
            // A connection that was lost and is still counted as live would be taken for the new one.
            line.lost();
            match line.plan() {
                Step::Wait(until) => sleep_until(until.into()).await,
                Step::Dial(at) => {
                    sleep_until(at.into()).await;
                    sleep_until(line.dialer.reserve().into()).await;
                    match line.way.dial().await {
                        Ok((at, connection)) => return line.stands(at, connection),
                        Err(ConnectError::Revoked { .. }) => {
                            return line.end(&mut line.inner(), End::Revoked);
                        }
                        Err(error) => line.failed(error),
                    }
                }
            }
        }
    };
    let mut state = line.state();
    tokio::select! {
        () = dialling => {}
        // A runner that dials by itself came meanwhile.
        _ = state.wait_for(LinkState::is_connected) => {}
        () = line.wanted.closed() => {}
    }
}

impl Line {
    /// Asks breaker and backoff, and tells everybody.
    fn plan(&self) -> Step {
        let now = Instant::now();
        let mut inner = self.inner();
        let failed = inner.failed.as_ref().map(|(_, error)| Arc::clone(error));
        let (state, step) = match inner.breaker.admit(now) {
            Admission::Dial => {
                let next = now + inner.backoff.next(random());
                let attempt = inner.backoff.waits();
                (
                    LinkState::Connecting {
                        attempt,
                        next,
                        failed,
                    },
                    Step::Dial(next),
                )
            }
            Admission::Probe => (LinkState::HalfOpen { failed }, Step::Dial(now)),
            Admission::Wait(until) => (LinkState::Open { until, failed }, Step::Wait(until)),
            // This task is the only one that probes, so this does not happen; if it did, looking again is right.
            Admission::Busy => (
                LinkState::HalfOpen { failed },
                Step::Wait(now + Duration::from_secs(1)),
            ),
        };
        if inner.end.is_none() {
            self.tell(state);
        }
        step
    }

    fn failed(&self, error: ConnectError) {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "the runner was not reached"
        );
        let mut inner = self.inner();
        let now = Instant::now();
        inner.breaker.failed(now, random());
        inner.failed = Some((now, Arc::new(error)));
    }
}

/// Chance for waits. Where the system has none, every wait is half as long as it may be.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}
