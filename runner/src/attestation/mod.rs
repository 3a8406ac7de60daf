//! What this runner is, measured and signed, for a control that wants to know before it gives it work.
//!
//! Floor: house. Promise: a statement is signed with the key of this runner's certificate, over the nonce of who asks
//! and over what only their TLS session exports, so that it is worth nothing anywhere else. It says what this program
//! found, and a program whose owner lies can say anything: it tells a host that is as its owner wants it from one that
//! is not, and does not tell an honest owner from a dishonest one. Not here: who may ask (`daemon::authorise`), what is
//! good enough (the control).

mod attestor;
mod check;

pub use attestor::{AttestError, Attestor};
pub use check::CheckSettings;
