//! Runners that dial: who gets a first certificate, who a new one, who is taken in.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use oqto_control::protocol::codec::Blob;
use oqto_control::protocol::enrol::Token;
use oqto_control::protocol::fault::FaultCode;
use oqto_control::protocol::query::{Query, RunnerStatus};
use oqto_control::protocol::version::{ALPN, ALPN_ENROL};
use oqto_control::{Authority, Control, ListenOptions, Listener, Options, Outcome, TokenError};
use quinn::{ConnectionError, TransportErrorCode};
use tempfile::TempDir;

use crate::dialler::{Dialler, PATIENCE, ask, ask_raw, granted};

const HOUR: Duration = Duration::from_secs(3600);

struct Bench {
    dir: TempDir,
    control: Control,
    listener: Listener,
}

/// Milliseconds since 1970.
fn now_ms() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_millis()
}

fn bench() -> Bench {
    bench_with(|options| options)
}

fn bench_with(change: impl FnOnce(Options) -> Options) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(change(Options::under(dir.path().join("oqto")))).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = control.listen(ListenOptions { address }).unwrap();
    Bench {
        dir,
        control,
        listener,
    }
}

impl Bench {
    fn authority(&self) -> &Authority {
        self.control.authority()
    }

    fn dialler(&self, name: &str) -> Dialler {
        Dialler::new(name, self.authority(), self.listener.address())
    }

    fn token(&self) -> Token {
        self.authority().create_token(HOUR, None).unwrap().0
    }

    /// The lines of the audit log.
    fn audit(&self) -> Vec<oqto_control::Record> {
        let text = fs::read_to_string(self.dir.path().join("oqto/authority/audit.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn a_token_buys_one_certificate_and_with_it_a_runner_dials_in() {
    let mut bench = bench();
    let mut records = bench.control.records();
    let dialler = bench.dialler("r-1");
    let (token, info) = bench.authority().create_token(HOUR, None).unwrap();
    assert!(
        token.reveal().starts_with("oqto1-") && token.reveal().len() == 58,
        "{info:?}"
    );
    let grant = dialler.enrol(&token).await.unwrap();
    assert_eq!(
        (&grant.runner_id, &grant.authority_id),
        (&dialler.name, bench.authority().id())
    );
    assert_eq!(grant.trust, [Blob(bench.authority().root().to_vec())]);
    let link = dialler.dial(&grant.certificate.0).await;
    let runner = bench.listener.accept().await.unwrap();
    assert_eq!(runner.id(), &dialler.name);
    assert_eq!(runner.sessions().await.unwrap(), []);
    let told = records.recv().await.unwrap();
    assert_eq!(
        (told.outcome, told.token.as_ref()),
        (Outcome::Enrolled, Some(&info.id))
    );
    assert!(bench.authority().tokens().unwrap().is_empty());
    // The token itself stands nowhere.
    for file in ["audit.jsonl", "authority.json"] {
        let text = fs::read_to_string(bench.dir.path().join("oqto/authority").join(file)).unwrap();
        assert!(!text.contains(token.reveal()), "{file}");
    }
    drop(link);
}

#[tokio::test]
async fn an_address_that_nobody_listens_at_any_more_is_free_again() {
    let Bench {
        dir,
        control,
        listener,
    } = bench();
    let address = listener.address();
    control.listen(ListenOptions { address }).unwrap_err();
    drop(listener);
    let begun = Instant::now();
    // The socket goes with the tasks that hold it.
    let listener = loop {
        match control.listen(ListenOptions { address }) {
            Ok(listener) => break listener,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let mut bench = Bench {
        dir,
        control,
        listener,
    };
    let dialler = bench.dialler("r-1");
    let grant = dialler.enrol(&bench.token()).await.unwrap();
    let _link = dialler.dial(&grant.certificate.0).await;
    assert_eq!(bench.listener.accept().await.unwrap().id(), &dialler.name);
    bench.control.close().await;
    assert!(bench.listener.accept().await.is_none());
}

#[tokio::test]
async fn a_runner_that_comes_again_goes_on_under_the_handle_that_it_had() {
    let mut bench = bench();
    let dialler = bench.dialler("r-1");
    let grant = dialler.enrol(&bench.token()).await.unwrap();
    let first = dialler.dial(&grant.certificate.0).await;
    let runner = bench.listener.accept().await.unwrap();
    let mut link = runner.link();
    first.quic.close(0_u32.into(), b"");
    link.wait_for(|state| !state.is_connected()).await.unwrap();
    // Who asks meanwhile waits until it comes.
    let asking = tokio::spawn({
        let runner = runner.clone();
        async move { runner.sessions().await.map_err(|error| error.to_string()) }
    });
    let second = dialler.dial(&grant.certificate.0).await;
    assert_eq!(asking.await.unwrap().unwrap(), []);
    // Its third link replaces the second.
    let _third = dialler.dial(&grant.certificate.0).await;
    tokio::time::timeout(PATIENCE, second.quic.closed())
        .await
        .unwrap();
    assert_eq!(runner.sessions().await.unwrap(), []);
    // It came to the listener once.
    let other = bench.dialler("r-2");
    let grant = other.enrol(&bench.token()).await.unwrap();
    let _link = other.dial(&grant.certificate.0).await;
    assert_eq!(bench.listener.accept().await.unwrap().id(), &other.name);
}

#[tokio::test]
async fn tokens_that_buy_nothing_are_refused_with_the_same_bytes_and_written_down() {
    let bench = bench();
    let authority = bench.authority();
    let dialler = bench.dialler("r-1");
    let used = bench.token();
    dialler.enrol(&used).await.unwrap();
    let (expired, info) = authority.create_token(Duration::from_secs(1), None).unwrap();
    let (for_another, _) = authority
        .create_token(HOUR, Some("r-2".parse().unwrap()))
        .unwrap();
    let (revoked, taken_back) = authority.create_token(HOUR, None).unwrap();
    authority.revoke_token(&taken_back.id).unwrap();
    let mut mistyped = bench.token().reveal().to_owned();
    let last = if mistyped.pop() == Some('a') { 'b' } else { 'a' };
    mistyped.push(last);
    let mistyped = Token::new(mistyped);
    let thief = Dialler::new("r-1", authority, bench.listener.address());
    while now_ms() <= u128::from(info.expires_at) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let table = [
        (&dialler, used, "the token was used before"),
        (&dialler, expired, "the token has expired"),
        (&dialler, for_another, "the token is for another runner"),
        (&dialler, revoked, "no such token"),
        (&dialler, mistyped, "no such token"),
        (&dialler, Token::new(String::new()), "no such token"),
        // Somebody else's good token does not buy the name that another key has.
        (
            &thief,
            bench.token(),
            "the name belongs to another key; a token made with --runner-id gives it away",
        ),
    ];
    let before = bench.audit().len();
    for (dialler, token, reason) in &table {
        let fault = dialler.enrol(token).await.unwrap_err();
        assert_eq!(
            (fault.code, fault.message.as_str()),
            (FaultCode::Denied, "the token is not valid"),
            "{reason}"
        );
    }
    let written = bench.audit().split_off(before);
    assert_eq!(written.len(), table.len());
    for (record, (_, token, reason)) in written.iter().zip(&table) {
        assert_eq!(
            (record.outcome, record.reason.as_deref()),
            (Outcome::Refused, Some(*reason))
        );
        assert_eq!(record.address, Some(Ipv4Addr::LOCALHOST.into()));
        assert!(token.reveal().is_empty() || !format!("{record:?}").contains(token.reveal()));
    }
}

#[tokio::test]
async fn a_used_token_stays_used_when_its_file_comes_back_from_a_backup() {
    let bench = bench();
    let tokens = bench.dir.path().join("oqto/authority/tokens");
    let token = bench.token();
    let open = fs::read_dir(&tokens).unwrap().next().unwrap().unwrap().path();
    let backup = fs::read(&open).unwrap();
    bench.dialler("r-1").enrol(&token).await.unwrap();
    fs::write(&open, backup).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o600)).unwrap();
    let fault = bench.dialler("r-2").enrol(&token).await.unwrap_err();
    assert_eq!(fault.message, "the token is not valid");
    let last = bench.audit().pop().unwrap();
    assert_eq!(last.reason.as_deref(), Some("the token was used before"));
    assert!(bench.authority().tokens().unwrap().is_empty());
}

#[tokio::test]
async fn a_token_for_a_runner_gives_its_name_to_another_key() {
    let bench = bench();
    let dialler = bench.dialler("r-1");
    let first = dialler.enrol(&bench.token()).await.unwrap();
    let anew = bench.dialler("r-1");
    let (token, _) = bench
        .authority()
        .create_token(HOUR, Some(anew.name.clone()))
        .unwrap();
    anew.enrol(&token).await.unwrap();
    // Whoever has the old key still has its certificate until it ends, and no new one.
    let link = dialler.dial(&first.certificate.0).await;
    let fault = dialler.renew(&link.quic).await.unwrap_err();
    assert_eq!(fault.code, FaultCode::Denied, "{fault:?}");
}

#[tokio::test]
async fn of_many_that_use_one_token_at_once_one_gets_a_certificate() {
    let bench = bench();
    // Another process is another opening of the same directory: it shares nothing but the disk.
    let other = Control::open(Options::under(bench.dir.path().join("oqto"))).unwrap();
    let listener = other
        .listen(ListenOptions {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        })
        .unwrap();
    for round in 0..3 {
        let token = Arc::new(bench.token());
        let asking: Vec<_> = (0..6)
            .map(|number| {
                let mut dialler = bench.dialler(&format!("r-{round}-{number}"));
                if number % 2 == 1 {
                    dialler.server = listener.address();
                }
                let token = Arc::clone(&token);
                tokio::spawn(async move { dialler.enrol(&token).await.is_ok() })
            })
            .collect();
        let mut granted = 0;
        for asked in asking {
            granted += usize::from(asked.await.unwrap());
        }
        assert_eq!(granted, 1);
    }
    let enrolled = bench
        .audit()
        .iter()
        .filter(|record| record.outcome == Outcome::Enrolled)
        .count();
    assert_eq!(enrolled, 3);
}

#[tokio::test]
async fn an_address_that_fails_often_is_not_listened_to_and_its_refusals_are_counted() {
    let mut bench = bench();
    let dialler = bench.dialler("r-1");
    let forged = Token::new(format!("oqto1-{}", "a".repeat(52)));
    let begun = Instant::now();
    let mut denied = 0;
    let mut until_busy = async || loop {
        match dialler.enrol(&forged).await.unwrap_err().code {
            FaultCode::Denied => denied += 1,
            code => break assert_eq!(code, FaultCode::Busy),
        }
    };
    until_busy().await;
    // A good token of the same address waits too, and is not used up; unless the next five seconds begin just then.
    let mut tries = 0;
    loop {
        let token = bench.token();
        until_busy().await;
        match dialler.enrol(&token).await {
            Err(fault) => break assert_eq!(fault.code, FaultCode::Busy),
            Ok(_) => tries += 1,
        }
        assert!(tries < 3, "a good token is not held up");
    }
    // Eight at once, and one more for each five seconds that this has taken.
    let more = usize::try_from(begun.elapsed().as_secs() / 5).unwrap();
    assert!((8..=8 + more).contains(&denied), "{denied} and {more}");
    assert_eq!(bench.authority().tokens().unwrap().len(), 1);
    let refused = bench
        .audit()
        .iter()
        .filter(|record| record.outcome == Outcome::Refused)
        .count();
    assert_eq!(refused, denied);
    // Runners with a certificate come in all the same.
    let grant = bench
        .authority()
        .sign(&dialler.request(), &dialler.name, HOUR)
        .unwrap();
    let _link = dialler.dial(&grant.certificate.0).await;
    assert_eq!(bench.listener.accept().await.unwrap().id(), &dialler.name);
}

#[tokio::test]
async fn who_has_no_certificate_may_enrol_and_nothing_else() {
    let mut bench = bench();
    let dialler = bench.dialler("r-1");
    let (_endpoint, quic) = dialler.connect(ALPN_ENROL, None).await.unwrap();
    let fault = granted(ask(&quic, &Query::RunnerStatus(RunnerStatus {})).await.unwrap()).unwrap_err();
    assert_eq!(fault.code, FaultCode::Unsupported);
    for bytes in [
        &b"\xff\xff\xff\x7f\x12\x00"[..],
        b"\x02\x00\x00\x00\x63\x00",
        b"\x09\x00\x00\x00\x12\x00zzzzzzz",
        b"",
    ] {
        let (_endpoint, quic) = dialler.connect(ALPN_ENROL, None).await.unwrap();
        assert_eq!(ask_raw(&quic, bytes).await, None);
        tokio::time::timeout(PATIENCE, quic.closed()).await.unwrap();
    }
    // As a runner it is turned away.
    let (_endpoint, quic) = dialler.connect(ALPN, None).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, quic.closed()).await.unwrap();
    assert!(closed.to_string().contains("no certificate"), "{closed}");
    let other = Authority::open(&bench.dir.path().join("other")).unwrap();
    let foreign = other.sign(&dialler.request(), &dialler.name, HOUR).unwrap();
    let refused = match dialler.connect(ALPN, Some(&foreign.certificate.0)).await {
        Err(error) => error,
        Ok((_endpoint, quic)) => tokio::time::timeout(PATIENCE, quic.closed()).await.unwrap(),
    };
    assert!(refused.to_string().contains("aborted by peer"), "{refused}");
    // And who comes after them is taken in.
    let good = bench.dialler("r-2");
    let grant = good.enrol(&bench.token()).await.unwrap();
    let _link = good.dial(&grant.certificate.0).await;
    assert_eq!(bench.listener.accept().await.unwrap().id(), &good.name);
}

#[tokio::test]
async fn silent_strangers_of_one_address_leave_room_for_others() {
    let mut bench = bench();
    let stranger = Arc::new(bench.dialler("r-1"));
    let connecting: Vec<_> = (0..180)
        .map(|_| {
            let stranger = Arc::clone(&stranger);
            tokio::spawn(async move { stranger.connect(ALPN_ENROL, None).await })
        })
        .collect();
    let (mut silent, mut slow, mut refused) = (Vec::new(), 0, 0);
    for connected in connecting {
        match connected.await.unwrap() {
            Ok(held) => silent.push(held),
            Err(ConnectionError::ConnectionClosed(close))
                if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                refused += 1;
            }
            // It had a place, and its time ran out before its handshake was done.
            Err(_) => slow += 1,
        }
    }
    // Half of the places are for whoever comes first; of the rest no address gets more than its share.
    let taken_in = silent.len() + slow;
    assert!(taken_in >= 128 && refused > 0, "{taken_in} and {refused}");
    let mut honest = bench.dialler("r-2");
    honest.from = Ipv4Addr::new(127, 0, 0, 2);
    let grant = honest.enrol(&bench.token()).await.unwrap();
    let _link = honest.dial(&grant.certificate.0).await;
    assert_eq!(bench.listener.accept().await.unwrap().id(), &honest.name);
    // And who says nothing is hung up on.
    let (_endpoint, quic) = silent.swap_remove(0);
    tokio::time::timeout(PATIENCE, quic.closed()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_on_a_live_link_for_its_own_key_and_name_alone() {
    let mut bench = bench_with(|options| options.runner_life(HOUR));
    let dialler = bench.dialler("r-1");
    let ends = || now_ms() + HOUR.as_millis();
    let token = bench.token();
    let before = ends();
    let first = dialler.enrol(&token).await.unwrap();
    assert!((before..=ends()).contains(&u128::from(first.not_after)));
    let link = dialler.dial(&first.certificate.0).await;
    let _runner = bench.listener.accept().await.unwrap();
    let before = ends();
    let second = dialler.renew(&link.quic).await.unwrap();
    assert_eq!(second.runner_id, dialler.name);
    assert_ne!(second.certificate, first.certificate);
    assert!((before..=ends()).contains(&u128::from(second.not_after)));
    let issued = bench.authority().issued().unwrap();
    assert_eq!((issued.len(), issued[0].not_after), (1, second.not_after));
    // Another key, and another name.
    let stranger = bench.dialler("r-1");
    let fault = stranger.renew(&link.quic).await.unwrap_err();
    assert!(fault.message.contains("another key"), "{fault:?}");
    let mut renamed = bench.dialler("r-2");
    renamed.key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
        &dialler.key.serialize_der().as_slice().into(),
        &rcgen::PKCS_ECDSA_P256_SHA256,
    )
    .unwrap();
    let fault = renamed.renew(&link.quic).await.unwrap_err();
    assert!(fault.message.contains("another runner"), "{fault:?}");
    // Nothing else is answered there, and not without end.
    let fault = granted(
        ask(&link.quic, &Query::RunnerStatus(RunnerStatus {}))
            .await
            .unwrap(),
    )
    .unwrap_err();
    assert_eq!(fault.code, FaultCode::Unsupported);
    // Any question uses up what renewals may: a second gives one back, and a renewal may take that on a slow disk.
    let mut last = Ok(());
    for _ in 0..100 {
        for _ in 0..8 {
            ask(&link.quic, &Query::RunnerStatus(RunnerStatus {}))
                .await
                .unwrap();
        }
        last = dialler
            .renew(&link.quic)
            .await
            .map(drop)
            .map_err(|fault| fault.code);
        if last.is_err() {
            break;
        }
    }
    assert_eq!(last, Err(FaultCode::Limit));
}

#[test]
fn a_token_lives_within_bounds_and_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(&dir.path().join("ca")).unwrap();
    for life in [Duration::ZERO, Duration::from_secs(30 * 24 * 3600)] {
        let error = authority
            .create_token(life, None)
            .map(|(_, info)| info)
            .unwrap_err();
        assert!(matches!(error, TokenError::Life), "{error:?}");
    }
    let (token, info) = authority
        .create_token(HOUR, Some("r-1".parse().unwrap()))
        .unwrap();
    assert!(!format!("{token:?}").contains(token.reveal()));
    assert_eq!(authority.tokens().unwrap(), std::slice::from_ref(&info));
    let files: Vec<_> = fs::read_dir(dir.path().join("ca/tokens"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    assert_eq!(files.len(), 1);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(
        !fs::read_to_string(files[0].path())
            .unwrap()
            .contains(token.reveal())
    );
    authority.revoke_token(&info.id).unwrap();
    assert!(matches!(
        authority.revoke_token(&info.id).unwrap_err(),
        TokenError::None { .. }
    ));
}
