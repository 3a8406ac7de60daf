//! Who gets a certificate: for a token, or for the one that it has.

use std::net::IpAddr;
use std::time::Duration;

use oqto_protocol::enrol::{Enrol, Grant, SigningRequest};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::RunnerId;
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use webpki::EndEntityCert;

use super::issue::{SignError, point_of};
use super::issued::key_digest;
use super::ledger::Serial;
use super::names::runner_of_uri;
use super::record::{Outcome, Record};
use super::store::{Authority, AuthorityError};
use super::token::Unsold;
use rcgen::PublicKeyData as _;

/// What every refused token is answered, in the same bytes.
const NOT_VALID: &str = "the token is not valid";

/// A runner as its verified certificate names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) runner_id: RunnerId,
    pub(crate) serial: Serial,
    /// The digest of its public key's description.
    spki: [u8; 32],
}

/// Why a runner gets no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ungranted {
    /// The token buys nothing, or the renewal is not its own.
    #[error("{reason}")]
    Denied {
        /// For the audit log alone.
        reason: String,
        /// What the runner is told.
        fault: Fault,
    },
    /// What was asked is no request.
    #[error("the request is not one")]
    Invalid(#[source] SignError),
    /// This control cannot decide, or not write down what it decided.
    #[error("the authority cannot decide")]
    Authority(#[from] AuthorityError),
}

impl Ungranted {
    /// What the runner is told.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Denied { fault, .. } => fault.clone(),
            Self::Invalid(error) => Fault::new(FaultCode::Invalid, error.to_string()),
            Self::Authority(_) => Fault::new(
                FaultCode::Storage,
                "the control cannot write down what it grants; its own log says why",
            ),
        }
    }
}

impl Authority {
    /// Who a certificate that TLS has verified says that it is; `None` when it names no runner of this authority.
    pub(crate) fn named(&self, chain: &[CertificateDer<'_>]) -> Option<Named> {
        let certificate = EndEntityCert::try_from(chain.first()?).ok()?;
        let mut uris = certificate.valid_uri_names();
        let runner_id = uris.find_map(|uri| runner_of_uri(uri, self.id()))?;
        Some(Named {
            runner_id,
            serial: Serial::new(certificate.serial()),
            spki: Sha256::digest(certificate.subject_public_key_info()).into(),
        })
    }

    /// Gives a runner its first certificate, for a token. Blocks on the disk.
    pub(crate) fn enrol(
        &self,
        enrol: &Enrol,
        life: Duration,
        address: IpAddr,
    ) -> Result<(Grant, Record), Ungranted> {
        let Enrol { token, request } = enrol;
        point_of(request).map_err(Ungranted::Invalid)?;
        let held = self.hold()?;
        let shown = self.shown(token);
        let denied = |reason: String| {
            Err(Ungranted::Denied {
                reason,
                fault: Fault::new(FaultCode::Denied, NOT_VALID),
            })
        };
        let Some(runner_id) = &request.runner_id else {
            return denied("the runner names itself not".to_owned());
        };
        if self.now().is_runner_revoked(runner_id) {
            return denied("the runner was revoked".to_owned());
        }
        match self.redeem(&held, &shown, runner_id, &key_digest(&request.public_key)) {
            Ok(()) => {}
            Err(Unsold::Authority(error)) => return Err(error.into()),
            Err(unsold) => return denied(unsold.to_string()),
        }
        let issued = self.issue(request, runner_id, life).map_err(Ungranted::Invalid)?;
        let record = Record {
            runner_id: Some(runner_id.clone()),
            serial: Some(issued.serial.clone()),
            address: Some(address),
            token: Some(shown.id()),
            ..Record::new(Outcome::Enrolled)
        };
        let record = self.write_record(&held, record)?;
        // For a token a runner believes the root with the pin alone; of the others it is told when it is connected.
        self.note_issued(&held, request, &issued, 0)?;
        Ok((issued.grant, record))
    }

    /// The public id of whatever was shown as a token.
    pub(crate) fn token_id(&self, enrol: &Enrol) -> String {
        self.shown(&enrol.token).id()
    }

    /// Gives a runner a new certificate, for the one that it shows on this link. Blocks on the disk.
    pub(crate) fn renew(
        &self,
        request: &SigningRequest,
        peer: &Named,
        life: Duration,
        address: IpAddr,
    ) -> Result<(Grant, Record), Ungranted> {
        let point = point_of(request).map_err(Ungranted::Invalid)?;
        let spki: [u8; 32] = Sha256::digest(point.subject_public_key_info()).into();
        let held = self.hold()?;
        let denied = |reason: &str| {
            Err(Ungranted::Denied {
                reason: reason.to_owned(),
                fault: Fault::new(FaultCode::Denied, reason),
            })
        };
        if spki != peer.spki {
            return denied("the request is for another key than this link's certificate");
        }
        if request
            .runner_id
            .as_ref()
            .is_some_and(|asked| *asked != peer.runner_id)
        {
            return denied("the request is for another runner than this link's");
        }
        let state = self.now();
        if state.is_runner_revoked(&peer.runner_id) || state.is_serial_revoked(&peer.serial) {
            return denied("this runner was revoked");
        }
        let before = self.issued_to(&peer.runner_id)?;
        if before
            .as_ref()
            .is_some_and(|before| before.key != key_digest(&request.public_key))
        {
            return denied("the name was given to another key since");
        }
        let issued = self
            .issue(request, &peer.runner_id, life)
            .map_err(Ungranted::Invalid)?;
        let record = Record {
            runner_id: Some(peer.runner_id.clone()),
            serial: Some(issued.serial.clone()),
            address: Some(address),
            ..Record::new(Outcome::Renewed)
        };
        let record = self.write_record(&held, record)?;
        self.note_issued(&held, request, &issued, before.map_or(0, |before| before.told))?;
        Ok((issued.grant, record))
    }
}
