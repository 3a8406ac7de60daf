//! Versions of harnesses, as far as they are compared.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The versions that a harness was tested in: those from one to another, both with all that are more exact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tested {
    from: Vec<u64>,
    to: Vec<u64>,
}

/// Which edition of a harness is started, as its installation says, and what there is to say of it. It is kept with the
/// session, whose tape must mean the same to a later runner, which was tested with others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edition {
    /// Its version; without it nobody knows before the harness says it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The versions that the runner was tested with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tested: Option<Tested>,
    /// What a human should know who starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

impl Edition {
    /// What there is to say of this version of `harness`: nothing, when it was tested or cannot be compared.
    #[must_use]
    pub fn untested(&self, harness: &str, version: &str) -> Option<String> {
        let tested = self.tested.as_ref()?;
        (tested.covers(version) == Some(false)).then(|| {
            format!("{harness} {version} is none of the versions that this runner was tested with: {tested}")
        })
    }
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

impl TryFrom<String> for Tested {
    type Error = BadTested;

    fn try_from(text: String) -> Result<Self, BadTested> {
        text.parse()
    }
}

impl From<Tested> for String {
    fn from(tested: Tested) -> Self {
        tested.to_string()
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

/// Whether a version is at least the one that a range in the form of npm begins at, such as `>=22.19`; `None` where the
/// range is of another form, or the version cannot be compared.
#[must_use]
pub fn reaches(version: &str, range: &str) -> Option<bool> {
    let least = range.trim().strip_prefix(">=")?.trim();
    let is_plain = |c: char| c.is_ascii_digit() || c == '.';
    let least = numbers(least).filter(|_| least.chars().all(is_plain))?;
    Some(numbers(version)? >= least)
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
        let json = serde_json::to_string(&tested).unwrap();
        assert_eq!(serde_json::from_str::<Tested>(&json).unwrap(), tested);
        for bad in ["", "new", "2 to 1", "1..2"] {
            assert!(bad.parse::<Tested>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_version_that_is_known_to_be_others_is_untested() {
        let edition = Edition {
            tested: "0.74 to 0.87".parse().ok(),
            ..Edition::default()
        };
        assert_eq!(
            edition.untested("pi", "0.90.1").unwrap(),
            "pi 0.90.1 is none of the versions that this runner was tested with: 0.74 to 0.87"
        );
        assert_eq!(edition.untested("pi", "0.80.0"), None);
        assert_eq!(edition.untested("pi", "nightly"), None);
        assert_eq!(Edition::default().untested("pi", "0.90.1"), None);
    }

    #[test]
    fn a_range_is_only_judged_where_it_says_one_least_version() {
        for (version, range, reached) in [
            ("20.20.2", ">=22", Some(false)),
            ("24.21.0", ">=22.19.0", Some(true)),
            ("22.19.0", ">= 22.19.0", Some(true)),
            ("20.20.2", "^20 || >=22", None),
            ("20.20.2", ">=18 <20", None),
            ("unknown", ">=22", None),
        ] {
            assert_eq!(reaches(version, range), reached, "{version} {range}");
        }
    }
}
