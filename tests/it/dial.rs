//! Dialling out: the link is the runner's to keep, and what goes over it does not know.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use oqto_control::{Cursor, ListenOptions};

use crate::far::{Far, PATIENCE, control, has_all};
use crate::watch::Watch;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(flavor = "multi_thread")]
async fn the_next_control_at_the_same_address_finds_the_runner_and_its_sessions() {
    let mut far = Far::new(DAY);
    far.enrolled("web-1");
    let runner = far.dialling().await;
    let (session, mut watch) = far.talks(&runner, 150).await;
    watch
        .until("first words", |event| {
            matches!(event, oqto_control::Event::ToolProgress(_))
        })
        .await;
    let (session, address) = (session.id().clone(), far.listener.address());
    // It goes, and everything that it had.
    far.control.close().await;
    drop((watch, runner));
    let next = control(&far.home, "next", DAY);
    let elsewhere = ListenOptions {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    };
    far.listener = next.listen(elsewhere).unwrap();
    far.control = next;
    // Its socket goes with the last of what it had.
    far.listener = tokio::time::timeout(PATIENCE, async {
        loop {
            match far.control.listen(ListenOptions { address }) {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
    .unwrap();
    let came = tokio::time::timeout(PATIENCE, far.listener.accept()).await;
    let runner = came.expect("the runner dials again").unwrap();
    let session = runner.session(session);
    let mut watch = Watch::new(session.events_from(Cursor::default()).await.unwrap());
    watch.rest().await;
    has_all(&watch, 150);
    session.close().await.unwrap();
    far.end().await;
}
