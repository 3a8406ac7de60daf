//! What it costs to understand each agent: recorded sessions, and a megabyte of text as each version of pi says it.
//!
//! `cargo bench -p oqto-tests --bench dialects [-- --quick]`
//!
//! Alone is the translator, line by line; in the core is the session with it, from bytes to events, before they are encoded.
//! All of it is processor time, of one thread.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::hint::black_box;

use oqto_runner::harness::{Beginning, Dialect, Fragment, Harness};
use oqto_runner::session::Setup;
use oqto_tests::bench::{Effort, Spread, Table, cpu_s};

#[expect(dead_code, reason = "the tests of recordings use the rest")]
#[path = "../tapes/acp.rs"]
mod acp;
#[expect(dead_code, reason = "the tests of recordings use the rest")]
#[path = "../tapes/play.rs"]
mod play;
#[expect(dead_code, reason = "the tests of recordings use the rest")]
#[path = "../tapes/tape.rs"]
mod tape;

use tape::{BEGAN, Record, What};

/// A recording, and what its session is made of.
struct Tape {
    setup: Setup,
    records: Vec<Record>,
}

/// MB of lines a second, on one core.
const TARGET: f64 = 200.0;

/// How much is understood in one sample, bytes: short recordings are repeated, so that the clock is fine enough.
const SAMPLE_LEN: usize = 32 * 1024 * 1024;

/// The text of a long turn.
const TEXT_LEN: usize = 1024 * 1024;

fn main() {
    let rounds = Effort::asked().of(2, 15);
    let mut works: BTreeMap<String, Vec<Tape>> = BTreeMap::new();
    let mut add = |name: &str, harness: Harness, continues: Option<String>, records: Vec<Record>| {
        let agent = name.split('/').next().unwrap_or(name).to_owned();
        let setup = play::setup(harness, continues);
        works.entry(agent).or_default().push(Tape { setup, records });
    };
    for (name, path) in tape::all() {
        add(&name, tape::pi(&name), None, tape::read(&path));
    }
    for tape in acp::all() {
        add(&tape.name, tape.harness, tape.continue_session, tape.records);
    }
    let text = "0123456789 abcdefghijklmnopqrstuvwxyz \"quoted\" and a line's end\n".repeat(TEXT_LEN / 64);
    add(
        "pi 0.87, 1 MB by 16 bytes",
        Harness::pi(),
        None,
        turn(&text, 16, brief),
    );
    add(
        "pi 0.74, 1 MB by 16 KiB",
        Harness::pi(),
        None,
        turn(&text, 16_384, repeating),
    );
    let mut table = Table::new([
        "said",
        "MB",
        "lines",
        "alone: MB/s",
        "ns/line",
        "in the core: MB/s",
        "CPU ms per MB of text",
        "",
    ]);
    for (name, tapes) in &works {
        table.row(figures(name, tapes, rounds));
    }
    table.print();
}

fn figures(name: &str, tapes: &[Tape], rounds: usize) -> [String; 8] {
    let lines: Vec<usize> = tapes.iter().flat_map(printed).collect();
    let (count, len) = (lines.len(), lines.iter().sum::<usize>());
    let times = (SAMPLE_LEN / len).max(1);
    let mut alone = Vec::new();
    let mut core = Vec::new();
    for _ in 0..rounds {
        alone.push(taken(times, || {
            tapes.iter().for_each(|tape| understand(tape, |_| {}));
        }));
        core.push(taken(times, || tapes.iter().for_each(live)));
    }
    let (alone, core) = (Spread::of(alone).median(), Spread::of(core).median());
    let mb = len as f64 / 1e6;
    let mut text = 0;
    for tape in tapes {
        understand(tape, |fragment| {
            if let Fragment::Text { delta, .. } | Fragment::Thought { delta, .. } = fragment {
                text += delta.len();
            }
        });
    }
    let met = if mb / alone >= TARGET { "met" } else { "missed" };
    [
        name.to_owned(),
        format!("{mb:.1}"),
        count.to_string(),
        format!("{:.0}", mb / alone),
        format!("{:.0}", alone / count as f64 * 1e9),
        format!("{:.0}", mb / core),
        format!("{:.1}", core / text as f64 * 1e9),
        format!("{TARGET} MB/s alone: {met}"),
    ]
}

/// Processor seconds of one of so many turns.
fn taken(times: usize, mut turn: impl FnMut()) -> f64 {
    let began = cpu_s(std::process::id());
    for _ in 0..times {
        turn();
    }
    (cpu_s(std::process::id()) - began) / times as f64
}

/// How long each line of a recording is.
fn printed(tape: &Tape) -> Vec<usize> {
    let bytes = tape.records.iter().filter_map(|record| match &record.what {
        What::Out(bytes) => Some(bytes.as_slice()),
        _ => None,
    });
    let lines = bytes.flat_map(|bytes| bytes.split_inclusive(|byte| *byte == b'\n'));
    lines.map(<[u8]>::len).collect()
}

/// Has a dialect understand a recording, and say what was said to it.
fn understand(tape: &Tape, mut each: impl FnMut(&Fragment)) {
    let harness = &tape.setup.harness;
    let mut dialect = Dialect::new(harness.tongue());
    let beginning = Beginning {
        cwd: tape.setup.cwd.clone(),
        continue_session: tape.setup.continue_session.clone(),
        mode: harness.definition().mode.clone(),
        ..Beginning::default()
    };
    black_box(dialect.probe(&beginning));
    let mut fragments = Vec::new();
    for record in &tape.records {
        match &record.what {
            // Recorded line by line.
            What::Out(bytes) => {
                let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
                dialect.push(black_box(line), record.at, &mut fragments);
            }
            // One that cannot be said is not, here as there.
            What::Command(envelope) => drop(dialect.say(&envelope.command, envelope.id, &[])),
            What::Err(_) | What::Report(_) | What::Exited(_) => {}
        }
        fragments
            .drain(..)
            .for_each(|fragment| each(black_box(&fragment)));
    }
}

fn live(tape: &Tape) {
    let mut session = play::session(&tape.setup);
    let mut actions = Vec::new();
    for record in &tape.records {
        session.step(&record.what.input(), record.at, &mut actions);
        black_box(actions.drain(..).count());
    }
}

/// A turn that says a text in pieces, as `line` writes each with what was said before it.
fn turn(text: &str, piece_len: usize, line: fn(&str, &str) -> String) -> Vec<Record> {
    let whole = serde_json::json!({"role": "assistant", "content": [{"type": "text", "text": text}], "stopReason": "stop"});
    let mut lines = vec![
        r#"{"id":"probe","type":"response","command":"get_state","success":true,"data":{}}"#.to_owned(),
        r#"{"type":"agent_start"}"#.to_owned(),
        r#"{"type":"message_start","message":{"role":"assistant","content":[]}}"#.to_owned(),
    ];
    for at in (0..text.len()).step_by(piece_len) {
        let end = text.len().min(at + piece_len);
        lines.push(line(&text[at..end], &text[..end]));
    }
    lines.push(format!(r#"{{"type":"message_end","message":{whole}}}"#));
    lines.push(format!(
        r#"{{"type":"turn_end","message":{whole},"toolResults":[]}}"#
    ));
    lines.push(format!(r#"{{"type":"agent_end","messages":[{whole}]}}"#));
    let records = lines.into_iter().map(|line| Record {
        at: BEGAN,
        what: What::Out(format!("{line}\n").into_bytes()),
    });
    std::iter::once(tape::confined()).chain(records).collect()
}

/// As 0.87 writes it.
fn brief(piece: &str, _: &str) -> String {
    let piece = serde_json::to_string(piece).expect("a text");
    format!(
        r#"{{"type":"message_update","usage":{{"input":657,"output":32,"cacheRead":0,"cacheWrite":0,"reasoning":0,"totalTokens":689,"cost":{{"input":0,"output":0,"cacheRead":0,"cacheWrite":0,"total":0}}}},"assistantMessageEvent":{{"type":"text_delta","contentIndex":0,"delta":{piece}}}}}"#
    )
}

/// As 0.74 writes it: with the message so far, twice.
fn repeating(piece: &str, so_far: &str) -> String {
    let piece = serde_json::to_string(piece).expect("a text");
    let message = serde_json::json!({"role": "assistant", "content": [{"type": "text", "text": so_far}]});
    format!(
        r#"{{"type":"message_update","assistantMessageEvent":{{"type":"text_delta","contentIndex":0,"delta":{piece},"partial":{message}}},"message":{message}}}"#
    )
}
