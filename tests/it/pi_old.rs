//! A pi of the oldest version that was tested, which repeats each message, twice, with each piece of it.

use oqto_control::Event;
use oqto_protocol::event::DoneReason;
use oqto_tests::{agents, not_run};

use crate::pi_bed::PiBed;

#[tokio::test(flavor = "multi_thread")]
async fn an_old_pi_says_hello_works_writes_a_megabyte_and_stops_when_told() {
    let Some(pi) = agents().old_pi() else {
        return not_run("pi 0.74", "it is not installed beside the other agents");
    };
    let bed = PiBed::of(&pi).await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "say hello").await;
    let Event::SessionCreated(created) = &watch.seen[0].event else {
        panic!("{:?}", watch.seen[0])
    };
    assert_eq!(created.version.as_deref(), Some("0.74.2"));
    assert!(watch.answer().starts_with("Hello! I am a scripted model"));

    watch.prompt(&session, "run touch made; echo still here").await;
    assert!(watch.answer().contains("still here"), "{}", watch.answer());
    assert!(bed.file("made").exists());

    // Some sixty megabytes that are read for it.
    watch.prompt(&session, "huge 1000000").await;
    assert_eq!(watch.answer().len(), 1_000_000);

    session.prompt("slow 200 50").await.unwrap();
    watch
        .until("delta", |event| matches!(event, Event::TextDelta(_)))
        .await;
    session.abort().await.unwrap();
    watch.rest().await;
    assert_eq!(watch.done(), DoneReason::Aborted);
    bed.end(session, &mut watch).await;
    bed.close().await;
}
