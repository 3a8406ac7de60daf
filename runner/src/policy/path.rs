//! Paths of a policy: absolute, plain, and comparable without asking the disk.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// An absolute path in UTF-8 without `.`, `..`, doubled or trailing slashes, or control characters.
///
/// Two of them are the same path exactly if they are equal, as long as no link is involved; whoever touches the
/// disk resolves links first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AbsolutePath(String);

/// Why a text is no [`AbsolutePath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with a slash.
    #[error("is not absolute")]
    Relative,
    /// It has a `.` or `..` in it.
    #[error("has . or .. in it")]
    Dots,
    /// It has a control character in it or is not UTF-8.
    #[error("has a control character in it or is not UTF-8")]
    Unprintable,
    /// It has brackets, braces or a dollar sign in it.
    #[error("has [, ], {{, }} or $ in it, and the only wildcards are *, ? and **")]
    Wildcard,
    /// It has two stars that are not a whole name.
    #[error("has ** beside other letters, and ** stands for whole names only")]
    Stars,
}

impl AbsolutePath {
    pub(super) fn root() -> Self {
        Self("/".to_owned())
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// Whether this is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.below(other).is_some()
    }

    /// What leads from `above` to this path, with a slash before each name; `None` if this is not below it.
    pub(super) fn below(&self, above: &Self) -> Option<&str> {
        // Each path has one spelling, and only the root's ends with a slash.
        let rest = self.0.strip_prefix(above.0.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }

    /// The path below this one that `rest` names; an empty `rest` gives this path.
    pub(super) fn join(&self, rest: &str) -> Result<Self, BadPath> {
        Self::try_from(format!("{}/{rest}", self.0))
    }
}

impl TryFrom<String> for AbsolutePath {
    type Error = BadPath;

    fn try_from(text: String) -> Result<Self, BadPath> {
        if !text.starts_with('/') {
            return Err(BadPath::Relative);
        }
        if text.chars().any(char::is_control) {
            return Err(BadPath::Unprintable);
        }
        // `Path::components` drops inner `.` silently; a policy that says it is unclear about what it means.
        if text.split('/').any(|part| part == "." || part == "..") {
            return Err(BadPath::Dots);
        }
        let mut plain = PathBuf::from("/");
        plain.extend(
            Path::new(&text)
                .components()
                .filter(|part| matches!(part, Component::Normal(_))),
        );
        plain
            .into_os_string()
            .into_string()
            .map(Self)
            .map_err(|_| BadPath::Unprintable)
    }
}

impl TryFrom<&Path> for AbsolutePath {
    type Error = BadPath;

    fn try_from(path: &Path) -> Result<Self, BadPath> {
        path.to_str()
            .ok_or(BadPath::Unprintable)
            .and_then(|text| Self::try_from(text.to_owned()))
    }
}

impl From<AbsolutePath> for String {
    fn from(path: AbsolutePath) -> Self {
        path.0
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        for text in ["/a/b", "/a//b", "/a/b/", "//a/b"] {
            assert_eq!(
                AbsolutePath::try_from(text.to_owned()).map(String::from),
                Ok("/a/b".to_owned()),
                "{text}"
            );
        }
        for (text, why) in [
            ("a", BadPath::Relative),
            ("/a/../b", BadPath::Dots),
            ("/a/./b", BadPath::Dots),
            ("/a\nb", BadPath::Unprintable),
        ] {
            assert_eq!(AbsolutePath::try_from(text.to_owned()), Err(why), "{text}");
        }
    }

    #[test]
    fn a_neighbour_with_the_same_beginning_is_not_within() {
        let path = |text: &str| AbsolutePath::try_from(text.to_owned()).unwrap();
        assert!(path("/a/b").is_within(&path("/a")));
        assert!(path("/a").is_within(&path("/a")));
        assert!(!path("/ab").is_within(&path("/a")));
    }
}
