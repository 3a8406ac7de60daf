//! Who this runner is: its key, its certificate, whom it trusts.
//!
//! Floor: shell. The key is made here and never leaves; a control signs it over the channel that started the
//! runner ([`bootstrap`]). Trust is the authority's roots and nothing else: the system's roots are never read.
//! Not here: what a peer may do (`daemon::authorise`).

mod bootstrap;
mod keeping;
mod key;
mod peer;
mod store;
mod tls;

pub use bootstrap::{BootstrapError, announce, bootstrap};
pub use key::{Key, KeyError};
pub use peer::{Peer, PeerError};
pub use store::{Identity, StoreError, open_key, public_key};
pub use tls::{TlsError, server_config};
