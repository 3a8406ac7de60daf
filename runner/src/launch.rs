//! A program about to be started, as inert data.
//!
//! Floor: ground. What keeps shells apart: a sandbox is a function from [`Launch`] to [`Launch`], the shim and the
//! doors start one and know nothing of sandboxes.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

/// A program about to be started. Its environment is exactly `env`; nothing is inherited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The program, an absolute path.
    pub program: OsString,
    /// Its arguments, without the program's own name.
    pub args: Vec<Arg>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where it starts, an absolute path.
    pub cwd: OsString,
}

/// One argument of a [`Launch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arg {
    /// The text itself.
    Text(OsString),
    /// Becomes the number of a descriptor from which the program reads these bytes (a sealed memory file), so
    /// that they stand on no command line.
    Data(Vec<u8>),
    /// Becomes the number of a pipe's writing end; what the program writes there is kept apart from its output.
    Report,
}
