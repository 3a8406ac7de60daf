//! Where samples come from, and the samples of what types are made of.

use std::collections::BTreeMap;

use oqto_protocol::codec::{Blob, Json};
use oqto_protocol::id::{AuthorityId, CommandId, ControlId, Digest, MessageId, RunnerId, SessionId};
use oqto_protocol::secret::Secret;

/// A type of which there are samples.
pub(crate) trait Sample: Sized {
    /// Makes one.
    fn sample(source: &mut Source<'_>) -> Self;
}

/// Decides what a sample holds.
pub(crate) struct Source<'a> {
    mode: Mode<'a>,
    count: u64,
    field: &'static str,
}

enum Mode<'a> {
    /// Every option set, and no two fields alike, so that a change of their order shows.
    Full,
    /// Every option absent, every list empty.
    Bare,
    /// As these bytes say; bare where they end, so that proptest can shorten them.
    Choices(&'a [u8]),
}

impl<'a> Source<'a> {
    pub(crate) fn full() -> Self {
        Self::of(Mode::Full)
    }

    pub(crate) fn bare() -> Self {
        Self::of(Mode::Bare)
    }

    pub(crate) fn choices(bytes: &'a [u8]) -> Self {
        Self::of(Mode::Choices(bytes))
    }

    fn of(mode: Mode<'a>) -> Self {
        Self {
            mode,
            count: 0,
            field: "",
        }
    }

    /// The sample of the field called `name`.
    pub(crate) fn field<T: Sample>(&mut self, name: &'static str) -> T {
        self.field = name;
        T::sample(self)
    }

    /// A number below `end`; of a full source the next one in turn.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// Whether unknown things may be made.
    pub(crate) fn is_free(&self) -> bool {
        matches!(self.mode, Mode::Choices(_))
    }

    fn number(&mut self) -> u64 {
        match &mut self.mode {
            Mode::Bare => 0,
            Mode::Full => {
                self.count += 1;
                self.count
            }
            Mode::Choices(bytes) => {
                let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
                *bytes = rest;
                u64::from(*first)
            }
        }
    }

    fn flag(&mut self) -> bool {
        match self.mode {
            Mode::Bare => false,
            Mode::Full => true,
            Mode::Choices(_) => self.number() & 1 == 1,
        }
    }

    fn len(&mut self) -> u64 {
        match self.mode {
            Mode::Bare => 0,
            Mode::Full => 2,
            Mode::Choices(_) => self.number() % 4,
        }
    }

    /// A number of any width up to `bits`.
    fn wide(&mut self, bits: u32) -> u64 {
        match self.mode {
            Mode::Bare => 0,
            // Past what one byte of a varint holds, and for the wide ones past what two hold.
            Mode::Full if bits > 32 => 70_000 + self.number(),
            Mode::Full => 300 + self.number(),
            Mode::Choices(_) => {
                let width = self.number() % 9;
                let value = (0..width).fold(0, |value, _| value << 8 | self.number());
                value & (u64::MAX >> (64 - bits))
            }
        }
    }
}

impl Sample for bool {
    fn sample(source: &mut Source<'_>) -> Self {
        source.flag()
    }
}

impl Sample for u16 {
    fn sample(source: &mut Source<'_>) -> Self {
        source.wide(16) as Self
    }
}

impl Sample for u32 {
    fn sample(source: &mut Source<'_>) -> Self {
        source.wide(32) as Self
    }
}

impl Sample for u64 {
    fn sample(source: &mut Source<'_>) -> Self {
        source.wide(64)
    }
}

impl Sample for i32 {
    fn sample(source: &mut Source<'_>) -> Self {
        !(source.wide(32) as Self)
    }
}

impl Sample for f64 {
    fn sample(source: &mut Source<'_>) -> Self {
        source.wide(32) as Self / 8.0
    }
}

impl Sample for String {
    fn sample(source: &mut Source<'_>) -> Self {
        match source.mode {
            Mode::Bare => Self::new(),
            Mode::Full => {
                let field = source.field;
                format!("{field} {}", source.number())
            }
            Mode::Choices(_) => {
                // Now and then longer than one byte can say.
                let piece = [
                    "",
                    "a",
                    "é\u{1F600}",
                    "\"\\\n\u{0}",
                    "unknown",
                    "0123456789abcdef",
                ][source.below(6) as usize];
                piece.repeat(source.below(24) as usize)
            }
        }
    }
}

macro_rules! texts {
    ($($type:ident($prefix:literal)),+ $(,)?) => {$(
        impl Sample for $type {
            fn sample(source: &mut Source<'_>) -> Self {
                format!("{}{}", $prefix, source.number()).parse().unwrap()
            }
        }
    )+};
}

texts!(
    SessionId("s-"),
    RunnerId("r-"),
    ControlId("c-"),
    AuthorityId("a-"),
    MessageId("m-")
);

impl Sample for CommandId {
    fn sample(source: &mut Source<'_>) -> Self {
        Self([source.number() as u8; 16])
    }
}

impl Sample for Digest {
    fn sample(source: &mut Source<'_>) -> Self {
        Self([source.number() as u8; 32])
    }
}

impl Sample for Secret {
    fn sample(source: &mut Source<'_>) -> Self {
        Self::new(Sample::sample(source))
    }
}

impl Sample for Blob {
    fn sample(source: &mut Source<'_>) -> Self {
        Self((0..source.len()).map(|_| source.number() as u8).collect())
    }
}

impl Sample for Json {
    fn sample(source: &mut Source<'_>) -> Self {
        let text = match source.mode {
            Mode::Bare => "{}".to_owned(),
            Mode::Full => {
                let field = source.field;
                format!(r#"{{"{field}":[{},null]}}"#, source.number())
            }
            Mode::Choices(_) => {
                // As serde_json writes them, and not `null`: that is an absent option in JSON.
                let texts = [
                    "{}",
                    "[]",
                    "true",
                    "-5",
                    "1.5",
                    "\"\"",
                    r#""é\"\n""#,
                    r#"{"a":[null,{"b":"c"}]}"#,
                ];
                texts[source.below(8) as usize].to_owned()
            }
        };
        Self::parse(text).unwrap()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(source: &mut Source<'_>) -> Self {
        source.flag().then(|| T::sample(source))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(source: &mut Source<'_>) -> Self {
        (0..source.len()).map(|_| T::sample(source)).collect()
    }
}

impl<V: Sample> Sample for BTreeMap<String, V> {
    fn sample(source: &mut Source<'_>) -> Self {
        (0..source.len())
            .map(|_| (Sample::sample(source), Sample::sample(source)))
            .collect()
    }
}

impl<T: Sample> Sample for Box<T> {
    fn sample(source: &mut Source<'_>) -> Self {
        Self::new(T::sample(source))
    }
}
