//! Reading and writing with a bound: what every value's wire form is built on.

use crate::bounds::ELEMENTS_MAX;

/// Bytes that are not the value that they were read as. The peer's fault: answer and close, never retry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside the value.
    #[error("the bytes end inside a {0}")]
    Short(&'static str),
    /// A number, flag or text is not of its form.
    #[error("a {0} is malformed")]
    Malformed(&'static str),
    /// More list elements than one frame may hold.
    #[error("more than {ELEMENTS_MAX} list elements in one frame")]
    TooMany,
    /// Bytes are left behind a value that cannot grow.
    #[error("{0} bytes are left behind the value")]
    Left(usize),
}

/// A value that has a form on the wire, at least one byte long.
pub trait Wire: Sized {
    /// Appends the value to `out`.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads the value from the front of `input`.
    ///
    /// # Errors
    /// When the bytes are no such value.
    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError>;
}

/// The bytes of one frame that are still to be read, and what may still be allocated for them.
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
    elements_left: u32,
}

impl<'a> Input<'a> {
    /// Reads `bytes`, with a whole frame's budget.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            elements_left: ELEMENTS_MAX,
        }
    }

    /// What is not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.bytes.split_at_checked(len).ok_or(DecodeError::Short(what))?;
        self.bytes = tail;
        Ok(head)
    }

    pub(super) fn length(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        usize::try_from(u64::decode(self)?).map_err(|_| DecodeError::Short(what))
    }

    /// Reads how many elements follow, and takes them off the frame's budget.
    pub(super) fn elements(&mut self) -> Result<u32, DecodeError> {
        let count = u32::try_from(u64::decode(self)?).map_err(|_| DecodeError::TooMany)?;
        self.elements_left = self
            .elements_left
            .checked_sub(count)
            .ok_or(DecodeError::TooMany)?;
        // Each takes a byte or more.
        if usize::try_from(count).is_ok_and(|count| count <= self.bytes.len()) {
            Ok(count)
        } else {
            Err(DecodeError::Short("list"))
        }
    }

    /// Reads a length-framed value: `read` sees its bytes alone, and what it leaves is skipped, since a newer
    /// writer may have appended fields.
    ///
    /// # Errors
    /// When the frame is longer than the input or `read` fails.
    pub fn framed<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Input<'a>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let len = self.length(what)?;
        let mut inner = Input {
            bytes: self.take(len, what)?,
            elements_left: self.elements_left,
        };
        let value = read(&mut inner)?;
        self.elements_left = inner.elements_left;
        Ok(value)
    }

    /// Reads a field that a later version appended: its default when the writer was older.
    ///
    /// # Errors
    /// When the field is there and malformed.
    pub fn appended<T: Wire + Default>(&mut self) -> Result<T, DecodeError> {
        if self.bytes.is_empty() {
            Ok(T::default())
        } else {
            T::decode(self)
        }
    }
}

/// Appends a length-framed value: what `write` appends, behind its length.
pub fn framed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    write(out);
    let end = out.len();
    let len = end - at - 1;
    // Nearly every value is short: its length is one byte, which is there already.
    if let Ok(short @ 0..=250) = u8::try_from(len) {
        out[at] = short;
        return;
    }
    // A longer one is written behind the body first, to learn how many bytes it takes.
    let mut prefix = [0; 9];
    (len as u64).encode(out);
    let prefix_len = out.len() - end;
    prefix[..prefix_len].copy_from_slice(&out[end..]);
    out.truncate(end);
    out.splice(at..=at, prefix[..prefix_len].iter().copied());
}

/// Reads a value that is all of `bytes`.
///
/// # Errors
/// When the bytes are no such value, or bytes are left.
pub fn decode_all<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut input = Input::new(bytes);
    let value = T::decode(&mut input)?;
    if input.rest().is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::Left(input.rest().len()))
    }
}
