//! Certificates of a bench's own, for transports that are not the house's: both sides shown and verified, TLS 1.3, one
//! provider, as everywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// What the server's certificate names.
pub const SERVER_NAME: &str = "bench.oqto.internal";

/// A root and what it signed, as PEM files of one directory, where the other process finds them.
#[derive(Clone, Debug)]
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Makes a root, a server and a client in `dir`.
    ///
    /// # Panics
    /// When the disk is full.
    #[must_use]
    pub fn make(dir: &Path) -> Self {
        let root_key = KeyPair::generate().expect("a key");
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_certificate = root.self_signed(&root_key).expect("our own root");
        let issuer = Issuer::new(root, root_key);
        let write = |name: &str, text: String| fs::write(dir.join(name), text).expect("our own directory");
        write("root.pem", root_certificate.pem());
        for name in ["server", "client"] {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new([SERVER_NAME.to_owned()]).expect("a name");
            let certificate = params.signed_by(&key, &issuer).expect("our own root");
            write(&format!("{name}.pem"), certificate.pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { dir: dir.to_owned() }
    }

    /// Those that another process made in `dir`.
    #[must_use]
    pub fn found(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The text of one file: `root.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn pem(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).expect("a file of ours")
    }

    /// How the server does TLS.
    ///
    /// # Panics
    /// Never with files of [`make`](Self::make).
    #[must_use]
    pub fn server(&self, alpn: &[u8]) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider.clone())
            .build()
            .expect("our own root");
        let (chain, key) = self.papers("server");
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .expect("our own certificate");
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }

    /// How the client does TLS.
    ///
    /// # Panics
    /// Never with files of [`make`](Self::make).
    #[must_use]
    pub fn client(&self, alpn: &[u8]) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (chain, key) = self.papers("client");
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .expect("our own certificate");
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots
            .add(certificate(&self.pem("root.pem")))
            .expect("our own root");
        roots
    }

    fn papers(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = vec![certificate(&self.pem(&format!("{name}.pem")))];
        let key = KeyPair::from_pem(&self.pem(&format!("{name}.key"))).expect("our own key");
        (chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("our own certificate")
}
