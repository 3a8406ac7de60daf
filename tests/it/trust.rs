//! Revocation with the authority itself: who is revoked is cut off at once, whatever goes on.

use std::time::{Duration, Instant};

use oqto_control::{LinkState, Revocable};

use crate::far::{Far, PATIENCE, control, has_all, id};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is found by silence alone takes longer. How long it takes on a host that does nothing else is measured.
const AT_ONCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_control_that_is_revoked_is_cut_off_at_once_and_others_do_not_notice() {
    let mut far = Far::new(DAY);
    far.enrolled("web-1");
    let at = far.listening();
    let honest = far.control.connect(at.clone()).await.unwrap();
    let evil_control = control(&far.home, "evil", DAY);
    let evil = evil_control.connect(at.clone()).await.unwrap();
    let (session, mut watch) = far.talks(&honest, 100).await;
    let theirs = evil.session(session.id().clone());
    let mut reading = theirs.events().await.unwrap();
    reading.next().await.unwrap().unwrap();

    let revoked = Revocable::Control("evil".parse().unwrap());
    assert!(far.control.authority().revoke(&revoked, None).unwrap());
    let said = Instant::now();
    far.logs("control evil, or its certificate", 1).await;
    let took = said.elapsed();
    assert!(took < AT_ONCE, "{took:?}");
    evil_control.connect(at).await.unwrap_err();
    watch.rest().await;
    has_all(&watch, 100);
    evil_control.close().await;
    session.close().await.unwrap();
    far.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_revoked_is_cut_off_at_once_and_does_not_come_back() {
    let mut far = Far::new(DAY);
    far.enrolled("web-1");
    let runner = far.dialling().await;
    let (_session, _watch) = far.talks(&runner, 1000).await;
    let mut link = runner.link();
    let revoked = Revocable::Runner(id("web-1"));
    assert!(far.control.authority().revoke(&revoked, None).unwrap());
    let said = Instant::now();
    let gone = link.wait_for(|state| matches!(state, LinkState::Revoked));
    tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
    let took = said.elapsed();
    assert!(took < AT_ONCE, "{took:?}");
    far.logs("no link to a control", 1).await;
    let error = runner.status().await.unwrap_err();
    let said = format!("{error:?}");
    assert!(said.contains("Revoked"), "{said}");
    far.end().await;
}
