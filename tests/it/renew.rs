//! Certificates of seconds under streams that never stop.

use std::time::Duration;

use oqto_tests::wait_until;

use crate::far::{Far, control, has_all};

/// The life of a certificate.
const LIFE: Duration = Duration::from_secs(3);

/// Lines of a talk that lasts more than four lives.
const LINES: usize = 650;

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
    assert!(renewed >= 4, "{renewed}: {}", far.log());
    assert_eq!(lost(&far), 0, "{}", far.log());
    // New links work at any time.
    let fresh = control(&far.home, "fresh", LIFE);
    let again = fresh.connect(at).await.unwrap();
    assert_eq!(again.status().await.unwrap().notes, Vec::<String>::new());
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
    assert!(renewed >= 4, "{renewed}: {}", far.log());
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
    let (session, mut watch) = far.talks(&runner, LINES).await;
    let authority = far.control.authority();
    let old = authority.pin();
    authority.rotate().unwrap();
    far.logs("learnt whom to trust", 1).await;
    wait_until("the runner to be told", || authority.switch(false).ok());
    assert_ne!(authority.pin(), old);
    // Refused until the runner has a certificate of the next root.
    wait_until("the runner to renew", || authority.drop_old(false).ok());
    watch.rest().await;
    has_all(&watch, LINES);
    // Only one who trusts the new root alone, and shows a certificate of it, comes in.
    let fresh = control(&far.home, "fresh", LIFE);
    fresh.connect(at).await.unwrap().status().await.unwrap();
    fresh.close().await;
    session.close().await.unwrap();
    far.end().await;
}
