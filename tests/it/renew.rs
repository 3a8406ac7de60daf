//! Certificates of seconds under streams that never stop.

use std::time::Duration;

use oqto_tests::wait_until;

use crate::far::{Far, PATIENCE, control, has_all};

/// The life of a certificate: the last third of it, in which it is renewed, is enough for a busy host.
const LIFE: Duration = Duration::from_secs(8);

/// Lines of a talk that lasts more than two lives.
const LINES: usize = 1000;

/// How often a certificate is renewed in that time: when two thirds of its life are over.
const RENEWALS: usize = 3;

/// How often a link was lost.
fn lost(far: &Far) -> usize {
    far.log().matches("disconnected").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_through_many_certificates_of_a_runner_that_is_dialled() {
    let mut far = Far::new(LIFE);
    far.enrolled("web-1");
    let at = far.listening();
    let runner = far.control.connect(at.clone()).await.unwrap();
    let (session, mut watch) = far.talks(&runner, LINES).await;
    watch.rest().await;
    has_all(&watch, LINES);
    let renewed = far.log().matches("certificate renewed").count();
    assert!(renewed >= RENEWALS, "{renewed}: {}", far.log());
    assert_eq!(lost(&far), 0, "{}", far.log());
    // New links work at any time.
    let fresh = control(&far.home, "fresh", LIFE);
    let again = fresh.connect(at).await.unwrap();
    // A renewal that is late is a note while it is.
    let noteless = async { while !again.status().await.unwrap().notes.is_empty() {} };
    tokio::time::timeout(PATIENCE, noteless).await.unwrap();
    fresh.close().await;
    session.close().await.unwrap();
    far.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_through_many_certificates_of_a_runner_that_dials() {
    let mut far = Far::new(LIFE);
    far.enrolled("web-1");
    let runner = far.dialling().await;
    let (session, mut watch) = far.talks(&runner, LINES).await;
    watch.rest().await;
    has_all(&watch, LINES);
    let renewed = far.log().matches("certificate renewed").count();
    assert!(renewed >= RENEWALS, "{renewed}: {}", far.log());
    assert_eq!(lost(&far), 0, "{}", far.log());
    session.close().await.unwrap();
    far.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_rotated_under_a_stream_and_the_runner_comes_along() {
    let mut far = Far::new(LIFE);
    far.enrolled("web-1");
    let at = far.listening();
    let runner = far.control.connect(at.clone()).await.unwrap();
    let (session, mut watch) = far.talks(&runner, LINES / 2).await;
    let authority = far.control.authority();
    let old = authority.pin();
    authority.rotate().unwrap();
    far.logs("learnt whom to trust", 1).await;
    wait_until("the runner to be told", || authority.switch(false).ok());
    assert_ne!(authority.pin(), old);
    // Refused until the runner has a certificate of the next root.
    wait_until("the runner to renew", || authority.drop_old(false).ok());
    watch.rest().await;
    has_all(&watch, LINES / 2);
    // Only one who trusts the new root alone, and shows a certificate of it, comes in.
    let fresh = control(&far.home, "fresh", LIFE);
    fresh.connect(at).await.unwrap().status().await.unwrap();
    fresh.close().await;
    session.close().await.unwrap();
    far.end().await;
}
