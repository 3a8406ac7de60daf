//! What every link of a control needs of the authority: decisions made off the runtime's threads, told to who listens.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use oqto_protocol::enrol::{Enrol, Grant, SigningRequest};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::{ControlId, RunnerId};
use tokio::sync::{Semaphore, broadcast};

use crate::authority::{Authority, AuthorityError, Limit, Named, Outcome, Record};
use crate::bounds::{AUTHORITY_LOOK, RECORDS_HEARD_MAX, WRITERS_MAX};

/// An authority in the use of one control.
#[derive(Debug)]
pub(crate) struct Registrar {
    pub(super) authority: Arc<Authority>,
    pub(super) control_id: ControlId,
    /// The life of the certificates of runners.
    pub(super) runner_life: Duration,
    records: broadcast::Sender<Record>,
    /// So many threads write to the authority's disk: they wait for each other there, and a disk that hangs must not take
    /// every thread of the embedder.
    writers: Arc<Semaphore>,
    /// Held while a stranger's token is looked at, so that as many fail as may and no more.
    refusals: tokio::sync::Mutex<Refusals>,
    /// Alive as long as a task looks for what other processes decide.
    watching: Mutex<Weak<()>>,
}

#[derive(Debug, Default)]
struct Refusals {
    limit: Limit,
    unwritten: u64,
}

impl Registrar {
    pub(crate) fn new(authority: Authority, control_id: ControlId, runner_life: Duration) -> Self {
        Self {
            authority: Arc::new(authority),
            control_id,
            runner_life,
            records: broadcast::channel(RECORDS_HEARD_MAX).0,
            writers: Arc::new(Semaphore::new(WRITERS_MAX)),
            refusals: tokio::sync::Mutex::default(),
            watching: Mutex::default(),
        }
    }

    /// Who this control is.
    pub(crate) fn control_id(&self) -> &ControlId {
        &self.control_id
    }

    /// What is granted and refused from now on. Who reads slowly loses the oldest.
    pub(crate) fn records(&self) -> broadcast::Receiver<Record> {
        self.records.subscribe()
    }

    /// Has what other processes decide noticed from here on; needs a runtime. One task is enough, and another is begun
    /// when its runtime has gone.
    pub(super) fn watch(self: &Arc<Self>) {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        if watching.strong_count() == 0 {
            let alive = Arc::new(());
            *watching = Arc::downgrade(&alive);
            tokio::spawn(look(Arc::downgrade(self), alive));
        }
    }

    /// Looks now.
    pub(super) async fn refresh(&self) -> Result<(), AuthorityError> {
        let authority = Arc::clone(&self.authority);
        blocking(move || authority.refresh()).await?
    }

    /// Decides on somebody's first certificate, if its address has not failed too often.
    pub(super) async fn enrol(&self, enrol: Enrol, address: IpAddr) -> Result<Grant, Fault> {
        let mut refusals = self.refusals.lock().await;
        if !refusals.limit.admits(address, Instant::now()) {
            refusals.unwritten += 1;
            return Err(Fault::new(
                FaultCode::Busy,
                "too many requests have failed; try again in a minute",
            ));
        }
        let (authority, life) = (Arc::clone(&self.authority), self.runner_life);
        let decided = self.writing(move || {
            let shown = (authority.token_id(&enrol), enrol.request.runner_id.clone());
            (authority.enrol(&enrol, life, address), shown)
        });
        let (decision, shown) = match decided.await {
            Ok((decision, shown)) => (decision, Some(shown)),
            Err(error) => (Err(error.into()), None),
        };
        match decision {
            Ok((grant, record)) => {
                self.tell(record);
                Ok(grant)
            }
            Err(ungranted) => {
                let (token, runner_id) = shown.unzip();
                let record = Record {
                    token,
                    runner_id: runner_id.flatten(),
                    reason: Some(reason(&ungranted)),
                    ..refusal_from(address)
                };
                self.write_refusal(&mut refusals, record, address).await;
                Err(ungranted.fault())
            }
        }
    }

    /// Writes down that somebody was turned away, unless that comes too often.
    pub(super) async fn refused(&self, address: IpAddr, runner_id: Option<RunnerId>, reason: String) {
        let mut refusals = self.refusals.lock().await;
        if refusals.limit.admits(address, Instant::now()) {
            let record = Record {
                runner_id,
                reason: Some(reason),
                ..refusal_from(address)
            };
            self.write_refusal(&mut refusals, record, address).await;
        } else {
            refusals.unwritten += 1;
        }
    }

    /// Counts somebody of whom not even the address is known; the next record says how many there were.
    pub(super) async fn count_refusal(&self) {
        self.refusals.lock().await.unwritten += 1;
    }

    /// Decides on a new certificate for the one that a link's runner has.
    pub(super) async fn renew(
        &self,
        request: SigningRequest,
        peer: &Named,
        life: Duration,
        address: IpAddr,
    ) -> Result<Grant, Fault> {
        let (authority, named) = (Arc::clone(&self.authority), peer.clone());
        let renewing = self.writing(move || authority.renew(&request, &named, life, address));
        let ungranted = match renewing.await {
            Ok(Ok((grant, record))) => {
                self.tell(record);
                return Ok(grant);
            }
            Ok(Err(ungranted)) => ungranted,
            Err(error) => error.into(),
        };
        self.refused(address, Some(peer.runner_id.clone()), reason(&ungranted))
            .await;
        Err(ungranted.fault())
    }

    /// Writes down that a runner has taken a trust statement. When that fails, the runner counts as not told.
    pub(super) async fn told(&self, runner_id: RunnerId, number: u64) {
        let authority = Arc::clone(&self.authority);
        let noted = self
            .writing(move || authority.note_told(&runner_id, number))
            .await;
        if let Err(error) = noted.and_then(|noted| noted) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot write down what a runner knows"
            );
        }
    }

    /// A refusal that cannot be written is still one.
    async fn write_refusal(&self, refusals: &mut Refusals, record: Record, address: IpAddr) {
        refusals.limit.failed(address, Instant::now());
        let authority = Arc::clone(&self.authority);
        let unwritten = std::mem::take(&mut refusals.unwritten);
        let record = Record { unwritten, ..record };
        match self
            .writing(move || authority.write_refusal(record))
            .await
            .and_then(|written| written)
        {
            Ok(record) => self.tell(record),
            Err(error) => {
                // The next that can be written says so.
                refusals.unwritten = unwritten.saturating_add(1);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot write down a refusal"
                );
            }
        }
    }

    /// Work that waits for whoever else changes the authority. It is done to its end, also when nobody waits for it.
    async fn writing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthorityError> {
        let permit = Arc::clone(&self.writers).acquire_owned().await;
        let permit = permit.map_err(|_| AuthorityError::Abandoned)?;
        blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
    }

    fn tell(&self, record: Record) {
        // Nobody may be listening.
        self.records.send(record).ok();
    }
}

fn refusal_from(address: IpAddr) -> Record {
    Record {
        address: Some(address),
        ..Record::new(Outcome::Refused)
    }
}

/// An error and its causes, for the audit log.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Looks from time to time what other processes decide, as long as the control is there.
async fn look(registrar: Weak<Registrar>, alive: Arc<()>) {
    let mut is_failing = false;
    loop {
        tokio::time::sleep(AUTHORITY_LOOK).await;
        let Some(registrar) = registrar.upgrade() else {
            break;
        };
        match registrar.refresh().await {
            Ok(()) => is_failing = false,
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot see what the authority decides"
                );
            }
            Err(_) => {}
        }
    }
    drop(alive);
}

/// Work on the disk, on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AuthorityError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| AuthorityError::Abandoned)
}
