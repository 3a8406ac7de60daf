//! Harnesses that die and come back, with real pi: what is told, what is kept, what is never done twice.

use std::time::Duration;

use nix::sys::signal::Signal;
use oqto_control::{Event, Session};
use oqto_protocol::event::{DoneReason, Recovered};
use oqto_protocol::message::Role;
use oqto_protocol::session::SessionState;
use oqto_tests::{Process, signal, wait_until};

use crate::pi_bed::PiBed;
use crate::watch::Watch;

/// What of a session is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// pi itself, in the sandbox.
    Harness,
    /// The shim, and with it all that it runs.
    Shim,
}

impl Victim {
    fn find(self, bed: &PiBed) -> Process {
        wait_until("the victim", || {
            bed.home.agents().into_iter().find(|process| match self {
                Self::Harness => process.words.contains("--mode rpc") && process.words.contains("node"),
                Self::Shim => process.words.starts_with("oqto-runner shim"),
            })
        })
    }

    fn kill(self, bed: &PiBed) {
        let victim = self.find(bed);
        signal(victim.pid, Signal::SIGKILL);
        wait_until("the victim to die", || (!victim.lives()).then_some(()));
    }
}

async fn recovered(watch: &mut Watch) -> Recovered {
    let event = watch
        .until("recovery", |event| matches!(event, Event::Recovered(_)))
        .await;
    let Event::Recovered(recovered) = event else {
        panic!("{event:?}")
    };
    watch
        .until("idle agent", |event| matches!(event, Event::AgentIdle(_)))
        .await;
    recovered
}

/// How often each prompt was said to pi, as pi has it.
async fn said(session: &Session, text: &str) -> usize {
    let page = session.messages(None, None).await.unwrap();
    let users = page.messages.iter().filter(|message| message.role == Role::User);
    users
        .filter(|message| format!("{:?}", message.parts).contains(text))
        .count()
}

async fn a_death_between_turns(victim: Victim) {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "say hello").await;
    victim.kill(&bed);
    let told = recovered(&mut watch).await;
    assert_eq!(told.lost, None, "{told:?}");
    assert!(told.sandbox.is_some_and(|sandbox| !sandbox.layers.is_empty()));
    let told = watch.errors();
    assert!(told.len() == 1 && told[0].recoverable, "{told:?}");
    watch.prompt(&session, "run echo after").await;
    assert_eq!(session.state().await.unwrap().info.state, SessionState::Idle);
    assert_eq!(said(&session, "say hello").await, 1);
    // The stream is sound, and pi has the whole conversation in one session of its own.
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pi_that_is_killed_between_turns_comes_back_with_the_whole_conversation() {
    a_death_between_turns(Victim::Harness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pi_whose_shim_is_killed_between_turns_comes_back_with_the_whole_conversation() {
    a_death_between_turns(Victim::Shim).await;
}

async fn a_death_in_the_middle(victim: Victim) {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "say hello").await;
    session.prompt("slow 200 50").await.unwrap();
    watch
        .until("delta", |event| matches!(event, Event::TextDelta(_)))
        .await;
    victim.kill(&bed);
    let told = recovered(&mut watch).await;
    assert!(told.lost.is_some(), "{told:?}");
    assert_eq!(watch.done(), DoneReason::Error);
    assert_eq!(said(&session, "slow 200 50").await, 1, "no prompt is said again");
    watch.prompt(&session, "say hello").await;
    session.close().await.unwrap();
    watch.closed().await;
    // Not the death that it came back from.
    let refused = session.prompt("too late").await.unwrap_err();
    assert!(
        format!("{refused:?}").contains("closed on request"),
        "{refused:?}"
    );
    watch.is_sound();
    let indexes: Vec<u64> = watch.messages().iter().map(|message| message.idx).collect();
    assert_eq!(indexes, (0..indexes.len() as u64).collect::<Vec<_>>());
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pi_that_is_killed_in_the_middle_of_an_answer_comes_back_and_says_what_is_lost() {
    a_death_in_the_middle(Victim::Harness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pi_whose_shim_is_killed_in_the_middle_comes_back_and_says_what_is_lost() {
    a_death_in_the_middle(Victim::Shim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_pi_that_is_started_again_on_request_goes_on() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "say hello").await;
    let before = Victim::Harness.find(&bed).pid;
    tokio::time::timeout(Duration::from_secs(60), session.restart())
        .await
        .unwrap()
        .unwrap();
    let told = recovered(&mut watch).await;
    assert_eq!(told.lost, None);
    assert_ne!(Victim::Harness.find(&bed).pid, before);
    assert!(watch.errors().is_empty(), "{:?}", watch.errors());
    watch.prompt(&session, "run echo after").await;
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pi_that_dies_stays_down_where_it_would_come_back_less_confined_until_somebody_says_so() {
    let bed = PiBed::new().await;
    bed.home.directory("workspace/.oqto");
    let narrower = "[limits]\nprocesses = 1000\n";
    let narrower = bed.home.file("workspace/.oqto/sandbox.toml", narrower);
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "say hello").await;
    std::fs::remove_file(narrower).unwrap();
    Victim::Harness.kill(&bed);
    let event = watch
        .until("sleep", |event| matches!(event, Event::SessionDormant(_)))
        .await;
    let Event::SessionDormant(dormant) = event else {
        panic!("{event:?}")
    };
    assert!(dormant.reason.contains("sandbox would be another"), "{dormant:?}");
    wait_until("everything to end", || bed.home.agents().is_empty().then_some(()));
    session.restart().await.unwrap();
    assert!(recovered(&mut watch).await.sandbox.is_some());
    // From here on it is held by that, and comes back under it.
    Victim::Harness.kill(&bed);
    recovered(&mut watch).await;
    bed.end(session, &mut watch).await;
    bed.close().await;
}
