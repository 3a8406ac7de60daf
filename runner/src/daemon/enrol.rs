//! The door by which a runner gets its first certificate from a control far away, or one anew.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use oqto_protocol::enrol::Token;
use oqto_protocol::fault::FaultCode;
use oqto_protocol::id::RunnerId;
use oqto_protocol::query::Query;

use super::ask::{self, AskError};
use super::dial::Target;
use super::run::{RunError, make_state_dir};
use crate::clock;
use crate::identity::enrol::{Candidate, EnrolError, Shown};
use crate::identity::{Credentials, Pin, StoreError};
use crate::transport::{Connection, DialError, Dialler, HandshakeError};

/// What enrolling takes.
pub struct Order {
    /// Where the control listens.
    pub control: Target,
    /// The root that it must show.
    pub pin: Pin,
    /// What buys the certificate.
    pub token: Token,
    /// The name that is wanted; without it the runner keeps its own, or makes one.
    pub runner_id: Option<RunnerId>,
    /// Also when the certificate that is there is still good.
    pub again: bool,
}

/// Why a runner is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum NotEnrolled {
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] RunError),
    /// What is there of an identity cannot be used.
    #[error("cannot use the identity that this runner has")]
    Identity(#[from] StoreError),
    /// There is nothing to do.
    #[error(
        "this is runner {runner_id} of authority {authority_id} already, and its certificate is good for {left_s} s more; with \
         --again it is enrolled all the same"
    )]
    Already {
        /// Its name.
        runner_id: RunnerId,
        /// Whom it belongs to.
        authority_id: oqto_protocol::id::AuthorityId,
        /// How long its certificate is good.
        left_s: u64,
    },
    /// Something of our own side.
    #[error(transparent)]
    Own(#[from] EnrolError),
    /// The runtime cannot be had.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// The control's name says nothing.
    #[error("cannot find the control {control}; is the name right?")]
    Resolve {
        /// Where it should be.
        control: Target,
        /// Why not.
        source: Option<io::Error>,
    },
    /// Nobody is there.
    #[error(
        "the control {control} is not reached; see that `oqtoctl listen` runs there, and that nothing on the way blocks its \
         UDP port"
    )]
    Unreached {
        /// Where it should be.
        control: Target,
        /// Why not.
        source: DialError,
    },
    /// Something else listens there.
    #[error("what listens at {control} enrols nobody; is it the address of `oqtoctl listen`?")]
    NoControl {
        /// Where.
        control: Target,
        /// What it said.
        source: HandshakeError,
    },
    /// It is of another authority, or somebody stands between.
    #[error(
        "the control {control} does not have the pin {pin}: it shows {}. Compare with what `oqtoctl authority show` says on \
         the control itself; if that has the pin that was given, somebody stands between. The token was not sent",
        Pins(shown)
    )]
    OtherPin {
        /// Where.
        control: Target,
        /// What it should show.
        pin: Pin,
        /// What it shows.
        shown: Vec<Pin>,
    },
    /// It shows the root, and nothing that the root has signed for it.
    #[error(
        "the control {control} shows a root that has the pin, and does not prove that it is of that authority; the token was \
         not sent"
    )]
    Unverified {
        /// Where.
        control: Target,
        /// Why not.
        source: HandshakeError,
    },
    /// The token buys nothing.
    #[error(
        "the control {control} does not take the token: it was used, has expired, is mistyped, or is for another runner than \
         {runner_id}. Make another on the control: oqtoctl token create --runner-id {runner_id}"
    )]
    Denied {
        /// Where.
        control: Target,
        /// Who asked.
        runner_id: RunnerId,
    },
    /// The talk came to nothing.
    #[error("the control {control} gives no certificate")]
    Ask {
        /// Where.
        control: Target,
        /// Why.
        source: AskError,
    },
}

impl NotEnrolled {
    /// The exit code that tells them apart: 1 refused, 3 not reached, 4 another authority, 5 enrolled already, else 125.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Denied { .. }
            | Self::Ask {
                source: AskError::Refused(_),
                ..
            } => 1,
            Self::Resolve { .. } | Self::Unreached { .. } | Self::NoControl { .. } | Self::Ask { .. } => 3,
            Self::OtherPin { .. } | Self::Unverified { .. } => 4,
            Self::Already { .. } => 5,
            Self::StateDir(_) | Self::Identity(_) | Self::Own(_) | Self::Runtime(_) => 125,
        }
    }
}

struct Pins<'a>(&'a [Pin]);

impl std::fmt::Display for Pins<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [] => f.write_str("no root"),
            [first, rest @ ..] => {
                write!(f, "{first}")?;
                rest.iter().try_for_each(|pin| write!(f, ", {pin}"))
            }
        }
    }
}

/// Enrols the runner of a state directory: its key is made here if there is none, and signed there. A runner that runs takes
/// the certificate by itself.
///
/// # Errors
/// See [`NotEnrolled`]. Nothing is changed then, but that the key may have been made, and a runner that nobody has signed
/// yet may have the name that was wanted.
pub fn enrol(state_dir: &Path, order: Order) -> Result<Credentials, NotEnrolled> {
    let Order {
        control,
        pin,
        token,
        runner_id,
        again,
    } = order;
    make_state_dir(state_dir)?;
    let dir = state_dir.join("identity");
    // A certificate that cannot be used is what enrolling anew is for.
    let known = if again { None } else { Credentials::open(&dir)? };
    if let Some(known) = known {
        let left = known.now().life().ends_at().saturating_sub(clock::unix_ms());
        if left > 0 {
            return Err(NotEnrolled::Already {
                runner_id: known.runner_id(),
                authority_id: known.authority_id(),
                left_s: left / 1000,
            });
        }
    }
    let candidate = Candidate::open(&dir, runner_id.as_ref(), pin)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NotEnrolled::Runtime)?;
    runtime.block_on(async {
        let dialler = Dialler::new(&random_secret()?);
        let enrolled = talk(&dialler, candidate, control, pin, token).await;
        dialler.close().await;
        enrolled
    })
}

/// Nobody remembers a link of this process.
fn random_secret() -> Result<[u8; 32], NotEnrolled> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| NotEnrolled::Runtime(io::Error::other(error)))?;
    Ok(secret)
}

async fn talk(
    dialler: &Dialler,
    candidate: Candidate,
    control: Target,
    pin: Pin,
    token: Token,
) -> Result<Credentials, NotEnrolled> {
    let (tls, shown) = candidate.client_config()?;
    let found = control.addresses().await;
    let addresses = found.map_err(|source| NotEnrolled::Resolve {
        control: control.clone(),
        source: Some(source),
    })?;
    let connection = reach(dialler, &addresses, tls, &control, pin, &shown).await?;
    let runner_id = candidate.runner_id().clone();
    let query = Query::Enrol(candidate.request(token));
    let grant = match ask::grant(&connection, &query).await {
        Ok(grant) => grant,
        Err(AskError::Refused(fault)) if fault.code == FaultCode::Denied => {
            return Err(NotEnrolled::Denied { control, runner_id });
        }
        Err(source) => return Err(NotEnrolled::Ask { control, source }),
    };
    Ok(candidate.take(&connection.certificates(), grant)?)
}

/// Dials one address after the other until somebody with the pin answers.
async fn reach(
    dialler: &Dialler,
    addresses: &[SocketAddr],
    tls: rustls::ClientConfig,
    control: &Target,
    pin: Pin,
    shown: &Shown,
) -> Result<Connection, NotEnrolled> {
    let mut failed = NotEnrolled::Resolve {
        control: control.clone(),
        source: None,
    };
    for &address in addresses {
        let error = match dialler.dial(address, tls.clone()).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let control = control.clone();
        failed = match (shown.take(), error) {
            (Some(shown), _) => NotEnrolled::OtherPin { control, pin, shown },
            (None, DialError::Handshake(source @ HandshakeError::Protocol { .. })) => {
                NotEnrolled::NoControl { control, source }
            }
            (None, DialError::Handshake(source)) if source.is_disbelief() => {
                NotEnrolled::Unverified { control, source }
            }
            (None, source) => NotEnrolled::Unreached { control, source },
        };
    }
    Err(failed)
}
