//! Versions of harnesses, as far as they are compared.

use std::fmt;
use std::str::FromStr;

/// The versions that a harness was tested in: those from one to another, both with all that are more exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    from: Vec<u64>,
    to: Vec<u64>,
}

/// A text that is no range of versions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no range of versions; write one like \"0.74 to 0.87\", or \"0.101\"")]
pub struct BadTested(String);

impl Tested {
    /// Whether a version is one of them; `None` when it is no version that can be compared.
    #[must_use]
    pub fn covers(&self, version: &str) -> Option<bool> {
        let version = numbers(version)?;
        let cut = |len: usize| &version[..version.len().min(len)];
        Some(cut(self.from.len()) >= &self.from[..] && cut(self.to.len()) <= &self.to[..])
    }
}

impl FromStr for Tested {
    type Err = BadTested;

    fn from_str(text: &str) -> Result<Self, BadTested> {
        let bad = || BadTested(text.to_owned());
        let (from, to) = text.split_once(" to ").unwrap_or((text, text));
        let (from, to) = (numbers(from).ok_or_else(bad)?, numbers(to).ok_or_else(bad)?);
        if from > to {
            return Err(bad());
        }
        Ok(Self { from, to })
    }
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |numbers: &[u64]| {
            let texts: Vec<_> = numbers.iter().map(u64::to_string).collect();
            texts.join(".")
        };
        f.write_str(&text(&self.from))?;
        if self.from != self.to {
            write!(f, " to {}", text(&self.to))?;
        }
        Ok(())
    }
}

/// The numbers that a version begins with: `v1.2.3-beta.1` are 1, 2 and 3.
fn numbers(text: &str) -> Option<Vec<u64>> {
    let text = text.trim();
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let numbers = text[..end].trim_end_matches('.').split('.');
    numbers.map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_tested_when_it_lies_in_the_range_as_exactly_as_that_is_given() {
        let tested: Tested = "0.74 to 0.87".parse().unwrap();
        for (version, covered) in [
            ("0.74.0", true),
            ("0.87.12", true),
            ("v0.80", true),
            ("0.88.0", false),
            ("0.73.9", false),
            ("1.0", false),
            ("0.87.1-beta.2", true),
        ] {
            assert_eq!(tested.covers(version), Some(covered), "{version}");
        }
        assert_eq!(tested.covers("unknown"), None);
        assert_eq!(tested.to_string(), "0.74 to 0.87");
        assert_eq!("2".parse::<Tested>().unwrap().to_string(), "2");
        for bad in ["", "new", "2 to 1", "1..2"] {
            assert!(bad.parse::<Tested>().is_err(), "{bad}");
        }
    }
}
