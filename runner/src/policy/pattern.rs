//! What a policy names on the disk: one path, or every path that fits a pattern. Judged here without asking the disk.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::path::{AbsolutePath, BadPath};

/// A path, or every path below `base` that fits a glob.
///
/// The two are kept apart, so that a `*` in the name of somebody's workspace stays a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    base: AbsolutePath,
    glob: Option<Glob>,
}

/// What paths below a base have to look like: `*` and `?` stand for letters of one name, `**` for any number of names.
/// Names that begin with a dot are names like the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob(Vec<Part>);

/// One step of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The name itself.
    Name(String),
    /// Every name that this fits, by `*` and `?`.
    Fit(String),
    /// Any number of names.
    Any,
}

impl Pattern {
    /// Reads one that begins at the root, as policies write it; neither a user's home nor a workspace is known here.
    ///
    /// # Errors
    /// When the text is none.
    pub fn from_root(text: &str) -> Result<Self, BadPath> {
        let template = Template::parse(text)?;
        match template.root {
            Root::System => Ok(template.expand(&AbsolutePath::root(), &AbsolutePath::root())),
            Root::Home | Root::Workspace => Err(BadPath::Relative),
        }
    }

    /// Where it begins: the path itself, or the directory below which paths may fit.
    #[must_use]
    pub fn base(&self) -> &AbsolutePath {
        &self.base
    }

    /// What has to fit below the base; `None` for one path.
    #[must_use]
    pub fn glob(&self) -> Option<&Glob> {
        self.glob.as_ref()
    }

    /// The path, if it is a single one.
    #[must_use]
    pub fn literal(&self) -> Option<&AbsolutePath> {
        self.glob.is_none().then_some(&self.base)
    }

    /// Whether it names that very path.
    #[must_use]
    pub fn matches(&self, path: &AbsolutePath) -> bool {
        self.matches_path(path.as_path())
    }

    /// Whether it names that path or a directory above it.
    #[must_use]
    pub fn covers(&self, path: &AbsolutePath) -> bool {
        self.covers_path(path.as_path())
    }

    /// As [`covers`](Self::covers), for a path as the disk has it.
    pub(crate) fn covers_path(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.matches_path(above))
    }

    fn matches_path(&self, path: &Path) -> bool {
        let Some(glob) = &self.glob else {
            return path == self.base.as_path();
        };
        let Ok(rest) = path.strip_prefix(self.base.as_path()) else {
            return false;
        };
        let names: Vec<Cow<'_, str>> = rest.iter().map(|name| name.to_string_lossy()).collect();
        let names: Vec<Step<'_>> = names.iter().map(|name| Step::Name(name)).collect();
        fits(&glob.0, &names, End::Whole)
    }

    /// Whether everything that the other one names, and all below it, is covered by this one. May say no where a
    /// cleverer judge would find that it is, never yes where it is not.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        // A base is plain names, and what fits a glob is none of them: so what lies elsewhere fits nothing here.
        let Some(rest) = other.base.below(&self.base) else {
            return false;
        };
        let Some(glob) = &self.glob else {
            return true;
        };
        let names = rest.split('/').filter(|name| !name.is_empty()).map(Step::Name);
        let parts = other.glob.iter().flat_map(|glob| &glob.0);
        let parts = parts.map(|part| match part {
            Part::Name(name) => Step::Name(name),
            Part::Fit(fit) => Step::Fit(fit),
            Part::Any => Step::Any,
        });
        fits(&glob.0, &names.chain(parts).collect::<Vec<_>>(), End::Below)
    }
}

impl From<AbsolutePath> for Pattern {
    fn from(base: AbsolutePath) -> Self {
        Self { base, glob: None }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.glob {
            None => write!(f, "{}", self.base),
            Some(glob) => write!(f, "{}/{glob}", self.base.as_str().trim_end_matches('/')),
        }
    }
}

impl Glob {
    /// Its steps; the first is never a plain name.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.0
    }
}

impl TryFrom<String> for Glob {
    type Error = BadPath;

    fn try_from(text: String) -> Result<Self, BadPath> {
        let parts = parts(&text)?;
        match parts.first() {
            Some(Part::Fit(_) | Part::Any) => Ok(Self(parts)),
            Some(Part::Name(_)) | None => Err(BadPath::Wildcard),
        }
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.to_string()
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            let slash = if at == 0 { "" } else { "/" };
            match part {
                Part::Name(text) | Part::Fit(text) => write!(f, "{slash}{text}")?,
                Part::Any => write!(f, "{slash}**")?,
            }
        }
        Ok(())
    }
}

/// The steps of a path as a policy writes it, without what stands before the first slash.
fn parts(rest: &str) -> Result<Vec<Part>, BadPath> {
    let mut parts = Vec::new();
    for name in rest.split('/').filter(|name| !name.is_empty()) {
        if name.contains(['[', ']', '{', '}', '$']) {
            return Err(BadPath::Wildcard);
        }
        let part = match name {
            "." | ".." => return Err(BadPath::Dots),
            "**" => Part::Any,
            name if name.contains("**") => return Err(BadPath::Stars),
            name if name.contains(['*', '?']) => Part::Fit(name.to_owned()),
            name if name.chars().any(char::is_control) => return Err(BadPath::Unprintable),
            name => Part::Name(name.to_owned()),
        };
        // Two of them say what one does, and cost the walk of a tree more.
        if !(part == Part::Any && parts.last() == Some(&Part::Any)) {
            parts.push(part);
        }
    }
    Ok(parts)
}

/// What a pattern is held against: the names of a path, or the steps of another pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'a> {
    Name(&'a str),
    Fit(&'a str),
    Any,
}

/// Which part of the steps has to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All of them.
    Whole,
    /// Those that come first.
    Below,
}

/// All places of `parts` that could come next are kept at once, so that no pattern takes longer than its length times
/// that of the path.
fn fits(parts: &[Part], steps: &[Step<'_>], end: End) -> bool {
    let mut next = vec![false; parts.len() + 1];
    next[0] = true;
    skip(parts, &mut next);
    for step in steps {
        if end == End::Below && next[parts.len()] {
            return true;
        }
        let now = std::mem::replace(&mut next, vec![false; parts.len() + 1]);
        for (at, part) in parts.iter().enumerate().filter(|(at, _)| now[*at]) {
            match (part, step) {
                (Part::Any, _) => next[at] = true,
                (Part::Name(name), Step::Name(other)) => next[at + 1] |= name == other,
                (Part::Fit(fit), Step::Name(name)) => next[at + 1] |= name_fits(fit, name),
                // Every name that a pattern stands for fits a lone star, or the same pattern.
                (Part::Fit(fit), Step::Fit(other)) => next[at + 1] |= fit == "*" || fit == other,
                (Part::Name(_), Step::Fit(_)) | (Part::Name(_) | Part::Fit(_), Step::Any) => {}
            }
        }
        skip(parts, &mut next);
    }
    next[parts.len()]
}

/// What stands for any number of names may stand for none.
fn skip(parts: &[Part], next: &mut [bool]) {
    for (at, part) in parts.iter().enumerate() {
        next[at + 1] |= next[at] && *part == Part::Any;
    }
}

/// Whether a name fits a pattern of `*` and `?`.
pub(crate) fn name_fits(fit: &str, name: &str) -> bool {
    let (fit, name): (Vec<char>, Vec<char>) = (fit.chars().collect(), name.chars().collect());
    let (mut at, mut read) = (0, 0);
    // The last star, and how much of the name it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        match fit.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(letter) if *letter == '?' || *letter == name[read] => (at, read) = (at + 1, read + 1),
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    (at, read) = (star_at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    fit[at..].iter().all(|letter| *letter == '*')
}

/// A path as a policy writes it: absolute, or below the user's home (`~`) or the workspace (`$WORKSPACE`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    root: Root,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    System,
    Home,
    Workspace,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, BadPath> {
        let (root, rest) = match text.split_once('/') {
            Some(("", rest)) => (Root::System, rest),
            Some(("~", rest)) => (Root::Home, rest),
            Some(("$WORKSPACE", rest)) => (Root::Workspace, rest),
            None if text == "~" => (Root::Home, ""),
            None if text == "$WORKSPACE" => (Root::Workspace, ""),
            _ => return Err(BadPath::Relative),
        };
        let parts = parts(rest)?;
        Ok(Self { root, parts })
    }

    pub(super) fn expand(&self, home: &AbsolutePath, workspace: &AbsolutePath) -> Pattern {
        let mut base = match self.root {
            Root::System => AbsolutePath::root(),
            Root::Home => home.clone(),
            Root::Workspace => workspace.clone(),
        };
        let mut parts = self.parts.iter();
        let mut glob = Vec::new();
        for part in parts.by_ref() {
            match part {
                Part::Name(name) => base = base.join(name).expect("the name was checked when it was parsed"),
                Part::Fit(_) | Part::Any => {
                    glob.push(part.clone());
                    break;
                }
            }
        }
        glob.extend(parts.cloned());
        Pattern {
            base,
            glob: (!glob.is_empty()).then_some(Glob(glob)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> AbsolutePath {
        AbsolutePath::try_from(text.to_owned()).unwrap()
    }

    fn pattern(text: &str) -> Pattern {
        let template = Template::parse(text).unwrap();
        template.expand(&path("/home/a"), &path("/srv/w*"))
    }

    #[test]
    fn templates_expand_below_home_and_workspace() {
        for (text, whole) in [
            ("~/.ssh", "/home/a/.ssh"),
            ("~", "/home/a"),
            ("$WORKSPACE/.git/hooks", "/srv/w*/.git/hooks"),
            ("/usr//lib/", "/usr/lib"),
        ] {
            assert_eq!(pattern(text), Pattern::from(path(whole)));
        }
        for (text, why) in [
            ("usr", BadPath::Relative),
            ("~bob/x", BadPath::Relative),
            ("$HOME/x", BadPath::Relative),
            ("~/[ab].key", BadPath::Wildcard),
            ("~/{a,b}", BadPath::Wildcard),
            ("~/a**", BadPath::Stars),
            ("$WORKSPACE/../x", BadPath::Dots),
            ("$WORKSPACE/*/../x", BadPath::Dots),
        ] {
            assert_eq!(Template::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_star_stays_within_a_name_and_two_cross_directories() {
        for (text, fitting, other) in [
            (
                "/a/*.key",
                &["/a/b.key", "/a/.key"][..],
                &["/a/b/c.key", "/a/b.keys", "/a"][..],
            ),
            ("/a/?", &["/a/b", "/a/ä"], &["/a/bc", "/a"]),
            ("/a/**/c", &["/a/c", "/a/b/c", "/a/b/b/c"], &["/a/b", "/c"]),
            ("/a/*/c", &["/a/b/c"], &["/a/c", "/a/b/b/c"]),
            ("/a/**", &["/a", "/a/b/c"], &["/ab"]),
            ("/a/*b*c", &["/a/bc", "/a/abbcc", "/a/xbyc"], &["/a/cb", "/a/bcd"]),
        ] {
            let pattern = pattern(text);
            for name in fitting {
                assert!(pattern.matches(&path(name)), "{text} {name}");
            }
            for name in other {
                assert!(!pattern.matches(&path(name)), "{text} {name}");
            }
        }
    }

    #[test]
    fn what_lies_below_a_match_is_covered() {
        let deny = pattern("/home/*/.ssh");
        assert!(deny.covers(&path("/home/b/.ssh/id")));
        assert!(!deny.covers(&path("/home/b/.sshd")));
    }

    #[test]
    fn a_star_in_the_name_of_a_workspace_is_a_letter() {
        let within = pattern("$WORKSPACE/*.key");
        assert!(within.matches(&path("/srv/w*/a.key")));
        assert!(!within.matches(&path("/srv/wide/a.key")));
    }

    #[test]
    fn containing_is_never_said_of_what_reaches_further() {
        for (upper, lower, contained) in [
            ("/a", "/a/*", true),
            ("/a", "/a", true),
            ("/a/*", "/a/b/c", true),
            ("/a/*", "/a/**", false),
            ("/a/*", "/a", false),
            ("/a/*.c", "/a/b.c", true),
            ("/a/*.c", "/a/*.c/d", true),
            ("/a/*.c", "/a/*", false),
            ("/a/**/b", "/a/**/b", true),
            ("/a/**/b", "/a/*/b", true),
            ("/a/**", "/a/**/x", true),
            ("/a", "/*", false),
        ] {
            let said = pattern(upper).contains(&pattern(lower));
            assert_eq!(said, contained, "{upper} {lower}");
        }
    }

    #[test]
    fn a_pattern_is_the_same_after_a_round_through_json() {
        for text in ["/a/b", "$WORKSPACE/**/.env", "/*"] {
            let pattern = pattern(text);
            let json = serde_json::to_string(&pattern).unwrap();
            assert_eq!(serde_json::from_str::<Pattern>(&json).unwrap(), pattern);
        }
        assert!(serde_json::from_str::<Pattern>(r#"{"base":"/a","glob":"b/*"}"#).is_err());
    }
}
