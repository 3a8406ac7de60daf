//! The TLS side of an identity: TLS 1.3 only, both sides shown and verified, one crypto provider.

use std::sync::Arc;

use oqto_protocol::version::ALPN;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};

use super::store::Identity;

/// An identity that TLS does not take.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A root is malformed.
    #[error("a root of the authority is malformed")]
    Root(#[source] rustls::Error),
    /// No way to verify a peer.
    #[error("cannot verify peers against the authority")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// The certificate and the key do not go together, or the provider lacks TLS 1.3.
    #[error("cannot serve with this certificate")]
    Certificate(#[source] rustls::Error),
}

/// How this runner is a TLS server: it shows its certificate and takes none but its authority's.
///
/// # Errors
/// When the identity's parts do not go together.
pub fn server_config(identity: &Identity) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in &identity.grant.trust {
        roots
            .add(CertificateDer::from(root.0.clone()))
            .map_err(TlsError::Root)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(TlsError::Verifier)?;
    let shown = CertifiedKey::new(
        vec![CertificateDer::from(identity.grant.certificate.0.clone())],
        identity.key.for_tls().map_err(TlsError::Certificate)?,
    );
    shown.keys_match().map_err(TlsError::Certificate)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Certificate)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would be judged by yesterday's certificate.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}
