//! A harness that speaks pi's dialect (0.87) and prints text at a known pace, each line with the time in it.
//!
//! Every bench program is this harness too: run as `PROGRAM --mode rpc …` it is the agent of a session, run as
//! `PROGRAM --print PLAN` it prints a plan's lines on a bare pipe.

use std::io::{self, BufRead as _};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The length of a time in a delta: nanoseconds since 1970, in decimal.
pub const STAMP_LEN: usize = 19;

/// What pi 0.87 writes around a delta, as recorded.
const BEFORE: &str = concat!(
    r#"{"type":"message_update","usage":{"input":657,"output":32,"cacheRead":0,"cacheWrite":0,"reasoning":0,"#,
    r#""totalTokens":689,"cost":{"input":0,"output":0,"cacheRead":0,"cacheWrite":0,"total":0}},"#,
    r#""assistantMessageEvent":{"type":"text_delta","contentIndex":0,"delta":""#
);
const AFTER: &str = "\"}}\n";

/// How many bytes are written at once where nothing is paced: what a pipe holds.
const FLOOD_LEN: usize = 64 * 1024;

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many deltas.
    pub lines: usize,
    /// How many a second; none: as fast as they are taken.
    pub per_second: Option<u32>,
    /// How long each delta is, bytes; at least [`STAMP_LEN`].
    pub delta_len: usize,
}

/// A text that is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPlan;

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            lines,
            per_second,
            delta_len,
        } = self;
        write!(f, "{lines} {} {delta_len}", per_second.unwrap_or(0))
    }
}

impl FromStr for Plan {
    type Err = NoPlan;

    fn from_str(text: &str) -> Result<Self, NoPlan> {
        let words: Vec<usize> = text
            .split(' ')
            .map(|word| word.parse().map_err(|_| NoPlan))
            .collect::<Result<_, _>>()?;
        let [lines, per_second, delta_len] = words[..] else {
            return Err(NoPlan);
        };
        if delta_len < STAMP_LEN {
            return Err(NoPlan);
        }
        let per_second = u32::try_from(per_second).map_err(|_| NoPlan)?;
        Ok(Self {
            lines,
            per_second: (per_second > 0).then_some(per_second),
            delta_len,
        })
    }
}

/// Nanoseconds since 1970: the one clock that every process of a host reads alike.
///
/// # Panics
/// On a host whose clock stands before 1970.
#[must_use]
pub fn now_ns() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is right");
    u64::try_from(now.as_nanos()).expect("until 2554")
}

/// When a delta was printed.
#[must_use]
pub fn stamp_of_delta(delta: &str) -> Option<u64> {
    delta.get(..STAMP_LEN)?.parse().ok()
}

/// When a line with a delta of `delta_len` bytes was printed; `line` is without its `\n`.
#[must_use]
pub fn stamp_of_line(line: &[u8], delta_len: usize) -> Option<u64> {
    let start = line.len().checked_sub(delta_len + AFTER.len() - 1)?;
    stamp_of_delta(std::str::from_utf8(line.get(start..start + delta_len)?).ok()?)
}

/// Is the harness, when the command line asks for one; `None`: the bench goes on.
#[must_use]
pub fn generate_if_asked() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--print", plan] => {
            let plan = plan.parse().expect("the bench writes plans itself");
            print(plan, &mut io::stdout().lock())
        }
        ["--mode", "rpc", ..] => serve(),
        _ => return None,
    };
    // Who reads may have heard enough.
    Some(ExitCode::from(u8::from(done.is_err())))
}

/// Prints the deltas of a plan.
fn print(plan: Plan, out: &mut impl io::Write) -> io::Result<()> {
    let Plan {
        lines,
        per_second,
        delta_len,
    } = plan;
    let filler = "x".repeat(delta_len - STAMP_LEN);
    let line = format!("{BEFORE}{:019}{filler}{AFTER}", 0).into_bytes();
    let at_once = match per_second {
        Some(_) => 1,
        None => (FLOOD_LEN / line.len()).max(1),
    };
    let mut block = line.repeat(at_once);
    let pause = per_second.map(|rate| Duration::from_secs(1) / rate);
    let began = Instant::now();
    let mut printed = 0;
    while printed < lines {
        if let Some(pause) = pause {
            let due = pause * u32::try_from(printed).expect("a paced plan is short");
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let count = at_once.min(lines - printed);
        let stamp = format!("{:019}", now_ns());
        for start in (0..count).map(|index| index * line.len() + BEFORE.len()) {
            block[start..start + STAMP_LEN].copy_from_slice(stamp.as_bytes());
        }
        out.write_all(&block[..count * line.len()])?;
        out.flush()?;
        printed += count;
    }
    Ok(())
}

/// Answers like pi; a prompt that is a plan is answered with its deltas.
fn serve() -> io::Result<()> {
    // Written past the buffer of lines that standard output would put between.
    let mut out = std::fs::File::options().write(true).open("/proc/self/fd/1")?;
    for line in io::stdin().lock().lines() {
        let Ok(request) = serde_json::from_str::<Value>(&line?) else {
            continue;
        };
        let type_ = request["type"].as_str().unwrap_or_default();
        say(
            &mut out,
            &json!({"id": request["id"], "type": "response", "command": type_, "success": true, "data": answer(type_)}),
        )?;
        if let Some(plan) = request["message"].as_str().and_then(|text| text.parse().ok()) {
            run(plan, &mut out)?;
        }
    }
    Ok(())
}

fn answer(type_: &str) -> Value {
    match type_ {
        "get_state" => json!({
            "model": {"id": "generator", "name": "generator", "provider": "bench", "contextWindow": 100_000},
            "thinkingLevel": "off", "isStreaming": false, "sessionId": "bench", "messageCount": 0,
        }),
        _ => Value::Null,
    }
}

/// One run of the agent: a message of nothing but deltas.
fn run(plan: Plan, out: &mut impl io::Write) -> io::Result<()> {
    let message = json!({"role": "assistant", "content": [], "provider": "bench", "model": "generator",
        "usage": {"input": 0, "output": 0}, "stopReason": "stop"});
    for line in [
        json!({"type": "agent_start"}),
        json!({"type": "turn_start"}),
        json!({"type": "message_start", "message": message}),
    ] {
        say(out, &line)?;
    }
    print(plan, out)?;
    for line in [
        json!({"type": "message_end", "message": message}),
        json!({"type": "turn_end", "message": message, "toolResults": []}),
        json!({"type": "agent_end", "messages": [], "willRetry": false}),
        json!({"type": "agent_settled"}),
    ] {
        say(out, &line)?;
    }
    Ok(())
}

fn say(out: &mut impl io::Write, line: &Value) -> io::Result<()> {
    let mut bytes = line.to_string().into_bytes();
    bytes.push(b'\n');
    out.write_all(&bytes)
}
