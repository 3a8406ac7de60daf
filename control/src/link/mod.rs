//! The link's rules: what order events come in, when a command is sent again, what may be acknowledged, when a runner
//! is dialled again.
//!
//! Pure: no I/O, no clock, no task, no randomness. The shells `connection`, `runner` and `events` ask and obey. Uses the
//! protocol and the words of `history`. Public only under the feature `simulation`, for who drives them without a network.

mod acks;
mod backoff;
mod breaker;
mod budget;
mod flight;
mod order;

pub use acks::Acks;
pub use backoff::Backoff;
pub use breaker::{Admission, Breaker};
pub use budget::Budget;
pub use flight::{Flight, Lost};
pub use order::{Admitted, Order, OrderError, cursor_of};
