//! Who answers when an agent asks to be allowed something: a rule of the policy, a person, or the clock.
//!
//! Rules judge what an agent says that it wants to do. What it can do is the sandbox's matter.

use oqto_protocol::event::PermissionTool;
use serde::{Deserialize, Serialize};

use super::path::{AbsolutePath, BadPath};
use super::pattern::{Pattern, Template};
use super::target::{self, Denied, Form};

/// How many rules a list of permissions may have: each is compared with each target that an agent names.
pub(super) const RULES_MAX: usize = 64;

/// How long a rule may be, in bytes.
pub(super) const RULE_LEN_MAX: usize = 200;

/// How many targets of one request are compared with patterns; patterns say nothing of one that has more. Agents name a
/// handful of files.
const TARGETS_MAX: usize = 64;

/// How long somebody may think about a request where the policy does not say it, in seconds.
pub(super) const TIMEOUT_S: u32 = 300;

/// The most that a policy may say, in seconds: a day.
pub(super) const TIMEOUT_S_MAX: u32 = 86_400;

/// The kinds of tools that there are.
const KINDS: [&str; 9] = [
    "read", "edit", "delete", "move", "search", "execute", "think", "fetch", "other",
];

/// Who answers an agent that asks to be allowed something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    /// Where paths begin that are not absolute.
    workspace: AbsolutePath,
    /// What is allowed without asking anybody.
    pub allow: Vec<PermissionRule>,
    /// What is denied, whatever allows it.
    pub deny: Vec<PermissionRule>,
    /// What becomes of all else.
    pub otherwise: Otherwise,
    /// After how many seconds without an answer it is denied.
    pub timeout_s: u32,
    /// Whether a policy says anything of this: then a harness that asks only where it is made to is made to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wanted: bool,
}

/// Nobody but a person answers.
impl Default for Permissions {
    fn default() -> Self {
        Self::new(AbsolutePath::root(), Vec::new(), Vec::new(), None, None)
    }
}

/// One rule: a tool, and what it works on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionRule {
    /// The tool as its harness calls it, or the kind of tool; `*` for any.
    tool: String,
    /// What a target has to look like; `None` for any, and for none at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    /// The same as a path, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<Pattern>,
}

impl std::fmt::Display for PermissionRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.tool)?;
        match &self.pattern {
            Some(pattern) => write!(f, ":{pattern}"),
            None => Ok(()),
        }
    }
}

/// What becomes of a request that no rule speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    /// It is allowed.
    Allow,
    /// Somebody is asked.
    #[default]
    Ask,
    /// It is denied.
    Deny,
}

impl Otherwise {
    /// Its word in a policy.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// What the rules say of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is allowed, by this rule.
    Allowed(String),
    /// Somebody is to be asked.
    Asked,
    /// It is denied, by this rule.
    Denied(String),
}

impl Permissions {
    pub(super) fn new(
        workspace: AbsolutePath,
        allow: Vec<PermissionRule>,
        deny: Vec<PermissionRule>,
        otherwise: Option<Otherwise>,
        timeout_s: Option<u32>,
    ) -> Self {
        Self {
            workspace,
            allow,
            deny,
            otherwise: otherwise.unwrap_or_default(),
            timeout_s: timeout_s.unwrap_or(TIMEOUT_S),
            wanted: false,
        }
    }

    /// How long somebody may think, milliseconds.
    #[must_use]
    pub fn timeout_ms(&self) -> u64 {
        u64::from(self.timeout_s) * 1000
    }

    /// What they say of a request. A request that does not say what it is about is only spoken of by rules for every tool.
    #[must_use]
    pub fn judge(&self, tool: Option<&PermissionTool>) -> Judgement {
        let unnamed = PermissionTool {
            tool_call_id: None,
            name: String::new(),
            kind: None,
            targets: Vec::new(),
            input: None,
        };
        let act = Act::new(tool.unwrap_or(&unnamed), &self.workspace);
        if let Some(rule) = self.deny.iter().find(|rule| act.is_denied_by(rule)) {
            return Judgement::Denied(rule.to_string());
        }
        // What might be what a rule denies is not allowed without anybody having looked.
        let is_unclear = act.is_unclear()
            && self
                .deny
                .iter()
                .any(|rule| rule.is_narrow() && act.may_be_of(rule));
        let judged = match self.allowing(&act) {
            Some(rule) => Judgement::Allowed(rule),
            None => match self.otherwise {
                Otherwise::Allow => Judgement::Allowed("otherwise".to_owned()),
                Otherwise::Ask => Judgement::Asked,
                Otherwise::Deny => Judgement::Denied("otherwise".to_owned()),
            },
        };
        match judged {
            Judgement::Allowed(_) if is_unclear => Judgement::Asked,
            judged => judged,
        }
    }

    /// The rule that allows it, or that allows the first of its targets where there are several.
    fn allowing(&self, act: &Act<'_>) -> Option<String> {
        if let Some(rule) = self
            .allow
            .iter()
            .find(|rule| !rule.is_narrow() && act.is_of(rule))
        {
            return Some(rule.to_string());
        }
        if act.tool.targets.is_empty() || act.tool.targets.len() > TARGETS_MAX {
            return None;
        }
        let of = |target| {
            self.allow
                .iter()
                .find(|rule| act.is_of(rule) && act.is_allowed_by(rule, target))
        };
        let mut rules = act.tool.targets.iter().map(|target| of(target));
        let first = rules.next().flatten()?;
        rules.all(|rule| rule.is_some()).then(|| first.to_string())
    }
}

/// What an agent wants to do.
struct Act<'a> {
    tool: &'a PermissionTool,
    kind: Option<&'a str>,
    form: Form,
    workspace: &'a AbsolutePath,
}

impl<'a> Act<'a> {
    fn new(tool: &'a PermissionTool, workspace: &'a AbsolutePath) -> Self {
        let kind = tool.kind.as_deref();
        Self {
            tool,
            kind,
            form: Form::of(kind),
            workspace,
        }
    }

    /// Whether it is of the tool that a rule allows. The name of a kind means that kind where one is told, so that no tool
    /// becomes harmless by its name.
    fn is_of(&self, rule: &PermissionRule) -> bool {
        match (rule.tool.as_str(), self.kind) {
            ("*", _) => true,
            (tool, Some(kind)) if KINDS.contains(&tool) => tool == kind,
            (tool, _) => tool == self.tool.name,
        }
    }

    /// Whether it may be of the tool that a rule denies.
    fn may_be_of(&self, rule: &PermissionRule) -> bool {
        let is = |word: &str| word.eq_ignore_ascii_case(&rule.tool);
        rule.tool == "*" || is(&self.tool.name) || self.kind.is_some_and(is)
    }

    fn is_allowed_by(&self, rule: &PermissionRule, target: &str) -> bool {
        let Some(pattern) = &rule.pattern else {
            return true;
        };
        target::allows(pattern, rule.path.as_ref(), self.form, target, self.workspace)
    }

    fn is_denied_by(&self, rule: &PermissionRule) -> bool {
        let denies = |target: &String| match &rule.pattern {
            None => true,
            Some(_) if target.len() > target::TARGET_LEN_MAX => false,
            Some(pattern) => {
                let denied = Denied {
                    form: self.form,
                    takes_all: matches!(self.kind, Some("delete" | "move")),
                    target,
                };
                target::denies(pattern, rule.path.as_ref(), denied, self.workspace)
            }
        };
        let mut targets = self.tool.targets.iter().take(TARGETS_MAX);
        self.may_be_of(rule) && (!rule.is_narrow() || targets.any(denies))
    }

    /// Whether what it works on cannot be compared with a pattern.
    fn is_unclear(&self) -> bool {
        let targets = &self.tool.targets;
        let is_unclear = |target: &String| {
            let is_path = self.form == Form::Path;
            target.len() > target::TARGET_LEN_MAX
                || (is_path && target::absolute(target, self.workspace).is_none())
        };
        targets.is_empty() || targets.len() > TARGETS_MAX || targets.iter().any(is_unclear)
    }
}

impl PermissionRule {
    /// Whether it speaks of some targets only.
    fn is_narrow(&self) -> bool {
        self.pattern.is_some()
    }

    /// Whether it allows everything that another one allows. May say no where a cleverer judge would find that it does,
    /// never yes where it does not.
    pub(super) fn contains(&self, other: &Self, workspace: &AbsolutePath) -> bool {
        if self == other {
            return true;
        }
        if self.tool != "*" && self.tool != other.tool {
            return false;
        }
        let (Some(mine), Some(theirs)) = (&self.pattern, &other.pattern) else {
            return self.pattern.is_none();
        };
        let path = || match (&self.path, &other.path) {
            (Some(mine), Some(theirs)) => mine.contains(theirs),
            (_, None) => true,
            (None, Some(_)) => false,
        };
        let text = || text_contains(mine, theirs, workspace);
        match KINDS
            .contains(&other.tool.as_str())
            .then(|| Form::of(Some(&other.tool)))
        {
            Some(Form::Path) => path(),
            Some(Form::Command) => text(),
            // How it is compared depends on what is asked.
            _ => {
                let is_alike = target::is_path(mine) == target::is_path(theirs) && !theirs.contains("://");
                mine == theirs || (is_alike && path() && text())
            }
        }
    }
}

/// Whether every command that fits the one fits the other.
fn text_contains(mine: &str, theirs: &str, workspace: &AbsolutePath) -> bool {
    use target::Piece;
    if mine == theirs {
        return true;
    }
    // The very text of one that is not plain is allowed, and no wildcard stands for that.
    if !target::is_plain(theirs) {
        return false;
    }
    let (mine, theirs) = (target::pieces(mine, workspace), target::pieces(theirs, workspace));
    match mine.split_last() {
        Some((Piece::Any, beginning)) => {
            let is_plain = beginning.iter().all(|piece| matches!(piece, Piece::Letter(_)));
            is_plain && theirs.starts_with(beginning)
        }
        _ => mine == theirs,
    }
}

/// A rule as a policy writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleTemplate {
    tool: String,
    pattern: Option<String>,
    path: Option<Template>,
}

/// Why a text is no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// It is too long.
    #[error("is longer than {RULE_LEN_MAX} bytes")]
    TooLong,
    /// It names no tool.
    #[error("names no tool; write TOOL or TOOL:PATTERN, with * for every tool")]
    NoTool,
    /// It has a tool and a colon, and nothing behind it.
    #[error("has nothing behind its colon; leave the colon away for every target")]
    NoPattern,
    /// There is a letter in it that cannot be seen.
    #[error("has a control character in it")]
    Unprintable,
    /// The tool works on files, and what it may work on is no path.
    #[error("is of a tool that works on files, and what follows its colon {0}")]
    Path(BadPath),
}

impl RuleTemplate {
    pub(super) fn parse(text: &str) -> Result<Self, BadRule> {
        if text.len() > RULE_LEN_MAX {
            return Err(BadRule::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(BadRule::Unprintable);
        }
        let (tool, pattern) = match text.split_once(':') {
            Some((tool, pattern)) => (tool.trim(), Some(pattern.trim())),
            None => (text.trim(), None),
        };
        if tool.is_empty() {
            return Err(BadRule::NoTool);
        }
        if pattern == Some("") {
            return Err(BadRule::NoPattern);
        }
        let path = match pattern {
            None => None,
            Some(pattern) if target::is_path(pattern) => Some(Template::parse(pattern)),
            Some(pattern) => Some(Template::parse(&format!("$WORKSPACE/{pattern}"))),
        };
        let path = match path.transpose() {
            Ok(path) => path,
            Err(why) if Form::of(Some(tool)) == Form::Path => return Err(BadRule::Path(why)),
            Err(_) => None,
        };
        Ok(Self {
            tool: tool.to_owned(),
            pattern: pattern.map(str::to_owned),
            path,
        })
    }

    pub(super) fn expand(&self, home: &AbsolutePath, workspace: &AbsolutePath) -> PermissionRule {
        PermissionRule {
            tool: self.tool.clone(),
            pattern: self.pattern.clone(),
            path: self.path.as_ref().map(|path| path.expand(home, workspace)),
        }
    }
}
