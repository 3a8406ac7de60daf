//! `sessions`, `messages`, `runners`, `status`: what there is.

use std::fmt::Write as _;

use oqto_protocol::hello::HarnessInfo;
use oqto_protocol::message::Message;
use serde_json::json;

use super::args::{self, GlobalOptions};
use super::clean::one_line;
use super::error::CliError;
use super::human::Human;
use super::output::{Output, has_colour, note};
use super::target;
use crate::{Control, QueryError};

/// How many messages are asked for at once.
const PAGE_MAX: u32 = 100;
const CELL_WIDTH_MAX: usize = 60;
/// A command that has to be read whole.
const HINT_WIDTH_MAX: usize = 500;

/// Lists the sessions of a runner.
pub(super) async fn sessions(
    control: &Control,
    options: &GlobalOptions,
    output: &mut Output,
) -> Result<(), CliError> {
    let runner = target::runner(control, options).await?;
    let sessions = runner.sessions().await.map_err(failed("list the sessions"))?;
    if options.json {
        return output.json(&json!({"runner_id": runner.id(), "sessions": sessions}));
    }
    if sessions.is_empty() {
        note(&format!("runner {} has no sessions", runner.id()));
    }
    let rows = sessions.iter().map(|session| {
        [
            session.session_id.to_string(),
            session.state.to_string(),
            session.harness.clone(),
            session.policy.clone(),
            session.cwd.clone(),
            session.title.clone().unwrap_or_default(),
        ]
    });
    output.text(&table(
        ["SESSION", "STATE", "HARNESS", "POLICY", "WORKSPACE", "TITLE"],
        rows,
    ))
}

/// Shows what was said in a session.
pub(super) async fn messages(
    control: &Control,
    options: &GlobalOptions,
    args: &args::Which,
    output: &mut Output,
) -> Result<(), CliError> {
    let runner = target::runner(control, options).await?;
    let session = target::session(&runner, &args.session).await?;
    let mut all: Vec<Message> = Vec::new();
    loop {
        let after = all.last().map(|message| message.idx);
        let page = session
            .messages(after, Some(PAGE_MAX))
            .await
            .map_err(|source| CliError::Command {
                action: "read the messages",
                source: Box::new(source),
            })?;
        let ends = !page.more || page.messages.is_empty();
        all.extend(page.messages);
        if ends {
            break;
        }
    }
    if options.json {
        return output.json(&json!({"session_id": session.id(), "messages": all}));
    }
    let mut human = Human::new(has_colour(), true);
    let mut page = String::new();
    for message in &all {
        human.message(message, &mut page);
    }
    output.text(&page)
}

/// Lists the known runners.
pub(super) fn runners(
    control: &Control,
    options: &GlobalOptions,
    output: &mut Output,
) -> Result<(), CliError> {
    let known = control.runners()?;
    let local = control.local_addr();
    if options.json {
        return output.json(&json!({"local": local, "runners": known}));
    }
    let rows = local
        .iter()
        .map(|runner| {
            [
                runner.id.to_string(),
                runner.address.to_string(),
                "this machine".to_owned(),
            ]
        })
        .chain(
            known
                .iter()
                .map(|runner| [runner.id.to_string(), runner.address.to_string(), String::new()]),
        );
    output.text(&table(["RUNNER", "ADDRESS", ""], rows))
}

/// Shows how a runner stands.
pub(super) async fn status(
    control: &Control,
    options: &GlobalOptions,
    output: &mut Output,
) -> Result<(), CliError> {
    let runner = target::runner(control, options).await?;
    let status = runner
        .status()
        .await
        .map_err(failed("ask how the runner stands"))?;
    let policies = runner.policies().await.map_err(failed("list the policies"))?;
    if options.json {
        let address = runner.addr().address;
        return output.json(&json!({"address": address, "status": status, "policies": policies}));
    }
    let mut page = format!(
        "runner {} {} at {}, up {} s, {} of {} sessions",
        status.runner_id,
        one_line(&status.version, CELL_WIDTH_MAX),
        runner.addr().address,
        status.uptime_s,
        status.sessions,
        status.sessions_max
    );
    if let Some(bytes) = status.rss_bytes {
        // A string takes every character.
        write!(page, ", {} MiB", bytes / (1024 * 1024)).ok();
    }
    page.push_str("\n\n");
    page.push_str(&harnesses(&status.harnesses));
    page.push('\n');
    page.push_str(&table(
        ["POLICY", "DESCRIPTION"],
        policies
            .iter()
            .map(|policy| [policy.name.clone(), policy.description.clone()]),
    ));
    for text in &status.notes {
        writeln!(page, "\nnote: {}", super::clean::clean(text)).ok();
    }
    output.text(&page)
}

/// The harnesses of a runner; below them, in full, why one cannot be started, or what one should know who starts it.
fn harnesses(harnesses: &[HarnessInfo]) -> String {
    let mut page = table(
        ["HARNESS", "VERSION", "TESTED", "PROGRAM"],
        harnesses.iter().map(|harness| {
            let absent = harness.problem.as_ref().map(|_| "not installed".to_owned());
            [
                harness.name.clone(),
                harness.version.clone().unwrap_or_default(),
                harness.tested.clone().unwrap_or_default(),
                harness.program.clone().or(absent).unwrap_or_default(),
            ]
        }),
    );
    for harness in harnesses {
        for text in harness.problem.iter().chain(&harness.warning) {
            let text = one_line(text, HINT_WIDTH_MAX);
            writeln!(page, "  {}: {text}", one_line(&harness.name, CELL_WIDTH_MAX)).ok();
        }
    }
    page
}

fn failed(action: &'static str) -> impl FnOnce(QueryError) -> CliError {
    move |source| CliError::Query {
        action,
        source: Box::new(source),
    }
}

/// Columns as wide as their widest cell; the last is not padded.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned))
        .chain(rows.map(|row| row.map(|cell| one_line(&cell, CELL_WIDTH_MAX))))
        .collect();
    let mut page = String::new();
    let widths: Vec<usize> = (0..N)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:<width$}  ").ok();
        }
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harness_that_is_missing_says_how_to_get_it_in_full() {
        let there = HarnessInfo {
            name: "pi".to_owned(),
            program: Some("/opt/pi".to_owned()),
            problem: None,
            capabilities: Vec::new(),
            version: Some("0.91.0".to_owned()),
            tested: Some("0.74 to 0.87".to_owned()),
            warning: Some("pi 0.91.0 was not tested".to_owned()),
        };
        let missing = HarnessInfo {
            name: "goose".to_owned(),
            program: None,
            problem: Some(format!("no program goose; {}", "to get it ".repeat(20))),
            version: None,
            tested: None,
            warning: None,
            capabilities: Vec::new(),
        };
        let page = harnesses(&[there, missing]);
        let mut lines = page.lines();
        assert_eq!(lines.next(), Some("HARNESS  VERSION  TESTED        PROGRAM"));
        assert_eq!(lines.next(), Some("pi       0.91.0   0.74 to 0.87  /opt/pi"));
        assert_eq!(
            lines.next(),
            Some("goose                           not installed")
        );
        assert_eq!(lines.next(), Some("  pi: pi 0.91.0 was not tested"));
        assert!(lines.next().unwrap().ends_with("to get it"));
    }

    #[test]
    fn a_table_has_columns_as_wide_as_their_widest_cell() {
        let rows = [
            ["s-1".to_owned(), "idle".to_owned()],
            ["s-22".to_owned(), "a\nb\x1b".to_owned()],
        ];
        assert_eq!(
            table(["ID", "STATE"], rows.into_iter()),
            "ID    STATE\ns-1   idle\ns-22  a b\n"
        );
    }
}
