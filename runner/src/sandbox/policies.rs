//! Policies that an operator added: `*.toml` in a directory, beside the shipped ones.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::policy::{BadName, Catalog, CatalogError};

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

/// The shipped policies and, if a directory is given, those in it.
///
/// # Errors
///
/// Something in the directory cannot be read or is no policy; nothing is skipped.
pub fn catalog(directory: Option<&Path>) -> Result<Catalog, PoliciesError> {
    let mut catalog = Catalog::shipped();
    let Some(directory) = directory else {
        return Ok(catalog);
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PoliciesError::Io { path, source }
    };
    for found in fs::read_dir(directory).map_err(failed(directory))? {
        let path = found.map_err(failed(directory))?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default()
            .parse();
        let name = name.map_err(|source| PoliciesError::Name {
            path: path.clone(),
            source,
        })?;
        let mut text = String::new();
        let file = File::open(&path).map_err(failed(&path))?;
        file.take(LEN_MAX)
            .read_to_string(&mut text)
            .map_err(failed(&path))?;
        let added = catalog.add(name, path.display().to_string(), text);
        added.map_err(|source| PoliciesError::Catalog { path, source })?;
    }
    Ok(catalog)
}
