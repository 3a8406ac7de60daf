//! The bytes of every message of every released minor version, frozen in `golden/`.
//!
//! What this version writes must be exactly what `golden/v<MINOR>` holds; what an older version wrote must still be
//! read as what it meant. A change that breaks these tests would break peers and logs that are out there.
//!
//! A new minor version gets a new directory: raise `MINOR` and run `BLESS=1 cargo test -p oqto-protocol --test
//! golden`. That writes the files that are missing and never touches one that is there: bytes that were released
//! do not change. To change what was not released yet, delete the file first.

#![expect(clippy::unwrap_used, reason = "a helper of a test may end it")]

mod support;

use std::fmt::{Debug, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use oqto_protocol::attest::Statement;
use oqto_protocol::codec::{Blob, DecodeError, Unknown, Wire, decode_all};
use oqto_protocol::command::{Command, CommandEnvelope};
use oqto_protocol::event::{Envelope, Event, InputRequest, Numbered, TextDelta, Transient};
use oqto_protocol::fault::Fault;
use oqto_protocol::file::{FileChunk, FileEnd};
use oqto_protocol::frame::{self, Body, Frame, Kind};
use oqto_protocol::hello::{Hello, Welcome};
use oqto_protocol::message::{Content, Message, Part, Source as MediaSource};
use oqto_protocol::query::{Answer, Query};
use oqto_protocol::reply::{Reply, ReplyData};
use oqto_protocol::stream::{Ack, Subscribe, Subscribed};
use oqto_protocol::terminal::{TerminalExit, TerminalInput, TerminalOutput, TerminalResize};
use oqto_protocol::trust::TrustStatement;
use oqto_protocol::version::MINOR;
use serde::Serialize;
use serde::de::DeserializeOwned;
use support::{Sample, Source, Variants};

/// One value in both forms.
#[derive(Debug, PartialEq)]
struct Entry {
    name: String,
    wire: Vec<u8>,
    json: String,
}

/// The values of one file.
struct Family {
    file: &'static str,
    entries: Vec<Entry>,
    /// Reads a value's wire form and gives its JSON form.
    read: fn(&[u8]) -> Result<String, DecodeError>,
}

type Make = fn() -> Source<'static>;

const SOURCES: [(&str, Make); 2] = [("full", Source::full), ("bare", Source::bare)];

fn families() -> Vec<Family> {
    vec![
        variants::<Event>("event"),
        variants::<InputRequest>("input_request"),
        variants::<MediaSource>("source"),
        parts(),
        variants::<Command>("command"),
        variants::<ReplyData>("reply_data"),
        variants::<Query>("query"),
        variants::<Answer>("answer"),
        whole::<Message>("message"),
        whole::<Statement>("statement"),
        whole::<TrustStatement>("trust_statement"),
        frames(),
    ]
}

/// Every variant, full and bare, and one that this version does not know.
fn variants<T: Variants + Wire + Serialize + DeserializeOwned + PartialEq + Debug>(
    file: &'static str,
) -> Family {
    let mut entries = Vec::new();
    for (what, source) in SOURCES {
        let each = T::each(source);
        assert_eq!(
            each.iter().map(Variants::name).collect::<Vec<_>>(),
            T::NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        );
        entries.extend(
            each.iter()
                .map(|value| entry(format!("{} {what}", value.name()), value)),
        );
    }
    entries.push(entry("x-unknown".to_owned(), &T::unknown(unknown())));
    Family {
        file,
        entries,
        read: json_of::<T>,
    }
}

/// Content stands nowhere but in a part, whose JSON is one object with it.
fn parts() -> Family {
    let mut entries = Vec::new();
    for (what, source) in SOURCES {
        for content in Content::each(source) {
            let name = format!("{} {what}", content.name());
            let id = source().field("id");
            entries.push(entry(name, &Part { id, content }));
        }
    }
    let content = Content::Unknown(unknown());
    entries.push(entry(
        "x-unknown".to_owned(),
        &Part {
            id: "p-1".to_owned(),
            content,
        },
    ));
    Family {
        file: "part",
        entries,
        read: json_of::<Part>,
    }
}

fn whole<T: Sample + Wire + Serialize + DeserializeOwned + PartialEq + Debug>(file: &'static str) -> Family {
    Family {
        file,
        entries: vec![
            entry("full".to_owned(), &T::sample(&mut Source::full())),
            entry("bare".to_owned(), &T::sample(&mut Source::bare())),
        ],
        read: json_of::<T>,
    }
}

/// The event whose bytes `docs/PROTOCOL.md` goes through.
fn documented() -> Numbered {
    Numbered {
        epoch: 1,
        seq: 42,
        first_seq: None,
        ts: 1_790_000_000_000,
        event: Event::TextDelta(TextDelta {
            message_id: "m-3".parse().unwrap(),
            delta: "Hello".to_owned(),
            content_index: 0,
        }),
    }
}

fn unknown() -> Unknown {
    Unknown {
        kind: 300,
        bytes: Blob(vec![1, 2, 3]),
    }
}

/// A value in both forms, each of which reads back as the value.
fn entry<T: Wire + Serialize + DeserializeOwned + PartialEq + Debug>(name: String, value: &T) -> Entry {
    let mut wire = Vec::new();
    value.encode(&mut wire);
    assert_eq!(decode_all::<T>(&wire).as_ref(), Ok(value), "{name}");
    let json = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), value, "{json}");
    Entry { name, wire, json }
}

fn json_of<T: Wire + Serialize>(wire: &[u8]) -> Result<String, DecodeError> {
    decode_all::<T>(wire).map(|value| serde_json::to_string(&value).unwrap())
}

/// The JSON form of a frame's body. What has none of its own is shown as its envelope.
trait Shown: Body {
    fn json(&self) -> String;
}

macro_rules! bodies {
    ($($kind:ident $type:ident),+ $(,)?) => {
        $(bodies!(@shown $type);)+

        /// Every kind of frame, full and bare.
        fn frames() -> Family {
            let mut entries = Vec::new();
            for (what, source) in SOURCES {
                $(entries.push(framed::<$type>(format!("{} {what}", stringify!($kind)), source()));)+
            }
            entries.push(framed_value("EVENT of the documentation".to_owned(), &documented()));
            let kinds = [$((Kind::$kind, stringify!($kind))),+];
            assert_eq!(kinds.as_slice(), Kind::ALL, "every kind of frame is here");
            Family { file: "frame", entries, read: frame_json }
        }

        fn frame_json(bytes: &[u8]) -> Result<String, DecodeError> {
            let (frame, rest) = Frame::split(bytes, usize::MAX).unwrap().unwrap();
            assert!(rest.is_empty());
            match frame.kind {
                $(Kind::$kind => frame.body::<$type>().map(|body| body.json()),)+
                Kind(other) => panic!("kind {other} is unknown"),
            }
        }
    };
    (@shown Numbered) => {
        impl Shown for Numbered {
            fn json(&self) -> String {
                let Self { epoch, seq, first_seq, ts, event } = self.clone();
                enveloped(&Envelope { epoch, seq: Some(seq), first_seq, ts, event, ..envelope() })
            }
        }
    };
    (@shown Transient) => {
        impl Shown for Transient {
            fn json(&self) -> String {
                let Self { session_id, ts, event } = self.clone();
                enveloped(&Envelope { session_id, ts, event, ..envelope() })
            }
        }
    };
    (@shown $type:ident) => {
        impl Shown for $type {
            fn json(&self) -> String {
                entry(String::new(), self).json
            }
        }
    };
}

bodies! {
    HELLO Hello, WELCOME Welcome, FAULT Fault, TRANSIENT Transient,
    COMMAND CommandEnvelope, REPLY Reply, QUERY Query, ANSWER Answer,
    SUBSCRIBE Subscribe, SUBSCRIBED Subscribed, EVENT Numbered, ACK Ack,
    FILE_CHUNK FileChunk, FILE_END FileEnd,
    TERMINAL_INPUT TerminalInput, TERMINAL_OUTPUT TerminalOutput, TERMINAL_RESIZE TerminalResize,
    TERMINAL_EXIT TerminalExit,
}

fn framed<T: Shown + Sample + PartialEq + Debug>(name: String, mut source: Source<'_>) -> Entry {
    framed_value(name, &T::sample(&mut source))
}

fn framed_value<T: Shown + PartialEq + Debug>(name: String, value: &T) -> Entry {
    let mut wire = Vec::new();
    frame::append(value, &mut wire).unwrap();
    let (frame, _) = Frame::split(&wire, usize::MAX).unwrap().unwrap();
    assert_eq!(frame.body::<T>().as_ref(), Ok(value), "{name}");
    let json = value.json();
    Entry { name, wire, json }
}

fn envelope() -> Envelope {
    Envelope {
        session_id: "s-0".parse().unwrap(),
        runner_id: "r-0".parse().unwrap(),
        epoch: 0,
        seq: None,
        first_seq: None,
        ts: 0,
        event: Event::AgentIdle(Sample::sample(&mut Source::bare())),
    }
}

fn enveloped(envelope: &Envelope) -> String {
    let json = serde_json::to_string(envelope).unwrap();
    assert_eq!(
        &serde_json::from_str::<Envelope>(&json).unwrap(),
        envelope,
        "{json}"
    );
    json
}

fn directory(minor: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("v{minor}"))
}

/// Compares with the file, or writes it when it is missing and `BLESS` is set.
fn compare(file: &str, text: &str) {
    let path = directory(MINOR).join(format!("{file}.txt"));
    if !path.exists() && std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(directory(MINOR)).unwrap();
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; BLESS=1 writes what is missing", path.display()));
    for (line, (was, is)) in golden.lines().zip(text.lines()).enumerate() {
        assert_eq!(was, is, "{}:{} is another today", path.display(), line + 1);
    }
    assert_eq!(
        golden.len(),
        text.len(),
        "{} is longer or shorter today",
        path.display()
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text
        .chars()
        .map(|digit| digit.to_digit(16).unwrap() as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn what_this_version_writes_is_what_it_released() {
    for Family { file, entries, .. } in families() {
        let mut text = format!("# {file}: name, wire form in hex, JSON form.\n");
        for Entry { name, wire, json } in entries {
            write!(text, "\n{name}\n{}\n{json}\n", hex(&wire)).unwrap();
        }
        compare(file, &text);
    }
}

#[test]
fn what_older_versions_wrote_is_read_as_they_meant_it() {
    for minor in 1..=MINOR {
        for Family { file, read, .. } in families() {
            let path = directory(minor).join(format!("{file}.txt"));
            // An older version may lack a family; that this one lacks none is the other test's matter.
            let golden = fs::read_to_string(&path).unwrap_or_default();
            for entry in golden.split("\n\n").skip(1) {
                let lines: Vec<_> = entry.lines().collect();
                let [name, wire, json] = lines[..] else {
                    panic!("{}: {entry}", path.display());
                };
                assert_eq!(
                    read(&unhex(wire)).as_deref(),
                    Ok(json),
                    "{} {name}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn the_documentation_goes_through_a_frame_as_it_is() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md");
    let manual = fs::read_to_string(manual).unwrap();
    let (_, example) = manual
        .split_once("<!-- checked: the bytes of one frame -->")
        .unwrap();
    let (_, example) = example.split_once("```text\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    // Each line is some bytes and, behind two spaces, what they are.
    let bytes: String = example
        .lines()
        .filter_map(|line| line.split("  ").next())
        .flat_map(str::split_whitespace)
        .collect();
    let entry = framed_value(String::new(), &documented());
    assert_eq!(bytes, hex(&entry.wire));
    assert!(manual.contains(&entry.json), "the JSON form too: {}", entry.json);
}

#[test]
fn a_word_keeps_its_number() {
    let mut text = "# Every word and its number.\n".to_owned();
    for (name, words) in support::types::words() {
        write!(text, "\n{name}\n").unwrap();
        for (number, word) in words {
            writeln!(text, "{number} {word}").unwrap();
        }
    }
    compare("words", &text);
}
