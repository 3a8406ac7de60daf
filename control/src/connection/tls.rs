//! Who trusts whom: this authority alone, TLS 1.3 alone, certificates on both sides, the stock verifier.

use std::sync::{Arc, Mutex, PoisonError};

use oqto_protocol::id::ControlId;
use oqto_protocol::version::{ALPN, ALPN_ENROL};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::authority::{Authority, SignError};

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

/// Why a runner's certificate was refused in one handshake, if it was: QUIC itself only gives the words.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted(Arc<Mutex<Option<CertificateError>>>);

impl Noted {
    pub(super) fn take(&self) -> Option<CertificateError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The stock verifier, which decides alone; what it refuses is noted.
#[derive(Debug)]
struct Noting {
    stock: Arc<WebPkiServerVerifier>,
    noted: Noted,
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.stock
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if let Err(rustls::Error::InvalidCertificate(error)) = &verified {
            *self.noted.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.stock.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.stock.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.stock.supported_verify_schemes()
    }
}

/// A configuration with a fresh certificate of this control, for one dial: nothing of it can grow stale.
pub(super) fn client_config(
    authority: &Authority,
    control: &ControlId,
    noted: &Noted,
) -> Result<QuicClientConfig, TlsError> {
    let mut credentials = authority.control_credentials(control)?;
    // Who is dialled has the root.
    credentials.chain.truncate(1);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let stock =
        WebPkiServerVerifier::builder_with_provider(roots(authority)?, Arc::clone(&provider)).build()?;
    let noted = noted.clone();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Noting { stock, noted }))
        .with_client_auth_cert(credentials.chain, credentials.key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(QuicClientConfig::try_from(config)?)
}

/// How this control is dialled: it shows a fresh certificate with its root. A certificate that a runner shows is
/// verified; that it has to show one is asked later, of all but those who want their first.
pub(super) fn server_config(
    authority: &Authority,
    control: &ControlId,
) -> Result<QuicServerConfig, TlsError> {
    let credentials = authority.control_credentials(control)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority)?, Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain, credentials.key)?;
    config.alpn_protocols = vec![ALPN.to_vec(), ALPN_ENROL.to_vec()];
    // A resumed session would be judged by yesterday's certificate.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(QuicServerConfig::try_from(config)?)
}

fn roots(authority: &Authority) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in authority.now().certificates() {
        roots.add(root.clone()).map_err(TlsError::Root)?;
    }
    Ok(Arc::new(roots))
}
