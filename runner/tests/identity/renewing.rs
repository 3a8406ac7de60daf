//! Renewal: a certificate of seconds, links that live for many of them.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use oqto_protocol::codec::Blob;
use oqto_protocol::query::Answer;

use crate::authority::{Authority, HOUR};
use crate::control::{Answerer, Link, Listening, PATIENCE, refused, renews, request};
use crate::dialling::enrolled;
use crate::runner::Place;

/// The life of a certificate that is renewed again and again: whole seconds are what a certificate has, so that it is up to
/// one of them less.
const LIFE: Duration = Duration::from_secs(6);

/// The shortest time from one renewal to the next: six tenths of the shortest life.
const RENEWED_MIN: Duration = Duration::from_secs(3);

/// Has the certificate that is kept taken so much earlier: it is due, or late, and still good for a while.
fn aged(place: &Place, by: Duration) {
    let path = place.identity("certificate.json");
    let mut kept: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let taken_at = kept["taken_at"].as_u64().unwrap();
    kept["taken_at"] = (taken_at - u64::try_from(by.as_millis()).unwrap()).into();
    fs::write(&path, kept.to_string()).unwrap();
}

/// When the certificate is given that is to outlive the test.
enum Last {
    Later,
    Next,
    Given(Blob),
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_lives_through_many_certificates_and_each_new_link_shows_the_newest() {
    let authority = Arc::new(Authority::new("a"));
    let place = Place::new();
    // The first is due at once and lives longer: on a busy host a runner takes its time to start.
    enrolled(&place, &authority, "r-1", LIFE * 2).await;
    aged(&place, LIFE * 10);
    let mut runner = place.serve(&[]);
    let at = runner.listening().await.address;
    let last = Arc::new(Mutex::new(Last::Later));
    let answer = {
        let (renews, long, last) = (
            renews(authority.clone(), LIFE),
            renews(authority.clone(), HOUR),
            last.clone(),
        );
        let answer: Answerer = Arc::new(move |query| {
            let mut last = last.lock().unwrap();
            if let Last::Later = *last {
                return renews(query);
            }
            let answer = long(query);
            if let Answer::Grant(grant) = &answer {
                *last = Last::Given(grant.certificate.clone());
            }
            answer
        });
        answer
    };
    let dial = || Link::dial(&authority, authority.control("main"), at, "r-1", answer.clone());
    let link = dial().await.unwrap();
    let begun = Instant::now();
    let mut shown = BTreeSet::new();
    while begun.elapsed() < LIFE * 3 {
        link.status().await;
        let fresh = dial().await.expect("a new link at any time");
        shown.insert(fresh.shown().to_vec());
        fresh.connection.close(0_u8.into(), b"seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    link.status().await;
    // Each lives two thirds of its life or a little less, and is not asked for more often than that.
    let most = 3 + begun.elapsed().as_millis() / RENEWED_MIN.as_millis();
    assert!(
        shown.len() >= 4 && shown.len() as u128 <= most,
        "{} certificates, {most} at most",
        shown.len()
    );
    assert_eq!(runner.log().matches("expired").count(), 0, "{}", runner.log());
    // What is kept is what the next runner shows.
    *last.lock().unwrap() = Last::Next;
    let kept = || {
        let text = fs::read_to_string(place.identity("certificate.json")).unwrap();
        let kept: serde_json::Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value::<Blob>(kept["certificate"].clone()).unwrap()
    };
    let renewed = async {
        loop {
            if let Last::Given(certificate) = &*last.lock().unwrap()
                && *certificate == kept()
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.unwrap();
    let kept = kept();
    runner.stop().await;
    let mut runner = place.serve(&[]);
    let at = runner.listening().await.address;
    let refuses: Answerer = Arc::new(|_| refused("this control signs nothing"));
    let link = Link::dial(&authority, authority.control("main"), at, "r-1", refuses);
    assert_eq!(Blob(link.await.unwrap().shown().to_vec()), kept);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_the_runner_dialled_renews_it_too() {
    let authority = Arc::new(Authority::new("a"));
    let place = Place::new();
    enrolled(&place, &authority, "r-1", LIFE * 2).await;
    aged(&place, LIFE * 10);
    let asked = Arc::new(AtomicU32::new(0));
    let (count, answer) = (asked.clone(), renews(authority.clone(), LIFE));
    let counts: Answerer = Arc::new(move |query| {
        count.fetch_add(1, Ordering::Relaxed);
        answer(query)
    });
    let mut control = Listening::start(&authority, authority.control("main"), counts);
    let target = control.address.to_string();
    let mut runner = place.serve(&["--listen", "none", "--dial", &target]);
    let link = control.next().await;
    runner.logs("certificate renewed", 3).await;
    link.status().await;
    // A link that is dialled now shows it.
    link.connection.close(0_u8.into(), b"again");
    let again = control.next().await;
    assert_ne!(again.shown(), link.shown());
    assert!(asked.load(Ordering::Relaxed) >= 3);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_no_improvement_is_not_taken_and_another_control_does_better() {
    let authority = Arc::new(Authority::new("a"));
    let other = Arc::new(Authority::new("a"));
    let place = Place::new();
    // Due at once, and good for long enough to be refused a few times.
    let ends = SystemTime::now() + LIFE * 2;
    enrolled(&place, &authority, "r-1", LIFE * 2).await;
    aged(&place, LIFE * 10);
    let kept = || fs::read_to_string(place.identity("certificate.json")).unwrap();
    let before = kept();

    let asked = AtomicU32::new(0);
    let signer = authority.clone();
    let answers_wrong: Answerer = Arc::new(move |query| match asked.fetch_add(1, Ordering::Relaxed) % 4 {
        0 => refused("no"),
        1 => {
            // It ends with the one that it would replace, or a little before.
            let left = ends.duration_since(SystemTime::now()).unwrap();
            Answer::Grant(signer.grant(request(&query), left))
        }
        2 => {
            // Of another root, which it says is to be trusted.
            let mut grant = other.grant(request(&query), HOUR);
            grant.trust.extend(signer.grant(request(&query), HOUR).trust);
            Answer::Grant(grant)
        }
        _ => {
            let mut request = request(&query).clone();
            request.runner_id = Some("r-2".parse().unwrap());
            Answer::Grant(signer.grant(&request, HOUR))
        }
    });
    let mut runner = place.serve(&["--log", "debug"]);
    let at = runner.listening().await.address;
    let bad = Link::dial(&authority, authority.control("bad"), at, "r-1", answers_wrong);
    let bad = bad.await.unwrap();
    runner.logs("certificate not renewed", 4).await;
    for words in [
        "refuses: no",
        "does not live longer",
        "not one of an authority",
        "names runner r-2",
    ] {
        assert!(runner.log().contains(words), "{words}: {}", runner.log());
    }
    assert_eq!(kept(), before);
    bad.status().await;

    let answer = renews(authority.clone(), HOUR);
    let good = Link::dial(&authority, authority.control("good"), at, "r-1", answer);
    let good = good.await.unwrap();
    runner.logs("certificate renewed", 1).await;
    // Of what a renewal says of roots nothing is kept.
    let of = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap()["trust"].clone();
    assert_eq!(of(kept()), of(before));
    good.status().await;
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_renews_links_stay_a_human_is_told_and_enrolling_anew_is_the_way_back() {
    let authority = Arc::new(Authority::new("a"));
    let place = Place::new();
    // It is late, and good for a while.
    enrolled(&place, &authority, "r-1", LIFE * 3 / 2).await;
    aged(&place, LIFE * 20);
    let mut runner = place.serve(&[]);
    let at = runner.listening().await.address;
    let refuses: Answerer = Arc::new(|_| refused("this control signs nothing"));
    let dial = || Link::dial(&authority, authority.control("main"), at, "r-1", refuses.clone());
    let link = dial().await.unwrap();
    runner
        .logs("no control that is connected has renewed it", 1)
        .await;
    runner.logs("expired", 1).await;
    let notes = link.status().await.notes;
    assert!(
        notes
            .iter()
            .any(|note| note.contains("oqto-runner enrol --again")),
        "{notes:?}"
    );
    // By the second that it names a certificate is good to its end.
    let error = loop {
        match dial().await {
            Ok(link) => link.connection.close(0_u8.into(), b"seen"),
            Err(error) => break error,
        }
    };
    assert!(error.contains("expired"), "{error}");

    enrolled(&place, &authority, "r-1", HOUR).await;
    runner.logs("enrolled anew", 1).await;
    let fresh = dial().await.unwrap();
    for link in [&link, &fresh] {
        assert_eq!(link.status().await.notes, Vec::<String>::new());
    }
    assert_eq!(
        runner.log().matches("the way back").count(),
        1,
        "{}",
        runner.log()
    );
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_has_expired_starts_and_says_the_way_back() {
    let authority = Arc::new(Authority::new("a"));
    let place = Place::new();
    // Long enough to be taken, whatever that waits for.
    enrolled(&place, &authority, "r-1", LIFE / 2).await;
    tokio::time::sleep(LIFE / 2 + Duration::from_millis(1100)).await;
    let mut runner = place.serve(&[]);
    runner.listening().await;
    runner.logs("oqtoctl token create --runner-id r-1", 1).await;
    // One that has expired needs no --again.
    let signer = authority.clone();
    let sells: Answerer = Arc::new(move |query| Answer::Grant(signer.grant(request(&query), HOUR)));
    let control = Listening::start(&authority, authority.control("door"), sells);
    let ended = place
        .enrol(control.address, &authority.pin(), "oqto1-token", &[])
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    runner.logs("enrolled anew", 1).await;
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_on_disk_that_is_damaged_or_of_somebody_else_changes_nothing() {
    let authority = Arc::new(Authority::new("a"));
    let place = Place::new();
    // It is late, so that it looks each second, and good for longer than this takes.
    enrolled(&place, &authority, "r-1", LIFE * 4).await;
    aged(&place, LIFE * 40);
    let mut runner = place.serve(&[]);
    let at = runner.listening().await.address;
    let refuses: Answerer = Arc::new(|_| refused("this control signs nothing"));
    let link = Link::dial(&authority, authority.control("main"), at, "r-1", refuses);
    let link = link.await.unwrap();
    runner
        .logs("no control that is connected has renewed it", 1)
        .await;
    let path = place.identity("certificate.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut kept: serde_json::Value = serde_json::from_str(&text).unwrap();
    kept["authority_id"] = "b".into();
    fs::write(&path, "{").unwrap();
    runner.logs("is not what this runner has written", 1).await;
    fs::write(&path, kept.to_string()).unwrap();
    runner.logs("of authority b", 1).await;
    kept["authority_id"] = "a".into();
    kept["certificate"] = serde_json::to_value(Blob(authority.root.to_vec())).unwrap();
    fs::write(&path, kept.to_string()).unwrap();
    runner.logs("for another key", 1).await;
    link.status().await;
    runner.stop().await;
}
