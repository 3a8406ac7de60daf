//! The authority: the private certification authority of this control, which runners and controls trust alone.
//!
//! It is made at first use. Its keys are files that only their owner may read, and are refused otherwise. It signs short
//! certificates that name who somebody is in a URI, and never sees a runner's private key. Its name stays; its keys may be
//! rotated. What it decides (roots, revocations) stands in one file, is signed for the runners, and holds in every process
//! that has it open. Everything here blocks on a disk, briefly.
//!
//! Uses `bounds`. Not here: how a certificate is checked in a handshake, who is listened to (`connection`).

mod disk;
mod enrolment;
mod issue;
mod issued;
mod ledger;
mod limit;
mod names;
mod record;
mod root;
mod rotation;
mod store;
mod token;

pub(crate) use enrolment::Named;
pub use issue::SignError;
pub use issued::{IssueError, IssuedRecord};
pub use ledger::{BadSerial, Revocable, Revocations, RevokeError, Revoked, RotateError, Serial};
pub(crate) use limit::{Bucket, Limit, network};
pub(crate) use names::server_name;
pub use record::{Outcome, Record};
pub use root::{RootInfo, Standing};
pub(crate) use store::State;
pub use store::{Authority, AuthorityError};
pub use token::{TokenError, TokenInfo};
