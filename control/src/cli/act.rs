//! `steer`, `follow-up`, `answer`, `abort`, `restart`, `close`: one command each.

use oqto_protocol::command::InputResponse;
use serde_json::json;

use super::args::{self, GlobalOptions};
use super::error::CliError;
use super::output::{Output, note};
use super::target;
use crate::{CommandError, Control, Session};

/// Says something in the middle of work.
pub(super) async fn steer(
    control: &Control,
    options: &GlobalOptions,
    args: &args::Talk,
    output: &mut Output,
) -> Result<(), CliError> {
    let text = target::text_or_stdin(&args.text).await?;
    let session = session(control, options, &args.session).await?;
    let told = session.steer(text).await.map(drop);
    done(options, &session, "steer the agent", "told", told, output)
}

/// Says something for when the work is done.
pub(super) async fn follow_up(
    control: &Control,
    options: &GlobalOptions,
    args: &args::Talk,
    output: &mut Output,
) -> Result<(), CliError> {
    let text = target::text_or_stdin(&args.text).await?;
    let session = session(control, options, &args.session).await?;
    let told = session.follow_up(text).await.map(drop);
    done(
        options,
        &session,
        "tell the agent for later",
        "told",
        told,
        output,
    )
}

/// Answers what a session asks.
pub(super) async fn answer(
    control: &Control,
    options: &GlobalOptions,
    args: args::Answer,
    output: &mut Output,
) -> Result<(), CliError> {
    let session = session(control, options, &args.session).await?;
    let response = InputResponse {
        request_id: args.request,
        value: args.value,
        confirmed: (args.yes || args.no).then_some(args.yes),
        cancelled: args.cancel.then_some(true),
    };
    let told = session.respond(response).await;
    done(options, &session, "answer the agent", "answered", told, output)
}

/// Stops the work at hand.
pub(super) async fn abort(
    control: &Control,
    options: &GlobalOptions,
    args: &args::Which,
    output: &mut Output,
) -> Result<(), CliError> {
    let session = session(control, options, &args.session).await?;
    let told = session.abort().await;
    done(
        options,
        &session,
        "stop the work at hand",
        "told to stop",
        told,
        output,
    )
}

/// Starts a session's harness again.
pub(super) async fn restart(
    control: &Control,
    options: &GlobalOptions,
    args: args::Restart,
    output: &mut Output,
) -> Result<(), CliError> {
    let env = target::variables(args.env)?;
    let session = session(control, options, &args.session).await?;
    let told = session.restart_with(env).await;
    done(
        options,
        &session,
        "start the agent again",
        "started again",
        told,
        output,
    )
}

/// Ends a session.
pub(super) async fn close(
    control: &Control,
    options: &GlobalOptions,
    args: &args::Which,
    output: &mut Output,
) -> Result<(), CliError> {
    let session = session(control, options, &args.session).await?;
    let told = session.close().await;
    done(options, &session, "close the session", "closed", told, output)
}

pub(super) async fn session(
    control: &Control,
    options: &GlobalOptions,
    prefix: &str,
) -> Result<Session, CliError> {
    let runner = target::runner(control, options).await?;
    target::session(&runner, prefix).await
}

/// Says that it was done, or why not.
pub(super) fn done(
    options: &GlobalOptions,
    session: &Session,
    action: &'static str,
    word: &str,
    told: Result<(), CommandError>,
    output: &mut Output,
) -> Result<(), CliError> {
    told.map_err(|source| CliError::Command {
        action,
        source: Box::new(source),
    })?;
    if options.json {
        return output.json(&json!({"session_id": session.id(), "done": true}));
    }
    note(&format!("session {}: {word}", session.id()));
    Ok(())
}
