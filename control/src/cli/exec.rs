//! `exec`: a program in the sandbox, with its own output and exit code.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write as _};

use oqto_protocol::codec::Blob;
use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::{Envelope, Event};
use serde::Deserialize;
use tokio::signal::unix::Signal;

use super::args::{self, GlobalOptions};
use super::clean::clean;
use super::drive::{Ending, JsonLines, View, or_interrupted, unless_interrupted};
use super::error::CliError;
use super::output::{Output, note};
use super::quote::quote;
use super::run::{close, create, is_out_of_reach, say};
use super::target;
use super::tool::{Exit, exit_of};
use crate::{Control, SessionConfig};

/// How the exit code comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// The program ended.
    Exited(u8),
    /// The agent's side failed before it did.
    Failed,
    /// The human interrupted, and it did not end by itself.
    Interrupted,
}

/// Runs a program.
pub(super) async fn exec(
    control: &Control,
    options: &GlobalOptions,
    args: args::Exec,
    interrupts: &mut Signal,
    output: &mut Output,
) -> Result<Ran, CliError> {
    let cwd = target::workspace(options, args.cwd.as_deref())?;
    let line = quote(args.command.iter().map(String::as_str));
    let Some(runner) = or_interrupted(target::runner(control, options), interrupts).await else {
        return Ok(Ran::Interrupted);
    };
    let runner = runner?;
    let config = SessionConfig {
        harness: "exec".to_owned(),
        cwd,
        policy: args.policy,
        title: args.command.first().cloned(),
        env: BTreeMap::new(),
        ..SessionConfig::default()
    };
    let Some(session) = unless_interrupted(create(&runner, config), interrupts).await? else {
        return Ok(Ran::Interrupted);
    };
    let mut program = Program {
        json: options.json,
        exit: None,
    };
    let from = Cursor::default();
    let ending = say(&session, &line, from, interrupts, &mut program, output).await;
    if !is_out_of_reach(&ending) {
        close(&session, interrupts).await;
    }
    match (ending?, program.exit) {
        (Ending::Interrupted | Ending::Left, _) => Ok(Ran::Interrupted),
        (_, Some(exit)) => Ok(Ran::Exited(exit.code())),
        (Ending::Failed, None) => Ok(Ran::Failed),
        (Ending::Done, None) => Err(CliError::NoExit),
    }
}

/// A program's output as it is, or its events.
struct Program {
    json: bool,
    exit: Option<Exit>,
}

impl View for Program {
    fn show(&mut self, envelope: &Envelope, output: &mut Output) -> Result<(), CliError> {
        if let Event::ToolEnd(end) = &envelope.event {
            self.exit = exit_of(&end.output.value()).or(self.exit);
        }
        if self.json {
            return JsonLines.show(envelope, output);
        }
        match &envelope.event {
            Event::ToolProgress(progress) => write_raw(progress.partial_output.text(), output),
            Event::AgentError(error) => {
                note(&clean(&format!("oqtoctl: {}", error.error.trim_end())));
                Ok(())
            }
            Event::SandboxViolation(violation) => {
                let target = violation.target.as_deref().unwrap_or_default();
                let text = format!(
                    "oqtoctl: sandbox {} {} {target}",
                    violation.decision, violation.operation
                );
                note(&clean(text.trim_end()));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// A piece of a program's output: text, or bytes that are none.
#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(borrow)]
    stdout: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stderr: Option<Cow<'a, str>>,
    stdout_base64: Option<Blob>,
    stderr_base64: Option<Blob>,
}

fn write_raw(json: &str, output: &mut Output) -> Result<(), CliError> {
    // What is not of this form is progress of another kind, and not output.
    let Ok(piece) = serde_json::from_str::<Piece<'_>>(json) else {
        return Ok(());
    };
    let Piece {
        stdout,
        stderr,
        stdout_base64,
        stderr_base64,
    } = piece;
    let text = stdout.as_deref().map(str::as_bytes);
    for bytes in text
        .into_iter()
        .chain(stdout_base64.as_ref().map(|blob| blob.0.as_slice()))
    {
        output.bytes(bytes)?;
    }
    let text = stderr.as_deref().map(str::as_bytes);
    for bytes in text
        .into_iter()
        .chain(stderr_base64.as_ref().map(|blob| blob.0.as_slice()))
    {
        // What was written first is to be seen first.
        output.flush()?;
        io::stderr().write_all(bytes).ok();
    }
    Ok(())
}
