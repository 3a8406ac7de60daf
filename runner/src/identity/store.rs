//! Where the key and the certificate are kept: files that nobody else may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oqto_protocol::enrol::Grant;
use oqto_protocol::id::{BadId, RunnerId};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::certificate::RootsError;
use super::grant::GrantError;
use super::keeping::{self, CREDENTIAL};
use super::key::{Key, KeyError};
use super::trust::TrustError;
use crate::private::{self, PrivateError};

/// The longest file of an identity, bytes: a certificate with its roots is a few kilobytes.
const FILE_LEN_MAX: u64 = 256 * 1024;

/// Bytes of an uncompressed point on P-256.
const POINT_LEN: usize = 65;

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
    #[error(transparent)]
    Open(#[from] PrivateError),
    /// It is not what it should be.
    #[error("{path} is longer than {len_max} bytes")]
    TooLong {
        /// What.
        path: PathBuf,
        /// How long it may be.
        len_max: u64,
    },
    /// The key does not parse, or none can be made.
    #[error("cannot use {place}")]
    Key {
        /// Where it is.
        place: String,
        /// Why not.
        source: KeyError,
    },
    /// There is a certificate, and its key is not to be found.
    #[error(
        "{dir} holds a certificate and its key is gone: it is not in {dir}/key.pem, not in the service manager's \
         credential {CREDENTIAL}, and not in the kernel's keyring as user key {keyring}; put it back, or remove \
         certificate.json and enrol this runner anew"
    )]
    NoKey {
        /// Where the identity is kept.
        dir: PathBuf,
        /// How the keyring would call it.
        keyring: String,
    },
    /// Which of two keys counts cannot be told.
    #[error("this runner has two keys, {} and {}; remove one", places[0], places[1])]
    TwoKeys {
        /// Where they are.
        places: [String; 2],
    },
    /// The kernel has the key and does not give it.
    #[error(
        "the kernel's keyring has {description} and does not give it; a key that the user's keyring holds is read \
         through the session's: keyctl link @u @s"
    )]
    Keyring {
        /// How the keyring calls it.
        description: String,
        /// Why not.
        source: linux_keyutils::KeyError,
    },
    /// What stands for a key is too long, or no text.
    #[error("{place} is not a key in PEM")]
    NoText {
        /// Where it is.
        place: String,
    },
    /// The runner's name is none.
    #[error("cannot use the runner's name in {path}")]
    RunnerId {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: BadId,
    },
    /// A file of it does not parse.
    #[error("{path} is not what this runner has written")]
    Json {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// The certificate is not one of this runner.
    #[error("cannot use the certificate in {dir}; enrol this runner anew")]
    Certificate {
        /// Where it is.
        dir: PathBuf,
        /// Why not.
        source: GrantError,
    },
    /// There is nobody to trust.
    #[error("cannot use the roots of the authority in {dir}; enrol this runner anew")]
    Roots {
        /// Where they are.
        dir: PathBuf,
        /// Why not.
        source: RootsError,
    },
    /// The trust statement is none.
    #[error("cannot use the trust statement {path}")]
    Statement {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: TrustError,
    },
}

/// Opens the runner's name and key in `dir`, making both at first use. The key may be kept elsewhere: see `keeping`.
///
/// # Errors
/// When the files cannot be made, are open to others, or are not what they should be, and when a runner that has a
/// certificate has no key any more.
pub fn open_key(dir: &Path) -> Result<(RunnerId, Key), StoreError> {
    private::dir(dir, 0o700)?;
    let name_path = dir.join("runner-id");
    let name = match read(&name_path)?.map(|text| text.trim().parse::<RunnerId>()) {
        Some(Ok(id)) => Some(id),
        // Another name would be another runner, whose certificate this is not.
        Some(Err(source)) => {
            return Err(StoreError::RunnerId {
                path: name_path,
                source,
            });
        }
        None => None,
    };
    let key = match keeping::find(dir, name.as_ref())? {
        Some(found) => Key::from_pem(&found.text).map_err(|source| StoreError::Key {
            place: found.place,
            source,
        })?,
        None => make_key(dir, name.as_ref())?,
    };
    let name = match name {
        Some(name) => name,
        None => {
            let name = new_runner_id().map_err(|e| io_error("name the runner in", dir, e))?;
            write(&name_path, name.as_str().as_bytes())?;
            name
        }
    };
    Ok((name, key))
}

/// A first key; never one beside a certificate, which would be of no more use.
fn make_key(dir: &Path, name: Option<&RunnerId>) -> Result<Key, StoreError> {
    if let Some(name) = name
        && read(&dir.join("certificate.json"))?.is_some()
    {
        return Err(StoreError::NoKey {
            dir: dir.to_owned(),
            keyring: keeping::description(name),
        });
    }
    let path = dir.join("key.pem");
    let key = Key::generate().map_err(|source| StoreError::Key {
        place: format!("a new key for {}", path.display()),
        source,
    })?;
    write(&path, key.to_pem().as_bytes())?;
    Ok(key)
}

/// The public half of the key that the certificate in `dir` is for; `None` when there is no certificate. It needs no
/// private key, which may be kept where only the runner reaches it.
///
/// # Errors
/// When the certificate is open to others or is not what it should be.
pub fn public_key(dir: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let path = dir.join("certificate.json");
    let Some(text) = read(&path)? else { return Ok(None) };
    let grant: Grant = serde_json::from_str(&text).map_err(|source| StoreError::Json { path, source })?;
    let der = CertificateDer::from(grant.certificate.0);
    let leaf = webpki::EndEntityCert::try_from(&der).map_err(|source| StoreError::Certificate {
        dir: dir.to_owned(),
        source: GrantError::Malformed(source),
    })?;
    // The point ends the structure; a key of another kind than ours verifies nothing.
    let info = leaf.subject_public_key_info();
    Ok(info.last_chunk::<POINT_LEN>().map(|point| point.to_vec()))
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

pub(super) fn io_error(act: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        act,
        path: path.to_owned(),
        source,
    }
}

/// Reads a file that only its owner may open; `None` when it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<String>>, StoreError> {
    read_up_to(path, FILE_LEN_MAX)
}

/// As [`read`], of a file that may be longer.
pub(super) fn read_up_to(path: &Path, len_max: u64) -> Result<Option<Zeroizing<String>>, StoreError> {
    let file = match crate::sys::open_plain(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", path, error)),
    };
    let found = file.metadata().map_err(|e| io_error("look at", path, e))?;
    private::check(path, &found, 0o600)?;
    // As long as it will be: a buffer that grows leaves copies of its beginning behind.
    let mut text = Zeroizing::new(String::with_capacity(
        usize::try_from(found.len().min(len_max)).unwrap_or_default() + 1,
    ));
    file.take(len_max + 1)
        .read_to_string(&mut text)
        .map_err(|e| io_error("read", path, e))?;
    if text.len() as u64 > len_max {
        return Err(StoreError::TooLong {
            path: path.to_owned(),
            len_max,
        });
    }
    Ok(Some(text))
}

/// Writes a file whole or not at all, readable by its owner alone.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
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
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

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
            Err(StoreError::Open(PrivateError::Exposed { mode: 0o640, .. }))
        ));
    }

    #[test]
    fn a_pipe_or_a_link_in_the_place_of_a_file_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("identity");
        open_key(&dir).unwrap();
        let path = dir.join("key.pem");
        fs::rename(&path, dir.join("moved")).unwrap();
        std::os::unix::fs::symlink("moved", &path).unwrap();
        assert!(matches!(open_key(&dir), Err(StoreError::Io { act: "open", .. })));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(open_key(&dir), Err(StoreError::Io { act: "open", .. })));
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
