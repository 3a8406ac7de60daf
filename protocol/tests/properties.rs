//! What holds for every value and for every string of bytes.
#![expect(clippy::unwrap_used, reason = "a helper of a test may end it")]

mod support;

use std::fmt::Debug;

use oqto_protocol::attest::{Attestation, Statement};
use oqto_protocol::bounds::ELEMENTS_MAX;
use oqto_protocol::codec::{Blob, DecodeError, Json, Wire, decode_all};
use oqto_protocol::command::{Command, CommandEnvelope};
use oqto_protocol::event::{AgentIdle, Envelope, Event, InputRequest, Numbered, ToolEnd, Transient};
use oqto_protocol::fault::Fault;
use oqto_protocol::file::{FileChunk, FileEnd};
use oqto_protocol::frame::{self, Frame};
use oqto_protocol::hello::{Hello, Welcome};
use oqto_protocol::message::{Message, Part};
use oqto_protocol::query::{Answer, Query};
use oqto_protocol::reply::{Reply, ReplyData};
use oqto_protocol::session::{SessionConfig, SessionInfo, SessionStatus};
use oqto_protocol::stream::{Ack, Subscribe, Subscribed};
use oqto_protocol::terminal::{TerminalExit, TerminalInput, TerminalOutput, TerminalResize};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use support::{Sample, Source, Variants};

fn encoded(value: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

/// Reads what may be anything. What can be read has one form, not longer than the bytes that it was read from.
fn judge<T: Wire>(bytes: &[u8]) {
    if let Ok(value) = decode_all::<T>(bytes) {
        let again = encoded(&value);
        assert!(again.len() <= bytes.len(), "more came out than went in");
        // Not the values: what is no number is not equal to itself.
        assert_eq!(encoded(&decode_all::<T>(&again).unwrap()), again);
    }
}

/// All that is true of one value's wire form.
fn wire_form<T: Wire + PartialEq + Debug>(value: &T) {
    let bytes = encoded(value);
    assert_eq!(decode_all::<T>(&bytes).as_ref(), Ok(value));
    let cut = (0..bytes.len()).filter(|len| decode_all::<T>(&bytes[..*len]).is_ok());
    assert_eq!(cut.count(), 0, "a cut value is no value");
    let longer = [bytes.as_slice(), &[0]].concat();
    assert_eq!(decode_all::<T>(&longer), Err(DecodeError::Left(1)));
}

fn json_form<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let json = serde_json::to_string(value).unwrap();
    assert!(!json.contains(['\n', '\r']), "one line: {json}");
    assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), value, "{json}");
}

macro_rules! each {
    ($($test:ident $type:ident),+ $(,)?) => {$(
        proptest! {
            #[test]
            fn $test(choices in vec(any::<u8>(), 0..300), at: proptest::sample::Index, byte: u8) {
                let value = $type::sample(&mut Source::choices(&choices));
                wire_form(&value);
                let mut bytes = encoded(&value);
                let at = at.index(bytes.len());
                bytes[at] = byte;
                judge::<$type>(&bytes);
                judge::<$type>(&choices);
            }
        }
    )+};
}

each! {
    hello Hello, welcome Welcome, fault Fault, command CommandEnvelope, reply Reply, query Query, answer Answer,
    subscribe Subscribe, subscribed Subscribed, ack Ack, file_chunk FileChunk, file_end FileEnd,
    terminal_input TerminalInput, terminal_output TerminalOutput, terminal_resize TerminalResize,
    terminal_exit TerminalExit, message Message, part Part, session_config SessionConfig,
    session_info SessionInfo, session_status SessionStatus, statement Statement, attestation Attestation,
    input_request InputRequest, event Numbered, transient Transient, command_alone Command, data ReplyData,
}

macro_rules! each_json {
    ($($test:ident $type:ident),+ $(,)?) => {$(
        proptest! {
            #[test]
            fn $test(choices in vec(any::<u8>(), 0..300)) {
                json_form(&$type::sample(&mut Source::choices(&choices)));
            }
        }
    )+};
}

each_json! {
    hello_json Hello, welcome_json Welcome, fault_json Fault, command_json CommandEnvelope, reply_json Reply,
    query_json Query, answer_json Answer, message_json Message, part_json Part, event_json Event,
    session_config_json SessionConfig, session_status_json SessionStatus, statement_json Statement,
}

fn enveloped(event: Event) -> Envelope {
    Envelope {
        session_id: "s".parse().unwrap(),
        runner_id: "r".parse().unwrap(),
        epoch: 1,
        seq: Some(2),
        first_seq: Some(1),
        ts: 3,
        event,
    }
}

#[test]
fn no_field_of_an_event_is_lost_among_those_of_its_envelope() {
    for event in Event::each(Source::full) {
        json_form(&enveloped(event));
    }
}

#[test]
fn no_field_of_a_command_is_lost_among_those_of_its_envelope() {
    for command in Command::each(Source::full) {
        json_form(&CommandEnvelope {
            command,
            ..Sample::sample(&mut Source::full())
        });
    }
}

/// Free-form text as a hostile peer may send it: past the door that only honest writers use.
fn from_wire(text: &str) -> Json {
    decode_all(&encoded(&text.to_owned())).unwrap()
}

fn holding(output: Json) -> Envelope {
    enveloped(Event::ToolEnd(ToolEnd {
        output,
        ..Sample::sample(&mut Source::bare())
    }))
}

#[test]
fn hostile_json_text_is_shown_as_a_line_that_can_be_read() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    for text in [
        "{\"a\":\n1}",
        "\r\n[]\r\n",
        "1e999",
        r#""\ud800""#,
        r#"{"\udc00":0}"#,
        "",
        "{",
        "nul",
        "1 2",
        &deep,
    ] {
        let json = serde_json::to_string(&holding(from_wire(text))).unwrap();
        assert!(!json.contains(['\n', '\r']), "{json}");
        let read: Envelope = serde_json::from_str(&json).unwrap();
        let Event::ToolEnd(ToolEnd { output, .. }) = read.event else {
            panic!("another event");
        };
        assert_eq!(output.value(), from_wire(text).value());
    }
    assert!(
        Json::parse(deep).is_err(),
        "what nobody can read is not made here"
    );
}

proptest! {
    #[test]
    fn any_text_as_json_is_shown_as_a_line_that_can_be_read(text in r#"[\[\]{}:,"\\u0-9a-fe\n\r .-]{0,40}"#) {
        let json = serde_json::to_string(&holding(from_wire(&text))).unwrap();
        prop_assert!(!json.contains(['\n', '\r']));
        prop_assert!(serde_json::from_str::<Envelope>(&json).is_ok(), "{}", json);
    }

    #[test]
    fn frames_come_out_the_same_however_they_come_in(
        bodies in vec(vec(any::<u8>(), 0..600), 0..8),
        pieces in vec(1..700_usize, 1..20),
    ) {
        let chunks: Vec<_> = bodies
            .iter()
            .map(|body| FileChunk { offset: 0, data: Blob(body.clone()) })
            .collect();
        let mut stream = Vec::new();
        for chunk in &chunks {
            frame::append(chunk, &mut stream).unwrap();
        }
        let (mut held, mut seen) = (Vec::new(), Vec::new());
        let mut sizes = pieces.iter().cycle();
        let mut left = stream.as_slice();
        while !left.is_empty() {
            let (piece, rest) = left.split_at((*sizes.next().unwrap()).min(left.len()));
            held.extend_from_slice(piece);
            left = rest;
            while let Some((frame, rest)) = Frame::split(&held, 1 << 20).unwrap() {
                seen.push(frame.body::<FileChunk>().unwrap());
                held = rest.to_vec();
            }
        }
        prop_assert_eq!(seen, chunks);
        prop_assert!(held.is_empty());
    }

    #[test]
    fn any_bytes_are_frames_or_not(bytes in vec(any::<u8>(), 0..64), len_max in 0..64_usize) {
        if let Ok(Some((frame, rest))) = Frame::split(&bytes, len_max) {
            prop_assert!(frame.body.len() + 2 <= len_max);
            prop_assert_eq!(frame::HEADER_LEN + frame.body.len() + rest.len(), bytes.len());
        }
    }
}

#[test]
fn a_number_and_a_map_have_one_form() {
    for long in [
        [251, 5, 0].as_slice(),
        &[251, 250, 0],
        &[252, 255, 255, 0, 0],
        &[253, 1, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(decode_all::<u64>(long), Err(DecodeError::Malformed("number")));
    }
    for edge in [250, 251, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        assert_eq!(decode_all(&encoded(&edge)), Ok(edge));
    }
    type Map = std::collections::BTreeMap<String, String>;
    let twice = [2, 1, b'a', 0, 1, b'a', 0];
    let falling = [2, 1, b'b', 0, 1, b'a', 0];
    assert_eq!(decode_all::<Map>(&twice), Err(DecodeError::Malformed("map")));
    assert_eq!(decode_all::<Map>(&falling), Err(DecodeError::Malformed("map")));
    assert_eq!(decode_all::<bool>(&[2]), Err(DecodeError::Malformed("flag")));
    assert_eq!(
        decode_all::<String>(&[1, 0xff]),
        Err(DecodeError::Malformed("text"))
    );
    for number in [0, 1, -1, 300, i32::MIN, i32::MAX] {
        assert_eq!(decode_all(&encoded(&number)), Ok(number));
    }
}

#[test]
fn a_hostile_length_is_refused_before_anything_is_allocated() {
    for count in [
        2,
        u64::from(ELEMENTS_MAX) + 1,
        u64::from(u32::MAX),
        1 << 32,
        u64::MAX,
    ] {
        let bytes = encoded(&count);
        assert!(decode_all::<Vec<String>>(&bytes).is_err());
        assert!(decode_all::<String>(&bytes).is_err());
        assert!(decode_all::<Blob>(&bytes).is_err());
        assert!(decode_all::<AgentIdle>(&bytes).is_err());
    }
}

#[test]
fn the_elements_of_all_lists_of_a_frame_share_one_bound() {
    let half = vec![true; ELEMENTS_MAX as usize / 2];
    assert!(decode_all::<Vec<bool>>(&encoded(&half)).is_ok());
    // Two lists in a list: their elements and themselves are past the bound by the two.
    let both = vec![half.clone(), half];
    assert_eq!(
        decode_all::<Vec<Vec<bool>>>(&encoded(&both)),
        Err(DecodeError::TooMany)
    );
}
