//! The authority's directory: one file of decisions, `authority.json`, and its keys in `keys/`.
//!
//! Whoever changes something holds the lock, reads the file anew, and writes it whole. Whoever has the authority open
//! looks whether the file is another one now, before each signature and by `oqto_control`'s own watch several times a
//! second; so what one process decides holds in all of them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use oqto_protocol::codec::Blob;
use oqto_protocol::id::{AuthorityId, ControlId, RunnerId};
use oqto_protocol::trust::Trust;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::disk::{self, Seen, failed};
use super::ledger::{Ledger, Revocations, Serial, VERSION};
use super::root::{Root, RootInfo, RootKey, RootRecord, Standing, short};
use crate::bounds::LEDGER_LEN_MAX;

/// Why the authority cannot be opened or changed.
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
    /// The file is longer than it can be.
    #[error("{} is too long to be what it should be", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// There are more files than are read.
    #[error("{} holds more than {max} files", path.display())]
    TooMany {
        /// Where.
        path: PathBuf,
        /// How many there may be.
        max: usize,
    },
    /// The file is not what it should be.
    #[error("{} is malformed", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The file is of a newer program.
    #[error("{} has the form {found}, this program knows {VERSION}; update it", path.display())]
    Version {
        /// Which.
        path: PathBuf,
        /// Its form.
        found: u32,
    },
    /// The key is not one.
    #[error("{} does not hold a P-256 key", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// A key is gone.
    #[error("{} is missing; without it this authority cannot sign", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// There are keys and no decisions.
    #[error("{} is missing beside keys; what was revoked would be forgotten, so bring it back from a backup", path.display())]
    NoLedger {
        /// Which.
        path: PathBuf,
    },
    /// A root is of another key or name.
    #[error("a root in {} is not the certificate of its key", path.display())]
    Mismatch {
        /// Which.
        path: PathBuf,
    },
    /// No root signs.
    #[error("{} names no root that signs", path.display())]
    NoSigner {
        /// Which.
        path: PathBuf,
    },
    /// A new key or root could not be made.
    #[error("cannot make a key or a certificate")]
    Make(#[source] rcgen::Error),
    /// A secret or a name could not be made.
    #[error("the system gives no random bytes")]
    Random,
    /// The thread that was asked to write is gone.
    #[error("the work was given up since the program ends")]
    Abandoned,
}

/// A certification authority that runners and controls trust and nobody else. Its name stays for ever; its keys may be
/// rotated.
pub struct Authority {
    pub(super) dir: PathBuf,
    id: AuthorityId,
    state: watch::Sender<Arc<State>>,
    seen: Mutex<Seen>,
}

/// The authority as it was decided last.
pub(crate) struct State {
    pub(super) ledger: Ledger,
    pub(super) roots: Vec<Root>,
    signer: usize,
    runners: HashSet<RunnerId>,
    controls: HashSet<ControlId>,
    serials: HashSet<Serial>,
}

impl State {
    /// The root that signs.
    pub(super) fn signer(&self) -> Option<&Root> {
        self.roots.get(self.signer)
    }

    /// The certificates of all roots, oldest first.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|root| &root.certificate)
    }

    pub(super) fn trust_roots(&self) -> Vec<Blob> {
        self.certificates().map(|root| Blob(root.to_vec())).collect()
    }

    /// The number of the last trust statement, and the statement; `None` when there was none.
    pub(crate) fn word(&self) -> Option<(u64, &Trust)> {
        self.ledger.word.as_ref().map(|word| (word.number, &word.trust))
    }

    /// Whether a runner is trusted no more.
    pub(crate) fn is_runner_revoked(&self, runner: &RunnerId) -> bool {
        self.runners.contains(runner)
    }

    /// Whether a control is trusted no more.
    pub(super) fn is_control_revoked(&self, control: &ControlId) -> bool {
        self.controls.contains(control)
    }

    /// Whether a certificate is trusted no more.
    pub(crate) fn is_serial_revoked(&self, serial: &Serial) -> bool {
        self.serials.contains(serial)
    }
}

/// A lock that whoever changes the authority holds.
pub(super) struct Held(#[expect(dead_code, reason = "the lock goes when the file is closed")] File);

impl Authority {
    /// Opens the authority in `dir`, or makes one there. Two at once make one.
    ///
    /// # Errors
    /// When the files cannot be read or written, are not what they should be, or others may read them.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        disk::private_dir(dir)?;
        let _held = lock(dir)?;
        let keys = dir.join("keys");
        disk::private_dir(&keys)?;
        let path = dir.join("authority.json");
        let read = match read_state(dir)? {
            Some(read) => Some(read),
            // The form before this one: one key, one root, nothing decided.
            None => match RootKey::read(&dir.join("key.der"))? {
                Some(key) => {
                    begin(dir, &key)?;
                    disk::remove(&dir.join("key.der"))?;
                    disk::remove(&dir.join("root.der"))?;
                    read_state(dir)?
                }
                None if disk::names(&keys, 2 * KEYS_MAX)?.iter().any(|name| is_key(name)) => {
                    return Err(AuthorityError::NoLedger { path });
                }
                None => {
                    begin(dir, &RootKey::generate()?)?;
                    read_state(dir)?
                }
            },
        };
        let (state, seen) = read.ok_or(AuthorityError::NoLedger { path })?;
        Ok(Self {
            dir: dir.to_owned(),
            id: state.ledger.authority_id.clone(),
            state: watch::Sender::new(Arc::new(state)),
            seen: Mutex::new(seen),
        })
    }

    /// Its name: the beginning of its first public key's digest. It stays when the keys are rotated.
    #[must_use]
    pub fn id(&self) -> &AuthorityId {
        &self.id
    }

    /// The root certificate that signs now, DER.
    #[must_use]
    pub fn root(&self) -> CertificateDer<'static> {
        let state = self.now();
        state.signer().map_or_else(
            || CertificateDer::from(Vec::new()),
            |root| root.certificate.clone(),
        )
    }

    /// What a runner that trusts nobody yet is told about this authority on another way, with its token: `sha256:` and
    /// the digest of the public key that signs now.
    #[must_use]
    pub fn pin(&self) -> String {
        let state = self.now();
        state
            .signer()
            .map(|root| format!("sha256:{}", root.pin))
            .unwrap_or_default()
    }

    /// Its roots, oldest first.
    #[must_use]
    pub fn roots(&self) -> Vec<RootInfo> {
        let state = self.now();
        let infos = state.ledger.roots.iter().zip(&state.roots);
        infos.map(|(record, root)| record.info(root.pin)).collect()
    }

    /// All that is revoked.
    #[must_use]
    pub fn revoked(&self) -> Revocations {
        self.now().ledger.revoked.clone()
    }

    /// The number of the last trust statement; 0 when nothing was ever revoked or rotated.
    #[must_use]
    pub fn trust_number(&self) -> u64 {
        self.now().ledger.number()
    }

    /// What was decided, as far as this process knows.
    pub(crate) fn now(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// The same, and whenever it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }

    /// Looks whether another process has decided something; what was decided then holds from here on.
    ///
    /// # Errors
    /// When the file cannot be looked at or is not what it should be. What was known before still holds.
    pub fn refresh(&self) -> Result<(), AuthorityError> {
        let path = self.dir.join("authority.json");
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = fs::metadata(&path).map_err(failed("look at", &path))?;
        if Seen::of(&metadata).map_err(failed("look at", &path))? == *seen {
            return Ok(());
        }
        let (state, now) = read_state(&self.dir)?.ok_or(AuthorityError::NoLedger { path: path.clone() })?;
        if state.ledger.authority_id != self.id {
            return Err(AuthorityError::Mismatch { path });
        }
        *seen = now;
        self.state.send_replace(Arc::new(state));
        Ok(())
    }

    /// Waits until nobody else changes the authority, and looks at what it is then.
    pub(super) fn hold(&self) -> Result<Held, AuthorityError> {
        let held = lock(&self.dir)?;
        self.refresh()?;
        Ok(held)
    }

    /// Signs and writes what was decided; from here on it holds.
    pub(super) fn decide(&self, _held: &Held, mut ledger: Ledger) -> Result<(), AuthorityError> {
        let path = self.dir.join("authority.json");
        let record = ledger
            .root(Standing::Signs)
            .ok_or(AuthorityError::NoSigner { path })?;
        let key = read_key(&self.dir, &record.id)?;
        ledger.speak(&key, now_ms()).map_err(AuthorityError::Make)?;
        disk::write_json(&self.dir, "authority.json", &ledger)?;
        self.refresh()
    }
}

/// Shows the name alone, never a key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// How many files the directory of keys may hold: the roots, and what a crash has left.
const KEYS_MAX: usize = 64;

fn lock(dir: &Path) -> Result<Held, AuthorityError> {
    let path = dir.join("lock");
    let lock = disk::private_file(&path).map_err(failed("open", &path))?;
    lock.lock().map_err(failed("lock", &path))?;
    Ok(Held(lock))
}

/// Writes a new authority whose first key is this one.
fn begin(dir: &Path, key: &RootKey) -> Result<(), AuthorityError> {
    // Sixteen hex digits are a name.
    let id: AuthorityId = key.id().parse().map_err(|_| AuthorityError::Random)?;
    let record = new_root(dir, &id, key, Standing::Signs, 0)?;
    disk::write_json(dir, "authority.json", &Ledger::new(id, record)).map(drop)
}

/// Keeps a key, and certifies it. The key comes first: one that no decision names is harmless.
pub(super) fn new_root(
    dir: &Path,
    authority: &AuthorityId,
    key: &RootKey,
    standing: Standing,
    since: u64,
) -> Result<RootRecord, AuthorityError> {
    let certificate = key.certify(authority, SystemTime::now())?;
    key.write(&dir.join("keys"), &format!("{}.der", key.id()))?;
    Ok(RootRecord {
        id: key.id(),
        certificate: Blob(certificate.to_vec()),
        standing,
        made_at: now_ms(),
        since,
    })
}

fn read_key(dir: &Path, id: &str) -> Result<RootKey, AuthorityError> {
    let path = key_path(dir, id);
    RootKey::read(&path)?.ok_or(AuthorityError::NoKey { path })
}

pub(super) fn key_path(dir: &Path, id: &str) -> PathBuf {
    dir.join("keys").join(format!("{id}.der"))
}

fn is_key(name: &str) -> bool {
    name.strip_suffix(".der").is_some_and(|id| id.len() == 16)
}

/// Reads the decisions and their keys. They may be replaced meanwhile: then the next try finds the new ones.
fn read_state(dir: &Path) -> Result<Option<(State, Seen)>, AuthorityError> {
    const TRIES: usize = 3;
    let mut last = None;
    for _ in 0..TRIES {
        match read_state_once(dir) {
            Err(error @ AuthorityError::NoKey { .. }) => last = Some(error),
            read => return read,
        }
    }
    last.map_or(Ok(None), Err)
}

fn read_state_once(dir: &Path) -> Result<Option<(State, Seen)>, AuthorityError> {
    let path = dir.join("authority.json");
    let Some((bytes, seen)) = disk::read(&path, LEDGER_LEN_MAX)? else {
        return Ok(None);
    };
    /// What every form has.
    #[derive(serde::Deserialize)]
    struct Form {
        version: u32,
    }
    let Form { version } = disk::parse(&bytes, &path)?;
    if version != VERSION {
        return Err(AuthorityError::Version { path, found: version });
    }
    let ledger: Ledger = disk::parse(&bytes, &path)?;
    let mut roots = Vec::with_capacity(ledger.roots.len());
    for record in &ledger.roots {
        // The name becomes part of a path.
        if !is_key(&format!("{}.der", record.id)) || !record.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(AuthorityError::Mismatch { path });
        }
        let key = read_key(dir, &record.id)?;
        let root = Root::join(&ledger.authority_id, &record.certificate, key)
            .filter(|root| short(&root.pin) == record.id)
            .ok_or_else(|| AuthorityError::Mismatch { path: path.clone() })?;
        roots.push(root);
    }
    let signer = ledger
        .roots
        .iter()
        .position(|root| root.standing == Standing::Signs)
        .ok_or(AuthorityError::NoSigner { path })?;
    let state = State {
        runners: ledger
            .revoked
            .runners
            .iter()
            .map(|revoked| revoked.id.clone())
            .collect(),
        controls: ledger
            .revoked
            .controls
            .iter()
            .map(|revoked| revoked.id.clone())
            .collect(),
        serials: ledger
            .revoked
            .serials
            .iter()
            .map(|revoked| revoked.id.clone())
            .collect(),
        ledger,
        roots,
        signer,
    };
    Ok(Some((state, seen)))
}

/// The wall clock, Unix milliseconds.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
