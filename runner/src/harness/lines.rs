//! Splits what a harness prints into lines.
//!
//! Only `\n` ends a line: agents print U+2028 and carriage returns raw inside their JSON. A line that is whole in
//! its chunk is not copied; what is left of a chunk is carried over to the next, up to [`HARNESS_LINE_MAX`] bytes.

use memchr::memchr;

use crate::bounds::HARNESS_LINE_MAX;

/// A line past [`HARNESS_LINE_MAX`]. Nothing after it can be trusted to be a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {HARNESS_LINE_MAX} bytes")]
pub struct LineTooLong;

/// The line that is not whole yet.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    /// Whether `partial` was given out as a line and is to be forgotten.
    spent: bool,
}

impl Lines {
    /// Takes the next whole line off the front of `chunk`, without its `\n`; `None` when the rest of the chunk is
    /// carried over.
    ///
    /// # Errors
    /// When a line is longer than the bound, whether or not its end is there yet.
    pub fn next<'a, 'c: 'a>(&'a mut self, chunk: &mut &'c [u8]) -> Result<Option<&'a [u8]>, LineTooLong> {
        if self.spent {
            self.forget();
        }
        let Some(end) = memchr(b'\n', chunk) else {
            self.carry(chunk)?;
            *chunk = &[];
            return Ok(None);
        };
        let (line, rest) = (&chunk[..end], &chunk[end + 1..]);
        *chunk = rest;
        if self.partial.is_empty() {
            return within(line.len()).map(|()| Some(line));
        }
        self.carry(line)?;
        self.spent = true;
        Ok(Some(&self.partial))
    }

    /// Whether nothing is carried over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spent || self.partial.is_empty()
    }

    fn carry(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        within(self.partial.len() + bytes.len())?;
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn forget(&mut self) {
        // One long line must not cost its memory for the rest of the session.
        if self.partial.capacity() > PARTIAL_KEPT {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
        }
        self.spent = false;
    }
}

/// How much memory for a carried line is kept for the next one, in bytes: more than nearly every line needs.
const PARTIAL_KEPT: usize = 256 * 1024;

fn within(len: usize) -> Result<(), LineTooLong> {
    if len > HARNESS_LINE_MAX {
        Err(LineTooLong)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            while let Some(line) = lines.next(&mut rest)? {
                all.push(line.to_vec());
            }
        }
        Ok(all)
    }

    #[test]
    fn a_line_is_the_same_however_it_is_cut() {
        let text = "one\n\ntwo\u{2028}still two\r\nthree\nrest".as_bytes();
        let whole = split(&[text]).expect("short");
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[2], "two\u{2028}still two\r".as_bytes());
        for cut in 0..=text.len() {
            assert_eq!(split(&[&text[..cut], &text[cut..]]).expect("short"), whole);
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(split(&bytes).expect("short"), whole);
    }

    #[test]
    fn a_line_past_the_bound_is_refused_before_its_end_comes() {
        let mebibyte = vec![b'x'; 1024 * 1024];
        let mut lines = Lines::default();
        let refused = (0..64).position(|_| {
            let mut rest = mebibyte.as_slice();
            lines.next(&mut rest).is_err()
        });
        assert_eq!(refused, Some(HARNESS_LINE_MAX / mebibyte.len()));
    }
}
