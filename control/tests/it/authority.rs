//! The authority: made once, kept for its owner alone, believed by nobody else.

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oqto_control::protocol::codec::Blob;
use oqto_control::protocol::enrol::{KeyAlgorithm, SigningRequest};
use oqto_control::protocol::id::RunnerId;
use oqto_control::{Authority, AuthorityError, SignError};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};

const HOUR: Duration = Duration::from_secs(3600);

fn request() -> SigningRequest {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    SigningRequest {
        algorithm: KeyAlgorithm::EcdsaP256Sha256,
        public_key: Blob(key.public_key_raw().to_vec()),
        runner_id: None,
    }
}

fn runner() -> RunnerId {
    "r-1".parse().unwrap()
}

/// Whether `authority` vouches for a certificate `ahead` from now.
fn verify(certificate: &[u8], authority: &Authority, usage: KeyUsage, ahead: Duration) -> Result<(), Error> {
    let certificate = CertificateDer::from(certificate);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + ahead;
    EndEntityCert::try_from(&certificate)?.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &[anchor_from_trusted_cert(&authority.root())?],
        &[],
        UnixTime::since_unix_epoch(now),
        usage,
        None,
        None,
    )?;
    Ok(())
}

#[test]
fn an_authority_is_made_once_and_stays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let first = Authority::open(&dir.path().join("ca")).unwrap();
    let again = Authority::open(&dir.path().join("ca")).unwrap();
    assert_eq!(first.id(), again.id());
    assert_eq!(first.root(), again.root());
    let grant = again.sign(&request(), &runner(), HOUR).unwrap();
    verify(
        &grant.certificate.0,
        &first,
        KeyUsage::server_auth(),
        Duration::ZERO,
    )
    .unwrap();
}

#[test]
fn two_that_open_at_once_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca");
    let ids: Vec<_> = std::thread::scope(|scope| {
        let open: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Authority::open(&path).unwrap().id().clone()))
            .collect();
        open.into_iter().map(|opened| opened.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

/// The one key of an authority that was never rotated.
fn key_of(dir: &Path) -> PathBuf {
    let keys: Vec<_> = fs::read_dir(dir.join("keys")).unwrap().collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.into_iter().next().unwrap().unwrap().path()
}

#[test]
fn the_key_is_for_its_owner_alone_and_refused_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca");
    drop(Authority::open(&path).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (key, ledger) = (key_of(&path), path.join("authority.json"));
    let modes = [&path, &path.join("keys"), &key, &ledger].map(|path| mode(path));
    assert_eq!(modes, [0o700, 0o700, 0o600, 0o600]);
    for exposed in [key, ledger, path.join("keys"), path.clone()] {
        let before = fs::metadata(&exposed).unwrap().permissions();
        fs::set_permissions(&exposed, Permissions::from_mode(before.mode() | 0o040)).unwrap();
        let error = Authority::open(&path).unwrap_err();
        assert!(matches!(error, AuthorityError::Exposed { .. }), "{error:?}");
        fs::set_permissions(&exposed, before).unwrap();
    }
    Authority::open(&path).unwrap();
}

#[test]
fn an_authority_of_the_form_before_this_one_keeps_its_name_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, before) = (dir.path().join("ours"), dir.path().join("before"));
    let first = Authority::open(&ours).unwrap();
    let grant = first.sign(&request(), &runner(), HOUR).unwrap();
    fs::DirBuilder::new().mode(0o700).create(&before).unwrap();
    fs::copy(key_of(&ours), before.join("key.der")).unwrap();
    fs::write(before.join("root.der"), first.root()).unwrap();
    let again = Authority::open(&before).unwrap();
    assert_eq!((first.id(), first.pin()), (again.id(), again.pin()));
    verify(
        &grant.certificate.0,
        &again,
        KeyUsage::server_auth(),
        Duration::ZERO,
    )
    .unwrap();
    assert!(!before.join("key.der").exists() && !before.join("root.der").exists());
    assert_eq!(Authority::open(&before).unwrap().pin(), first.pin());
}

#[test]
fn files_that_are_not_what_they_should_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    drop((Authority::open(&ours).unwrap(), Authority::open(&theirs).unwrap()));
    let (our_key, their_key) = (key_of(&ours), key_of(&theirs));
    let spoil = |path: &Path, bytes: &[u8]| {
        let before = fs::read(path).unwrap();
        fs::write(path, bytes).unwrap();
        let error = Authority::open(&ours).unwrap_err();
        fs::write(path, before).unwrap();
        error
    };
    let ledger = ours.join("authority.json");
    let error = spoil(&our_key, &fs::read(&their_key).unwrap());
    assert!(matches!(error, AuthorityError::Mismatch { .. }), "{error:?}");
    let error = spoil(&our_key, b"not a key");
    assert!(matches!(error, AuthorityError::Key { .. }), "{error:?}");
    let error = spoil(&our_key, &vec![0; 1 << 20]);
    assert!(matches!(error, AuthorityError::TooLong { .. }), "{error:?}");
    let error = spoil(&ledger, b"{");
    assert!(matches!(error, AuthorityError::Malformed { .. }), "{error:?}");
    let error = spoil(&ledger, br#"{"version":99,"what":"comes"}"#);
    assert!(
        matches!(error, AuthorityError::Version { found: 99, .. }),
        "{error:?}"
    );
    let id = our_key.file_stem().unwrap().to_str().unwrap();
    let text = fs::read_to_string(&ledger).unwrap();
    let elsewhere = text.replace(&format!(r#""id":"{id}""#), r#""id":"../../theirs/k""#);
    assert_ne!(text, elsewhere);
    let error = spoil(&ledger, elsewhere.as_bytes());
    assert!(matches!(error, AuthorityError::Mismatch { .. }), "{error:?}");
    fs::remove_file(&our_key).unwrap();
    let error = Authority::open(&ours).unwrap_err();
    assert!(matches!(error, AuthorityError::NoKey { .. }), "{error:?}");
    // What was revoked stood there: beside a key that was used it is not made anew.
    fs::remove_file(theirs.join("authority.json")).unwrap();
    let error = Authority::open(&theirs).unwrap_err();
    assert!(matches!(error, AuthorityError::NoLedger { .. }), "{error:?}");
}

#[test]
fn a_runners_certificate_names_it_and_serves_both_ways_until_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(&dir.path().join("ca")).unwrap();
    let grant = authority.sign(&request(), &runner(), HOUR).unwrap();
    assert_eq!(
        (&grant.authority_id, &grant.runner_id),
        (authority.id(), &runner())
    );
    assert_eq!(grant.trust, [Blob(authority.root().to_vec())]);

    let bytes = &grant.certificate.0;
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        verify(bytes, &authority, usage, Duration::ZERO).unwrap();
    }
    let error = verify(bytes, &authority, KeyUsage::server_auth(), HOUR * 2).unwrap_err();
    assert!(matches!(error, Error::CertExpired { .. }), "{error:?}");

    let der = CertificateDer::from(bytes.as_slice());
    let certificate = EndEntityCert::try_from(&der).unwrap();
    let name = ServerName::try_from("r-1.runner.oqto.internal").unwrap();
    certificate.verify_is_valid_for_subject_name(&name).unwrap();
    let other = ServerName::try_from("r-2.runner.oqto.internal").unwrap();
    certificate.verify_is_valid_for_subject_name(&other).unwrap_err();
    let uri = format!("oqto://{}/runner/r-1", authority.id());
    assert_eq!(certificate.valid_uri_names().collect::<Vec<_>>(), [uri]);
}

#[test]
fn another_authority_does_not_vouch_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Authority::open(&dir.path().join("ours")).unwrap();
    let theirs = Authority::open(&dir.path().join("theirs")).unwrap();
    let grant = theirs.sign(&request(), &runner(), HOUR).unwrap();
    let error = verify(
        &grant.certificate.0,
        &ours,
        KeyUsage::server_auth(),
        Duration::ZERO,
    )
    .unwrap_err();
    assert!(matches!(error, Error::UnknownIssuer), "{error:?}");
}

#[test]
fn a_request_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(&dir.path().join("ca")).unwrap();
    let sign = |change: &dyn Fn(&mut SigningRequest)| {
        let mut request = request();
        change(&mut request);
        authority.sign(&request, &runner(), HOUR).unwrap_err()
    };
    let error = sign(&|request| request.public_key.0.truncate(33));
    assert!(matches!(error, SignError::Key), "{error:?}");
    let error = sign(&|request| request.public_key.0.clear());
    assert!(matches!(error, SignError::Key), "{error:?}");
    let error = sign(&|request| request.algorithm = KeyAlgorithm::Unknown(9));
    assert!(matches!(error, SignError::Algorithm), "{error:?}");
    let error = sign(&|request| request.runner_id = Some("r-2".parse().unwrap()));
    assert!(matches!(error, SignError::Name { .. }), "{error:?}");
}
