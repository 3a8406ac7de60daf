//! Whom and what the command line means: a runner, a session, a workspace, variables.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use oqto_protocol::bounds::FRAME_LEN_MAX;

use super::args::GlobalOptions;
use super::error::CliError;
use super::link;
use crate::{Control, Runner, Secret, Session};

/// The runner that the options name; outages of its link are told from here on.
pub(super) async fn runner(control: &Control, options: &GlobalOptions) -> Result<Runner, CliError> {
    let runner = connect(control, options).await?;
    tokio::spawn(link::tell(runner.link()));
    Ok(runner)
}

async fn connect(control: &Control, options: &GlobalOptions) -> Result<Runner, CliError> {
    let Some(id) = &options.runner else {
        return control
            .local()
            .await
            .map_err(|error| CliError::Local(Box::new(error)));
    };
    let known = control
        .runner(id)?
        .or_else(|| control.local_addr().filter(|local| local.id == *id));
    let at = known.ok_or_else(|| CliError::NoRunner(id.to_string()))?;
    control.connect(at).await.map_err(|source| CliError::Connect {
        id: id.to_string(),
        source: Box::new(source),
    })
}

/// The one session whose id begins like this.
pub(super) async fn session(runner: &Runner, prefix: &str) -> Result<Session, CliError> {
    let sessions = runner.sessions().await.map_err(|source| CliError::Query {
        action: "list the sessions",
        source: Box::new(source),
    })?;
    let mut found: Vec<_> = sessions
        .into_iter()
        .map(|session| session.session_id)
        .filter(|id| id.as_str().starts_with(prefix))
        .collect();
    if let Some(exact) = found.iter().position(|id| id.as_str() == prefix) {
        return Ok(runner.session(found.swap_remove(exact)));
    }
    match (found.pop(), found.is_empty()) {
        (Some(id), true) => Ok(runner.session(id)),
        (None, _) => Err(CliError::NoSession(prefix.to_owned())),
        (Some(id), false) => {
            found.push(id);
            found.sort();
            let ids = found.iter().map(ToString::to_string).collect();
            Err(CliError::ManySessions {
                prefix: prefix.to_owned(),
                ids,
            })
        }
    }
}

/// The workspace: here it must be there before anything starts; elsewhere only the runner can know.
pub(super) fn workspace(options: &GlobalOptions, cwd: Option<&Path>) -> Result<Option<String>, CliError> {
    let elsewhere = options.runner.is_some();
    let path = match cwd {
        None if elsewhere => return Ok(None),
        Some(path) if elsewhere && path.is_absolute() => path.to_owned(),
        Some(path) if elsewhere => {
            return Err(CliError::WorkspaceElsewhere {
                path: path.to_owned(),
            });
        }
        cwd => local_workspace(cwd.unwrap_or(Path::new(".")))?,
    };
    match path.into_os_string().into_string() {
        Ok(text) => Ok(Some(text)),
        Err(path) => Err(CliError::WorkspaceText { path: path.into() }),
    }
}

fn local_workspace(path: &Path) -> Result<PathBuf, CliError> {
    let failed = |source| CliError::Workspace {
        path: path.to_owned(),
        source,
    };
    let path = path.canonicalize().map_err(failed)?;
    // Reading it also finds out that it is a directory.
    std::fs::read_dir(&path).map_err(failed)?;
    Ok(path)
}

/// These variables with their values, which never stand on a command line.
pub(super) fn variables(names: Vec<String>) -> Result<BTreeMap<String, Secret>, CliError> {
    let named = names.into_iter().map(|name| match std::env::var(&name) {
        Ok(value) => Ok((name, Secret::new(value))),
        Err(source) => Err(CliError::Variable { name, source }),
    });
    named.collect()
}

/// The text itself, or standard input for `-`, on a thread that may wait for it without end.
pub(super) async fn text_or_stdin(text: &str) -> Result<String, CliError> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let reading = tokio::task::spawn_blocking(|| {
        let mut read = String::new();
        // What is longer than a frame is refused when it is sent.
        let bound = FRAME_LEN_MAX as u64 + 1;
        std::io::stdin().take(bound).read_to_string(&mut read)?;
        Ok(read)
    });
    reading
        .await
        .unwrap_or_else(|ended| Err(ended.into()))
        .map_err(CliError::Stdin)
}
