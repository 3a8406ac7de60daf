//! `authority` and `revoke`: whom runners and controls trust, and whom no more.

use std::fmt::Write as _;

use serde_json::json;

use super::args::{self, GlobalOptions};
use super::clean::one_line;
use super::error::{CliError, chain};
use super::list::table;
use super::output::{Output, note};
use super::time::Moment;
use crate::{AuthorityError, Control, Revocable, RotateError, Standing};

/// How wide the reason of a revocation is shown.
const REASON_WIDTH_MAX: usize = 60;

/// Shows what the authority is and whom it has vouched for.
pub(super) fn show(control: &Control, options: &GlobalOptions, output: &mut Output) -> Result<(), CliError> {
    let authority = control.authority();
    let (roots, revoked) = (authority.roots(), authority.revoked());
    let read = |source: AuthorityError| CliError::Authority(Box::new(source));
    let (tokens, issued) = (
        authority.tokens().map_err(read)?,
        authority.issued().map_err(read)?,
    );
    if options.json {
        return output.json(&json!({
            "authority_id": authority.id(), "trust_number": authority.trust_number(), "roots": roots,
            "tokens": tokens, "revoked": revoked, "runners": issued,
        }));
    }
    let mut page = format!(
        "authority {}, trust statement {}, {} tokens open\n\n",
        authority.id(),
        authority.trust_number(),
        tokens.len()
    );
    page.push_str(&table(
        ["ROOT", "", "MADE", "ENDS"],
        roots.iter().map(|root| {
            let standing = match root.standing {
                Standing::Next => "is next",
                Standing::Signs => "signs",
                Standing::Old => "is old",
            };
            let (made, ends) = (
                Moment(root.made_at).to_string(),
                Moment(root.not_after).to_string(),
            );
            [root.id.clone(), standing.to_owned(), made, ends]
        }),
    ));
    for root in &roots {
        // A string takes every character.
        writeln!(page, "{} has the pin {}", root.id, root.pin).ok();
    }
    page.push('\n');
    page.push_str(&table(
        ["RUNNER", "CERTIFICATE", "ENDS", "ROOT", "KNOWS STATEMENT"],
        issued.iter().map(|issued| {
            [
                issued.runner_id.to_string(),
                issued.serial.to_string(),
                Moment(issued.not_after).to_string(),
                issued.root.clone(),
                issued.told.to_string(),
            ]
        }),
    ));
    let row = |what: &dyn std::fmt::Display, at: u64, reason: &Option<String>| {
        let reason = reason.as_deref().unwrap_or_default();
        [
            what.to_string(),
            Moment(at).to_string(),
            one_line(reason, REASON_WIDTH_MAX),
        ]
    };
    let rows: Vec<_> = (revoked
        .runners
        .iter()
        .map(|it| row(&format_args!("runner {}", it.id), it.at, &it.reason)))
    .chain(
        revoked
            .controls
            .iter()
            .map(|it| row(&format_args!("control {}", it.id), it.at, &it.reason)),
    )
    .chain(
        revoked
            .serials
            .iter()
            .map(|it| row(&format_args!("certificate {}", it.id), it.at, &it.reason)),
    )
    .collect();
    if !rows.is_empty() {
        page.push('\n');
        page.push_str(&table(["REVOKED", "WHEN", "WHY"], rows.into_iter()));
    }
    output.text(&page)
}

/// Takes the next step of a rotation, and tells the runners.
pub(super) async fn rotate(
    control: &Control,
    options: &GlobalOptions,
    step: args::AuthorityVerb,
    output: &mut Output,
) -> Result<(), CliError> {
    let authority = control.authority();
    let failed = |source: RotateError| CliError::Rotate(Box::new(source));
    let text = match step {
        args::AuthorityVerb::Show => return show(control, options, output),
        args::AuthorityVerb::Rotate => {
            let root = authority.rotate().map_err(failed)?;
            format!(
                "root {} is trusted too; when all runners know it, oqtoctl authority switch makes it sign",
                root.id
            )
        }
        args::AuthorityVerb::Switch(args::Forced { force }) => {
            let root = authority.switch(force).map_err(failed)?;
            format!(
                "root {} signs; when all runners have renewed, oqtoctl authority drop drops the old one",
                root.id
            )
        }
        args::AuthorityVerb::Drop(args::Forced { force }) => {
            let dropped = authority.drop_old(force).map_err(failed)?;
            format!("root {} is trusted no more", dropped.join(", "))
        }
    };
    note(&text);
    tell(control, options, output).await
}

/// Trusts somebody no more, and tells the runners.
pub(super) async fn revoke(
    control: &Control,
    options: &GlobalOptions,
    args: args::Revoke,
    output: &mut Output,
) -> Result<(), CliError> {
    let what = match (args.runner_id, args.serial, args.control) {
        (Some(id), _, _) => Revocable::Runner(id),
        (_, Some(serial), _) => Revocable::Serial(serial),
        (_, _, Some(id)) if id == *control.id() => return Err(CliError::RevokeSelf { id: id.to_string() }),
        (_, _, Some(id)) => Revocable::Control(id),
        // The command line needs one of them.
        (None, None, None) => return Ok(()),
    };
    let is_new = control
        .authority()
        .revoke(&what, args.reason)
        .map_err(|source| CliError::Revoke(Box::new(source)))?;
    note(&if is_new {
        format!("{what} is trusted no more")
    } else {
        format!("{what} was revoked before")
    });
    tell(control, options, output).await
}

/// Connects to every known runner, and says who could not be told.
async fn tell(control: &Control, options: &GlobalOptions, output: &mut Output) -> Result<(), CliError> {
    let told = control.tell_runners().await?;
    let number = control.authority().trust_number();
    if options.json {
        let (mut knows, mut away) = (Vec::new(), Vec::new());
        for (id, reached) in &told {
            match reached {
                Ok(()) => knows.push(id),
                Err(_) => away.push(id),
            }
        }
        return output.json(&json!({"trust_number": number, "reached": knows, "away": away}));
    }
    let away: Vec<_> = told
        .iter()
        .filter_map(|(id, reached)| Some((id, reached.as_ref().err()?)))
        .collect();
    note(&format!(
        "reached {} of {} known runners; a control that runs tells those it is connected to",
        told.len() - away.len(),
        told.len()
    ));
    for (id, error) in away {
        note(&format!(
            "  {id} hears of it when it is connected again: {}",
            one_line(&chain(error), 200)
        ));
    }
    Ok(())
}
