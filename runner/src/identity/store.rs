//! Where the key and the certificate are kept: files that nobody else may read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oqto_protocol::enrol::Grant;
use oqto_protocol::id::{BadId, RunnerId};

use super::key::{Key, KeyError};

/// The longest file of an identity, bytes: a certificate with its roots is a few kilobytes.
const FILE_LEN_MAX: u64 = 256 * 1024;

/// Who this runner is.
pub struct Identity {
    /// Its key.
    pub key: Key,
    /// Its certificate, whom it names, and whom to trust.
    pub grant: Grant,
}

/// An identity that cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("cannot {act} {path}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else could read or change it.
    #[error("{path} is open to other users (mode {mode:04o}); run: chmod {wanted:04o} {path}")]
    Exposed {
        /// What.
        path: PathBuf,
        /// How open it is.
        mode: u32,
        /// How it should be.
        wanted: u32,
    },
    /// It belongs to somebody else.
    #[error("{path} belongs to user {owner}, this runner is user {user}")]
    Foreign {
        /// What.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        user: u32,
    },
    /// It is not what it should be.
    #[error("{path} is longer than {FILE_LEN_MAX} bytes")]
    TooLong {
        /// What.
        path: PathBuf,
    },
    /// The key does not parse.
    #[error("cannot use the key {path}")]
    Key {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: KeyError,
    },
    /// The runner's name is none.
    #[error("cannot use the runner's name in {path}")]
    RunnerId {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: BadId,
    },
    /// The certificate's file does not parse.
    #[error("cannot use the certificate {path}")]
    Grant {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
}

/// Opens the runner's name and key in `dir`, making both at first use.
///
/// # Errors
/// When the files cannot be made, are open to others, or are not what they should be.
pub fn open_key(dir: &Path) -> Result<(RunnerId, Key), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| StoreError::Io {
            act: "make",
            path: dir.to_owned(),
            source,
        })?;
    check_closed(
        dir,
        &fs::symlink_metadata(dir).map_err(|e| io_error("look at", dir, e))?,
        0o700,
    )?;
    let path = dir.join("key.pem");
    let key = match read(&path)? {
        Some(text) => Key::from_pem(&text).map_err(|source| StoreError::Key {
            path: path.clone(),
            source,
        })?,
        None => {
            let key = Key::generate().map_err(|source| StoreError::Key {
                path: path.clone(),
                source,
            })?;
            write(&path, key.to_pem().as_bytes())?;
            key
        }
    };
    let path = dir.join("runner-id");
    let runner_id = match read(&path)?.as_deref().map(str::trim).map(str::parse::<RunnerId>) {
        Some(Ok(id)) => id,
        // Another name would be another runner, whose certificate this is not.
        Some(Err(source)) => return Err(StoreError::RunnerId { path, source }),
        None => {
            let id = new_runner_id().map_err(|e| io_error("name the runner in", dir, e))?;
            write(&path, id.as_str().as_bytes())?;
            id
        }
    };
    Ok((runner_id, key))
}

/// The public half of the key in `dir`; `None` when there is none. It makes nothing.
///
/// # Errors
/// When the key is open to others or is not what it should be.
pub fn public_key(dir: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let path = dir.join("key.pem");
    let Some(text) = read(&path)? else { return Ok(None) };
    let key = Key::from_pem(&text).map_err(|source| StoreError::Key { path, source })?;
    Ok(Some(key.public().to_vec()))
}

impl Identity {
    /// Reads the identity in `dir`; `None` when no control has signed it yet.
    ///
    /// # Errors
    /// When a file is open to others or is not what it should be.
    pub fn open(dir: &Path) -> Result<Option<Self>, StoreError> {
        let (_, key) = open_key(dir)?;
        let path = dir.join("certificate.json");
        let Some(text) = read(&path)? else { return Ok(None) };
        let grant = serde_json::from_str(&text).map_err(|source| StoreError::Grant { path, source })?;
        Ok(Some(Self { key, grant }))
    }

    /// Keeps the identity in `dir`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self, dir: &Path) -> Result<(), StoreError> {
        let path = dir.join("certificate.json");
        let text = serde_json::to_vec(&self.grant).map_err(|source| StoreError::Grant {
            path: path.clone(),
            source,
        })?;
        write(&path, &text)
    }
}

/// A name for a new runner: random, since host names are neither unique nor always names.
fn new_runner_id() -> io::Result<RunnerId> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let text = bytes.iter().fold("r-".to_owned(), |mut text, byte| {
        text.push(char::from(
            b"abcdefghijkmnpqrstuvwxyz23456789"[usize::from(byte & 31)],
        ));
        text
    });
    text.parse().map_err(io::Error::other)
}

fn io_error(act: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        act,
        path: path.to_owned(),
        source,
    }
}

/// Reads a file that only its owner may open; `None` when it is not there.
fn read(path: &Path) -> Result<Option<String>, StoreError> {
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", path, error)),
    };
    check_closed(
        path,
        &file.metadata().map_err(|e| io_error("look at", path, e))?,
        0o600,
    )?;
    let mut text = String::new();
    file.take(FILE_LEN_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|e| io_error("read", path, e))?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(StoreError::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(Some(text))
}

fn check_closed(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), StoreError> {
    let user = nix::unistd::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(StoreError::Foreign {
            path: path.to_owned(),
            owner: metadata.uid(),
            user,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}

/// Writes a file whole or not at all, readable by its owner alone.
fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let new = path.with_extension("new");
    let written = (|| {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    })();
    written.map_err(|source| io_error("write", path, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("identity");
        let (id, key) = open_key(&dir).unwrap();
        let (again, same) = open_key(&dir).unwrap();
        assert_eq!(id, again);
        assert_eq!(key.to_pem(), same.to_pem());
        assert_eq!(fs::metadata(dir.join("key.pem")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("identity");
        open_key(&dir).unwrap();
        fs::set_permissions(dir.join("key.pem"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            open_key(&dir),
            Err(StoreError::Exposed { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_malformed_name_is_an_error_and_not_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("identity");
        open_key(&dir).unwrap();
        fs::write(dir.join("runner-id"), "Not A Name").unwrap();
        assert!(matches!(open_key(&dir), Err(StoreError::RunnerId { .. })));
        assert_eq!(fs::read_to_string(dir.join("runner-id")).unwrap(), "Not A Name");
    }
}
