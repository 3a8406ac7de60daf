//! What this runner shows and whom it trusts, as it stands now: both change while connections live.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use oqto_protocol::enrol::{Grant, Renew};
use oqto_protocol::id::{AuthorityId, RunnerId};
use oqto_protocol::trust::Trust;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage};

use super::certificate::Roots;
use super::grant::{self, GrantError};
use super::kept::{self, Kept};
use super::key::Key;
use super::life::Life;
use super::peer::{Peer, PeerError};
use super::pin::Pin;
use super::standing::{Standing, hex};
use super::store::{self, StoreError};
use super::tls::{self, TlsError};
use super::trust::{self, TrustError};
use crate::clock;

/// What this runner shows and whom it trusts. One of them, shared by all that connect.
pub struct Credentials {
    dir: PathBuf,
    key: Arc<Key>,
    current: watch::Sender<Arc<Standing>>,
    /// Held by whoever changes them, so that what is on disk is what is used.
    changing: Mutex<()>,
}

/// Why a certificate that was asked for, or is found, is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// It is not one for this runner.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// It is of another authority.
    #[error(
        "the certificate is of authority {found}, this runner runs for {expected}; restart it if that is meant"
    )]
    OtherAuthority {
        /// Whose it is.
        found: AuthorityId,
        /// Whose it should be.
        expected: AuthorityId,
    },
    /// It cannot be kept or read.
    #[error("cannot keep this runner's identity")]
    Store(#[from] StoreError),
}

/// Why a trust statement changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// It is not believed.
    #[error("the trust statement is not believed")]
    Trust(#[from] TrustError),
    /// It cannot be kept.
    #[error("cannot keep the trust statement")]
    Store(#[from] StoreError),
}

impl Credentials {
    /// Reads what is kept in `dir`; `None` when no control has signed this runner's key yet.
    ///
    /// # Errors
    /// When a file is open to others or is not what it should be.
    pub fn open(dir: &Path) -> Result<Option<Self>, StoreError> {
        let _lock = kept::lock(dir)?;
        let (runner_id, key) = store::open_key(dir)?;
        let standing = Standing::read(dir, &key, &runner_id)?;
        Ok(standing.map(|standing| Self::new(dir, key, standing)))
    }

    fn new(dir: &Path, key: Key, standing: Standing) -> Self {
        Self {
            dir: dir.to_owned(),
            key: Arc::new(key),
            current: watch::Sender::new(Arc::new(standing)),
            changing: Mutex::new(()),
        }
    }

    /// Takes and keeps a first certificate, or one anew, from somebody who has shown by other means that they may give it:
    /// what it says of roots counts from here on. With a pin it says no more than the root that has it, so the newest
    /// statement that the runner has counts if it names that root: the authority may be about to change it.
    pub(super) fn first(
        dir: &Path,
        runner_id: &RunnerId,
        key: Key,
        grant: Grant,
        pin: Option<&Pin>,
    ) -> Result<Self, RenewError> {
        let roots = Roots::read(&grant.trust).map_err(|source| StoreError::Roots {
            dir: dir.to_owned(),
            source,
        })?;
        let now = clock::unix_ms();
        grant::check(&grant, &key, runner_id, &roots, now)?;
        let _lock = kept::lock(dir)?;
        // Revocations that are known stay known.
        let statement = kept::read_statement(dir, &grant.authority_id)?;
        let outdone = statement
            .as_ref()
            .filter(|statement| !pin.is_some_and(|pin| statement.roots.have(pin)));
        let kept = Kept {
            grant,
            taken_at: now,
            statement: outdone.map_or(0, |statement| statement.number),
        };
        let seen = kept.write(dir)?;
        let standing = Standing::new(dir, kept, Some(seen), statement, &key, runner_id)?;
        Ok(Self::new(dir, key, standing))
    }

    /// This runner's name.
    #[must_use]
    pub fn runner_id(&self) -> RunnerId {
        self.now().kept.grant.runner_id.clone()
    }

    /// Whom it belongs to.
    #[must_use]
    pub fn authority_id(&self) -> AuthorityId {
        self.now().kept.grant.authority_id.clone()
    }

    /// Its key, the same for its whole life.
    #[must_use]
    pub fn key(&self) -> Arc<Key> {
        self.key.clone()
    }

    /// How it stands now.
    #[must_use]
    pub fn now(&self) -> Arc<Standing> {
        self.current.borrow().clone()
    }

    /// How it stands, now and whenever that changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Standing>> {
        self.current.subscribe()
    }

    /// How this runner is a TLS server from now on.
    ///
    /// # Errors
    /// When the identity's parts do not go together.
    pub fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let now = self.now();
        tls::server_config(&now.kept.grant, &self.key, &now.roots)
    }

    /// How this runner is a TLS client from now on.
    ///
    /// # Errors
    /// When the identity's parts do not go together.
    pub fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let now = self.now();
        tls::client_config(&now.kept.grant, &self.key, &now.roots)
    }

    /// Decides about a peer whose certificates were verified in a handshake at `met_at`, Unix milliseconds: by its name, and
    /// by what this runner has learnt of whom to trust since. That a certificate has run out since is no reason.
    ///
    /// # Errors
    /// When it is no control of this runner's authority, or one that is trusted no more.
    pub fn admit(&self, chain: &[CertificateDer<'_>], met_at: u64) -> Result<Peer, PeerError> {
        let now = self.now();
        let leaf = chain.first().ok_or(PeerError::Missing)?;
        let peer = Peer::from_chain(chain, &now.kept.grant.authority_id)?;
        let statement = now.statement.as_ref();
        if statement.is_some_and(|statement| statement.revokes(&peer.control, &peer.serial)) {
            return Err(PeerError::Revoked {
                control: peer.control,
                serial: hex(&peer.serial),
            });
        }
        let leaf = EndEntityCert::try_from(leaf).map_err(PeerError::Malformed)?;
        let usages = [KeyUsage::client_auth(), KeyUsage::server_auth()];
        let verified = usages.map(|usage| now.roots.verify(&leaf, &chain[1..], met_at, usage));
        // Either it came or it was dialled; which of both, TLS has looked at.
        if let [Err(source), Err(_)] = verified {
            return Err(PeerError::RootGone {
                control: peer.control,
                source,
            });
        }
        Ok(peer)
    }

    /// What a control is asked for a certificate anew.
    #[must_use]
    pub fn renewal(&self) -> Renew {
        Renew {
            request: self.key.signing_request(self.runner_id()),
        }
    }

    /// Takes and keeps a certificate that a control gave for the present one. Of what it says about roots nothing counts.
    ///
    /// # Errors
    /// When it is not for this runner, not of a root that it trusts, no improvement, or cannot be kept.
    pub fn renewed(&self, grant: Grant) -> Result<Life, RenewError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = kept::lock(&self.dir)?;
        // Who enrolled this runner anew meanwhile is not overwritten.
        self.look_again()?;
        let now = self.now();
        self.check_authority(&grant.authority_id)?;
        let taken_at = clock::unix_ms();
        let runner_id = &now.kept.grant.runner_id;
        let dates = grant::check(&grant, &self.key, runner_id, &now.roots, taken_at)?;
        if dates.not_after <= now.life.ends_at() {
            return Err(GrantError::NotLonger.into());
        }
        let kept = Kept {
            grant: Grant {
                trust: now.kept.grant.trust.clone(),
                ..grant
            },
            taken_at,
            statement: now.kept.statement,
        };
        let seen = kept.write(&self.dir)?;
        let statement = now.statement.clone();
        let standing = Standing::new(&self.dir, kept, Some(seen), statement, &self.key, runner_id)?;
        let life = standing.life;
        self.current.send_replace(Arc::new(standing));
        Ok(life)
    }

    /// Learns whom to trust from now on; kept on disk before it counts. `false` when it was known.
    ///
    /// # Errors
    /// When nobody has signed the statement whom this runner trusts already, when it is not newer, or cannot be kept.
    pub fn learn(&self, signed: Trust) -> Result<bool, LearnError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = kept::lock(&self.dir)?;
        let now = self.now();
        let authority = &now.kept.grant.authority_id;
        let judged = trust::judge(signed, authority, &now.roots, now.statement.as_ref())?;
        let Some(statement) = judged else { return Ok(false) };
        kept::write_statement(&self.dir, &statement)?;
        let (kept, seen) = (now.kept.clone(), now.seen);
        let runner_id = kept.grant.runner_id.clone();
        let standing = Standing::new(&self.dir, kept, seen, Some(statement), &self.key, &runner_id)?;
        self.current.send_replace(Arc::new(standing));
        Ok(true)
    }

    /// Looks whether this runner was enrolled anew meanwhile, and takes what it was given then.
    ///
    /// # Errors
    /// When what is there cannot be used; what was used before stays in use.
    pub fn reload(&self) -> Result<bool, RenewError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if kept::seen(&self.dir) == self.now().seen {
            return Ok(false);
        }
        let _lock = kept::lock(&self.dir)?;
        self.look_again()
    }

    fn look_again(&self) -> Result<bool, RenewError> {
        let now = self.now();
        if kept::seen(&self.dir) == now.seen {
            return Ok(false);
        }
        let read = Standing::read(&self.dir, &self.key, &now.kept.grant.runner_id)?;
        // One that is gone is not missed before the next start.
        let Some(standing) = read else { return Ok(false) };
        self.check_authority(&standing.kept.grant.authority_id)?;
        self.current.send_replace(Arc::new(standing));
        Ok(true)
    }

    fn check_authority(&self, found: &AuthorityId) -> Result<(), RenewError> {
        let expected = self.authority_id();
        if *found == expected {
            return Ok(());
        }
        Err(RenewError::OtherAuthority {
            found: found.clone(),
            expected,
        })
    }
}
