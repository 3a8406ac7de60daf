//! `enrol`: one token, one certificate, from the authority with the pin and from nobody else.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oqto_protocol::codec::Blob;
use oqto_protocol::enrol::Grant;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::query::{Answer, Query};
use rcgen::SanType;

use crate::authority::{Authority, HOUR, Papers, text};
use crate::control::{Answerer, Link, Listening, refused, renews, request};
use crate::runner::Place;

const TOKEN: &str = "oqto1-abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst";

/// Takes the token once, as a control does.
fn sells(authority: &Arc<Authority>, life: Duration) -> Answerer {
    let (authority, left) = (authority.clone(), Mutex::new(Some(TOKEN)));
    Arc::new(move |query| match &query {
        Query::Enrol(enrol) => {
            let mut left = left.lock().unwrap();
            if *left == Some(enrol.token.reveal()) {
                *left = None;
                Answer::Grant(authority.grant(request(&query), life))
            } else {
                refused("the token is not valid")
            }
        }
        other => panic!("a runner asked {other:?}"),
    })
}

/// Changes what an honest control would answer.
fn gives(authority: &Arc<Authority>, change: impl Fn(&mut Grant) + Send + Sync + 'static) -> Answerer {
    let authority = authority.clone();
    Arc::new(move |query| {
        let mut grant = authority.grant(request(&query), HOUR);
        change(&mut grant);
        Answer::Grant(grant)
    })
}

#[tokio::test]
async fn a_token_makes_a_runner_that_can_be_dialled() {
    let authority = Arc::new(Authority::new("a"));
    let control = Listening::start(&authority, authority.control("main"), sells(&authority, HOUR));
    let place = Place::new();
    let ended = place
        .enrol(
            control.address,
            &authority.pin(),
            &format!("{TOKEN}\n"),
            &["--runner-id", "web-1", "--json"],
        )
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (&said["runner_id"], &said["authority_id"]),
        (&"web-1".into(), &"a".into())
    );
    for name in ["key.pem", "certificate.json", "runner-id"] {
        let mode = fs::metadata(place.identity(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }

    let mut runner = place.serve(&[]);
    let at = runner.listening().await;
    assert_eq!(at.runner_id.as_str(), "web-1");
    let answer = renews(authority.clone(), HOUR);
    let link = Link::dial(&authority, authority.control("main"), at.address, "web-1", answer).await;
    let link = link.unwrap();
    assert_eq!(link.welcome.runner_id.as_str(), "web-1");
    assert_eq!(link.status().await.notes, Vec::<String>::new());
    // The token is in no file, and nothing of the key in any log.
    for entry in fs::read_dir(place.state().join("identity")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains(TOKEN));
    }
    drop(link);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_enrols_one_of_twenty_runners_that_come_at_once() {
    let authority = Arc::new(Authority::new("a"));
    let control = Listening::start(&authority, authority.control("main"), sells(&authority, HOUR));
    let (at, pin) = (control.address, authority.pin());
    let tries = (0..20).map(|_| {
        let pin = pin.clone();
        tokio::spawn(async move {
            let place = Place::new();
            let ended = place.enrol(at, &pin, TOKEN, &[]).await;
            (ended.code, place.identity("certificate.json").exists())
        })
    });
    let tries: Vec<_> = tries.collect();
    let mut codes = Vec::new();
    for ended in tries {
        codes.push(ended.await.unwrap());
    }
    codes.sort_unstable();
    let mut wanted = vec![(Some(1), false); 20];
    wanted[0] = (Some(0), true);
    assert_eq!(codes, wanted);
}

#[tokio::test]
async fn a_refused_token_leaves_no_certificate_and_says_what_to_do() {
    let authority = Arc::new(Authority::new("a"));
    let control = Listening::start(&authority, authority.control("main"), sells(&authority, HOUR));
    let place = Place::new();
    let ended = place
        .enrol(control.address, &authority.pin(), "oqto1-wrong", &[])
        .await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.err.contains("oqtoctl token create --runner-id r-"),
        "{ended:?}"
    );
    assert!(!ended.err.contains("oqto1-wrong"), "{ended:?}");
    assert!(!place.identity("certificate.json").exists());
    assert!(
        place
            .serve(&[])
            .failed()
            .await
            .contains("oqto-runner enrol --help")
    );
    // It had no name that anybody knows: another is as good.
    let more = ["--runner-id", "web-1"];
    let ended = place.enrol(control.address, &authority.pin(), TOKEN, &more).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // Now it has one.
    let more = ["--runner-id", "web-2", "--again"];
    let ended = place.enrol(control.address, &authority.pin(), TOKEN, &more).await;
    assert_eq!(ended.code, Some(125), "{ended:?}");
    assert!(ended.err.contains("this runner is web-1 already"), "{ended:?}");
}

#[tokio::test]
async fn who_does_not_have_the_pin_never_sees_the_token() {
    let (ours, theirs) = (Arc::new(Authority::new("a")), Arc::new(Authority::new("a")));
    let seen = Arc::new(AtomicU32::new(0));
    let count = seen.clone();
    let hears: Answerer = Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        refused("heard")
    });
    // Another authority under the same name; one that shows our root behind a certificate of its own; one that shows no root;
    // and our own authority's certificate for a runner.
    let mut borrowed = theirs.control("main");
    borrowed.chain[1] = ours.root.clone();
    let mut bare = ours.control("main");
    bare.chain.truncate(1);
    let names = [
        SanType::DnsName(text("r-1.runner.oqto.internal")),
        SanType::URI(text("oqto://a/runner/r-1")),
    ];
    let expired = [
        SanType::DnsName(text("main.control.oqto.internal")),
        SanType::URI(text("oqto://a/control/main")),
    ];
    let cases: Vec<(&str, Papers, i32, String)> = vec![
        ("other", theirs.control("main"), 4, theirs.pin()),
        ("borrowed", borrowed, 4, "BadSignature".to_owned()),
        ("bare", bare, 4, "no root".to_owned()),
        (
            "runner",
            ours.papers(&names, HOUR, None),
            4,
            "names no control".to_owned(),
        ),
        (
            "expired",
            ours.papers(&expired, Duration::ZERO, None),
            4,
            "clocks of the two hosts".to_owned(),
        ),
    ];
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for (case, papers, code, words) in cases {
        let control = Listening::start(&ours, papers, hears.clone());
        let place = Place::new();
        let ended = place.enrol(control.address, &ours.pin(), TOKEN, &[]).await;
        assert_eq!(ended.code, Some(code), "{case}: {ended:?}");
        assert!(ended.err.contains(&words), "{case}: {words} is not in {ended:?}");
        assert!(!place.identity("certificate.json").exists(), "{case}");
    }
    assert_eq!(seen.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_certificate_that_is_not_for_this_runner_is_not_kept() {
    let authority = Arc::new(Authority::new("a"));
    let other = Arc::new(Authority::new("a"));
    let (root, stranger) = (other.root.to_vec(), other.clone());
    let cases: Vec<(&str, Answerer)> = vec![
        (
            "names runner r-9",
            gives(&authority, |grant| grant.runner_id = "r-9".parse().unwrap()),
        ),
        (
            "authority b",
            gives(&authority, |grant| grant.authority_id = "b".parse().unwrap()),
        ),
        (
            "has the pin",
            gives(&authority, move |grant| grant.trust = vec![Blob(root.clone())]),
        ),
        ("0 roots", gives(&authority, |grant| grant.trust.clear())),
        (
            "9 roots",
            gives(&authority, |grant| grant.trust = vec![grant.trust[0].clone(); 9]),
        ),
        (
            "malformed",
            gives(&authority, |grant| grant.certificate.0.truncate(100)),
        ),
        // Of a root that came along, and that nobody vouches for with his signature.
        ("not one of an authority", {
            let authority = authority.clone();
            Arc::new(move |query| {
                let trust = authority.grant(request(&query), HOUR).trust;
                let mut grant = stranger.grant(request(&query), HOUR);
                grant.trust = trust;
                Answer::Grant(grant)
            })
        }),
        // And of one that came beside the one with the pin.
        ("not one of an authority", {
            let (authority, stranger) = (authority.clone(), other.clone());
            Arc::new(move |query| {
                let ours = authority.grant(request(&query), HOUR).trust;
                let mut grant = stranger.grant(request(&query), HOUR);
                grant.trust.splice(0..0, ours);
                Answer::Grant(grant)
            })
        }),
        ("another key", {
            let authority = authority.clone();
            let theirs = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            Arc::new(move |query| {
                let mut request = request(&query).clone();
                request.public_key = Blob(theirs.public_key_raw().to_vec());
                Answer::Grant(authority.grant(&request, HOUR))
            })
        }),
    ];
    for (words, answer) in cases {
        let control = Listening::start(&authority, authority.control("main"), answer);
        let place = Place::new();
        let ended = place.enrol(control.address, &authority.pin(), TOKEN, &[]).await;
        assert_eq!(ended.code, Some(125), "{words}: {ended:?}");
        assert!(ended.err.contains(words), "{words} is not in {ended:?}");
        assert!(!place.identity("certificate.json").exists(), "{words}");
    }
}

#[tokio::test]
async fn of_the_roots_that_come_with_a_certificate_the_one_with_the_pin_counts_alone() {
    let (authority, thief) = (Arc::new(Authority::new("a")), Arc::new(Authority::new("a")));
    let root = Blob(thief.root.to_vec());
    let answer = gives(&authority, move |grant| grant.trust.push(root.clone()));
    let control = Listening::start(&authority, authority.control("main"), answer);
    let place = Place::new();
    let ended = place.enrol(control.address, &authority.pin(), TOKEN, &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mut runner = place.serve(&[]);
    let at = runner.listening().await;
    let name = at.runner_id.as_str();
    let answer = renews(authority.clone(), HOUR);
    let dial = |papers| Link::dial(&authority, papers, at.address, name, answer.clone());
    assert!(dial(thief.control("main")).await.is_err());
    drop(dial(authority.control("main")).await.unwrap());
    runner.stop().await;
}

#[tokio::test]
async fn what_a_peer_says_moves_no_cursor_on_a_humans_terminal() {
    let authority = Arc::new(Authority::new("a"));
    let says: Answerer = Arc::new(|_| {
        let words = "later\u{1b}]0;owned\u{7}\r\u{9b}2J\u{202e}retal";
        Answer::Fault(Fault::new(FaultCode::Busy, words))
    });
    let control = Listening::start(&authority, authority.control("main"), says);
    let place = Place::new();
    let ended = place.enrol(control.address, &authority.pin(), TOKEN, &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.err.contains("later") && ended.err.contains("retal"),
        "{ended:?}"
    );
    for bad in ['\u{1b}', '\u{7}', '\r', '\u{9b}', '\u{202e}'] {
        assert!(!ended.err.contains(bad), "{bad:?}: {ended:?}");
    }
}

#[tokio::test]
async fn where_nobody_enrols_it_says_so() {
    let authority = Arc::new(Authority::new("a"));
    let place = Place::new();
    // A port where a runner listens, and so no enrolment.
    let control = Listening::start(&authority, authority.control("main"), sells(&authority, HOUR));
    let ended = place.enrol(control.address, &authority.pin(), TOKEN, &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mut runner = place.serve(&[]);
    let at = runner.listening().await;
    let ended = Place::new().enrol(at.address, &authority.pin(), TOKEN, &[]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.err.contains("enrols nobody"), "{ended:?}");
    runner.stop().await;
    // A port that nobody answers at.
    let silent = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let at = silent.local_addr().unwrap();
    let ended = Place::new().enrol(at, &authority.pin(), TOKEN, &[]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended.err.contains("oqtoctl listen") && ended.err.contains("UDP"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn words_that_mean_nothing_are_refused_before_anything_is_made() {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    for (pin, token) in [("sha256:12", TOKEN), ("md5:00", TOKEN)] {
        let place = Place::new();
        let ended = place.enrol(at, pin, token, &[]).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(!place.state().exists());
    }
    let place = Place::new();
    let ended = place
        .enrol(at, &Authority::new("a").pin(), "two words", &[])
        .await;
    assert_eq!(ended.code, Some(125), "{ended:?}");
    assert!(
        ended.err.contains("holds no token") && !place.state().exists(),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_runner_that_is_enrolled_is_enrolled_again_only_when_it_is_asked_to() {
    let authority = Arc::new(Authority::new("a"));
    let control = Listening::start(&authority, authority.control("main"), sells(&authority, HOUR));
    let again = Listening::start(&authority, authority.control("main"), sells(&authority, HOUR * 2));
    let place = Place::new();
    let pin = authority.pin();
    assert_eq!(place.enrol(control.address, &pin, TOKEN, &[]).await.code, Some(0));
    let read = |name| fs::read_to_string(place.identity(name)).unwrap();
    let before = (read("key.pem"), read("runner-id"), read("certificate.json"));
    let ended = place.enrol(again.address, &pin, TOKEN, &[]).await;
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.err.contains("--again"), "{ended:?}");
    assert_eq!(read("certificate.json"), before.2);

    // One that runs takes it while links stand.
    let mut runner = place.serve(&[]);
    let at = runner.listening().await;
    let name = at.runner_id.as_str();
    let answer = renews(authority.clone(), HOUR);
    let dial = || {
        Link::dial(
            &authority,
            authority.control("main"),
            at.address,
            name,
            answer.clone(),
        )
    };
    let link = dial().await.unwrap();
    let ended = place.enrol(again.address, &pin, TOKEN, &["--again"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let after = (read("key.pem"), read("runner-id"), read("certificate.json"));
    assert_eq!((&before.0, &before.1), (&after.0, &after.1));
    assert_ne!(before.2, after.2);
    runner.logs("enrolled anew", 1).await;
    assert_ne!(dial().await.unwrap().shown(), link.shown());
    link.status().await;
    drop(link);
    runner.stop().await;

    let serials: BTreeSet<_> = [before.2, after.2].into();
    assert_eq!(serials.len(), 2);
}
