//! Who this runner is: its key, its certificate, whom it trusts.
//!
//! Floor: shell. The key is made here and never leaves; a control signs it, over the channel that started the runner
//! ([`bootstrap`]) or for a token ([`enrol`]), and again before the certificate runs out. Trust is the authority's roots and
//! nothing else, as the authority itself says it in signed statements: the system's roots are never read.
//! Not here: connections (`transport`), and what a peer may do (`daemon::authorise`).

mod bootstrap;
mod certificate;
mod credentials;
pub mod enrol;
mod grant;
mod keeping;
mod kept;
mod key;
mod life;
mod peer;
mod pin;
mod standing;
mod store;
mod tls;
mod trust;

pub use bootstrap::{BootstrapError, announce, bootstrap};
pub use certificate::RootsError;
pub use credentials::{Credentials, LearnError, RenewError};
pub use grant::GrantError;
pub use key::{Key, KeyError};
pub use life::Life;
pub use peer::{Peer, PeerError};
pub use pin::{BadPin, Pin};
pub use standing::Standing;
pub use store::{StoreError, open_key, public_key};
pub use tls::TlsError;
pub use trust::TrustError;
