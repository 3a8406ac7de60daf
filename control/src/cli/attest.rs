//! `attest`: what a runner is, and what the posture says of it.

use std::fmt::Write as _;

use serde_json::json;

use super::args::{self, GlobalOptions};
use super::clean::one_line;
use super::error::CliError;
use super::output::Output;
use super::target;
use crate::posture::{Finding, Verified};
use crate::{Control, Runner};

/// The widest text that is the runner's word, characters.
const CELL_WIDTH_MAX: usize = 120;

/// The widest finding, characters: somebody wants to know why, and digests are long.
const FINDING_WIDTH_MAX: usize = 2000;

/// Whether every rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fitness {
    /// Every one, or there is none.
    Fit,
    /// One at least does not.
    Unfit,
}

/// Shows what a runner is.
pub(super) async fn attest(
    control: &Control,
    options: &GlobalOptions,
    args: args::Attest,
    output: &mut Output,
) -> Result<Fitness, CliError> {
    let options = &GlobalOptions {
        json: options.json,
        local: options.local,
        runner: args.id.or_else(|| options.runner.clone()),
    };
    let runner = target::runner(control, options).await?;
    let verified = runner.attest().await.map_err(|source| CliError::Attest {
        id: runner.id().to_string(),
        source: Box::new(source),
    })?;
    let findings = control
        .posture()
        .map(|posture| posture.judge(runner.id(), &verified))
        .unwrap_or_default();
    let fitness = match findings.iter().all(|finding| finding.holds) {
        true => Fitness::Fit,
        false => Fitness::Unfit,
    };
    if options.json {
        output.json(&json!({
            "runner_id": runner.id(),
            "statement": verified.statement(),
            "rules": findings,
            "holds": fitness == Fitness::Fit,
        }))?;
    } else {
        output.text(&page(&runner, &verified, &findings))?;
    }
    Ok(fitness)
}

fn page(runner: &Runner, verified: &Verified, findings: &[Finding]) -> String {
    let statement = verified.statement();
    let mut page = format!(
        "runner {}, signed by its key for this connection\n\n",
        runner.id()
    );
    let mut line = |name: &str, text: &str| {
        // A string takes every character.
        writeln!(page, "{name:<10}{}", cell(text)).ok();
    };
    line("version", &statement.version);
    line("program", &format!("sha256:{}", statement.binary));
    line("kernel", &statement.kernel);
    match verified.sandbox() {
        Ok(check) => {
            let not_stopped: Vec<_> = check.not_stopped().collect();
            let verdict = match not_stopped.is_empty() && check.holds {
                true => format!("holds: {} attempts, all stopped", check.tried()),
                false => format!("DOES NOT HOLD: {}", not_stopped.join(", ")),
            };
            line("sandbox", &format!("{verdict}; policy {}", check.policy));
            if check.binary != statement.binary {
                let held_by = format!("is made by another program: sha256:{}", check.binary);
                line("", &held_by);
            }
        }
        Err(why) => line("sandbox", &format!("NOT CHECKED: {why}")),
    }
    let layers = verified.sandbox().map(|check| &check.layers[..]);
    for layer in layers.unwrap_or_default() {
        let [state, name, detail] = [&layer.state, &layer.layer, &layer.detail].map(|text| cell(text));
        writeln!(page, "{:<10}{state:<10}{name:<12}{detail}", "").ok();
    }
    for (index, policy) in statement.policies.iter().enumerate() {
        let head = if index == 0 { "policies" } else { "" };
        writeln!(
            page,
            "{head:<10}{:<22}sha256:{}",
            cell(&policy.name),
            policy.digest
        )
        .ok();
    }
    page.push('\n');
    if findings.is_empty() {
        page.push_str("no rule of posture.toml asks anything of this runner\n");
    }
    for finding in findings {
        let Finding {
            rule,
            wanted,
            found,
            holds,
        } = finding;
        let (mark, text) = match holds {
            true => ("holds", format!("{rule}: {found}")),
            false => ("FAILS", format!("{rule}: wants {wanted}; there is {found}")),
        };
        writeln!(page, "{mark}  {}", one_line(&text, FINDING_WIDTH_MAX)).ok();
    }
    page
}

fn cell(text: &str) -> String {
    one_line(text, CELL_WIDTH_MAX)
}
