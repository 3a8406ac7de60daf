//! What a session does about a harness that works and says nothing.

use oqto_protocol::command::{Command, CommandEnvelope, Prompt};
use oqto_protocol::event::{ConfirmRequest, Event, InputRequest};
use oqto_protocol::id::CommandId;
use oqto_protocol::session::SessionState;
use oqto_runner::harness::Harness;
use oqto_runner::session::{Action, Fact, Input, Report, Session, Silence, SilentAct};

mod support;

use support::{T0, setup};

fn session(harness: Harness) -> Session {
    let mut session = Session::new(setup(harness), T0);
    step(
        &mut session,
        &Input::Report(&Report::Confined { layers: Vec::new() }),
        T0,
    );
    session
}

fn step(session: &mut Session, input: &Input<'_>, now: u64) -> Vec<Action> {
    let mut out = Vec::new();
    session.step(input, now, &mut out);
    out
}

fn out(session: &mut Session, line: &str, now: u64) -> Vec<Action> {
    step(session, &Input::Out(format!("{line}\n").as_bytes()), now)
}

/// A pi that works since [`T0`] + 1.
fn streaming() -> Session {
    let mut session = session(Harness::pi());
    out(
        &mut session,
        r#"{"id":"probe","type":"response","command":"get_state","success":true,"data":{}}"#,
        T0,
    );
    assert_eq!(session.silent_since(), None);
    let envelope = CommandEnvelope {
        id: CommandId([1; 16]),
        session_id: "s".parse().expect("a name"),
        runner_id: None,
        command: Command::Prompt(Prompt {
            message: "work".to_owned(),
            images: Vec::new(),
            client_id: None,
            resources: Vec::new(),
        }),
        on_behalf_of: None,
    };
    step(&mut session, &Input::Command(&envelope), T0 + 1);
    assert_eq!(session.silent_since(), Some(T0 + 1));
    let id = envelope.id;
    out(
        &mut session,
        &format!(r#"{{"id":"{id}","type":"response","command":"prompt","success":true}}"#),
        T0 + 2,
    );
    out(&mut session, r#"{"type":"agent_start"}"#, T0 + 3);
    assert_eq!(session.state(), SessionState::Streaming);
    session
}

fn silence(since: u64, act: Option<SilentAct>) -> Fact {
    Fact::Silent(Silence {
        since,
        silent_ms: 600_000,
        cpu_pct: Some(0),
        act,
    })
}

fn notes(actions: &[Action]) -> Vec<&str> {
    let notes = actions.iter().filter_map(|action| match action {
        Action::Record {
            event: Event::Notify(note),
            ..
        } => Some(note.message.as_str()),
        _ => None,
    });
    notes.collect()
}

#[test]
fn each_silence_is_told_once_and_acted_upon_once() {
    let mut session = streaming();
    let fact = silence(T0 + 3, None);
    let told = step(&mut session, &Input::Seen(&fact), T0 + 600_003);
    assert_eq!(
        notes(&told),
        ["pi has said nothing for 10 min; its processes use no processor time"]
    );
    assert_eq!(step(&mut session, &Input::Seen(&fact), T0 + 600_004), []);
    let fact = silence(T0 + 3, Some(SilentAct::Restart));
    let acted = step(&mut session, &Input::Seen(&fact), T0 + 900_003);
    assert_eq!(notes(&acted).len(), 1);
    assert!(acted.contains(&Action::Kill), "{acted:?}");
    for act in [None, Some(SilentAct::Restart)] {
        assert_eq!(
            step(&mut session, &Input::Seen(&silence(T0 + 3, act)), T0 + 900_004),
            []
        );
    }
}

#[test]
fn a_harness_that_spoke_before_its_silence_stood_on_the_tape_is_left_alone() {
    let mut session = streaming();
    step(&mut session, &Input::Err(b"still here\n"), T0 + 50);
    let fact = silence(T0 + 3, Some(SilentAct::Restart));
    assert_eq!(step(&mut session, &Input::Seen(&fact), T0 + 60), []);
    assert_eq!(session.silent_since(), Some(T0 + 50));
    out(&mut session, r#"{"type":"agent_end","messages":[]}"#, T0 + 70);
    out(&mut session, r#"{"type":"agent_settled"}"#, T0 + 71);
    assert_eq!(session.silent_since(), None);
    let late = silence(T0 + 50, Some(SilentAct::Restart));
    assert!(!step(&mut session, &Input::Seen(&late), T0 + 80).contains(&Action::Kill));
}

#[test]
fn an_abort_for_silence_is_said_as_one_that_somebody_sent_and_under_one_name() {
    let said = || {
        let mut session = streaming();
        let fact = silence(T0 + 3, Some(SilentAct::Abort));
        let acted = step(&mut session, &Input::Seen(&fact), T0 + 60);
        assert_eq!(session.state(), SessionState::Aborting);
        // It was told something just now.
        assert_eq!(session.silent_since(), Some(T0 + 60));
        acted
    };
    let writes = |acted: &[Action]| -> Vec<Action> {
        let is_write = |action: &&Action| matches!(action, Action::Write { .. });
        acted.iter().filter(is_write).cloned().collect()
    };
    let (first, again) = (said(), said());
    assert_eq!(writes(&first).len(), 1);
    assert_eq!(writes(&first), writes(&again));
}

#[test]
fn one_that_waits_for_a_human_is_not_silent() {
    let mut session = streaming();
    let ask = r#"{"type":"extension_ui_request","id":"q","method":"confirm","title":"t","message":"m"}"#;
    let asked = out(&mut session, ask, T0 + 10);
    assert!(asked.iter().any(|action| matches!(
        action,
        Action::Record { event: Event::InputNeeded(needed), .. }
            if matches!(needed.request, InputRequest::ConfirmRequest(ConfirmRequest { .. }))
    )));
    assert_eq!(session.silent_since(), None);
}
