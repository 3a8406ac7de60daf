//! A runner that dials: it may listen too, or not at all.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use oqto_protocol::query::{Answer, Query};

use crate::authority::{Authority, HOUR, text};
use crate::control::{Answerer, Link, Listening, refused, renews, request};
use crate::runner::Place;

/// Enrols the runner of a place for `life`.
pub(crate) async fn enrolled(place: &Place, authority: &Arc<Authority>, name: &str, life: Duration) {
    let signer = authority.clone();
    let sells: Answerer = Arc::new(move |query| match &query {
        Query::Enrol(_) => Answer::Grant(signer.grant(request(&query), life)),
        _ => refused("this control enrols"),
    });
    let control = Listening::start(authority, authority.control("door"), sells);
    let more = ["--runner-id", name, "--again"];
    let ended = place
        .enrol(control.address, &authority.pin(), "oqto1-token", &more)
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn a_runner_that_does_not_listen_is_served_over_the_link_that_it_dials() {
    let authority = Arc::new(Authority::new("a"));
    let place = Place::new();
    enrolled(&place, &authority, "r-1", HOUR).await;
    let answer = renews(authority.clone(), HOUR);
    let mut control = Listening::start(&authority, authority.control("main"), answer);
    let at = control.address.to_string();
    let mut runner = place.serve(&["--listen", "none", "--dial", &at]);
    let link = control.next().await;
    assert_eq!(link.welcome.runner_id.as_str(), "r-1");
    assert_eq!(link.status().await.runner_id.as_str(), "r-1");
    assert!(!place.state().join("runner.json").exists());

    // It comes back, and again.
    for _ in 0..2 {
        link.connection.close(0_u8.into(), b"again");
        let link = control.next().await;
        link.status().await;
        link.connection.close(0_u8.into(), b"again");
    }
    control.next().await.status().await;
    runner.logs("dialling", 1).await;
    runner.stop().await;
}

#[tokio::test]
async fn a_runner_listens_and_dials_at_once_and_stops_in_good_order() {
    let authority = Arc::new(Authority::new("a"));
    let place = Place::new();
    enrolled(&place, &authority, "r-1", HOUR).await;
    let answer = renews(authority.clone(), HOUR);
    let mut first = Listening::start(&authority, authority.control("first"), answer.clone());
    let mut second = Listening::start(&authority, authority.control("second"), answer.clone());
    let (one, two) = (first.address.to_string(), second.address.to_string());
    let mut runner = place.serve(&["--dial", &one, "--dial", &two]);
    let at = runner.listening().await;
    let links = [
        first.next().await,
        second.next().await,
        Link::dial(&authority, authority.control("third"), at.address, "r-1", answer)
            .await
            .unwrap(),
    ];
    for link in &links {
        link.status().await;
    }
    runner.stop().await;
    for link in links {
        assert!(link.cut().await.contains("the runner is stopping"));
    }
}

#[tokio::test]
async fn a_control_that_comes_late_is_found() {
    let authority = Arc::new(Authority::new("a"));
    let place = Place::new();
    enrolled(&place, &authority, "r-1", HOUR).await;
    let answer = renews(authority.clone(), HOUR);
    let gone = Listening::start(&authority, authority.control("main"), answer.clone());
    let at = gone.address.to_string();
    gone.stop();
    drop(gone);
    let mut runner = place.serve(&["--listen", "none", "--dial", &at, "--log", "debug"]);
    runner.logs("no link to a control", 1).await;
    // Another one, under a name that resolves to two addresses of which one may be nobody's.
    runner.stop().await;
    let mut control = Listening::start(&authority, authority.control("main"), answer);
    let at = format!("localhost:{}", control.address.port());
    let runner = place.serve(&["--listen", "none", "--dial", &at]);
    control.next().await.status().await;
    runner.stop().await;
}

#[tokio::test]
async fn a_server_that_is_no_control_of_the_authority_is_not_talked_to() {
    let (ours, theirs) = (Arc::new(Authority::new("a")), Arc::new(Authority::new("a")));
    let place = Place::new();
    enrolled(&place, &ours, "r-1", HOUR).await;
    let names = |dns: &str, uri: &str| [rcgen::SanType::DnsName(text(dns)), rcgen::SanType::URI(text(uri))];
    let runner_names = names("r-2.runner.oqto.internal", "oqto://a/runner/r-2");
    let other_names = names("main.control.oqto.internal", "oqto://b/control/main");
    let two_names = names("main.control.oqto.internal", "oqto://a/control/other");
    for (papers, words) in [
        (theirs.control("main"), "invalid peer certificate"),
        (ours.papers(&runner_names, HOUR, None), "names no control"),
        (ours.papers(&other_names, HOUR, None), "of authority b"),
        (ours.papers(&two_names, HOUR, None), "not valid for name"),
    ] {
        let control = Listening::start(&ours, papers, renews(ours.clone(), HOUR));
        let at = control.address.to_string();
        let mut runner = place.serve(&["--listen", "none", "--dial", &at]);
        runner.logs(words, 1).await;
        assert!(!runner.log().contains("connected"));
        runner.stop().await;
    }
}

#[tokio::test]
async fn a_runner_that_neither_listens_nor_dials_does_not_start() {
    let authority = Arc::new(Authority::new("a"));
    let place = Place::new();
    enrolled(&place, &authority, "r-1", HOUR).await;
    let said = place.serve(&["--listen", "none"]).failed().await;
    assert!(said.contains("neither listens nor dials"), "{said}");
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 9)).to_string();
    let said = place.serve(&["--listen", "none", "--dial", &at, "--bootstrap"]);
    let said = said.failed().await;
    assert!(said.contains("--bootstrap"), "{said}");
}

#[tokio::test]
async fn a_control_whose_certificate_is_not_good_now_is_told_apart_by_its_clock() {
    let authority = Arc::new(Authority::new("a"));
    let place = Place::new();
    enrolled(&place, &authority, "r-1", HOUR).await;
    let mut runner = place.serve(&[]);
    let at = runner.listening().await.address;
    let names = [
        rcgen::SanType::DnsName(text("main.control.oqto.internal")),
        rcgen::SanType::URI(text("oqto://a/control/main")),
    ];
    let expired = authority.papers(&names, Duration::ZERO, None);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let answer = renews(authority.clone(), HOUR);
    let dialled = Link::dial(&authority, expired, at, "r-1", answer).await;
    assert!(dialled.err().unwrap().contains("expired"));
    // How long ago, as far as this host knows.
    runner.logs("clocks of the two hosts", 1).await;
    runner.logs("seconds ago", 1).await;
    runner.stop().await;
}
