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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::{Gid, Uid, geteuid};

    use super::*;

    fn read(workspace: &Path) -> Result<Option<WorkspaceFile>, WorkspaceFileError> {
        let somebody = (Uid::from_raw(61_234), Gid::from_raw(61_234));
        let principal = Principal::choose(geteuid().is_root().then_some(somebody), workspace).unwrap();
        workspace_file(workspace, &principal)
    }

    #[test]
    fn a_plain_file_is_read_and_none_is_none() {
        let above = tempfile::tempdir().unwrap();
        assert_eq!(read(above.path()).unwrap(), None);
        fs::create_dir(above.path().join(".oqto")).unwrap();
        assert_eq!(read(above.path()).unwrap(), None);
        let file = above.path().join(".oqto/sandbox.toml");
        fs::write(&file, "[limits]\nprocesses = 3\n").unwrap();
        let found = read(above.path()).unwrap().unwrap();
        assert_eq!(found.file, file.display().to_string());
        assert_eq!(found.text, "[limits]\nprocesses = 3\n");
    }

    #[test]
    fn what_is_no_plain_readable_text_stops_the_session() {
        let above = tempfile::tempdir().unwrap();
        let (directory, file) = (
            above.path().join(".oqto"),
            above.path().join(".oqto/sandbox.toml"),
        );
        fs::create_dir(&directory).unwrap();
        let io = |what: &str| {
            let result = read(above.path());
            assert!(
                matches!(result, Err(WorkspaceFileError::Io { .. })),
                "{what}: {result:?}"
            );
        };
        fs::write(above.path().join("real"), "").unwrap();
        symlink(above.path().join("real"), &file).unwrap();
        io("a link");
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, Mode::S_IRWXU).unwrap();
        io("a pipe");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        io("a directory");
        fs::remove_dir(&file).unwrap();
        fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(matches!(read(above.path()), Err(WorkspaceFileError::Text { .. })));
        fs::write(&file, "#".repeat(256 * 1024 + 1)).unwrap();
        assert!(matches!(
            read(above.path()),
            Err(WorkspaceFileError::TooLong { .. })
        ));
        fs::remove_file(&file).unwrap();
        fs::rename(&directory, above.path().join("elsewhere")).unwrap();
        symlink(above.path().join("elsewhere"), &directory).unwrap();
        io("a link on the way");
        fs::remove_file(&directory).unwrap();
        fs::write(&directory, "").unwrap();
        io("a file on the way");
    }

    #[test]
    fn what_the_principal_could_not_read_is_not_told() {
        if !geteuid().is_root() {
            return;
        }
        let above = tempfile::tempdir().unwrap();
        fs::create_dir(above.path().join(".oqto")).unwrap();
        let file = above.path().join(".oqto/sandbox.toml");
        fs::write(&file, "secret").unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert!(matches!(
            read(above.path()),
            Err(WorkspaceFileError::Foreign { .. })
        ));
    }
}
