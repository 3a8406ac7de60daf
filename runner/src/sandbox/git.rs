//! Where a repository keeps what a `.git` that is a file only points to.

use std::path::{Path, PathBuf};

use crate::sys;

/// The longest such file that is believed, in bytes: one path.
const LEN_MAX: u64 = 8192;

/// Where git looks instead of `path` when `file`, a directory above it, is a file: in the directory that the file
/// names, and in the one that all worktrees of that repository share.
pub(super) fn elsewhere(file: &Path, path: &Path) -> Vec<PathBuf> {
    let (Some(above), Ok(rest)) = (file.parent(), path.strip_prefix(file)) else {
        return Vec::new();
    };
    let Some(directory) = line(file).and_then(|line| Some(above.join(line.strip_prefix("gitdir:")?.trim())))
    else {
        return Vec::new();
    };
    let common = line(&directory.join("commondir")).map(|common| directory.join(common));
    [Some(directory), common]
        .into_iter()
        .flatten()
        .map(|directory| directory.join(rest))
        .collect()
}

/// The first line of a file; `None` for one that git would not take either.
fn line(file: &Path) -> Option<String> {
    let text = String::from_utf8(sys::read_bounded(file, LEN_MAX).ok()??).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}
