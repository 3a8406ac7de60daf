//! Certificates of another time: what a control says of them, and what is to be done.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use oqto_control::{ConnectError, Control, Options};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;

use crate::support::{Papers, Reaction, TestRunner, welcome};

const MINUTE: Duration = Duration::from_secs(60);

fn control() -> (TempDir, Control) {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(Options::under(dir.path().join("oqto"))).unwrap();
    (dir, control)
}

/// Papers that a control whose clock is ahead has signed.
fn early(dir: &Path, control: &Control, ahead: Duration) -> Papers {
    let authority = control.authority();
    let root = fs::read_dir(dir.join("oqto/authority/keys"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let der = fs::read(root.path()).unwrap();
    let root = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ECDSA_P256_SHA256);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = format!("oqto authority {}", authority.id());
    params.distinguished_name.push(DnType::CommonName, name);
    let issuer = Issuer::new(params, root.unwrap());
    let mut params = CertificateParams::new(vec!["r-1.runner.oqto.internal".to_owned()]).unwrap();
    let uri = format!("oqto://{}/runner/r-1", authority.id());
    params
        .subject_alt_names
        .push(SanType::URI(Ia5String::try_from(uri).unwrap()));
    params.not_before = (SystemTime::now() + ahead).into();
    params.not_after = (SystemTime::now() + ahead + MINUTE).into();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().der().to_vec();
    Papers { certificate, key }
}

#[tokio::test]
async fn a_certificate_that_has_ended_says_since_when_and_the_way_back() {
    let (_dir, control) = control();
    let papers = Papers::signed("r-1", control.authority(), Duration::ZERO);
    let runner = TestRunner::start_with("r-1", control.authority(), papers, Duration::ZERO, |_, _| {
        Reaction::HangUp
    });
    // A certificate ends with its second.
    let error = loop {
        match control.connect(runner.at.clone()).await.unwrap_err() {
            ConnectError::Hello(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            error => break error,
        }
    };
    let text = error.to_string();
    assert!(matches!(error, ConnectError::Expired { .. }), "{error:?}");
    for part in [
        "runner r-1 ended",
        "s ago",
        "clocks",
        "oqtoctl token create --runner-id r-1",
        "oqto-runner enrol",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn a_certificate_that_has_not_begun_says_by_how_much_the_clocks_differ() {
    let (dir, control) = control();
    let papers = early(dir.path(), &control, 10 * MINUTE + MINUTE / 2);
    let runner = TestRunner::start_with("r-1", control.authority(), papers, Duration::ZERO, |_, _| {
        Reaction::HangUp
    });
    let error = control.connect(runner.at.clone()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ConnectError::Early { .. }), "{error:?}");
    assert!(
        text.contains("begins in 10 min") && text.contains("clock"),
        "{text}"
    );
}

#[tokio::test]
async fn a_runner_whose_clock_is_wrong_is_said_to_be_that_and_a_little_is_tolerated() {
    let (_dir, control) = control();
    let start = |behind| {
        let papers = Papers::signed("r-1", control.authority(), MINUTE);
        TestRunner::start_with("r-1", control.authority(), papers, behind, |_, _| {
            Reaction::Begin(welcome("r-1"))
        })
    };
    let runner = start(4 * MINUTE);
    control.connect(runner.at.clone()).await.unwrap();
    let runner = start(10 * MINUTE);
    let error = control.connect(runner.at.clone()).await.unwrap_err();
    assert!(matches!(error, ConnectError::ClocksDiffer { .. }), "{error:?}");
    assert!(error.to_string().contains("differ by more than 5 min"), "{error}");
}
