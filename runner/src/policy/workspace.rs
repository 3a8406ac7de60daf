//! Which directories are a project's own, and may be given away: judged by their names alone.

use super::path::AbsolutePath;

/// Directories of the system, which hold more than one project. Nothing below them is a workspace either.
const SYSTEM: &[&str] = &[
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/proc", "/run", "/sbin",
    "/sys", "/usr",
];

/// Directories that hold other people's things. What lies below them may be a workspace.
const SHARED: &[&str] = &[
    "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var", "/var/lib", "/var/tmp",
];

/// What of the host a directory is that cannot be a workspace, if it is.
pub(super) fn unfit(workspace: &AbsolutePath, user_home: &AbsolutePath) -> Option<&'static str> {
    let path = workspace.as_path();
    if SYSTEM.iter().any(|system| path.starts_with(system)) {
        Some("part of the system")
    } else if path.iter().any(|part| part.eq_ignore_ascii_case(".git")) {
        Some("part of a repository's own directory, where others find programs to run")
    } else {
        shared(workspace, user_home)
    }
}

/// What of other people's a directory holds, if it does.
pub(super) fn shared(path: &AbsolutePath, user_home: &AbsolutePath) -> Option<&'static str> {
    if path.as_str() == "/" {
        Some("the whole host")
    } else if SHARED.contains(&path.as_str()) {
        Some("a directory of the system")
    } else if path == user_home {
        Some("a home directory, with all that is in it")
    } else if user_home.is_within(path) {
        Some("a directory with a home directory in it")
    } else {
        None
    }
}
