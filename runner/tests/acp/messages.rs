//! What the agent says and is told: whole, bounded, and kept where it is not understood.

use oqto_protocol::command::*;
use oqto_protocol::event::{Event, PlanStatus};
use oqto_protocol::message::{Content, Message, StopReason};
use oqto_protocol::reply::ReplyData;
use oqto_runner::session::Action;
use serde_json::json;

use crate::agent::{Agent, events, messages, reply, written};

#[test]
fn a_message_longer_than_is_kept_becomes_several_and_loses_nothing() {
    let (mut agent, id) = Agent::working();
    let piece = "0123456789abcdef".repeat(64 * 1024);
    let (mut said, mut told) = (0, String::new());
    for _ in 0..20 {
        let actions = agent.says(&piece);
        said += piece.len();
        told.extend(messages(&actions).into_iter().map(text));
    }
    let end = agent.ends(id, &json!({ "stopReason": "end_turn" }));
    assert_eq!(messages(&end).last().unwrap().stop_reason, Some(StopReason::Stop));
    told.extend(messages(&end).into_iter().map(text));
    assert_eq!(told.len(), said);
    assert!(told == piece.repeat(20));
}

fn text(message: &Message) -> String {
    let texts = message.parts.iter().map(|part| match &part.content {
        Content::Text(text) => text.text.as_str(),
        other => panic!("{other:?}"),
    });
    texts.collect()
}

#[test]
fn a_message_of_more_parts_than_are_kept_becomes_several_too() {
    let (mut agent, id) = Agent::working();
    let mut parts = 0;
    for n in 0..700 {
        let kind = ["agent_message_chunk", "agent_thought_chunk"][n % 2];
        let content = json!({ "type": "text", "text": n.to_string() });
        let actions = agent.update(&json!({ "sessionUpdate": kind, "content": content }));
        parts += messages(&actions).iter().map(|it| it.parts.len()).sum::<usize>();
    }
    let end = agent.ends(id, &json!({ "stopReason": "end_turn" }));
    parts += messages(&end).iter().map(|it| it.parts.len()).sum::<usize>();
    assert_eq!(parts, 700);
}

#[test]
fn parts_that_are_no_text_are_kept_with_their_message() {
    let (mut agent, id) = Agent::working();
    agent.says("look:");
    for content in [
        json!({ "type": "image", "data": "AAEC", "mimeType": "image/png" }),
        json!({ "type": "resource_link", "uri": "file:///w/a.rs", "name": "a.rs" }),
        json!({ "type": "hologram", "beam": 1 }),
    ] {
        agent.update(&json!({ "sessionUpdate": "agent_message_chunk", "content": content }));
    }
    let end = agent.ends(id, &json!({ "stopReason": "end_turn" }));
    let message = *messages(&end).last().unwrap();
    let kinds: Vec<&Content> = message.parts.iter().map(|part| &part.content).collect();
    assert!(
        matches!(
            kinds.as_slice(),
            [
                Content::Text(_),
                Content::Image(_),
                Content::FileRef(_),
                Content::Extension(_)
            ]
        ),
        "{kinds:?}"
    );
}

#[test]
fn a_plan_and_notes_are_told_as_such() {
    let (mut agent, _) = Agent::working();
    let entries = json!([
        { "content": "one", "priority": "high", "status": "completed" },
        { "content": "two", "priority": "low", "status": "in_progress" },
    ]);
    let told = agent.update(&json!({ "sessionUpdate": "plan", "entries": entries }));
    let Some(Event::Plan(plan)) = events(&told).into_iter().next() else {
        panic!("{told:?}");
    };
    assert_eq!(plan.entries[1].status, PlanStatus::InProgress);
    let told = agent.update(&json!({ "sessionUpdate": "notice", "severity": "warning", "title": "slow" }));
    assert!(matches!(events(&told).as_slice(), [Event::Notify(it)] if it.message == "slow"));
    agent.update(
        &json!({ "sessionUpdate": "compaction_update", "compactionId": "c", "status": "in_progress" }),
    );
    agent.update(
        &json!({ "sessionUpdate": "compaction_summary_chunk", "compactionId": "c",
        "content": { "type": "text", "text": "short" } }),
    );
    let told = agent
        .update(&json!({ "sessionUpdate": "compaction_update", "compactionId": "c", "status": "completed" }));
    assert!(
        matches!(events(&told).as_slice(), [Event::CompactEnd(it), ..] if it.success && it.summary.as_deref() == Some("short")),
        "{told:?}"
    );
    let told = agent.update(&json!({ "sessionUpdate": "from_the_future", "x": 1 }));
    assert!(
        matches!(events(&told).as_slice(), [Event::Status(it)] if it.key == "x-acp-from_the_future"),
        "{told:?}"
    );
}

#[test]
fn an_update_or_a_request_that_cannot_be_read_is_kept_as_it_came() {
    let (mut agent, _) = Agent::working();
    let kept = |said: &[Action]| {
        let notes: Vec<_> = events(said)
            .into_iter()
            .filter_map(|event| match event {
                Event::Status(note) => Some((note.key.clone(), note.text.clone().unwrap_or_default())),
                Event::Notify(_) => panic!("{event:?}"),
                _ => None,
            })
            .collect();
        assert_eq!(notes.len(), 1, "{notes:?}");
        notes[0].clone()
    };
    for unread in [
        json!({ "sessionUpdate": "tool_call", "toolCallId": "c", "title": 7 }),
        json!({ "sessionUpdate": "usage_update", "used": "much" }),
        json!({ "sessionUpdate": "plan", "entries": "none" }),
        json!({ "sessionUpdate": "agent_message_chunk", "content": "bare" }),
    ] {
        let (key, text) = kept(&agent.update(&unread));
        assert_eq!(
            key,
            format!("x-acp-{}", unread["sessionUpdate"].as_str().unwrap())
        );
        assert!(text.contains("sessionUpdate"), "{text}");
    }
    let request =
        r#"{"jsonrpc":"2.0","id":7,"method":"session/request_permission","params":{"sessionId":"s1"}}"#;
    let said = agent.out(request);
    assert_eq!(written(&said)[0]["error"]["code"], -32602);
    assert_eq!(kept(&said).0, "x-acp-session/request_permission");
    // What is not ours is nobody's.
    let other = r#"{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s9","update":{"sessionUpdate":"plan","title":7}}}"#;
    assert!(events(&agent.out(other)).is_empty());
}

#[test]
fn resources_and_what_is_known_already_need_no_guess() {
    let mut agent = Agent::idle();
    agent.update(&json!({ "sessionUpdate": "available_commands_update",
        "availableCommands": [{ "name": "init", "description": "d" }] }));
    let (_, actions) = agent.tell(Command::GetCommands(GetCommands {}));
    assert!(written(&actions).is_empty());
    assert!(
        matches!(&reply(&actions).data, Some(ReplyData::HarnessAnswer(it)) if it.answer.text().contains("init")),
        "{actions:?}"
    );
    let (_, said) = agent.tell(Command::Prompt(Prompt {
        message: "read".to_owned(),
        images: Vec::new(),
        client_id: None,
        resources: vec![
            Resource {
                uri: "file:///w/a.rs".to_owned(),
                label: None,
                mime: None,
                text: None,
            },
            Resource {
                uri: "file:///w/b.rs".to_owned(),
                label: None,
                mime: Some("text/x-rust".to_owned()),
                text: Some("fn b() {}".to_owned()),
            },
        ],
    }));
    let blocks = &written(&said)[0]["params"]["prompt"];
    assert_eq!(
        (&blocks[1]["type"], &blocks[1]["name"]),
        (&json!("resource_link"), &json!("a.rs"))
    );
    assert_eq!(blocks[2]["resource"]["text"], "fn b() {}");
}
