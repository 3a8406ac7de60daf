//! Asking a runner what it is, on one connection and for that connection alone.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use oqto_protocol::attest::{Attest, CHANNEL_LABEL, CHANNEL_LEN};
use oqto_protocol::codec::Blob;
use oqto_protocol::query::{Answer, Query};
use rustls_pki_types::CertificateDer;

use super::exchange::encode;
use super::{ConnectError, Connection, ExchangeError, Refusal};
use crate::posture::{Asked, Finding, Posture, Verified, VerifyError, verify};

/// The length of our nonces, bytes: as much as any digest has.
const NONCE_LEN: usize = 32;

/// Why it is not known what a runner is.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The runner cannot be reached.
    #[error("cannot reach the runner")]
    Connect(#[from] ConnectError),
    /// No answer came, or the runner said no.
    #[error("runner.attest has no answer")]
    Exchange(#[from] ExchangeError),
    /// The answer is not one to this question.
    #[error("the runner answered runner.attest with something else")]
    Answer,
    /// What it says is not believed.
    #[error("the runner's statement is not believed")]
    Verify(#[from] VerifyError),
    /// The TLS session exports nothing that only it has.
    #[error("this TLS session exports nothing")]
    Channel,
    /// The system gave no random bytes for a nonce.
    #[error("the system gives no random bytes")]
    Random,
}

/// Why a runner is given no work.
pub(crate) enum Unfit {
    /// It is not known what it is.
    Attest(AttestError),
    /// It is not what it should be.
    Posture(Finding),
}

impl AttestError {
    /// Whether a new connection may help.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Exchange(error) if error.is_lost())
    }
}

impl Connection {
    /// Asks what the runner is; what comes back is verified to be said here and now.
    pub(crate) async fn attest(&self) -> Result<Verified, AttestError> {
        let mut nonce = vec![0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| AttestError::Random)?;
        let mut channel = [0; CHANNEL_LEN];
        self.quic()
            .export_keying_material(&mut channel, CHANNEL_LABEL, b"")
            .map_err(|_| AttestError::Channel)?;
        let chain = self.quic().peer_identity();
        let chain = chain.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let certificate = chain.as_deref().and_then(|chain| chain.first());
        let certificate = certificate.ok_or(AttestError::Channel)?;
        let question = Query::RunnerAttest(Attest {
            nonce: Blob(nonce.clone()),
        });
        let question = encode(&question).map_err(ExchangeError::from)?;
        let attestation = match self.exchange(&question).await? {
            Answer::Attested(attestation) => attestation,
            Answer::Fault(fault) => return Err(ExchangeError::Refused(Refusal(fault)).into()),
            _ => return Err(AttestError::Answer),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let asked = Asked {
            nonce: &nonce,
            channel: &channel,
            runner_id: &self.welcome().runner_id,
            certificate,
            now_ms: now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
        };
        Ok(verify(&attestation, &asked)?)
    }

    /// Sees to it that the runner is as the posture wants it before it is given work: asks once a connection, and again
    /// when that is too long ago. Who comes meanwhile waits for the same answer; a refusal is found out anew each time.
    pub(crate) async fn satisfy(&self, posture: &Posture) -> Result<(), Unfit> {
        let runner = &self.welcome().runner_id;
        if !posture.asks(runner) {
            return Ok(());
        }
        let mut fit = self.fit.lock().await;
        let max_age = posture.max_age(runner);
        if fit.is_some_and(|since| max_age.is_none_or(|max_age| since.elapsed() < max_age)) {
            return Ok(());
        }
        *fit = None;
        let begun = Instant::now();
        let verified = self.attest().await.map_err(Unfit::Attest)?;
        let findings = posture.judge(runner, &verified);
        match findings.into_iter().find(|finding| !finding.holds) {
            Some(finding) => Err(Unfit::Posture(finding)),
            None => {
                *fit = Some(begun);
                Ok(())
            }
        }
    }
}
