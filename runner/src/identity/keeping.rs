//! Where the private key is kept: a file of its own, a credential of the service manager, or the kernel's keyring.
//!
//! The first is what a new runner makes. The other two keep the key off the disk, or encrypted on it; somebody puts it
//! there and removes the file ([decision](../../../docs/decisions/0020-keys-at-rest.md)). More than one at once is an
//! error: which of them counts must not depend on how the runner was started.

use std::env;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use linux_keyutils::{KeyError as KeyringError, KeyRing, KeyRingIdentifier};
use oqto_protocol::id::RunnerId;
use zeroize::Zeroizing;

use super::store::{StoreError, io_error, read};

/// The name of the credential, as `LoadCredential=` and `LoadCredentialEncrypted=` give it.
pub(super) const CREDENTIAL: &str = "oqto-runner.key";

/// The longest key, bytes: PKCS#8 of P-256 as PEM is some 240.
const KEY_LEN_MAX: usize = 4096;

/// A key's text, and where it was found.
pub(super) struct Found {
    pub(super) text: Zeroizing<String>,
    pub(super) place: String,
}

/// Looks in all three places for the key of `runner`, which a new runner does not have yet.
pub(super) fn find(dir: &Path, runner: Option<&RunnerId>) -> Result<Option<Found>, StoreError> {
    let file = dir.join("key.pem");
    let mut found: Vec<Found> = Vec::new();
    if let Some(text) = read(&file)? {
        found.push(Found {
            text,
            place: format!("the file {}", file.display()),
        });
    }
    found.extend(in_credentials()?);
    if let Some(runner) = runner {
        found.extend(in_keyring(runner)?);
    }
    let key = found.pop();
    match (key, found.pop()) {
        (Some(key), Some(other)) => Err(StoreError::TwoKeys {
            places: [other.place, key.place],
        }),
        (key, _) => Ok(key),
    }
}

/// The credential of the service manager: a file in a directory that only this service can read.
fn in_credentials() -> Result<Option<Found>, StoreError> {
    let Some(dir) = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) else {
        return Ok(None);
    };
    let path = dir.join(CREDENTIAL);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", &path, error)),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN_MAX + 1));
    file.take(KEY_LEN_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| io_error("read", &path, error))?;
    let place = format!("the credential {}", path.display());
    text_of(&bytes, place).map(Some)
}

/// The description of a runner's key in the kernel's keyring.
pub(super) fn description(runner: &RunnerId) -> String {
    format!("oqto-runner:{runner}")
}

/// A key of type `user` that this process may reach by its session or its user.
fn in_keyring(runner: &RunnerId) -> Result<Option<Found>, StoreError> {
    let description = description(runner);
    for ring in [KeyRingIdentifier::Session, KeyRingIdentifier::User] {
        // A kernel without keyrings, or a container that forbids them, has none.
        let Ok(ring) = KeyRing::from_special_id(ring, false) else {
            continue;
        };
        let key = match ring.search(&description) {
            Ok(key) => key,
            // Found, but not ours to read: to go on without it would make another key.
            Err(
                source @ (KeyringError::KeyExpired | KeyringError::KeyRevoked | KeyringError::KeyRejected),
            ) => {
                return Err(StoreError::Keyring { description, source });
            }
            Err(_) => continue,
        };
        let mut bytes = Zeroizing::new(vec![0; KEY_LEN_MAX + 1]);
        let read = key.read(&mut *bytes);
        let len = read.map_err(|source| StoreError::Keyring {
            description: description.clone(),
            source,
        })?;
        let bytes = bytes.get(..len.min(KEY_LEN_MAX + 1)).unwrap_or_default();
        let place = format!("the key {description} of the kernel's keyring");
        return text_of(bytes, place).map(Some);
    }
    Ok(None)
}

fn text_of(bytes: &[u8], place: String) -> Result<Found, StoreError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= KEY_LEN_MAX => Ok(Found {
            text: Zeroizing::new(text.to_owned()),
            place,
        }),
        _ => Err(StoreError::NoText { place }),
    }
}
