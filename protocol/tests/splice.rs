//! Merged or not, the events are the same.
#![expect(clippy::unwrap_used, reason = "a helper of a test may end it")]

use oqto_protocol::event::splice::{Glance, MERGED_LEN_MAX, frame_at, merge};
use oqto_protocol::event::{AgentIdle, Event, Numbered, TextDelta, ThinkingDelta, ToolCallDelta};
use oqto_protocol::frame::{self, Frame};
use oqto_protocol::id::MessageId;
use proptest::collection::vec;
use proptest::prelude::*;

fn message(n: u8) -> MessageId {
    format!("m-{n}").parse().unwrap()
}

/// One of few kinds, of few messages, so that neighbours often go on with one another.
fn event() -> impl Strategy<Value = Event> {
    let delta = ("[a-zä]{0,6}", 0..2_u8, 0..2_u32);
    (0..8_u8, delta).prop_map(|(kind, (delta, of, content_index))| {
        let message_id = message(of);
        match kind {
            0..=3 => Event::TextDelta(TextDelta {
                message_id,
                delta,
                content_index,
            }),
            4 | 5 => Event::ToolCallDelta(ToolCallDelta {
                message_id,
                tool_call_id: format!("call-{content_index}"),
                delta,
                content_index,
            }),
            6 => Event::ThinkingDelta(ThinkingDelta {
                message_id,
                delta,
                content_index,
            }),
            _ => Event::AgentIdle(AgentIdle {}),
        }
    })
}

fn numbered(seq: u64, event: Event) -> Numbered {
    Numbered {
        epoch: 1,
        seq,
        first_seq: None,
        ts: 1_790_000_000_000 + seq,
        event,
    }
}

fn frames(first: u64, events: &[Event]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (seq, event) in (first..).zip(events) {
        frame::append(&numbered(seq, event.clone()), &mut bytes).unwrap();
    }
    bytes
}

fn read(mut bytes: &[u8]) -> Vec<Numbered> {
    let mut events = Vec::new();
    while let Some((frame, rest)) = Frame::split(bytes, usize::MAX).unwrap() {
        events.push(frame.body().unwrap());
        bytes = rest;
    }
    assert!(bytes.is_empty());
    events
}

fn merged(frames: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    merge(frames, &mut out);
    out
}

/// What somebody has who applied the events: what grew, in order, and what else happened between.
fn applied(events: &[Numbered]) -> Vec<(String, String)> {
    let mut told: Vec<(String, String)> = Vec::new();
    for numbered in events {
        let (key, text) = match &numbered.event {
            Event::TextDelta(d) => (format!("text {} {}", d.message_id, d.content_index), &d.delta),
            Event::ThinkingDelta(d) => (format!("thought {} {}", d.message_id, d.content_index), &d.delta),
            Event::ToolCallDelta(d) => (
                format!("call {} {} {}", d.message_id, d.tool_call_id, d.content_index),
                &d.delta,
            ),
            other => (format!("{} at {}", other.name(), numbered.seq), &String::new()),
        };
        match told.last_mut() {
            Some((last, grown)) if *last == key => grown.push_str(text),
            _ => told.push((key, text.clone())),
        }
    }
    told
}

/// The numbers follow one another from `first` on, and end at the last.
fn in_order(events: &[Numbered], first: u64, last: u64) {
    let mut next = first;
    for event in events {
        assert_eq!(event.first_seq.unwrap_or(event.seq), next, "{event:?}");
        assert_ne!(event.first_seq, Some(event.seq), "a single event has one form");
        next = event.seq + 1;
    }
    assert_eq!(next, last + 1);
}

proptest! {
    #[test]
    fn merged_events_say_the_same_in_the_same_order_and_merged_again_stay_as_they_are(
        events in vec(event(), 1..60),
        first in prop_oneof![1..4_u64, 249..252_u64, 65_530..65_540_u64],
    ) {
        let plain = frames(first, &events);
        let once = merged(&plain);
        let (before, after) = (read(&plain), read(&once));
        in_order(&after, first, first + events.len() as u64 - 1);
        assert_eq!(applied(&after), applied(&before));
        assert_eq!(after.len(), applied(&before).len(), "nothing that could be one is two");
        assert_eq!(merged(&once), once);
        // Each frame is the one that an encoder writes.
        let mut again = Vec::new();
        for event in &after {
            frame::append(event, &mut again).unwrap();
        }
        assert_eq!(again, once);
        for event in &after {
            let last = before.iter().find(|one| one.seq == event.seq).unwrap();
            assert_eq!(event.ts, last.ts);
        }
    }

    #[test]
    fn an_event_stands_for_those_before_it_from_wherever_it_is_told_to(
        event in event(), seq in 3..70_000_u64, back in 0..3_u64,
    ) {
        let bytes = frames(seq, std::slice::from_ref(&event));
        let mut out = Vec::new();
        Glance::of(&bytes).unwrap().append_from(seq - back, &mut out);
        let first_seq = (back > 0).then_some(seq - back);
        assert_eq!(read(&out), [Numbered { first_seq, ..numbered(seq, event) }]);
        let glance = Glance::of(&out).unwrap();
        assert_eq!((glance.first_seq, glance.seq), (seq - back, seq));
    }

    #[test]
    fn bytes_that_are_no_events_are_left_as_they_are(bytes in vec(any::<u8>(), 0..200)) {
        let mut at = 0;
        let mut has_piece = false;
        while let Some(frame) = frame_at(&bytes, at) {
            has_piece |= Glance::of(frame).is_some_and(|glance| glance.piece().is_some());
            at += frame.len();
        }
        prop_assume!(!has_piece);
        assert_eq!(merged(&bytes), bytes);
    }
}

#[test]
fn neighbours_of_one_message_become_one_up_to_the_bound() {
    let long = |byte: &str| {
        Event::TextDelta(TextDelta {
            message_id: message(1),
            delta: byte.repeat(MERGED_LEN_MAX / 4),
            content_index: 0,
        })
    };
    let events: Vec<_> = ["a", "b", "c", "d", "e"].map(long).into();
    let told = read(&merged(&frames(7, &events)));
    assert_eq!(told.len(), 2);
    assert_eq!((told[0].first_seq, told[0].seq), (Some(7), 10));
    assert_eq!((told[1].first_seq, told[1].seq), (None, 11));
}

#[test]
fn an_event_with_more_than_this_version_knows_stays_alone() {
    let delta = Event::TextDelta(TextDelta {
        message_id: message(1),
        delta: "x".to_owned(),
        content_index: 0,
    });
    let mut bytes = frames(1, &[delta.clone(), delta]);
    // A newer version appended a field of one byte to the envelope of the second.
    let second = frame_at(&bytes, 0).unwrap().len();
    bytes.push(9);
    bytes[second] += 1;
    bytes[second + 6] += 1;
    assert_eq!(merged(&bytes), bytes);
    let mut out = Vec::new();
    let last = Glance::of(&bytes[second..]).unwrap();
    last.append_from(1, &mut out);
    assert_eq!(out.last(), Some(&9), "what is not known goes on intact");
}
