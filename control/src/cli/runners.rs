//! `runners`: which runners are known by name, and where they are.

use serde_json::json;

use super::args::{self, GlobalOptions};
use super::error::CliError;
use super::list::{self};
use super::output::{Output, note};
use crate::{Control, RunnerAddr};

/// Lists them, adds or removes one.
pub(super) fn runners(
    control: &Control,
    options: &GlobalOptions,
    verb: Option<args::RunnersVerb>,
    output: &mut Output,
) -> Result<(), CliError> {
    match verb {
        None => list::runners(control, options, output),
        Some(args::RunnersVerb::Add { id, address }) => {
            let runner = RunnerAddr { id, address };
            control.remember(&runner)?;
            if options.json {
                return output.json(&json!({"added": runner}));
            }
            note(&format!(
                "runner {} is at {address}; its certificate has to say so too",
                runner.id
            ));
            Ok(())
        }
        Some(args::RunnersVerb::Remove { id }) => {
            if control.runner(&id)?.is_none() {
                return Err(CliError::NoRunner(id.to_string()));
            }
            control.forget(&id)?;
            if options.json {
                return output.json(&json!({"removed": id}));
            }
            note(&format!(
                "runner {id} is forgotten; it is trusted as before (see oqtoctl revoke)"
            ));
            Ok(())
        }
    }
}
