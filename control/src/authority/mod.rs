//! The authority: the private certification authority of this control, which runners and controls trust alone.
//!
//! It is made at first use. Its key is a file that only its owner may read, and is refused otherwise. It signs short
//! certificates that name who somebody is in a URI, and never sees a runner's private key.
//!
//! Uses `bounds`. Not here: how a certificate is checked in a handshake (`connection`).

mod issue;
mod names;
mod store;

pub use issue::SignError;
pub(crate) use names::{runner_uri, server_name};
pub use store::{Authority, AuthorityError};
