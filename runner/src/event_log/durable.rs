//! The proof that something is kept.

use std::ops::Deref;

/// Something that is committed. Only the event log makes one, so whoever asks for one sends nothing that could
/// still be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    /// To be called by what committed it.
    pub(super) fn new(kept: T) -> Self {
        Self(kept)
    }

    /// What is kept, without the proof.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Durable<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
