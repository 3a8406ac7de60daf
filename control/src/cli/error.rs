//! What can go wrong, and what the human can do about it.

use std::env::VarError;
use std::error::Error;
use std::io;
use std::path::PathBuf;

use oqto_protocol::fault::FaultCode;

use super::clean::clean;
use crate::posture::PostureError;
use crate::{
    AttestError, AuthorityError, CommandError, ConnectError, EventsError, ListenError, LocalError, NoHome,
    OpenError, QueryError, RecordError, Refusal, RevokeError, RotateError, SubscribeError, TokenError,
};

/// Why a verb did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("cannot find the user's directories")]
    Home(#[from] NoHome),
    #[error("cannot open the control")]
    Open(#[from] OpenError),
    #[error("cannot run")]
    Runtime(#[source] io::Error),
    #[error("cannot get the private runner of this machine")]
    Local(#[source] Box<LocalError>),
    #[error("cannot read the known runners")]
    Records(#[from] RecordError),
    #[error("cannot {action}")]
    Token {
        action: &'static str,
        source: Box<TokenError>,
    },
    #[error("cannot read what the authority has given")]
    Authority(#[source] Box<AuthorityError>),
    #[error("cannot rotate the authority")]
    Rotate(#[source] Box<RotateError>),
    #[error("cannot revoke")]
    Revoke(#[source] Box<RevokeError>),
    #[error("cannot revoke control {id}: it is this one, which would tell nobody any more")]
    RevokeSelf { id: String },
    #[error("cannot wait for runners")]
    Listen(#[source] Box<ListenError>),
    #[error("cannot find runner {0}: no such runner is known")]
    NoRunner(String),
    #[error("cannot connect to runner {id}")]
    Connect { id: String, source: Box<ConnectError> },
    #[error("cannot use the workspace {}", path.display())]
    Workspace { path: PathBuf, source: io::Error },
    #[error("cannot use the workspace {}: its path is not text", path.display())]
    WorkspaceText { path: PathBuf },
    #[error("cannot use the workspace {}: for a runner elsewhere its path must be absolute", path.display())]
    WorkspaceElsewhere { path: PathBuf },
    #[error("cannot take the variable {name} from the environment")]
    Variable { name: String, source: VarError },
    #[error("cannot read standard input")]
    Stdin(#[source] io::Error),
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error("cannot {action}")]
    Command {
        action: &'static str,
        source: Box<CommandError>,
    },
    #[error("cannot create a session")]
    Create {
        source: Box<CommandError>,
        similar: Option<String>,
    },
    #[error("cannot {action}")]
    Query {
        action: &'static str,
        source: Box<QueryError>,
    },
    #[error("cannot use the rules for runners")]
    Posture(#[from] PostureError),
    #[error("cannot tell what runner {id} is")]
    Attest { id: String, source: Box<AttestError> },
    #[error("cannot follow the session")]
    Subscribe(#[source] Box<SubscribeError>),
    #[error("cannot follow the session further; its agent goes on")]
    Events {
        session: String,
        source: Box<EventsError>,
    },
    #[error("cannot find session {0}: no session begins like that")]
    NoSession(String),
    #[error("cannot choose between the sessions that begin with {prefix}: {}", ids.join(", "))]
    ManySessions { prefix: String, ids: Vec<String> },
    #[error("cannot find model {asked}: the session has none of that name")]
    NoModel { asked: String, similar: Option<String> },
    #[error("cannot choose between the models that are called {asked}: {}", names.join(", "))]
    ManyModels { asked: String, names: Vec<String> },
    #[error("cannot read the command")]
    Json(#[source] serde_json::Error),
    #[error("cannot read the command: {cmd} has no field {field}")]
    NoField { cmd: String, field: String },
    #[error("cannot know how the program ended: the session ended first")]
    NoExit,
}

impl CliError {
    /// Whether only the reader of standard output went away: that is said by silence.
    pub(super) fn is_closed_stdout(&self) -> bool {
        matches!(self, Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The whole chain on one line, and what to do where that is known.
    pub(super) fn explain(&self) -> String {
        let text = format!("oqtoctl: {}", chain(self));
        let mut text = clean(text.trim_end()).into_owned();
        if let Some(hint) = self.hint() {
            text.push_str("\nhint: ");
            text.push_str(&clean(&hint));
        }
        text
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Create {
                similar: Some(name), ..
            }
            | Self::NoModel {
                similar: Some(name), ..
            } => Some(format!("did you mean {name}?")),
            Self::Create { source, .. } if matches!(**source, CommandError::Posture(_)) => {
                Some("oqtoctl attest shows every rule and what was found".to_owned())
            }
            Self::Local(error) if matches!(**error, LocalError::NoProgram) => {
                Some("install oqto-runner beside oqtoctl, or set OQTO_RUNNER to its path".to_owned())
            }
            Self::NoRunner(_) => Some(
                "oqtoctl runners lists the known ones, and oqtoctl runners add makes one known; one that dials is reached \
                 by who listens alone"
                    .to_owned(),
            ),
            Self::NoModel { .. } => Some("oqtoctl models lists those of the session".to_owned()),
            Self::Json(_) | Self::NoField { .. } => Some("docs/PROTOCOL.md describes every command".to_owned()),
            Self::NoSession(_) => Some("oqtoctl sessions lists them".to_owned()),
            Self::Events { session, .. } => Some(format!("oqtoctl attach {session}")),
            _ => fault_hint(self.fault()?),
        }
    }

    /// The runner's own word on it, if there is one.
    pub(super) fn fault(&self) -> Option<FaultCode> {
        let mut cause: Option<&(dyn Error + 'static)> = self.source();
        while let Some(error) = cause {
            if let Some(refusal) = error.downcast_ref::<Refusal>() {
                return Some(refusal.0.code);
            }
            cause = error.source();
        }
        None
    }
}

/// An error and its causes, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn fault_hint(code: FaultCode) -> Option<String> {
    let hint = match code {
        FaultCode::Version => "update oqtoctl and oqto-runner to the same version",
        FaultCode::WrongState => "oqtoctl sessions shows what each session is doing",
        FaultCode::Unsupported => "oqtoctl show lists what the agent of a session can do",
        FaultCode::Policy => {
            "oqtoctl status lists the policies; oqto-runner doctor says what this host can enforce"
        }
        FaultCode::Harness => "oqtoctl status shows which agents can be started, and why others cannot",
        FaultCode::Limit => "oqtoctl sessions lists sessions; oqtoctl close ends one",
        FaultCode::Storage => "make room on the runner's disk",
        FaultCode::Internal => "this is a bug of the runner; please report it with its log",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// The name that was most likely meant: the nearest one, if it is near.
pub(super) fn similar<'a>(asked: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = 1 + asked.chars().count() / 3;
    names
        .into_iter()
        .map(|name| (distance(asked, name), name))
        .filter(|(distance, _)| (1..=near).contains(distance))
        .min()
        .map(|(_, name)| name)
}

/// How many characters must be put in, left out or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut above_left = i;
        let mut left = i + 1;
        for (cell, cb) in row.iter_mut().skip(1).zip(&b) {
            let changed = above_left + usize::from(ca != *cb);
            above_left = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use oqto_protocol::fault::Fault;

    use super::*;

    #[test]
    fn a_name_that_is_nearly_right_is_suggested() {
        let names = ["workspace", "readonly", "trusted"];
        let table = [
            ("workspce", Some("workspace")),
            ("read-only", Some("readonly")),
            ("trsted", Some("trusted")),
            ("workspace", None),
            ("zzz", None),
        ];
        for (asked, meant) in table {
            assert_eq!(similar(asked, names), meant, "{asked}");
        }
    }

    #[test]
    fn the_chain_is_printed_once_and_cannot_drive_a_terminal() {
        let fault = Fault::new(FaultCode::Policy, "no policy \x1b[31mworkspce");
        let refused = CommandError::Refused {
            cmd: "session.create",
            source: Refusal(fault),
        };
        let error = CliError::Create {
            source: Box::new(refused),
            similar: Some("workspace".to_owned()),
        };
        assert_eq!(
            error.explain(),
            "oqtoctl: cannot create a session: the runner refused session.create: no policy [31mworkspce\n\
             hint: did you mean workspace?"
        );
    }
}
