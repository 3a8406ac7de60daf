//! The agent's own sessions: new ones, and those that are gone back to.

use oqto_protocol::command::*;
use oqto_protocol::event::Event;
use oqto_protocol::fault::FaultCode;
use oqto_protocol::session::SessionState;
use oqto_runner::harness::Harness;
use oqto_runner::session::{Action, Input, Report, Session};
use serde_json::{Value, json};

use crate::agent::{Agent, MODES, events, opened, prompt, reply, switch, written};
use crate::support::{T0, setup};

/// A session that had the model `b` before, whose agent answers now with these models.
fn again(models: &str) -> (Agent, Vec<Action>) {
    let mut setup = setup(Harness::acp("agent", "agent", Some("ask")));
    setup.continue_session = Some("s1".to_owned());
    setup.model = Some("b".to_owned());
    let mut agent = Agent {
        session: Session::new(setup, T0),
        now: T0,
        ids: 0,
    };
    agent.step(&Input::Report(&Report::Confined { layers: Vec::new() }));
    agent.initialized(r#"{"loadSession":true}"#);
    let opened = agent.out(&format!(
        r#"{{"jsonrpc":"2.0","id":"open","result":{{"modes":{{"currentModeId":"ask","availableModes":[{{"id":"ask","name":"Ask"}}]}}{models}}}}}"#
    ));
    (agent, opened)
}

fn warning(actions: &[Action]) -> Option<String> {
    events(actions).into_iter().find_map(|event| match event {
        Event::Notify(note) => Some(note.message.clone()),
        _ => None,
    })
}

#[test]
fn a_model_that_the_agent_has_no_longer_keeps_no_session_from_going_on() {
    for models in [
        "",
        r#","models":{"currentModelId":"a","availableModels":[{"modelId":"a","name":"A"}]}"#,
    ] {
        let (agent, opened) = again(models);
        let said = warning(&opened).expect("a warning");
        assert!(said.contains("\"b\""), "{said}");
        assert_eq!(agent.session.state(), SessionState::Idle);
    }
    // One that is offered and then refused is no better.
    let models = r#","models":{"currentModelId":"a","availableModels":[{"modelId":"a","name":"A"},{"modelId":"b","name":"B"}]}"#;
    let (mut agent, opened) = again(models);
    assert_eq!(written(&opened)[0]["params"]["modelId"], "b");
    let refused =
        agent.out(r#"{"jsonrpc":"2.0","id":"configure","error":{"code":-32603,"message":"not today"}}"#);
    assert!(warning(&refused).expect("a warning").contains("not today"));
    assert_eq!(agent.session.state(), SessionState::Idle);
}

#[test]
fn a_new_session_of_the_agents_is_in_the_mode_that_asks_before_the_command_is_answered() {
    let mut agent = Agent::idle();
    let (_, asked) = agent.tell(Command::SessionNew(SessionNew { parent_session: None }));
    assert_eq!(written(&asked)[0]["method"], "session/new");
    let (_, refused) = agent.tell(prompt("too early"));
    assert_eq!(
        reply(&refused).error.as_ref().unwrap().code,
        FaultCode::WrongState
    );
    let opened = agent.answers(&asked, &opened("s2"));
    assert_eq!(
        written(&opened)[0]["params"],
        json!({ "sessionId": "s2", "modeId": "ask" })
    );
    let done = agent.answers(&opened, &json!({}));
    assert!(reply(&done).success, "{done:?}");
    let (_, said) = agent.tell(prompt("now"));
    assert_eq!(written(&said)[0]["params"]["sessionId"], "s2");
}

#[test]
fn what_is_said_of_the_session_before_changes_nothing_of_the_one_that_is_opened() {
    let mut agent = Agent::idle();
    let (_, asked) = agent.tell(Command::SessionNew(SessionNew { parent_session: None }));
    let model = json!({ "id": "model", "name": "Model", "category": "model", "type": "select",
        "currentValue": "old", "options": [{ "value": "old", "name": "Old" }] });
    let update = json!({ "sessionUpdate": "config_option_update", "configOptions": [model] });
    agent.update(&update);
    let opened = agent.answers(&asked, &opened("s2"));
    agent.update(&update);
    agent.answers(&opened, &json!({}));
    assert_eq!(agent.session.status().info.model, None);
}

#[test]
fn a_session_that_cannot_be_opened_leaves_the_one_before() {
    for error in [
        json!({ "code": -32002, "message": "Resource not found" }),
        json!("Resource not found"),
    ] {
        let mut agent = Agent::idle();
        let (_, asked) = agent.tell(switch("gone"));
        let id = &written(&asked)[0]["id"];
        let failed = agent.out(&json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string());
        let fault = reply(&failed).error.as_ref().expect("refused");
        assert!(fault.message.contains("Resource not found"), "{fault:?}");
        let (_, said) = agent.tell(prompt("still there"));
        assert_eq!(written(&said)[0]["params"]["sessionId"], "s1");
    }
}

#[test]
fn an_answer_that_nobody_waits_for_any_more_is_none_to_what_was_asked_since() {
    let mut agent = Agent::idle();
    let (_, first) = agent.tell(switch("first"));
    let late = agent.wait();
    assert_eq!(reply(&late).error.as_ref().unwrap().code, FaultCode::Timeout);
    assert!(agent.session.snapshot().is_some(), "at rest again");
    let (_, second) = agent.tell(switch("second"));
    let ignored = agent.answers(&first, &Value::Null);
    assert!(ignored.is_empty(), "{ignored:?}");
    let there = agent.answers(&second, &opened("second"));
    let done = agent.answers(&there, &json!({}));
    assert!(reply(&done).success, "{done:?}");
    let (_, said) = agent.tell(prompt("there"));
    assert_eq!(written(&said)[0]["params"]["sessionId"], "second");
}

#[test]
fn an_earlier_session_is_there_also_where_nothing_is_said_of_it() {
    let mut agent = Agent::started(None, Some("before"));
    agent.initialized(r#"{"loadSession":true}"#);
    agent.out(r#"{"jsonrpc":"2.0","id":"open","result":null}"#);
    assert_eq!(agent.session.state(), SessionState::Idle);
}

#[test]
fn an_answer_to_a_step_that_was_not_taken_yet_opens_nothing() {
    for early in ["configure", "close"] {
        let mut agent = Agent::started(Some("ask"), None);
        agent.out(&json!({ "jsonrpc": "2.0", "id": early, "result": {} }).to_string());
        assert_eq!(agent.session.state(), SessionState::Starting, "{early}");
        agent.initialized("{}");
        agent.out(&json!({ "jsonrpc": "2.0", "id": early, "result": {} }).to_string());
        assert_eq!(agent.session.state(), SessionState::Starting, "{early}");
    }
    let mut agent = Agent::started(Some("ask"), None);
    agent.initialized("{}");
    let opened = format!(r#"{{"jsonrpc":"2.0","id":"open","result":{{"sessionId":"s1",{MODES}}}}}"#);
    agent.out(&opened);
    // Once more, as one that is in that mode already.
    let again = opened.replace(r#""currentModeId":"auto""#, r#""currentModeId":"ask""#);
    assert!(written(&agent.out(&again)).is_empty());
    assert_eq!(agent.session.state(), SessionState::Starting);
}
