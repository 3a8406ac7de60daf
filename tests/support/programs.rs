//! The programs under test, where cargo puts them.

use std::path::{Path, PathBuf};

/// The directory of the profile that this test was built with.
fn target() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().to_owned()
}

/// What the tests need beside the programs: this package's directory, or a copy that `OQTO_TEST_DIR` names.
#[must_use]
pub fn tests_dir() -> PathBuf {
    std::env::var_os("OQTO_TEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// A program of the workspace.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    there(&target().join(name), "cargo build --workspace --all-features")
}

/// An example of the library.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    there(
        &target().join("examples").join(name),
        "cargo build -p oqto-control --examples",
    )
}

fn there(path: &Path, how: &str) -> PathBuf {
    assert!(path.exists(), "{} is missing: {how}", path.display());
    path.to_owned()
}

/// Whether root runs this test.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
