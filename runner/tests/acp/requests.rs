//! What the agent asks of its client: what is told of it, and what is answered.

use oqto_protocol::command::*;
use oqto_protocol::event::Event;
use serde_json::json;

use crate::agent::{Agent, asked, events, messages, written};

#[test]
fn what_a_client_does_not_serve_is_answered_so_and_shown() {
    let mut agent = Agent::idle();
    for (id, method) in [
        (json!(0), "fs/read_text_file"),
        (json!("x"), "elicitation/create"),
    ] {
        let line =
            json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "path": "/etc/shadow" } });
        let actions = agent.out(&line.to_string());
        let answer = &written(&actions)[0];
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id, &json!(-32601)));
        assert!(
            matches!(events(&actions).as_slice(), [Event::Status(it)] if it.key == format!("x-acp-{method}"))
        );
    }
}

#[test]
fn a_permission_is_answered_under_the_agents_own_name_and_never_by_place() {
    for (response, outcome) in [
        (
            json!({ "value": "n" }),
            json!({ "outcome": "selected", "optionId": "n" }),
        ),
        (
            json!({ "value": "a" }),
            json!({ "outcome": "selected", "optionId": "a" }),
        ),
        (json!({ "cancelled": true }), json!({ "outcome": "cancelled" })),
    ] {
        let (mut agent, _) = Agent::working();
        let call =
            json!({ "toolCallId": "t", "kind": "execute", "rawInput": { "command": "ls" }, "title": "ls" });
        let request_id = asked(&agent.asks(&call)).request_id.clone();
        let (_, actions) = agent.tell(Command::InputResponse(InputResponse {
            request_id,
            value: response["value"].as_str().map(str::to_owned),
            confirmed: response["confirmed"].as_bool(),
            cancelled: response["cancelled"].as_bool(),
        }));
        let answer = &written(&actions)[0];
        assert_eq!(
            (&answer["id"], &answer["result"]["outcome"]),
            (&json!(0), &outcome)
        );
    }
}

#[test]
fn a_permission_of_another_session_and_one_taken_back_are_not_open() {
    let (mut agent, _) = Agent::working();
    let request = json!({ "jsonrpc": "2.0", "id": 4, "method": "session/request_permission",
        "params": { "sessionId": "another", "toolCall": { "toolCallId": "t" }, "options": [] } });
    let actions = agent.out(&request.to_string());
    assert_eq!(written(&actions)[0]["result"]["outcome"]["outcome"], "cancelled");
    assert!(events(&actions).is_empty());
    agent.asks(&json!({ "toolCallId": "t", "title": "x" }));
    assert!(agent.session.status().pending_request.is_some());
    let actions = agent.out(r#"{"jsonrpc":"2.0","method":"$/cancel_request","params":{"requestId":0}}"#);
    assert!(
        matches!(events(&actions).as_slice(), [Event::InputResolved(_)]),
        "{actions:?}"
    );
    let answer = &written(&actions)[0];
    assert_eq!(
        (&answer["id"], &answer["result"]["outcome"]["outcome"]),
        (&json!(0), &json!("cancelled"))
    );
    assert!(agent.session.status().pending_request.is_none());
}

#[test]
fn the_targets_of_a_permission_are_all_that_it_names() {
    for (call, targets) in [
        (
            json!({ "toolCallId": "t", "kind": "execute", "rawInput": { "command": "ls; rm -rf /" },
                "locations": [{ "path": "/w/a" }] }),
            vec!["ls; rm -rf /"],
        ),
        (
            json!({ "toolCallId": "t", "kind": "execute", "rawInput": { "command": ["bash", "-lc", "ls | sh"] } }),
            vec!["ls | sh"],
        ),
        (
            json!({ "toolCallId": "t", "kind": "execute", "rawInput": { "command": ["rm", "a b; c"] } }),
            vec!["rm 'a b; c'"],
        ),
        (
            json!({ "toolCallId": "t", "kind": "edit", "rawInput": { "file_path": "/w/a" },
                "locations": [{ "path": "/w/b" }], "content": [{ "type": "diff", "path": "/w/c", "newText": "" }] }),
            vec!["/w/a", "/w/b", "/w/c"],
        ),
        (
            json!({ "toolCallId": "t", "kind": "edit",
                "rawInput": { "edits": [{ "path": "/w/a" }, { "in": { "file_path": "/etc/b" } }] } }),
            vec!["/etc/b", "/w/a"],
        ),
        (
            json!({ "toolCallId": "t", "kind": "fetch", "rawInput": { "url": "https://x.test/" } }),
            vec!["https://x.test/"],
        ),
        (json!({ "toolCallId": "t", "kind": "other" }), vec![]),
        // Of what cannot be read no rule may speak.
        (
            json!({ "toolCallId": "t", "kind": "edit", "rawInput": { "path": "/w/a" }, "locations": [{ "path": 7 }] }),
            vec![],
        ),
        (
            json!({ "toolCallId": "t", "kind": "execute", "rawInput": { "command": ["ls", 7] },
                "locations": [{ "path": "/w/a" }] }),
            vec![],
        ),
    ] {
        let (mut agent, _) = Agent::working();
        let actions = agent.asks(&call);
        assert_eq!(asked(&actions).tool.as_ref().unwrap().targets, targets, "{call}");
    }
}

#[test]
fn what_is_too_long_to_be_repeated_is_asked_about_with_no_target_that_a_rule_knows() {
    let (mut agent, _) = Agent::working();
    let input = json!({ "command": "x".repeat(1 << 20) });
    let call = json!({ "toolCallId": "t", "kind": "execute", "rawInput": input });
    let actions = agent.asks(&call);
    assert!(
        messages(&actions)[0].parts.len() == 1,
        "the whole call stands in the message"
    );
    let request = asked(&actions);
    let tool = request.tool.as_ref().unwrap();
    assert!(request.metadata.is_none() && tool.input.is_none());
    assert_eq!(tool.targets.len(), 1);
    assert!((4097..10_000).contains(&tool.targets[0].len()));
    // Asked again without it, it is not taken for what its place says.
    let again = agent.asks(&json!({ "toolCallId": "t", "locations": [{ "path": "/w/a" }] }));
    assert!(asked(&again).tool.as_ref().unwrap().targets.is_empty());
}

#[test]
fn a_request_that_could_not_be_told_or_answered_is_refused() {
    let long = "x".repeat(100 * 1024);
    let option = |id: &str, name: &str, kind: &str| json!({ "optionId": id, "name": name, "kind": kind });
    for (id, options) in [
        (long.as_str(), json!([option("y", "Yes", "allow_once")])),
        ("t", json!([option(&long, "Yes", "allow_once")])),
        // Whoever chooses one of them chooses the other.
        (
            "t",
            json!([option("y", "No", "reject_once"), option("y", "Yes", "allow_once")]),
        ),
    ] {
        let (mut agent, _) = Agent::working();
        let request = json!({ "jsonrpc": "2.0", "id": 7, "method": "session/request_permission", "params":
            { "sessionId": "s1", "toolCall": { "toolCallId": id, "title": "t" }, "options": options } });
        let actions = agent.out(&request.to_string());
        assert_eq!(written(&actions)[0]["error"]["code"], -32602);
        assert!(agent.session.status().pending_request.is_none());
    }
}
