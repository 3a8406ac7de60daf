//! `token`: what buys a runner its first certificate.

use serde_json::json;

use super::args::{self, GlobalOptions};
use super::error::CliError;
use super::list::table;
use super::output::{Output, note};
use super::time::{Moment, Span};
use crate::{Control, TokenError};

/// Makes a token. It alone goes to standard output, what to do with it to standard error.
pub(super) fn create(
    control: &Control,
    options: &GlobalOptions,
    args: args::TokenCreate,
    output: &mut Output,
) -> Result<(), CliError> {
    let authority = control.authority();
    let Span(life) = args.ttl;
    let (token, info) = authority
        .create_token(life, args.runner_id)
        .map_err(failed("make a token"))?;
    let pin = authority.pin();
    if options.json {
        let mut value =
            json!({"token": token.reveal(), "pin": pin, "expires_at": info.expires_at, "id": info.id});
        if let (Some(runner), Some(fields)) = (info.runner_id, value.as_object_mut()) {
            fields.insert("runner_id".to_owned(), json!(runner));
        }
        return output.json(&value);
    }
    let (whose, name) = match &info.runner_id {
        Some(runner) => (format!("for runner {runner}"), format!(" --runner-id {runner}")),
        None => ("for one new runner".to_owned(), String::new()),
    };
    note(&format!(
        "token {} is good {whose}, once, for {}. On its host, with the token on standard input:\n\n  \
         oqto-runner enrol --control HOST:7443 --ca-pin {pin} --token-file -{name}\n\n\
         HOST is where oqtoctl listen runs meanwhile.",
        info.id,
        Span(life)
    ));
    output.text(token.reveal())?;
    output.text("\n")
}

/// Lists the tokens that are open.
pub(super) fn list(control: &Control, options: &GlobalOptions, output: &mut Output) -> Result<(), CliError> {
    let open = control
        .authority()
        .tokens()
        .map_err(|error| failed("list the tokens")(error.into()))?;
    if options.json {
        return output.json(&json!({"tokens": open}));
    }
    let rows = open.iter().map(|info| {
        let runner = info.runner_id.as_ref().map(ToString::to_string);
        [
            info.id.clone(),
            Moment(info.expires_at).to_string(),
            runner.unwrap_or_default(),
        ]
    });
    output.text(&table(["TOKEN", "UNTIL", "RUNNER"], rows))
}

/// Takes a token back.
pub(super) fn revoke(
    control: &Control,
    options: &GlobalOptions,
    args: &args::TokenRevoke,
    output: &mut Output,
) -> Result<(), CliError> {
    let info = control
        .authority()
        .revoke_token(&args.id)
        .map_err(failed("take the token back"))?;
    if options.json {
        return output.json(&json!({"revoked": info}));
    }
    note(&format!("token {} buys nothing any more", info.id));
    Ok(())
}

fn failed(action: &'static str) -> impl FnOnce(TokenError) -> CliError {
    move |source| CliError::Token {
        action,
        source: Box::new(source),
    }
}
