//! The authority's two files: `key.der`, its private key, and `root.der`, its certificate.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oqto_protocol::id::AuthorityId;
use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::issue::root_params;
use crate::bounds::AUTHORITY_FILE_LEN_MAX;

/// Why the authority cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read what only the owner should.
    #[error("{} can be read by others (mode {mode:03o}); run chmod go-rwx on it", path.display())]
    Exposed {
        /// What.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is longer than any key.
    #[error("{} is too long to be what it should be", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// The key or the root is not one.
    #[error("{} does not hold a P-256 key", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// The root is of another key.
    #[error("{} is not the certificate of the key beside it", path.display())]
    Mismatch {
        /// Which.
        path: PathBuf,
    },
    /// A new key or root could not be made.
    #[error("cannot make an authority")]
    Make(#[source] rcgen::Error),
}

/// A certification authority that runners and controls trust and nobody else.
pub struct Authority {
    pub(super) id: AuthorityId,
    pub(super) root: CertificateDer<'static>,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Opens the authority in `dir`, or makes one there. Two at once make one.
    ///
    /// # Errors
    /// When the files cannot be read or written, are not what they should be, or others may read them.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed("make", dir))?;
        refuse_exposed(&fs::metadata(dir).map_err(failed("look at", dir))?, dir)?;
        let lock_path = dir.join("lock");
        let lock = private_file(&lock_path).map_err(failed("open", &lock_path))?;
        lock.lock().map_err(failed("lock", &lock_path))?;
        let key = open_key(dir)?;
        open_root(dir, key)
    }

    /// Its name: the beginning of its public key's digest.
    #[must_use]
    pub fn id(&self) -> &AuthorityId {
        &self.id
    }

    /// Its root certificate, DER.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }
}

/// Shows the name alone, never the key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn open_key(dir: &Path) -> Result<KeyPair, AuthorityError> {
    let path = dir.join("key.der");
    match File::open(&path) {
        Ok(file) => {
            refuse_exposed(&file.metadata().map_err(failed("look at", &path))?, &path)?;
            let der = PrivatePkcs8KeyDer::from(read_bounded(file, &path)?);
            KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
                .map_err(|source| AuthorityError::Key { path, source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Make)?;
            write_whole(dir, "key.der", key.serialized_der())?;
            Ok(key)
        }
        Err(source) => Err(failed("open", &path)(source)),
    }
}

/// The root is remade when it is missing: whoever trusts an authority trusts its name and key, and both stay.
fn open_root(dir: &Path, key: KeyPair) -> Result<Authority, AuthorityError> {
    let (id, params) = root_params(&key, SystemTime::now()).map_err(AuthorityError::Make)?;
    let path = dir.join("root.der");
    let root = match File::open(&path) {
        Ok(file) => CertificateDer::from(read_bounded(file, &path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let root = params.self_signed(&key).map_err(AuthorityError::Make)?;
            write_whole(dir, "root.der", root.der())?;
            root.der().clone()
        }
        Err(source) => return Err(failed("open", &path)(source)),
    };
    if !is_root_of(&root, &params, &key) {
        return Err(AuthorityError::Mismatch { path });
    }
    let issuer = Issuer::new(params, key);
    Ok(Authority { id, root, issuer })
}

fn is_root_of(root: &CertificateDer<'_>, params: &CertificateParams, key: &KeyPair) -> bool {
    // A certificate made now has another serial and another date, but the same name and key: what an anchor is.
    let Ok(fresh) = params.self_signed(key) else {
        return false;
    };
    match (
        webpki::anchor_from_trusted_cert(root),
        webpki::anchor_from_trusted_cert(fresh.der()),
    ) {
        (Ok(kept), Ok(fresh)) => {
            kept.subject == fresh.subject && kept.subject_public_key_info == fresh.subject_public_key_info
        }
        _ => false,
    }
}

fn refuse_exposed(metadata: &fs::Metadata, path: &Path) -> Result<(), AuthorityError> {
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(AuthorityError::Exposed {
            path: path.to_owned(),
            mode,
        })
    }
}

fn read_bounded(file: File, path: &Path) -> Result<Vec<u8>, AuthorityError> {
    let mut bytes = Vec::new();
    file.take(AUTHORITY_FILE_LEN_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    if bytes.len() as u64 > AUTHORITY_FILE_LEN_MAX {
        return Err(AuthorityError::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

/// Writes beside, syncs and renames, so that the file is whole or not there.
fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), AuthorityError> {
    let beside = dir.join(format!("{name}.new"));
    let mut file = private_file(&beside).map_err(failed("make", &beside))?;
    file.set_len(0)
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &beside))?;
    fs::rename(&beside, dir.join(name)).map_err(failed("rename", &beside))?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", dir))
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> AuthorityError + 'a {
    move |source| AuthorityError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
