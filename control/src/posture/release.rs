//! Versions that are numbers with dots between them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// How many numbers of a version are looked at.
const PARTS_MAX: usize = 4;

/// The numbers at the beginning of a version: of `6.18.44-rc1` the first three. What is not there counts as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Release([u32; PARTS_MAX]);

/// A text that does not begin with a number.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no version: it has to begin with a number")]
pub(super) struct NoRelease(String);

impl FromStr for Release {
    type Err = NoRelease;

    fn from_str(text: &str) -> Result<Self, NoRelease> {
        let no_release = || NoRelease(text.to_owned());
        let mut parts = [0; PARTS_MAX];
        for (index, (part, said)) in parts.iter_mut().zip(text.split('.')).enumerate() {
            let digits = said.find(|c: char| !c.is_ascii_digit()).unwrap_or(said.len());
            match said.get(..digits).map(u32::from_str) {
                Some(Ok(number)) => *part = number,
                _ if index > 0 => break,
                _ => return Err(no_release()),
            }
            if digits < said.len() {
                break;
            }
        }
        Ok(Self(parts))
    }
}

impl PartialOrd for Release {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Release {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .0
            .iter()
            .rposition(|part| *part > 0)
            .map_or(2, |last| last + 1)
            .max(2);
        let parts: Vec<_> = self.0.iter().take(shown).map(ToString::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number_and_not_by_letter() {
        let release = |text: &str| text.parse::<Release>().unwrap();
        assert!(release("6.18.44-fc-v657") > release("6.9"));
        assert!(release("6.1") == release("6.1.0"));
        assert!(release("6.1.0-13-amd64") < release("6.1.1"));
        assert!(release("0.10.0") > release("0.9.9"));
        assert!(release("5.15.0+x") == release("5.15"));
        assert_eq!(release("6.18.44-fc-v657").to_string(), "6.18.44");
        assert_eq!(release("7").to_string(), "7.0");
        for text in ["", "x", ".1", "-1", "99999999999"] {
            assert!(text.parse::<Release>().is_err(), "{text}");
        }
    }
}
