//! The policy that a workspace has for whoever works in it: `.oqto/sandbox.toml`, which can only narrow.
//!
//! Anybody may have written it, so it is read without following a link, up to a bound, and only if the principal
//! could read it too: a runner of root must not tell, in an error, what somebody linked there.

use std::io;
use std::path::{Path, PathBuf};

use super::principal::Principal;
use crate::policy::WorkspaceFile;
use crate::sys;

/// Where it is, below the workspace.
const STEPS: [&str; 2] = [".oqto", "sandbox.toml"];

/// The longest one, in bytes: a hundred times what one needs.
const LEN_MAX: u64 = 256 * 1024;

/// Why a workspace's own policy cannot be read. It stops the session: whoever wrote it believes that it holds.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceFileError {
    /// It is a link or lies behind one, is no plain file, or cannot be read.
    #[error("cannot read the workspace's own policy {path}; it has to be a plain file, and no link")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is longer than a policy is.
    #[error("the workspace's own policy {path} is longer than {LEN_MAX} bytes")]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// The principal may not read it.
    #[error(
        "the workspace's own policy {path} is not for the user of the harness to read; make it so, or remove it"
    )]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// It is no text.
    #[error("the workspace's own policy {path} is not UTF-8")]
    Text {
        /// Which.
        path: PathBuf,
        /// Where it is not.
        source: std::string::FromUtf8Error,
    },
}

/// Reads the policy of a workspace, if it has one.
///
/// # Errors
///
/// It has one that cannot be used.
pub fn workspace_file(
    workspace: &Path,
    principal: &Principal,
) -> Result<Option<WorkspaceFile>, WorkspaceFileError> {
    let path: PathBuf = [workspace].into_iter().chain(STEPS.map(Path::new)).collect();
    let read = sys::read_below(workspace, &STEPS, LEN_MAX).map_err(|source| WorkspaceFileError::Io {
        path: path.clone(),
        source,
    })?;
    let Some((metadata, bytes)) = read else {
        return Ok(None);
    };
    if !principal.may(&metadata, 0o4) {
        return Err(WorkspaceFileError::Foreign { path });
    }
    let Some(bytes) = bytes else {
        return Err(WorkspaceFileError::TooLong { path });
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(WorkspaceFile {
            file: path.display().to_string(),
            text,
        })),
        Err(source) => Err(WorkspaceFileError::Text { path, source }),
    }
}
