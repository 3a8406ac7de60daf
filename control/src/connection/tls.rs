//! Who trusts whom: this authority alone, TLS 1.3 alone, certificates on both sides, the stock verifier.

use std::sync::Arc;

use oqto_protocol::id::{ControlId, RunnerId};
use oqto_protocol::version::ALPN;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::authority::{Authority, SignError, runner_uri};

/// Why no TLS configuration was made. None of these is the peer's fault.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate of our own.
    #[error("cannot make a certificate for this control")]
    Certificate(#[from] SignError),
    /// The root is not one.
    #[error("the authority's root is not acceptable")]
    Root(#[source] rustls::Error),
    /// The verifier does not take the root.
    #[error("the verifier refuses the authority's root")]
    Verifier(#[from] VerifierBuilderError),
    /// TLS does not take our certificate or version.
    #[error("the TLS configuration is not acceptable")]
    Config(#[from] rustls::Error),
    /// The provider lacks what QUIC needs.
    #[error("the TLS provider lacks QUIC's first cipher suite")]
    Suite(#[from] NoInitialCipherSuite),
}

/// A configuration with a fresh certificate of this control, for one dial: nothing of it can grow stale.
pub(super) fn client_config(
    authority: &Authority,
    control: &ControlId,
) -> Result<QuicClientConfig, TlsError> {
    let credentials = authority.control_credentials(control)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.root().clone()).map_err(TlsError::Root)?;
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(vec![credentials.certificate], credentials.key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(QuicClientConfig::try_from(config)?)
}

/// Whether the certificate that the handshake accepted also names this runner in its URI.
pub(super) fn names_runner(chain: &[CertificateDer<'_>], authority: &Authority, runner: &RunnerId) -> bool {
    let wanted = runner_uri(authority.id(), runner);
    chain
        .first()
        .and_then(|certificate| EndEntityCert::try_from(certificate).ok())
        .is_some_and(|certificate| certificate.valid_uri_names().any(|uri| uri == wanted))
}
