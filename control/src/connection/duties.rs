//! What a control owes the runner on each live link: new certificates when it asks, whom to trust when that changes,
//! and the end when the runner itself is trusted no more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oqto_protocol::bounds::HELLO_LEN_MAX;
use oqto_protocol::enrol::Grant;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::query::{Answer, Query};
use oqto_protocol::trust::Trust;
use quinn::{RecvStream, SendStream, VarInt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::exchange::{encode, expect};
use super::registrar::Registrar;
use super::{Connection, ExchangeError, FrameReader};
use crate::authority::{Bucket, Named, State};
use crate::bounds::{ANSWER_BUFFER_LEN, WORD_WAIT};

/// How many renewals may come at once on one link: a runner whose disk fails asks again.
const RENEWAL_BURST: u32 = 8;

/// After how long one more may come: each is a signature and three synced files.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// The code with which a link is closed whose runner was revoked.
const REVOKED: u32 = 2;

/// Whom a link is to, and how long a certificate it gets.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) named: Named,
    pub(super) life: Duration,
}

impl Peer {
    /// Whether it is trusted no more.
    pub(super) fn is_revoked(&self, state: &State) -> bool {
        state.is_runner_revoked(&self.named.runner_id) || state.is_serial_revoked(&self.named.serial)
    }
}

impl Connection {
    /// Tells the runner the last word of the authority, and begins to do what it is owed. A runner that does not take the
    /// word is served all the same: it judges by itself whom it trusts.
    pub(super) async fn begin_duties(&self, peer: Peer, registrar: &Arc<Registrar>) {
        registrar.watch();
        let told = tell_last(self.quic(), &peer, registrar, 0).await;
        let (quic, registrar) = (self.quic().clone(), Arc::clone(registrar));
        let revoked = self.revoked();
        tokio::spawn(async move {
            let duties = async {
                tokio::join!(
                    cut(&quic, &peer, &registrar, &revoked),
                    tell(&quic, &peer, &registrar, told),
                    renewals(&quic, &peer, &registrar),
                )
            };
            tokio::select! {
                _ = duties => {}
                _ = quic.closed() => {}
            }
        });
    }
}

/// Ends the link as soon as its runner is trusted no more.
async fn cut(
    quic: &quinn::Connection,
    peer: &Peer,
    registrar: &Registrar,
    revoked: &std::sync::atomic::AtomicBool,
) {
    let mut state = registrar.authority.watch();
    // It ends when the authority is closed: then nothing is decided any more.
    if state.wait_for(|state| peer.is_revoked(state)).await.is_ok() {
        revoked.store(true, std::sync::atomic::Ordering::Release);
        quic.close(VarInt::from_u32(REVOKED), b"this runner was revoked");
    }
}

/// Tells the runner every new word of the authority.
async fn tell(quic: &quinn::Connection, peer: &Peer, registrar: &Registrar, mut told: u64) {
    let mut state = registrar.authority.watch();
    loop {
        state.mark_unchanged();
        told = tell_last(quic, peer, registrar, told).await;
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the runner the last word if it is newer; which that is. One that is trusted no more is told nothing: its link
/// is cut, and what it would do about the word must not come before that.
async fn tell_last(quic: &quinn::Connection, peer: &Peer, registrar: &Registrar, told: u64) -> u64 {
    let word = {
        let state = registrar.authority.now();
        let word = state.word().filter(|_| !peer.is_revoked(&state));
        word.map(|(number, trust)| (number, trust.clone()))
    };
    let Some((number, trust)) = word.filter(|(number, _)| *number > told) else {
        return told;
    };
    let runner_id = &peer.named.runner_id;
    match timeout(WORD_WAIT, say(quic, trust))
        .await
        .unwrap_or(Err(ExchangeError::Slow))
    {
        Ok(()) => registrar.told(runner_id.clone(), number).await,
        Err(error) => tracing::warn!(
            %runner_id,
            number,
            error = &error as &dyn std::error::Error,
            "the runner does not take the trust statement"
        ),
    }
    number
}

async fn say(quic: &quinn::Connection, trust: Trust) -> Result<(), ExchangeError> {
    let question = encode(&Query::Trust(trust))?;
    let (mut send, receive) = quic.open_bi().await.map_err(ExchangeError::Lost)?;
    send.write_all(&question).await?;
    // It ends with the link otherwise.
    send.finish().ok();
    let mut reader = FrameReader::new(receive, ANSWER_BUFFER_LEN, HELLO_LEN_MAX);
    match reader.next(expect::<Answer>).await? {
        Answer::Fault(fault) => Err(ExchangeError::Refused(super::Refusal(fault))),
        _ => Ok(()),
    }
}

/// Answers the streams that the runner opens.
async fn renewals(quic: &quinn::Connection, peer: &Peer, registrar: &Arc<Registrar>) {
    let (mut bucket, mut answering) = (Bucket::default(), JoinSet::new());
    // Bounded by what the transport permits at once; what has ended is let go of here.
    while let Ok((send, receive)) = quic.accept_bi().await {
        while answering.try_join_next().is_some() {}
        let now = Instant::now();
        let is_admitted = bucket.has_one(now, RENEWAL_BURST, RENEWAL_INTERVAL);
        if is_admitted {
            bucket.take(now, RENEWAL_INTERVAL);
        }
        let (peer, registrar, address) = (peer.clone(), Arc::clone(registrar), quic.remote_address().ip());
        answering.spawn(async move {
            let read = timeout(WORD_WAIT, read_question(receive)).await;
            let answer = match read.unwrap_or(Err(ExchangeError::Slow)) {
                Ok(Query::Renew(renew)) if is_admitted => {
                    registrar
                        .renew(renew.request, &peer.named, peer.life, address)
                        .await
                }
                Ok(Query::Renew(_)) => Err(Fault::new(
                    FaultCode::Limit,
                    "certificates are renewed too often on this link",
                )),
                Ok(_) => Err(Fault::new(
                    FaultCode::Unsupported,
                    "a control answers renew on a live link and nothing else",
                )),
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "a runner's stream asked nothing"
                    );
                    return;
                }
            };
            give(send, answer).await;
        });
    }
}

pub(super) async fn read_question(receive: RecvStream) -> Result<Query, ExchangeError> {
    let mut reader = FrameReader::new(receive, ANSWER_BUFFER_LEN, HELLO_LEN_MAX);
    reader.next(expect::<Query>).await
}

/// Answers, and waits until the runner has the answer.
pub(super) async fn give(mut send: SendStream, answer: Result<Grant, Fault>) {
    let answer = match answer {
        Ok(grant) => Answer::Grant(grant),
        Err(fault) => Answer::Fault(fault),
    };
    // A runner that has gone asks again.
    let Ok(bytes) = encode(&answer) else { return };
    let taken = async {
        if send.write_all(&bytes).await.is_ok() && send.finish().is_ok() {
            send.stopped().await.ok();
        }
    };
    timeout(WORD_WAIT, taken).await.ok();
}
