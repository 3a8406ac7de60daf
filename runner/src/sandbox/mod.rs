//! The sandbox: from a plan and a program to a program that cannot leave the plan.
//!
//! [`wrap()`] turns a [`Launch`](crate::launch::Launch) into another one: bubblewrap, which makes the namespaces
//! and mounts, then this very program at its door [`enter`], which checks what it finds, restricts itself for good,
//! proves it, reports and becomes the harness. [`wrap`] has the order of the layers on one page.
//!
//! | layer | file | made by |
//! |---|---|---|
//! | namespaces, mounts | `view`, `bubblewrap` | bubblewrap, checked by `enter` |
//! | no privileges | `confine` | bubblewrap drops, `enter` checks |
//! | limits | `rlimit` | `enter` |
//! | cgroup | `cgroup` | whoever prepares the session |
//! | landlock | `landlock` | `enter` |
//! | seccomp | `seccomp` | `enter` |
//!
//! Where a policy allows to do without namespaces and the host has none, `direct` lets the last four hold alone.
//!
//! [`probe`] says what this host can enforce and how to get the rest; [`principal`] says as whom harnesses run.
//!
//! Floor: shell. Uses `policy`, `launch`. Promise: a harness runs only with a [`Confined`] in hand, which
//! exists only after the kernel accepted every layer that the plan requires. A layer that fails ends the start with
//! its name. Not here: starting the launch (`launch`), what is a plan (`policy`).
//!
//! What no mount can keep from happening (a protected path that does not exist yet is created) is in
//! `sandbox-policies/README.md`; a [`Survey`] finds it afterwards.

pub mod cgroup;
pub mod check;
pub mod enter;
pub mod explain;
pub mod principal;
pub mod probe;
pub mod report;
pub mod run;

#[cfg(test)]
mod bpf;
mod bubblewrap;
mod confine;
mod direct;
mod entry;
mod expand;
mod filter;
mod git;
mod group;
mod home;
mod host;
mod landlock;
mod look;
pub(crate) mod ownership;
mod policies;
mod rlimit;
mod seccomp;
mod survey;
mod view;
mod workspace_file;
mod wrap;

pub use confine::{Confined, exec_agent};
pub use host::{Host, ReachError, reachable_exe};
pub use look::look;
pub use ownership::OwnershipError;
pub use policies::{PoliciesError, catalog};
pub use survey::Survey;
pub use view::ViewError;
pub use workspace_file::{WorkspaceFileError, workspace_file};
pub use wrap::{HOME, RUNNER, SHOWN, WrapError, Wrapped, wrap};
