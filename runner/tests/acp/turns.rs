//! How a turn ends, whatever of it the agent leaves open.

use oqto_protocol::command::*;
use oqto_protocol::event::Event;
use oqto_protocol::fault::FaultCode;
use oqto_protocol::message::{Role, StopReason};
use oqto_protocol::session::SessionState;
use serde_json::json;

use crate::agent::{Agent, error, events, messages, prompt, reply};

#[test]
fn an_error_that_is_hidden_in_the_end_of_a_turn_is_an_error() {
    for (result, said) in [
        (
            json!({ "stopReason": "end_turn", "_meta": { "codex": { "error": { "message": "500 from the provider" } } } }),
            "500 from the provider",
        ),
        (json!({ "stopReason": "refusal" }), "refused"),
        (json!({ "stopReason": "max_turn_requests" }), "requests"),
        (json!({ "stopReason": "bored" }), "bored"),
    ] {
        let (mut agent, id) = Agent::working();
        let end = agent.ends(id, &result);
        assert!(error(&end).unwrap().contains(said), "{end:?}");
        assert_eq!(agent.session.state(), SessionState::Idle);
    }
}

#[test]
fn an_agent_that_says_without_end_why_it_failed_is_quoted_to_a_bound_and_in_its_own_turn_alone() {
    let broken = json!({ "sessionUpdate": "session_info_update",
        "_meta": { "codex": { "threadStatus": { "type": "systemError" } } } });
    let (mut agent, id) = Agent::working();
    agent.update(&broken);
    for _ in 0..5000 {
        agent.says("500 ");
    }
    let end = agent.ends(id, &json!({ "stopReason": "end_turn" }));
    let error = error(&end).unwrap();
    assert!(error.contains("500 500") && error.len() < 2500, "{}", error.len());
    // What it says of itself between two turns is of neither.
    agent.update(&broken);
    let (id, _) = agent.tell(prompt("again"));
    agent.says("done");
    let end = agent.ends(id, &json!({ "stopReason": "end_turn" }));
    assert_eq!(messages(&end).last().unwrap().stop_reason, Some(StopReason::Stop));
}

#[test]
fn what_is_said_after_the_end_of_a_turn_is_a_message_that_ends_by_itself() {
    let (mut agent, id) = Agent::working();
    agent.ends(id, &json!({ "stopReason": "end_turn" }));
    assert_eq!(agent.session.state(), SessionState::Idle);
    agent.says("one more thing");
    let end = agent.wait();
    assert_eq!(messages(&end).len(), 1);
    assert_eq!(messages(&end)[0].role, Role::Assistant);
    assert!(agent.session.snapshot().is_some(), "at rest again");
}

#[test]
fn a_call_that_never_ends_is_ended_with_its_turn() {
    let (mut agent, id) = Agent::working();
    agent.update(
        &json!({ "sessionUpdate": "tool_call", "toolCallId": "t", "title": "x", "status": "in_progress" }),
    );
    let end = agent.ends(id, &json!({ "stopReason": "cancelled" }));
    let ended = events(&end)
        .into_iter()
        .filter(|event| matches!(event, Event::ToolEnd(it) if it.is_error));
    assert_eq!(ended.count(), 1, "{end:?}");
    assert!(agent.session.snapshot().is_some());
}

#[test]
fn a_choice_that_is_never_answered_keeps_no_session_from_its_rest() {
    let mut agent = Agent::idle();
    for _ in 0..3 {
        let mode_id = "auto".to_owned();
        agent.tell(Command::SetMode(SetMode { mode_id }));
        let late = agent.wait();
        assert_eq!(reply(&late).error.as_ref().unwrap().code, FaultCode::Timeout);
        assert!(agent.session.snapshot().is_some());
    }
}

#[test]
fn a_turn_is_over_in_whatever_form_the_agent_says_so() {
    for (end, fails) in [
        (
            r#""result":{"stopReason":"end_turn","usage":{"inputTokens":null}}"#,
            false,
        ),
        (r#""result":{"stopReason":7}"#, true),
        (r#""result":null"#, true),
        (r#""error":"overloaded""#, true),
        (r#""error":{"code":"E1","message":"overloaded"}"#, true),
    ] {
        let (mut agent, id) = Agent::working();
        agent.says("a word");
        let ended = agent.out(&format!(r#"{{"jsonrpc":"2.0","id":"{id}",{end}}}"#));
        assert_eq!(agent.session.state(), SessionState::Idle, "{end}");
        assert_eq!(error(&ended).is_some(), fails, "{end}: {ended:?}");
        assert_eq!(messages(&ended).len(), 1, "{end}");
    }
}
