//! Policies that an operator added: `*.toml` in a directory, beside the shipped ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ownership::{OwnershipError, owned};
use crate::policy::{BadName, Catalog, CatalogError};
use crate::sys;

/// The longest policy, in bytes: a hundred times what any of ours needs.
const LEN_MAX: u64 = 1024 * 1024;

/// Why the policies of a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PoliciesError {
    /// The directory or a file in it cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else could change it.
    #[error("the policies cannot be believed")]
    Ownership(#[from] OwnershipError),
    /// A file's name is not a policy's.
    #[error("{path} cannot be a policy")]
    Name {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: BadName,
    },
    /// A policy cannot be added.
    #[error("{path} cannot be added")]
    Catalog {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: CatalogError,
    },
}

/// The shipped policies and, if a directory is given, those in it, which nobody else could have written.
///
/// # Errors
///
/// Somebody else could change something in the directory, or it cannot be read or is no policy; nothing is skipped.
pub fn catalog(directory: Option<&Path>) -> Result<Catalog, PoliciesError> {
    let mut catalog = Catalog::shipped();
    let Some(directory) = directory else {
        return Ok(catalog);
    };
    owned(directory)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PoliciesError::Io { path, source }
    };
    for found in fs::read_dir(directory).map_err(failed(directory))? {
        let path = found.map_err(failed(directory))?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        owned(&path)?;
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default()
            .parse();
        let name = name.map_err(|source| PoliciesError::Name {
            path: path.clone(),
            source,
        })?;
        let text = read(&path).map_err(failed(&path))?;
        let added = catalog.add(name, path.display().to_string(), text);
        added.map_err(|source| PoliciesError::Catalog { path, source })?;
    }
    Ok(catalog)
}

/// The text of a policy. A part of it would be another policy.
fn read(path: &Path) -> io::Result<String> {
    let bytes = sys::read_bounded(path, LEN_MAX)?;
    let bytes = bytes.ok_or_else(|| io::Error::other(format!("it is longer than {LEN_MAX} bytes")))?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_file_or_too_long_is_no_policy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.toml");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(catalog(Some(dir.path())), Err(PoliciesError::Io { .. })));
        fs::remove_file(&path).unwrap();
        let long = format!("description = \"d\"\n#{}\n", "x".repeat(1024 * 1024));
        fs::write(&path, long).unwrap();
        assert!(matches!(catalog(Some(dir.path())), Err(PoliciesError::Io { .. })));
    }
}
