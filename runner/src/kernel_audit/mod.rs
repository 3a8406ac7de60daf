//! The kernel's audit records, as far as they tell what a sandbox refused or ended.
//!
//! Floor: shell. The kernel sends them to whoever holds `CAP_AUDIT_READ` in the host's own namespaces, whether an audit
//! daemon runs or not: [`mod@socket`] listens, [`record`] understands, purely. Which session a record is about follows from
//! the kernel's audit session, a number that every process inherits and none can change without privileges: each shim
//! begins one of its own ([`session`]). So a record of a process that is gone already is still the right session's.
//!
//! Not here: what becomes of a record (`supervisor`).

pub mod record;
pub mod session;
pub mod socket;

pub use record::{BadRecord, Record, parse};
pub use session::AuditSession;
pub use socket::{OpenError, Socket};
