//! The link's rules: what order events come in, when a command is sent again, what may be acknowledged.
//!
//! Pure: no I/O, no clock, no task. The shells `connection`, `session` and `events` ask and obey. Uses the protocol.

mod acks;
mod flight;
mod order;

pub(crate) use acks::Acks;
pub(crate) use flight::{Flight, Lost};
pub use order::OrderError;
pub(crate) use order::{Admitted, Order, cursor_of};
