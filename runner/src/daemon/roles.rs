//! Which role each control has where, as the runner's own configuration says it: no control gives itself one. Pure.

use std::path::Path;

use oqto_protocol::id::ControlId;
use oqto_protocol::role::ControlRole;
use serde::Deserialize;

use crate::policy::{BadPath, Pattern};
use crate::supervisor::Workplace;

/// How many rules there may be: each is looked at for each thing that is asked, and nobody writes more by hand.
const RULES_MAX: usize = 256;

/// The control of a rule that is for all of them.
const EVERYONE: &str = "*";

/// One table `[[role]]` as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleDocument {
    /// Whose: a control's name, or `*`.
    control: String,
    /// Which.
    role: ControlRole,
    /// Where: a path as policies write them, from the root; without it everywhere.
    workspace: Option<String>,
}

/// A table `[[role]]` that says nothing that can be done.
#[derive(Debug, thiserror::Error)]
pub enum BadRole {
    /// There are too many.
    #[error("there are {count}, and {RULES_MAX} may be there")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// No control can have that name.
    #[error("control is {control:?}, it must be a control's name, or \"*\" for all of them")]
    Control {
        /// What it says.
        control: String,
    },
    /// A number instead of a role.
    #[error("role is {role}, it must be read, write, execute or owner")]
    Role {
        /// What it says.
        role: ControlRole,
    },
    /// No path can look like that.
    #[error(
        "workspace is {workspace:?}, which {source}; it must be a path from the root, as policies write them"
    )]
    Workspace {
        /// What it says.
        workspace: String,
        /// What is wrong with it.
        source: BadPath,
    },
}

/// Which role each control has where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// None at all: every control of the authority owns the runner.
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// Without it, everyone's.
    control: Option<ControlId>,
    role: ControlRole,
    /// Without it, everywhere.
    workspace: Option<Pattern>,
}

impl TryFrom<Vec<RoleDocument>> for Roles {
    type Error = BadRole;

    fn try_from(documents: Vec<RoleDocument>) -> Result<Self, BadRole> {
        if documents.len() > RULES_MAX {
            return Err(BadRole::TooMany {
                count: documents.len(),
            });
        }
        let rules = documents.into_iter().map(Rule::try_from);
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<RoleDocument> for Rule {
    type Error = BadRole;

    fn try_from(document: RoleDocument) -> Result<Self, BadRole> {
        let RoleDocument {
            control,
            role,
            workspace,
        } = document;
        let control = match control.as_str() {
            EVERYONE => None,
            name => Some(name.parse().map_err(|_| BadRole::Control {
                control: control.clone(),
            })?),
        };
        if !ControlRole::ALL.contains(&role) {
            return Err(BadRole::Role { role });
        }
        let workspace = workspace.map(|workspace| {
            Pattern::from_root(&workspace).map_err(|source| BadRole::Workspace { workspace, source })
        });
        Ok(Self {
            control,
            role,
            workspace: workspace.transpose()?,
        })
    }
}

impl Roles {
    /// The role that a control has on the whole runner.
    pub(super) fn on_runner(&self, control: &ControlId) -> Option<ControlRole> {
        self.highest(control, Option::is_none)
    }

    /// The highest role that it has anywhere.
    pub(super) fn anywhere(&self, control: &ControlId) -> Option<ControlRole> {
        self.highest(control, |_| true)
    }

    /// The role that it has in a directory, which is named without a link.
    pub(super) fn in_directory(&self, control: &ControlId, directory: &Path) -> Option<ControlRole> {
        self.highest(control, |pattern| {
            pattern
                .as_ref()
                .is_none_or(|pattern| pattern.covers_path(directory))
        })
    }

    /// The role that it has where a session works. A directory that the runner made for it is in nobody's rule.
    pub(super) fn at(&self, control: &ControlId, workplace: &Workplace) -> Option<ControlRole> {
        match workplace {
            Workplace::Named(directory) => self.in_directory(control, directory),
            Workplace::Own => self.on_runner(control),
        }
    }

    /// The highest of its roles in rules whose workspace is such a one.
    fn highest(
        &self,
        control: &ControlId,
        mut is_there: impl FnMut(&Option<Pattern>) -> bool,
    ) -> Option<ControlRole> {
        if self.rules.is_empty() {
            return Some(ControlRole::Owner);
        }
        let its = |rule: &&Rule| rule.control.as_ref().is_none_or(|name| name == control);
        let rules = self.rules.iter().filter(its);
        rules
            .filter(|rule| is_there(&rule.workspace))
            .map(|rule| rule.role)
            .max()
    }
}
