//! The first certificate, for a token: what is asked, whom it is asked of, and what is believed.
//!
//! The runner knows its authority by a pin, which a human carries with the token. A server is believed when it shows a root
//! that has the pin, and a certificate of some control under it; the token is not said before.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use oqto_protocol::enrol::{Enrol, Grant, Token};
use oqto_protocol::id::{AuthorityId, RunnerId};
use oqto_protocol::version::ALPN_ENROL;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use zeroize::Zeroizing;

use super::certificate::{Roots, RootsError, pin_of};
use super::credentials::{Credentials, RenewError};
use super::kept;
use super::key::Key;
use super::peer::{Peer, PeerError};
use super::pin::Pin;
use super::store::{StoreError, open_key};
use super::tls::{TlsError, client_builder, provider, refused, verifier, verify_control};

/// The longest text of a token, bytes: one is less than a hundred.
const TOKEN_LEN_MAX: u64 = 1024;

/// The most certificates that are looked at for the pin: a control shows its own and its authority's roots.
const SHOWN_MAX: usize = 16;

/// A token that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token from {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others can read it.
    #[error(
        "{} is open to other users (mode {mode:04o}): run chmod 600 on it, and make another token if one of them may have \
         read it",
        path.display()
    )]
    Exposed {
        /// Which.
        path: PathBuf,
        /// How open it is.
        mode: u32,
    },
    /// Somebody else wrote it.
    #[error("{} belongs to user {owner}, this is user {user}", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// It is empty, has spaces in it, or is too long.
    #[error("{} holds no token: one is a single word, as `oqtoctl token create` prints it", path.display())]
    NoToken {
        /// Which.
        path: PathBuf,
    },
}

/// Reads a token from a file that nobody else can read, or from standard input for `-`.
///
/// # Errors
/// When it cannot be read or is none.
pub fn read_token(path: &Path) -> Result<Token, TokenError> {
    let read_error = |source| TokenError::Read {
        path: path.to_owned(),
        source,
    };
    if path == Path::new("-") {
        return token_in(io::stdin().lock(), path);
    }
    let file = File::open(path).map_err(read_error)?;
    check_closed(path, &file.metadata().map_err(read_error)?)?;
    token_in(file, path)
}

fn check_closed(path: &Path, found: &fs::Metadata) -> Result<(), TokenError> {
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    let user = crate::sys::effective_uid();
    if mode & 0o077 != 0 {
        return Err(TokenError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    if owner != user && owner != 0 {
        return Err(TokenError::Foreign {
            path: path.to_owned(),
            owner,
            user,
        });
    }
    Ok(())
}

fn token_in(from: impl io::Read, path: &Path) -> Result<Token, TokenError> {
    // As long as it may become: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(TOKEN_LEN_MAX as usize + 1));
    from.take(TOKEN_LEN_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|source| TokenError::Read {
            path: path.to_owned(),
            source,
        })?;
    let token = text.trim();
    let is_word = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_word || text.len() as u64 > TOKEN_LEN_MAX {
        return Err(TokenError::NoToken {
            path: path.to_owned(),
        });
    }
    Ok(Token::new(token.to_owned()))
}

/// Why a runner cannot be enrolled, on its own side.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The key cannot be had, or the certificate not be kept.
    #[error("cannot keep this runner's identity")]
    Store(#[from] StoreError),
    /// It has another name.
    #[error(
        "this runner is {found} already, and what it keeps of its sessions is under that name; enrol it as {found}, or give \
         another --state-dir"
    )]
    Named {
        /// Its name.
        found: RunnerId,
    },
    /// TLS cannot be set up.
    #[error("cannot set TLS up")]
    Tls(#[from] TlsError),
    /// The server's certificate names no control.
    #[error("the server is no control")]
    Peer(#[from] PeerError),
    /// The certificate is not one of the authority that the control is of.
    #[error("the control is of authority {control}, and the certificate of authority {granted}")]
    OtherAuthority {
        /// Whose the control is.
        control: AuthorityId,
        /// Whose the certificate is.
        granted: AuthorityId,
    },
    /// The roots that came are none.
    #[error("the roots that came with the certificate cannot be trusted")]
    Roots(#[from] RootsError),
    /// The pin is of no root that counts from here on.
    #[error("none of the roots that came with the certificate has the pin")]
    Unpinned,
    /// The certificate is not for this runner, or cannot be kept.
    #[error("cannot use the certificate that came")]
    Taken(#[from] RenewError),
}

/// A runner that asks for its first certificate, or for one anew.
pub struct Candidate {
    dir: PathBuf,
    runner_id: RunnerId,
    key: Key,
    pin: Pin,
}

impl Candidate {
    /// Opens the runner's name and key in `dir`, making both at first use, under the name that is wanted.
    ///
    /// # Errors
    /// When they cannot be had, or it has another name.
    pub fn open(dir: &Path, wanted: Option<&RunnerId>, pin: Pin) -> Result<Self, EnrolError> {
        let _lock = kept::lock(dir)?;
        if let Some(wanted) = wanted {
            kept::name(dir, wanted)?;
        }
        let (runner_id, key) = open_key(dir)?;
        if wanted.is_some_and(|wanted| *wanted != runner_id) {
            return Err(EnrolError::Named { found: runner_id });
        }
        Ok(Self {
            dir: dir.to_owned(),
            runner_id,
            key,
            pin,
        })
    }

    /// Its name.
    #[must_use]
    pub fn runner_id(&self) -> &RunnerId {
        &self.runner_id
    }

    /// How a control is dialled: without a certificate of our own, and believed for its root's pin. What it showed is found
    /// in the second value.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn client_config(&self) -> Result<(ClientConfig, Shown), EnrolError> {
        let shown = Shown::default();
        let verifier = PinVerifier {
            pin: self.pin,
            shown: shown.clone(),
            provider: provider(),
        };
        let mut config = client_builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_ENROL.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok((config, shown))
    }

    /// What the control is asked.
    #[must_use]
    pub fn request(&self, token: Token) -> Enrol {
        Enrol {
            token,
            request: self.key.signing_request(self.runner_id.clone()),
        }
    }

    /// Takes and keeps what the control gave, whose certificates are `chain`. Of its roots the one with the pin counts.
    ///
    /// # Errors
    /// When it is not a certificate for this runner under the root that has the pin, or cannot be kept.
    pub fn take(self, chain: &[CertificateDer<'_>], mut grant: Grant) -> Result<Credentials, EnrolError> {
        let control = Peer::of_chain(chain)?;
        if control.authority != grant.authority_id {
            return Err(EnrolError::OtherAuthority {
                control: control.authority,
                granted: grant.authority_id,
            });
        }
        if !Roots::read(&grant.trust)?.have(&self.pin) {
            return Err(EnrolError::Unpinned);
        }
        // Of the others nobody but this control says anything: the authority's own word on them is a trust statement.
        grant
            .trust
            .retain(|root| pin_of(&CertificateDer::from(root.0.as_slice())) == Some(self.pin));
        Ok(Credentials::first(
            &self.dir,
            &self.runner_id,
            self.key,
            grant,
            Some(&self.pin),
        )?)
    }
}

/// What a server showed that does not have the pin.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<Option<Vec<Pin>>>>);

impl Shown {
    /// The pins of the certificates that it showed behind its own, when none of them was the right one; `None` when that was
    /// not what was wrong.
    #[must_use]
    pub fn take(&self) -> Option<Vec<Pin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A server that shows no root with the pin.
#[derive(Debug, thiserror::Error)]
#[error("the server shows no root with the pin {0}")]
struct OtherRoot(Pin);

/// Believes a server for the pin of its root, and verifies the rest as for any control.
#[derive(Debug)]
struct PinVerifier {
    pin: Pin,
    shown: Shown,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        behind: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let behind = &behind[..behind.len().min(SHOWN_MAX)];
        let Some(root) = behind.iter().find(|root| pin_of(root) == Some(self.pin)) else {
            let mut shown = self.shown.0.lock().unwrap_or_else(PoisonError::into_inner);
            *shown = Some(behind.iter().filter_map(|root| pin_of(root)).collect());
            return Err(refused(OtherRoot(self.pin)));
        };
        let root = Roots::one(root.clone().into_owned()).map_err(refused)?;
        let stock = verifier(&root).map_err(refused)?;
        let peer = Peer::of_chain(std::slice::from_ref(leaf)).map_err(refused)?;
        verify_control(&*stock, &peer, leaf, &[], ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // QUIC has no older version.
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn reading(text: &[u8], mode: u32) -> Result<String, TokenError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        read_token(&path).map(|token| token.reveal().to_owned())
    }

    #[test]
    fn a_token_is_one_word_whatever_stands_around_it() {
        for text in ["oqto1-abc", "oqto1-abc\n", "  oqto1-abc \r\n\n"] {
            assert_eq!(reading(text.as_bytes(), 0o600).unwrap(), "oqto1-abc");
        }
        let long = [b'a'; 2000];
        let broken: [&[u8]; 4] = [b"", b"\n", b"two words", "größe".as_bytes()];
        for text in broken.into_iter().chain([&long[..]]) {
            let error = reading(text, 0o600).unwrap_err();
            assert!(matches!(error, TokenError::NoToken { .. }), "{error:?}");
        }
    }

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        assert_eq!(reading(b"oqto1-abc", 0o400).unwrap(), "oqto1-abc");
        for mode in [0o640, 0o604, 0o660, 0o610] {
            let error = reading(b"oqto1-abc", mode).unwrap_err();
            assert!(matches!(error, TokenError::Exposed { .. }), "{error:?}");
        }
    }
}
