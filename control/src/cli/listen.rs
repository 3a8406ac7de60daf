//! `listen`: runners dial in, enrol and renew, and a human sees who.

use serde_json::{Value, json};
use tokio::signal::unix::Signal;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::args::{self, GlobalOptions};
use super::clean::one_line;
use super::error::CliError;
use super::output::{Output, note};
use super::time::Moment;
use crate::{Control, LinkState, ListenOptions, Outcome, Record, Runner};

/// How wide a line's reason may be.
const REASON_WIDTH_MAX: usize = 200;

/// How many changes of links wait to be shown.
const CHANGES_MAX: usize = 64;

/// A line of what happens.
struct Line {
    text: String,
    json: Value,
}

/// Serves until Ctrl-C.
pub(super) async fn listen(
    control: &Control,
    options: &GlobalOptions,
    args: args::Listen,
    interrupts: &mut Signal,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut records = control.records();
    let mut listener = control
        .listen(ListenOptions {
            address: args.address,
        })
        .map_err(|source| CliError::Listen(Box::new(source)))?;
    let (address, pin) = (listener.address(), control.authority().pin());
    show(
        options,
        output,
        &Line {
            text: format!("listening at {address}, pin {pin}"),
            json: json!({"outcome": "listening", "address": address, "pin": pin}),
        },
    )?;
    let (changed, mut changes) = mpsc::channel(CHANGES_MAX);
    loop {
        let line = tokio::select! {
            runner = listener.accept() => match runner {
                Some(runner) => {
                    tokio::spawn(follow(runner, changed.clone()));
                    continue;
                }
                None => return Ok(()),
            },
            record = records.recv() => match record {
                Ok(record) => line_of(&record),
                Err(RecvError::Lagged(count)) => {
                    note(&format!("{count} lines are not shown here; they stand in the audit log"));
                    continue;
                }
                Err(RecvError::Closed) => return Ok(()),
            },
            Some(line) = changes.recv() => line,
            _ = interrupts.recv() => return Ok(()),
        };
        show(options, output, &line)?;
    }
}

/// A line, at once: whoever reads it waits for it.
fn show(options: &GlobalOptions, output: &mut Output, line: &Line) -> Result<(), CliError> {
    if options.json {
        output.json(&line.json)?;
    } else {
        output.text(&line.text)?;
        output.text("\n")?;
    }
    output.flush()
}

fn line_of(record: &Record) -> Line {
    let who = record
        .runner_id
        .as_ref()
        .map_or("somebody".to_owned(), ToString::to_string);
    let from = record
        .address
        .map(|address| format!(" from {address}"))
        .unwrap_or_default();
    let serial = record
        .serial
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut text = match record.outcome {
        Outcome::Enrolled => format!("{who} enrolled{from}: certificate {serial}"),
        Outcome::Renewed => format!("{who} renewed{from}: certificate {serial}"),
        outcome => {
            let why = one_line(record.reason.as_deref().unwrap_or_default(), REASON_WIDTH_MAX);
            let done = serde_json::to_value(outcome).unwrap_or_default();
            format!("{who} {}{from}: {why}", done.as_str().unwrap_or_default())
        }
    };
    if record.unwritten > 0 {
        text.push_str(&format!(
            " (and {} before it that were only counted)",
            record.unwritten
        ));
    }
    Line {
        text: format!("{} {text}", Moment(record.at)),
        json: serde_json::to_value(record).unwrap_or_default(),
    }
}

/// Tells how a runner's link stands, and holds on to it, until it is trusted no more.
async fn follow(runner: Runner, changed: mpsc::Sender<Line>) {
    let (mut link, mut was_connected) = (runner.link(), false);
    loop {
        let (is_connected, is_over) = {
            let state = link.borrow_and_update();
            (
                state.is_connected(),
                matches!(*state, LinkState::Revoked | LinkState::Closed),
            )
        };
        if is_connected != was_connected {
            was_connected = is_connected;
            let (id, address) = (runner.id(), runner.addr().address);
            let outcome = if is_connected { "connected" } else { "disconnected" };
            let line = Line {
                text: format!("{id} {outcome} ({address})"),
                json: json!({"outcome": outcome, "runner_id": id, "address": address}),
            };
            if changed.send(line).await.is_err() {
                return;
            }
        }
        if is_over || link.changed().await.is_err() {
            return;
        }
    }
}
