//! An error with its causes, in one line.
//!
//! Floor: ground. Used at the edges alone: in a log, in an answer to a peer, on standard error.

use std::error::Error;

/// The error's own words, then those of each cause: `cannot do this: since that: because of this`.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
