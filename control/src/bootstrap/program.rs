//! Which program the runner is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const NAME: &str = "oqto-runner";

/// The first that there is: the one that was asked for, the one that `OQTO_RUNNER` names, the one beside this
/// program, the one on the `PATH`. One that is named is taken as it is: when it is wrong, that should show.
pub(super) fn runner_program(asked: Option<&Path>) -> Option<PathBuf> {
    asked
        .map(Path::to_owned)
        .or_else(|| {
            std::env::var_os("OQTO_RUNNER")
                .filter(|name| !name.is_empty())
                .map(PathBuf::from)
        })
        .or_else(|| Some(std::env::current_exe().ok()?.parent()?.join(NAME)).filter(|path| is_program(path)))
        .or_else(|| {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path)
                .map(|dir| dir.join(NAME))
                .find(|path| is_program(path))
        })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
