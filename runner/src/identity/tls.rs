//! The TLS side of an identity: TLS 1.3 only, both sides shown and verified, one crypto provider.

use std::sync::Arc;

use oqto_protocol::enrol::Grant;
use oqto_protocol::id::AuthorityId;
use oqto_protocol::version::ALPN;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::certificate::Roots;
use super::key::Key;
use super::peer::Peer;

/// An identity that TLS does not take.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A root is malformed.
    #[error("a root of the authority is malformed")]
    Root(#[source] Error),
    /// No way to verify a peer.
    #[error("cannot verify peers against the authority")]
    Verifier(#[source] VerifierBuilderError),
    /// The certificate and the key do not go together, or the provider lacks TLS 1.3.
    #[error("cannot serve with this certificate")]
    Certificate(#[source] Error),
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// How this runner is a TLS server: it shows its certificate and takes none but its authority's.
pub(super) fn server_config(grant: &Grant, key: &Key, roots: &Roots) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(store(roots)?, provider.clone())
        .build()
        .map_err(TlsError::Verifier)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Certificate)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown(grant, key)?);
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would be judged by yesterday's certificate.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// How this runner is a TLS client: it shows its certificate and takes any control of its authority.
pub(super) fn client_config(grant: &Grant, key: &Key, roots: &Roots) -> Result<ClientConfig, TlsError> {
    let verifier = ControlVerifier {
        authority: grant.authority_id.clone(),
        stock: verifier(roots)?,
    };
    let mut config = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(shown(grant, key)?);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

pub(super) fn client_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError>
{
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Certificate)
}

fn shown(grant: &Grant, key: &Key) -> Result<Arc<SingleCertAndKey>, TlsError> {
    let shown = CertifiedKey::new(
        vec![CertificateDer::from(grant.certificate.0.clone())],
        key.for_tls().map_err(TlsError::Certificate)?,
    );
    shown.keys_match().map_err(TlsError::Certificate)?;
    Ok(Arc::new(SingleCertAndKey::from(shown)))
}

fn store(roots: &Roots) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots.iter() {
        store.add(root.clone()).map_err(TlsError::Root)?;
    }
    Ok(Arc::new(store))
}

/// The verifier of rustls itself, for servers under these roots.
pub(super) fn verifier(roots: &Roots) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(store(roots)?, provider())
        .build()
        .map_err(TlsError::Verifier)
}

/// Verifies that a server is some control of the authority. The name that TLS checks is the one that the certificate itself
/// says in its URI: which control answers at an address is not known before it does.
#[derive(Debug)]
struct ControlVerifier {
    authority: AuthorityId,
    stock: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for ControlVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        behind: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::slice::from_ref(leaf);
        let peer = Peer::from_chain(chain, &self.authority).map_err(refused)?;
        verify_control(&*self.stock, &peer, leaf, behind, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.stock.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.stock.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.stock.supported_verify_schemes()
    }
}

/// Verifies a control's certificate with the verifier of rustls itself.
pub(super) fn verify_control(
    stock: &dyn ServerCertVerifier,
    peer: &Peer,
    leaf: &CertificateDer<'_>,
    behind: &[CertificateDer<'_>],
    ocsp: &[u8],
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let name = ServerName::try_from(peer.server_name())
        .map_err(|_| Error::InvalidCertificate(CertificateError::NotValidForName))?;
    stock.verify_server_cert(leaf, behind, &name, ocsp, now)
}

/// A certificate that we do not believe, for a reason of our own.
pub(super) fn refused(reason: impl std::error::Error + Send + Sync + 'static) -> Error {
    let reason = Refused(crate::cause::chain(&reason));
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}

/// The reason. TLS shows people its Debug, which therefore is what they should read.
#[derive(thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
