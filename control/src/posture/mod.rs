//! Posture: what a runner must be before it is given work.
//!
//! Uses `bounds`. Pure: time, nonces and certificates are arguments. [`Verified`] is a runner's statement whose signature,
//! nonce, TLS session, name and clock are those that were asked for, and nothing else makes one. [`Posture`] is an
//! operator's rules; [`Posture::judge`] says of each what it wants and what was found. Not here: asking (`connection`),
//! when (`runner`).

mod document;
mod judge;
mod release;
mod report;
mod verify;

pub use document::{Posture, PostureError};
pub use judge::{Finding, Rule};
pub use report::{LayerFound, SandboxCheck};
pub(crate) use verify::{Asked, verify};
pub use verify::{Verified, VerifyError};
