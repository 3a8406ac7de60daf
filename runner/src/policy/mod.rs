//! What a session may touch, decided before anything runs.
//!
//! A policy is a TOML file (`document`); policies known by name are a [`Catalog`]. [`resolve`] joins one policy and
//! what it extends with a request (which workspace, whose home, what the harness needs) into a [`Plan`]: inert
//! data that says everything the sandbox has to enforce and that has a digest.
//!
//! Floor: core. Uses nothing of this crate. Promise: nothing is read from disk here, and the same texts and the
//! same request always give the same plan. A key that no code enforces does not exist in the language, so that a
//! policy never says more than it does. Not here: whether the host can enforce it (`sandbox`).

mod allow;
mod catalog;
mod document;
mod meeting;
mod path;
mod pattern;
mod permission;
mod plan;
mod resolve;
mod rule;
mod seccomp;
mod syscall;
mod syscall_table;
mod target;
mod terms;
mod verdict;
mod workspace;

pub use allow::AllowGroups;
pub use catalog::{BadName, Catalog, CatalogError, PolicyName};
pub use document::{DocumentError, Policy};
pub use meeting::{Forbids, Widening};
pub use path::{AbsolutePath, BadPath};
pub(crate) use pattern::name_fits;
pub use pattern::{Glob, Part, Pattern};
pub use permission::{BadRule, Judgement, Otherwise, PermissionRule, Permissions};
pub use plan::{Calls, Environment, Files, Layers, Limits, Need, Network, Permit, Plan, Ports};
pub use resolve::{Request, ResolveError, Resolved, Sources, WorkspaceFile, resolve, trace};
pub use rule::{LayerName, Limit, Rule, Source};
pub use seccomp::{Condition, Denial, Groups, Refusal, Test, Verdict};
pub use syscall::{Architecture, Syscall, UnknownSyscall};
pub use verdict::{Because, FileVerdict, Probe};

#[cfg(test)]
mod meeting_tests;
#[cfg(test)]
mod permission_tests;
