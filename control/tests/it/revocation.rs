//! Who is trusted no more is cut off, in every process; and keys are rotated without locking anybody out.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use oqto_control::protocol::codec::{Blob, decode_all};
use oqto_control::protocol::fault::FaultCode;
use oqto_control::protocol::trust::{TRUST_CONTEXT, Trust, TrustStatement};
use oqto_control::{
    Authority, ConnectError, Control, LinkState, ListenOptions, Listener, Options, Outcome, QueryError,
    Revocable, RotateError, RunnerAddr, Serial, Standing, TokenError,
};
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;

use crate::dialler::{Dialler, Link, PATIENCE};
use crate::support::{Ask, Reaction, TestRunner, welcome};

const HOUR: Duration = Duration::from_secs(3600);

struct Bench {
    dir: TempDir,
    control: Control,
    listener: Listener,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(Options::under(dir.path().join("oqto"))).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = control.listen(ListenOptions { address }).unwrap();
    Bench {
        dir,
        control,
        listener,
    }
}

impl Bench {
    /// The authority as another process has it: nothing is shared but the disk.
    fn elsewhere(&self) -> Authority {
        Authority::open(&self.dir.path().join("oqto/authority")).unwrap()
    }

    async fn enrolled(&self, name: &str) -> (Dialler, Vec<u8>) {
        let dialler = Dialler::new(name, self.control.authority(), self.listener.address());
        let (token, _) = self.control.authority().create_token(HOUR, None).unwrap();
        let grant = dialler.enrol(&token).await.unwrap();
        (dialler, grant.certificate.0)
    }
}

/// The statement, its signature checked under this root.
fn read(trust: &Trust, root: &CertificateDer<'_>) -> TrustStatement {
    let mut signed = TRUST_CONTEXT.to_vec();
    signed.extend_from_slice(&trust.statement.0);
    webpki::EndEntityCert::try_from(root)
        .unwrap()
        .verify_signature(webpki::aws_lc_rs::ECDSA_P256_SHA256, &signed, &trust.signature.0)
        .unwrap();
    decode_all(&trust.statement.0).unwrap()
}

async fn next(link: &mut Link) -> Trust {
    tokio::time::timeout(PATIENCE, link.trusted.recv())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_runner_that_is_revoked_elsewhere_is_cut_with_a_stream_running() {
    let mut bench = bench();
    let (dialler, certificate) = bench.enrolled("r-1").await;
    let link = dialler.dial(&certificate).await;
    let runner = bench.listener.accept().await.unwrap();
    let mut events = runner.session("s-1".parse().unwrap()).events().await.unwrap();
    for _ in 0..10 {
        events.next().await.unwrap().unwrap();
    }
    let elsewhere = bench.elsewhere();
    let what = Revocable::Runner(dialler.name.clone());
    assert!(elsewhere.revoke(&what, Some("stolen".to_owned())).unwrap());
    let cut = async {
        loop {
            if let Err(error) = events.next().await.unwrap() {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, cut).await.unwrap();
    let mut causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    assert!(
        causes.any(|cause| cause.to_string() == "runner r-1 was revoked"),
        "{error:?}"
    );
    assert!(matches!(*runner.link().borrow(), LinkState::Revoked));
    let error = runner.sessions().await.unwrap_err();
    assert!(
        matches!(error, QueryError::Connect(ConnectError::Revoked { .. })),
        "{error:?}"
    );
    let closed = tokio::time::timeout(PATIENCE, link.quic.closed()).await.unwrap();
    assert!(closed.to_string().contains("revoked"), "{closed}");
    // It is not taken in again, dialled, enrolled, nor given a token; a second word on it changes nothing.
    let again = dialler.dial(&certificate).await;
    let closed = tokio::time::timeout(PATIENCE, again.quic.closed()).await.unwrap();
    assert!(closed.to_string().contains("revoked"), "{closed}");
    let at = RunnerAddr {
        id: dialler.name.clone(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9)),
    };
    let error = bench.control.connect(at).await.unwrap_err();
    assert!(matches!(error, ConnectError::Revoked { .. }), "{error:?}");
    let (token, _) = elsewhere.create_token(HOUR, None).unwrap();
    dialler.enrol(&token).await.unwrap_err();
    let error = elsewhere
        .create_token(HOUR, Some(dialler.name.clone()))
        .map(drop)
        .unwrap_err();
    assert!(matches!(error, TokenError::Revoked { .. }), "{error:?}");
    assert!(!elsewhere.revoke(&what, None).unwrap());
    assert_eq!(elsewhere.revoked().runners[0].reason.as_deref(), Some("stolen"));
}

#[tokio::test]
async fn a_link_that_this_control_dialled_is_cut_too_and_not_dialled_again() {
    let bench = bench();
    let runner = TestRunner::start(bench.control.authority(), |_, ask| match ask {
        Ask::Hello(_) => Reaction::Begin(welcome("r-1")),
        _ => Reaction::HangUp,
    });
    let connected = bench.control.connect(runner.at.clone()).await.unwrap();
    let mut link = connected.link();
    bench
        .elsewhere()
        .revoke(&Revocable::Runner("r-1".parse().unwrap()), None)
        .unwrap();
    let state = tokio::time::timeout(PATIENCE, link.wait_for(|state| !state.is_connected()));
    assert!(matches!(*state.await.unwrap().unwrap(), LinkState::Revoked));
    let error = connected.sessions().await.unwrap_err();
    assert!(
        matches!(error, QueryError::Connect(ConnectError::Revoked { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_serial_that_is_revoked_cuts_its_link_and_leaves_the_runner_its_next_certificate() {
    let mut bench = bench();
    let (dialler, certificate) = bench.enrolled("r-1").await;
    let link = dialler.dial(&certificate).await;
    let _runner = bench.listener.accept().await.unwrap();
    let authority = bench.control.authority();
    let serial = authority.issued().unwrap()[0].serial.clone();
    authority
        .revoke(&Revocable::Serial(serial.clone()), None)
        .unwrap();
    tokio::time::timeout(PATIENCE, link.quic.closed()).await.unwrap();
    let again = dialler.dial(&certificate).await;
    tokio::time::timeout(PATIENCE, again.quic.closed()).await.unwrap();
    let (token, _) = authority.create_token(HOUR, Some(dialler.name.clone())).unwrap();
    let grant = dialler.enrol(&token).await.unwrap();
    let mut link = dialler.dial(&grant.certificate.0).await;
    assert_eq!(bench.listener.accept().await.unwrap().id(), &dialler.name);
    let statement = read(&next(&mut link).await, &dialler.root);
    let bytes: Vec<String> = statement
        .revoked_serials
        .iter()
        .map(|Blob(bytes)| hex(bytes))
        .collect();
    assert_eq!(bytes, [serial.to_string()]);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn trust_statements_go_to_live_links_at_once_and_to_new_ones_first() {
    let mut bench = bench();
    let (dialler, certificate) = bench.enrolled("r-1").await;
    let mut link = dialler.dial(&certificate).await;
    let _runner = bench.listener.accept().await.unwrap();
    assert_eq!(bench.control.authority().trust_number(), 0);
    bench
        .elsewhere()
        .revoke(&Revocable::Control("web".parse().unwrap()), None)
        .unwrap();
    let first = next(&mut link).await;
    let statement = read(&first, &dialler.root);
    assert_eq!((statement.number, statement.revoked_controls.len()), (1, 1));
    assert_eq!(&statement.authority_id, bench.control.authority().id());
    // Byte for byte the same on the next link.
    let mut again = dialler.dial(&certificate).await;
    assert_eq!(next(&mut again).await, first);
    // And a control that was revoked gets no certificate any more.
    let options = Options::under(bench.dir.path().join("oqto")).control_id("web".parse().unwrap());
    let web = Control::open(options).unwrap();
    let at = RunnerAddr {
        id: dialler.name.clone(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9)),
    };
    let error = web.connect(at).await.unwrap_err();
    let mut causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    assert!(
        causes.any(|cause| cause.to_string() == "control web was revoked"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_rotation_keeps_the_name_and_locks_nobody_out() {
    let mut bench = bench();
    let (mut dialler, certificate) = bench.enrolled("r-1").await;
    let authority = bench.elsewhere();
    let (name, first_root) = (authority.id().clone(), authority.root());
    let next_root = authority.rotate().unwrap();
    assert_eq!(next_root.standing, Standing::Next);
    assert!(matches!(authority.rotate().unwrap_err(), RotateError::HasNext));
    // Nobody told the runner of it yet.
    let error = authority.switch(false).unwrap_err();
    assert!(
        matches!(&error, RotateError::LocksOut { runners, .. } if runners == &[dialler.name.clone()]),
        "{error:?}"
    );
    let mut link = dialler.dial(&certificate).await;
    let runner = bench.listener.accept().await.unwrap();
    let statement = read(&next(&mut link).await, &first_root);
    assert_eq!(statement.roots.len(), 2);
    // The listener has written down that the runner knows, as soon as the runner said so.
    let begun = Instant::now();
    while bench.control.authority().issued().unwrap()[0].told == 0 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(authority.switch(false).unwrap().id, next_root.id);
    let statement = read(
        &next(&mut link).await,
        &CertificateDer::from(statement.roots[1].0.clone()),
    );
    assert_eq!((statement.number, statement.roots.len()), (2, 2));
    // It still shows a certificate of the old root.
    let error = authority.drop_old(false).unwrap_err();
    assert!(matches!(&error, RotateError::LocksOut { .. }), "{error:?}");
    let renewed = dialler.renew(&link.quic).await.unwrap();
    assert_eq!((&renewed.authority_id, authority.id()), (&name, &name));
    assert_eq!(authority.drop_old(false).unwrap().len(), 1);
    assert_eq!(authority.roots().len(), 1);
    assert_eq!(
        read(&next(&mut link).await, &authority.root()).roots,
        [Blob(authority.root().to_vec())]
    );
    assert_eq!(runner.sessions().await.unwrap(), []);
    // With the new certificate and the new root it comes in; with the old certificate nobody does.
    dialler.root = authority.root();
    let _link = dialler.dial(&renewed.certificate.0).await;
    assert_eq!(runner.sessions().await.unwrap(), []);
    let refused = match dialler.connect(b"oqto/1", Some(&certificate)).await {
        Err(error) => error,
        Ok((_endpoint, quic)) => tokio::time::timeout(PATIENCE, quic.closed()).await.unwrap(),
    };
    assert!(refused.to_string().contains("aborted by peer"), "{refused}");
    assert!(
        authority.pin() != ""
            && Authority::open(&bench.dir.path().join("oqto/authority"))
                .unwrap()
                .id()
                == &name
    );
}

#[test]
fn what_is_decided_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(&dir.path().join("ca")).unwrap();
    authority
        .revoke(&Revocable::Runner("r-1".parse().unwrap()), None)
        .unwrap();
    authority.rotate().unwrap();
    authority.switch(false).unwrap();
    authority.drop_old(false).unwrap();
    let text = std::fs::read_to_string(dir.path().join("ca/audit.jsonl")).unwrap();
    let outcomes: Vec<Outcome> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<oqto_control::Record>(line)
                .unwrap()
                .outcome
        })
        .collect();
    let wanted = [
        Outcome::Revoked,
        Outcome::RootAdded,
        Outcome::RootSwitched,
        Outcome::RootDropped,
    ];
    assert_eq!(outcomes, wanted);
    assert_eq!(std::fs::read_dir(dir.path().join("ca/keys")).unwrap().count(), 1);
}

#[test]
fn the_audit_log_is_turned_over_by_size_and_has_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    let authority = Authority::open(&ca).unwrap();
    for number in 0..10 {
        let full = std::fs::File::create(ca.join("audit.jsonl")).unwrap();
        full.set_len(16 * 1024 * 1024).unwrap();
        let serial = format!("4{number}").parse().unwrap();
        authority.revoke(&Revocable::Serial(serial), None).unwrap();
        let text = std::fs::read_to_string(ca.join("audit.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(&format!(r#""serial":"4{number}""#)), "{text}");
    }
    let files = std::fs::read_dir(&ca)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let logs = files
        .filter(|name| name.to_str().unwrap().starts_with("audit"))
        .count();
    assert_eq!(logs, 8);
}

#[test]
fn a_serial_number_is_hex_digits_and_nothing_else() {
    assert_eq!("0A:ff".parse::<Serial>().unwrap().to_string(), "0aff");
    let long = "ab".repeat(21);
    for text in ["", ":", "a", "+a", "+a+b", "-1", "0x1f", "4g", " 4", "é", &long] {
        assert!(text.parse::<Serial>().is_err(), "{text:?}");
    }
}

#[test]
fn a_line_that_a_crash_has_torn_takes_no_other_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    let authority = Authority::open(&ca).unwrap();
    std::fs::write(ca.join("audit.jsonl"), "{\"at\":17").unwrap();
    for serial in ["4001", "4002"] {
        let serial = Revocable::Serial(serial.parse().unwrap());
        authority.revoke(&serial, None).unwrap();
    }
    let text = std::fs::read_to_string(ca.join("audit.jsonl")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("{\"at\":17"));
    let serials: Vec<_> = lines
        .map(|line| {
            let record: oqto_control::Record = serde_json::from_str(line).unwrap();
            record.serial.unwrap().to_string()
        })
        .collect();
    assert_eq!(serials, ["4001", "4002"]);
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_granted_and_not_decided() {
    let bench = bench();
    let authority = bench.control.authority();
    let (token, _) = authority.create_token(HOUR, None).unwrap();
    let log = bench.dir.path().join("oqto/authority/audit.jsonl");
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    let dialler = Dialler::new("r-1", authority, bench.listener.address());
    let fault = dialler.enrol(&token).await.unwrap_err();
    assert_eq!(fault.code, FaultCode::Storage, "{fault:?}");
    assert_eq!(authority.issued().unwrap(), []);
    authority
        .revoke(&Revocable::Runner("r-9".parse().unwrap()), None)
        .unwrap_err();
    assert_eq!(authority.trust_number(), 0);
    authority.create_token(HOUR, None).map(drop).unwrap_err();
    // The refusal was none that could be written down either; the next one says so.
    std::fs::remove_dir(&log).unwrap();
    let fault = dialler.enrol(&token).await.unwrap_err();
    assert_eq!(fault.code, FaultCode::Denied, "{fault:?}");
    let text = std::fs::read_to_string(&log).unwrap();
    let record: oqto_control::Record = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!((record.outcome, record.unwritten), (Outcome::Refused, 1));
}
