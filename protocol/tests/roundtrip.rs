//! What is written is read back the same, in both forms.

use oqto_protocol::codec::{Json, Wire, decode_all};
use oqto_protocol::event::{Envelope, Event, Numbered, TextDelta, ToolEnd};
use oqto_protocol::id::MessageId;

#[test]
fn an_event_survives_both_forms() {
    let event = Event::ToolEnd(ToolEnd {
        tool_call_id: "c".into(),
        name: "bash".into(),
        output: Json::parse(r#"{"b":1,"a":[null]}"#).unwrap(),
        is_error: false,
        duration_ms: Some(4),
    });
    let numbered = Numbered {
        epoch: 1,
        seq: 7,
        first_seq: None,
        ts: 9,
        event: event.clone(),
    };
    let mut bytes = Vec::new();
    numbered.encode(&mut bytes);
    assert_eq!(decode_all::<Numbered>(&bytes).unwrap(), numbered);
    let envelope = Envelope {
        session_id: "s".parse().unwrap(),
        runner_id: "r".parse().unwrap(),
        epoch: 1,
        seq: Some(7),
        first_seq: None,
        ts: 9,
        event: Event::TextDelta(TextDelta {
            message_id: MessageId::numbered(3),
            delta: "x".repeat(300),
            content_index: 0,
        }),
    };
    let text = serde_json::to_string(&envelope).unwrap();
    assert!(text.contains(r#""event":"stream.text_delta""#), "{text}");
    assert_eq!(serde_json::from_str::<Envelope>(&text).unwrap(), envelope);
    let envelope = Envelope { event, ..envelope };
    let text = serde_json::to_string(&envelope).unwrap();
    assert!(text.contains(r#""output":{"b":1,"a":[null]}"#), "{text}");
}
