//! What is said of the version of a harness.

use oqto_protocol::event::{Event, NotifyLevel};
use oqto_runner::harness::{Edition, Harness};
use oqto_runner::session::{Action, ExitStatus, Input, Report, Session};

mod support;

use support::{T0, setup};

fn edition(version: &str) -> Edition {
    Edition {
        version: Some(version.to_owned()),
        tested: "0.74 to 0.87".parse().ok(),
        warning: None,
    }
}

/// The events of a pi that is started and says which session of its own it has.
fn start(session: &mut Session, now: u64) -> Vec<Event> {
    let mut out = Vec::new();
    session.step(
        &Input::Report(&Report::Confined { layers: Vec::new() }),
        now,
        &mut out,
    );
    let ready = r#"{"id":"probe","type":"response","command":"get_state","success":true,"data":{"sessionFile":"/s.jsonl"}}"#;
    session.step(&Input::Out(format!("{ready}\n").as_bytes()), now, &mut out);
    let events = out.into_iter().filter_map(|action| match action {
        Action::Record { event, .. } => Some(event),
        _ => None,
    });
    events.collect()
}

/// What they warn of.
fn warnings(events: &[Event]) -> Vec<&str> {
    let texts = events.iter().filter_map(|event| match event {
        Event::Notify(notify) if notify.level == NotifyLevel::Warning => Some(notify.message.as_str()),
        _ => None,
    });
    texts.collect()
}

/// A session of a pi of that version, and what was told when it had started.
fn started(edition: Edition) -> (Session, Vec<Event>) {
    let mut session = Session::new(
        oqto_runner::session::Setup {
            edition,
            ..setup(Harness::pi())
        },
        T0,
    );
    let events = start(&mut session, T0);
    (session, events)
}

/// The same, died and started again with that one.
fn again(session: &mut Session, edition: Edition) -> Vec<Event> {
    let mut out = Vec::new();
    session.step(&Input::Exited(ExitStatus::Signal(9)), T0 + 1, &mut out);
    let sandbox = setup(Harness::pi()).sandbox;
    let permissions = oqto_runner::policy::Permissions::default();
    session.prepared(Harness::pi(), sandbox, edition, permissions);
    session.step(&Input::Begun, T0 + 2, &mut out);
    start(session, T0 + 3)
}

#[test]
fn a_version_that_was_not_tested_begins_with_a_warning() {
    let (_, events) = started(edition("0.91.0"));
    assert!(
        matches!(&events[0], Event::SessionCreated(created) if created.version.as_deref() == Some("0.91.0"))
    );
    assert_eq!(
        warnings(&events),
        ["pi 0.91.0 is none of the versions that this runner was tested with: 0.74 to 0.87"]
    );
    assert_eq!(warnings(&started(edition("0.87.1")).1), [""; 0]);
    assert_eq!(warnings(&started(Edition::default()).1), [""; 0]);
}

#[test]
fn what_its_installation_lacks_is_said_when_it_begins() {
    let old = Edition {
        warning: Some("it needs node >=22".to_owned()),
        ..edition("0.80.0")
    };
    assert_eq!(warnings(&started(old).1), ["it needs node >=22"]);
}

#[test]
fn a_version_is_warned_of_once_and_another_one_again() {
    let (mut session, _) = started(edition("0.91.0"));
    assert_eq!(warnings(&again(&mut session, edition("0.91.0"))), [""; 0]);
    let events = again(&mut session, edition("0.92.0"));
    assert_eq!(warnings(&events).len(), 1, "{events:?}");
    assert!(warnings(&events)[0].starts_with("pi 0.92.0 is none"));
    assert_eq!(warnings(&again(&mut session, edition("0.87.1"))), [""; 0]);
}
