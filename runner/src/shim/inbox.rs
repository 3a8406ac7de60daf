//! What a socket brought, cut into frames. Both ends have one.

use super::wire::{BadFrame, FRAME_MAX, LEN_LEN};

/// How much an [`Inbox`] asks the socket for at once.
const READ_STEP: usize = 16 * 1024;

/// Bytes that came in, cut into frames. It holds at most one frame and one read more.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// How much at the start was given out already.
    taken: usize,
}

impl Inbox {
    /// Lets `read` fill some room behind what is there and keeps as much as it says it filled.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) fn fill<E>(&mut self, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let len = self.bytes.len();
        self.bytes.resize(len + READ_STEP, 0);
        let filled = read(&mut self.bytes[len..]);
        self.bytes
            .truncate(len + filled.as_ref().map_or(0, |filled| *filled));
        filled
    }

    /// The next whole frame, without its length.
    ///
    /// # Errors
    /// When its length is impossible. Nothing that follows means anything then.
    pub(super) fn frame(&mut self) -> Result<Option<&[u8]>, BadFrame> {
        if self.taken == self.bytes.len() {
            // After a giant frame the memory goes back.
            self.bytes.clear();
            self.bytes.shrink_to(READ_STEP);
            self.taken = 0;
        }
        let waiting = &self.bytes[self.taken..];
        let Some((len, rest)) = waiting.split_first_chunk::<LEN_LEN>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*len) as usize;
        if len > FRAME_MAX {
            return Err(BadFrame::TooLong { len });
        }
        if rest.len() < len {
            return Ok(None);
        }
        let start = self.taken + LEN_LEN;
        self.taken = start + len;
        Ok(Some(&self.bytes[start..start + len]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shim::wire::{Target, ToShim};

    fn inbox(bytes: &[u8]) -> Inbox {
        Inbox {
            bytes: bytes.to_vec(),
            taken: 0,
        }
    }

    #[test]
    fn a_giant_frame_is_refused_by_its_length_alone() {
        assert!(matches!(inbox(&[0xff; 4]).frame(), Err(BadFrame::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_they_come_in(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..20),
            step in 1_usize..50,
        ) {
            let mut bytes = Vec::new();
            for body in &bodies {
                ToShim::Write { id: [0; 16], to: Target::Note, bytes: body }.encode(&mut bytes);
            }
            let mut inbox = Inbox::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                inbox.fill(|room| {
                    room[..piece.len()].copy_from_slice(piece);
                    Ok::<_, ()>(piece.len())
                }).unwrap();
                while let Some(frame) = inbox.frame().unwrap() {
                    let Ok(ToShim::Write { bytes, .. }) = ToShim::decode(frame) else { panic!() };
                    seen.push(bytes.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut inbox = inbox(&bytes);
            while let Ok(Some(_)) = inbox.frame() {}
        }
    }
}
