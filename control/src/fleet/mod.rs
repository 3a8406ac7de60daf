//! The fleet: which runners this control knows by name.
//!
//! One small file a runner. Trust does not come from here but from TLS: a wrong record leads to a refused handshake.

mod records;

pub use records::RecordError;
pub(crate) use records::Records;
