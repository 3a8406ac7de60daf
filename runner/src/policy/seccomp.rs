//! Groups of system calls that a policy refuses by name: `sandbox-policies/seccomp.toml`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::{DocumentError, line_of, syntax};
use super::plan::{Calls, Permit};
use super::syscall::Syscall;

/// One system call that is refused, always or when its arguments meet every condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// Which call.
    pub call: Syscall,
    /// What the caller is told.
    pub refusal: Refusal,
    /// All of them have to hold; none at all means always.
    pub when: Vec<Condition>,
}

/// What a refused call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Refusal {
    /// "Operation not permitted".
    #[serde(rename = "EPERM")]
    NotPermitted,
    /// "Function not implemented": libraries then fall back to an older call whose arguments can be judged.
    #[serde(rename = "ENOSYS")]
    NotImplemented,
    /// Success, and nothing is done: for what programs insist on and what holds already.
    #[serde(rename = "ignored")]
    Ignored,
}

/// A test of one argument. Only its low 32 bits are looked at, unless the test is of a pointer: every other argument
/// judged here is an `int` or a mode for the kernel, which ignores the rest of the register, so a filter that looked
/// at it could be led past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub arg: u8,
    /// What is asked of it.
    pub test: Test,
}

/// What is asked of an argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// It is one of these.
    Is(Vec<u32>),
    /// It is none of these.
    Not(Vec<u32>),
    /// At least one of these bits is set.
    AnyBit(u32),
    /// What the mask leaves of it is one of these.
    MaskedIs(u32, Vec<u32>),
    /// It is a pointer, and not null.
    Given,
}

impl Test {
    fn holds(&self, value: u64) -> bool {
        // What the kernel looks at: see [`Condition`].
        let low = value as u32;
        match self {
            Self::Is(values) => values.contains(&low),
            Self::Not(values) => !values.contains(&low),
            Self::AnyBit(bits) => low & bits != 0,
            Self::MaskedIs(mask, values) => values.iter().any(|wanted| low & mask == wanted & mask),
            Self::Given => value != 0,
        }
    }
}

fn all_hold(when: &[Condition], args: &[u64; 6]) -> bool {
    when.iter()
        .all(|condition| condition.test.holds(args[usize::from(condition.arg)]))
}

impl Calls {
    /// What becomes of a call with these arguments; `None` answers for a call that the table does not know. Of two
    /// refusals the later one in the order of [`Refusal`] is answered: it is there to keep programs going.
    ///
    /// A call that nobody knows yet is refused even without a list of the allowed: what a newer kernel adds was never
    /// judged, and programs have to live without it on the older ones.
    ///
    /// # Panics
    ///
    /// If a condition names an argument past the sixth, which no policy can say.
    #[must_use]
    pub fn judge(&self, call: Option<Syscall>, args: &[u64; 6]) -> Verdict {
        let Some(call) = call else {
            return Verdict::Refused(Refusal::NotImplemented);
        };
        let denied = self.denied.iter();
        let denied = denied.filter(|denial| denial.call == call && all_hold(&denial.when, args));
        let permitted = |permits: &Vec<Permit>| {
            let mut permits = permits.iter();
            permits.any(|permit| permit.call == call && all_hold(&permit.when, args))
        };
        match denied.map(|denial| denial.refusal).max() {
            Some(refusal) => Verdict::Refused(refusal),
            None if self.allowed.as_ref().is_none_or(permitted) => Verdict::Allowed,
            None => Verdict::Refused(Refusal::NotPermitted),
        }
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel does it, as far as everything else allows.
    Allowed,
    /// It is not done.
    Refused(Refusal),
}

/// The groups of one file, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(BTreeMap<String, Vec<Denial>>);

impl Groups {
    /// Reads a file of groups; `file` is its name in errors.
    ///
    /// # Errors
    ///
    /// The text is not TOML, or says something that is not in the language.
    pub fn parse(file: &str, text: &str) -> Result<Self, DocumentError> {
        let file_of: File = toml::from_str(text).map_err(|error| syntax(file, text, &error))?;
        let mut groups = BTreeMap::new();
        for (name, group) in file_of.group {
            groups.insert(name, meant(file, text, group.deny, Entry::denial)?);
        }
        Ok(Self(groups))
    }

    /// The calls that a group refuses.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&[Denial]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// The names of all groups, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// What the entries of a group mean; `meaning` has none for conditions that make no sense.
pub(super) fn meant<E, R>(
    file: &str,
    text: &str,
    entries: Vec<toml::Spanned<E>>,
    meaning: impl Fn(E) -> Option<R>,
) -> Result<Vec<R>, DocumentError> {
    let meant = entries.into_iter().map(|entry| {
        // Lines are counted for errors only: counting them for every entry takes longer than reading it.
        let at = entry.span().start;
        meaning(entry.into_inner()).ok_or_else(|| DocumentError::Condition {
            file: file.to_owned(),
            line: line_of(text, at),
        })
    });
    meant.collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    group: BTreeMap<String, Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[expect(dead_code, reason = "required of the writer, for the reader of the file")]
    reason: String,
    deny: Vec<toml::Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    call: Syscall,
    #[expect(dead_code, reason = "required of the writer, for the reader of the file")]
    why: String,
    #[serde(default = "not_permitted")]
    refusal: Refusal,
    #[serde(default)]
    when: Vec<Written>,
}

fn not_permitted() -> Refusal {
    Refusal::NotPermitted
}

/// A condition as written: exactly one of the tests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    arg: u8,
    is: Option<Vec<u32>>,
    not: Option<Vec<u32>>,
    any_bit: Option<u32>,
    mask: Option<u32>,
    #[serde(default)]
    given: bool,
}

impl Entry {
    fn denial(self) -> Option<Denial> {
        let Self {
            call,
            why: _,
            refusal,
            when,
        } = self;
        let when = when.into_iter().map(Written::condition).collect::<Option<_>>()?;
        Some(Denial { call, refusal, when })
    }
}

impl Written {
    pub(super) fn condition(self) -> Option<Condition> {
        let Self {
            arg,
            is,
            not,
            any_bit,
            mask,
            given,
        } = self;
        let test = match (is, not, any_bit, mask, given) {
            (Some(values), None, None, None, false) => Test::Is(values),
            (None, Some(values), None, None, false) => Test::Not(values),
            (None, None, Some(bits), None, false) => Test::AnyBit(bits),
            (Some(values), None, None, Some(mask), false) => Test::MaskedIs(mask, values),
            (None, None, None, None, true) => Test::Given,
            _ => return None,
        };
        let never = match &test {
            Test::Is(values) | Test::MaskedIs(_, values) | Test::Not(values) => values.is_empty(),
            Test::AnyBit(bits) => *bits == 0,
            Test::Given => false,
        };
        (arg <= 5 && !never).then_some(Condition { arg, test })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_says_two_things_names_its_line() {
        let text = "[group.a]\nreason = \"r\"\ndeny = [\n  { call = \"ioctl\", why = \"w\", when = [{ arg = 1, is = [1], not = [2] }] },\n]\n";
        let error = Groups::parse("s.toml", text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "s.toml:4: a condition needs arg from 0 to 5 and one of is, not, any_bit, given = true, or mask with is"
        );
    }

    #[test]
    fn an_unknown_call_names_its_line() {
        let text = "[group.a]\nreason = \"r\"\ndeny = [\n  { call = \"ptrase\", why = \"w\" },\n]\n";
        let error = Groups::parse("s.toml", text).unwrap_err().to_string();
        assert!(
            error.starts_with("s.toml:4: ") && error.contains("ptrase"),
            "{error}"
        );
    }
}
