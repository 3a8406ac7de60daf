//! A session's events as a stream: in order, repeats dropped, gaps named, kept before they are acknowledged, and
//! subscribed to again from the exact cursor when the link was lost.
//!
//! Uses `connection`, `history`, `link`. Promise: an event is handed out once, in order, and acknowledged only when the
//! store has it on disk. Not here: how a link comes back (`connection`).

mod keeper;
mod stream;
mod subscription;

pub use stream::{Events, EventsError, Mark, Update};
pub use subscription::SubscribeError;
