//! Every decoder of bytes that nobody vouches for. One line adds one.

use std::fmt::Debug;

use oqto_protocol::attest::Statement;
use oqto_protocol::bounds::FRAME_LEN_MAX;
use oqto_protocol::codec::{Wire, decode_all};
use oqto_protocol::command::{Command, CommandEnvelope};
use oqto_protocol::enrol::Grant;
use oqto_protocol::event::{Envelope, Event, InputRequest, Numbered, Transient};
use oqto_protocol::fault::Fault;
use oqto_protocol::file::{FileChunk, FileEnd};
use oqto_protocol::frame::{Frame, HEADER_LEN, Kind};
use oqto_protocol::hello::{Hello, Welcome};
use oqto_protocol::id::{CommandId, Digest, MessageId, SessionId};
use oqto_protocol::message::{Message, Part, Source};
use oqto_protocol::query::{Answer, Query};
use oqto_protocol::reply::{Reply, ReplyData};
use oqto_protocol::stream::{Ack, Subscribe, Subscribed};
use oqto_protocol::terminal::{TerminalExit, TerminalInput, TerminalOutput, TerminalResize};
use oqto_protocol::trust::TrustStatement;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A decoder, and what it is tried on.
pub(crate) struct Target {
    /// Names its directory in `corpus/`.
    pub(crate) name: &'static str,
    /// Panics when the decoder breaks a promise, and only then.
    pub(crate) run: fn(&[u8]),
    /// The file of golden values that are seeds too.
    pub(crate) golden: Option<Golden>,
}

/// Which form of which golden values.
pub(crate) enum Golden {
    Wire(&'static str),
    Json(&'static str),
}

use Golden::{Json, Wire as Bytes};

pub(crate) const TARGETS: &[Target] = &[
    target("answer", wire::<Answer>, Some(Bytes("answer"))),
    target("answer_json", json::<Answer>, Some(Json("answer"))),
    target("command", wire::<Command>, Some(Bytes("command"))),
    target("command_json", json::<Command>, Some(Json("command"))),
    target("envelope_json", json::<Envelope>, None),
    target("event", wire::<Event>, Some(Bytes("event"))),
    target("event_json", json::<Event>, Some(Json("event"))),
    target("frame", frames, Some(Bytes("frame"))),
    target("grant_json", json::<Grant>, None),
    target("id", ids, None),
    target(
        "input_request",
        wire::<InputRequest>,
        Some(Bytes("input_request")),
    ),
    target("message", wire::<Message>, Some(Bytes("message"))),
    target("message_json", json::<Message>, Some(Json("message"))),
    target("part", wire::<Part>, Some(Bytes("part"))),
    target("part_json", json::<Part>, Some(Json("part"))),
    target("query", wire::<Query>, Some(Bytes("query"))),
    target("query_json", json::<Query>, Some(Json("query"))),
    target("reply_data", wire::<ReplyData>, Some(Bytes("reply_data"))),
    target("reply_data_json", json::<ReplyData>, Some(Json("reply_data"))),
    target("source", wire::<Source>, Some(Bytes("source"))),
    target("statement", wire::<Statement>, Some(Bytes("statement"))),
    target(
        "trust_statement",
        wire::<TrustStatement>,
        Some(Bytes("trust_statement")),
    ),
];

const fn target(name: &'static str, run: fn(&[u8]), golden: Option<Golden>) -> Target {
    Target { name, run, golden }
}

/// What can be read has one form, not longer than what it was read from.
fn wire<T: Wire + Debug>(bytes: &[u8]) {
    let Ok(value) = decode_all::<T>(bytes) else {
        return;
    };
    let mut once = Vec::new();
    value.encode(&mut once);
    assert!(once.len() <= bytes.len(), "more came out than went in: {value:?}");
    let mut twice = Vec::new();
    match decode_all::<T>(&once) {
        Ok(again) => again.encode(&mut twice),
        Err(error) => panic!("cannot read what was written: {error}: {value:?}"),
    }
    assert_eq!(once, twice, "{value:?}");
}

/// What can be read can be shown on one line and read again.
fn json<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    shown(&value);
}

fn shown<T: Serialize + DeserializeOwned + Debug>(value: &T) {
    let line = match serde_json::to_string(value) {
        Ok(line) => line,
        Err(error) => panic!("cannot be shown: {error}: {value:?}"),
    };
    assert!(!line.contains(['\n', '\r']), "more than a line: {line}");
    if let Err(error) = serde_json::from_str::<T>(&line) {
        panic!("cannot be read again: {error}: {line}");
    }
}

/// A stream of frames, each read as what its kind says.
fn frames(mut bytes: &[u8]) {
    while let Ok(Some((frame, rest))) = Frame::split(bytes, FRAME_LEN_MAX) {
        assert_eq!(HEADER_LEN + frame.body.len() + rest.len(), bytes.len());
        bytes = rest;
        body(frame);
    }
}

fn body(frame: Frame<'_>) {
    match frame.kind {
        Kind::HELLO => wire::<Hello>(frame.body),
        Kind::WELCOME => wire::<Welcome>(frame.body),
        Kind::FAULT => wire::<Fault>(frame.body),
        Kind::TRANSIENT => wire::<Transient>(frame.body),
        Kind::COMMAND => wire::<CommandEnvelope>(frame.body),
        Kind::REPLY => wire::<Reply>(frame.body),
        Kind::QUERY => wire::<Query>(frame.body),
        Kind::ANSWER => wire::<Answer>(frame.body),
        Kind::SUBSCRIBE => wire::<Subscribe>(frame.body),
        Kind::SUBSCRIBED => wire::<Subscribed>(frame.body),
        Kind::EVENT => event(frame.body),
        Kind::ACK => wire::<Ack>(frame.body),
        Kind::FILE_CHUNK => wire::<FileChunk>(frame.body),
        Kind::FILE_END => wire::<FileEnd>(frame.body),
        Kind::TERMINAL_INPUT => wire::<TerminalInput>(frame.body),
        Kind::TERMINAL_OUTPUT => wire::<TerminalOutput>(frame.body),
        Kind::TERMINAL_RESIZE => wire::<TerminalResize>(frame.body),
        Kind::TERMINAL_EXIT => wire::<TerminalExit>(frame.body),
        Kind(_) => {}
    }
}

/// An event from the wire is also shown, whatever is in it.
fn event(bytes: &[u8]) {
    wire::<Numbered>(bytes);
    if let (Ok(Numbered { event, .. }), Ok(session_id), Ok(runner_id)) =
        (decode_all(bytes), "s".parse(), "r".parse())
    {
        shown(&Envelope {
            session_id,
            runner_id,
            epoch: 1,
            seq: Some(1),
            first_seq: None,
            ts: 0,
            event,
        });
    }
}

/// What passes the door of an id comes out as it went in.
fn ids(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(id) = text.parse::<SessionId>() {
        assert_eq!(id.as_str(), text);
    }
    if let Ok(id) = text.parse::<MessageId>() {
        assert_eq!(id.as_str(), text);
    }
    if let Ok(id) = text.parse::<CommandId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
}
