//! What reading an agent's updates costs: the official types, which own all that they read, beside the dialect of the runner.
//!
//! `cargo bench --manifest-path tests/acp/Cargo.toml`
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "what cannot be read is a bench that failed")]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

use agent_client_protocol::v1::schema::SessionNotification;
use oqto_protocol::command::{Command, Prompt};
use oqto_protocol::id::CommandId;
use oqto_runner::harness::{Beginning, Dialect, Tongue};
use serde_json::Value;

#[derive(serde::Deserialize)]
struct Line {
    params: SessionNotification,
}

/// Every update of every recording, as if of one session.
fn updates() -> Vec<String> {
    let agents = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tapes/acp")).unwrap();
    let mut found = Vec::new();
    for tape in agents.flat_map(|agent| fs::read_dir(agent.unwrap().path()).unwrap()) {
        let path = tape.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        for record in fs::read_to_string(path).unwrap().lines() {
            let record: Value = serde_json::from_str(record).unwrap();
            let line = record["line"].as_str().unwrap_or_default();
            let value: Value = serde_json::from_str(line).unwrap_or_default();
            if record["dir"] == "out" && value["method"] == "session/update" {
                let session = value["params"]["sessionId"].as_str().unwrap();
                found.push(line.replace(session, "s"));
            }
        }
    }
    found
}

fn opened() -> Dialect {
    let mut dialect = Dialect::new(Tongue::Acp);
    let mut out = Vec::new();
    let _hello = dialect.probe(&Beginning::default());
    for line in [
        r#"{"jsonrpc":"2.0","id":"initialize","result":{"protocolVersion":1,"agentCapabilities":{}}}"#,
        r#"{"jsonrpc":"2.0","id":"open","result":{"sessionId":"s"}}"#,
    ] {
        dialect.push(line.as_bytes(), 1, &mut out);
    }
    let prompt = Prompt {
        message: String::new(),
        images: Vec::new(),
        client_id: None,
        resources: Vec::new(),
    };
    dialect
        .say(&Command::Prompt(prompt), CommandId([1; 16]), &[])
        .unwrap();
    dialect
}

/// The best of several rounds, in MB/s and ns a line.
fn measure(name: &str, lines: &[String], mut round: impl FnMut(&[String])) {
    let len: usize = lines.iter().map(String::len).sum();
    let until = Instant::now()
        + Duration::from_secs(if env::args().any(|word| word == "--quick") {
            0
        } else {
            5
        });
    let mut best = Duration::MAX;
    loop {
        let begun = Instant::now();
        round(lines);
        best = best.min(begun.elapsed());
        if Instant::now() >= until {
            break;
        }
    }
    let rate = len as f64 / best.as_secs_f64() / 1e6;
    let each = best.as_nanos() as f64 / lines.len() as f64;
    println!("{name:<16} {rate:>7.0} MB/s {each:>7.0} ns/update");
}

fn main() {
    let lines = updates();
    let len: usize = lines.iter().map(String::len).sum();
    println!("{} updates, {} bytes each", lines.len(), len / lines.len());
    measure("official types", &lines, |lines| {
        for line in lines {
            let read: Line = serde_json::from_str(line).unwrap();
            black_box(read.params);
        }
    });
    let mut out = Vec::new();
    measure("the dialect", &lines, |lines| {
        let mut dialect = opened();
        for line in lines {
            dialect.push(line.as_bytes(), 1, &mut out);
            black_box(&mut out).clear();
        }
    });
}
