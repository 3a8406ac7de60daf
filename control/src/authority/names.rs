//! The names in certificates.

use oqto_protocol::id::{AuthorityId, ControlId, RunnerId};

/// The name under which a runner answers a handshake. It is never looked up.
pub(crate) fn server_name(runner: &RunnerId) -> String {
    format!("{runner}.runner.oqto.internal")
}

/// The name under which a control answers a handshake. It is never looked up.
pub(super) fn control_server_name(control: &ControlId) -> String {
    format!("{control}.control.oqto.internal")
}

/// What a runner's certificate says it is.
pub(super) fn runner_uri(authority: &AuthorityId, runner: &RunnerId) -> String {
    format!("oqto://{authority}/runner/{runner}")
}

/// The runner that a URI names, if it names one of this authority.
pub(super) fn runner_of_uri(uri: &str, authority: &AuthorityId) -> Option<RunnerId> {
    let (theirs, runner) = uri.strip_prefix("oqto://")?.split_once("/runner/")?;
    (theirs == authority.as_str()).then(|| runner.parse().ok())?
}

/// What a control's certificate says it is.
pub(super) fn control_uri(authority: &AuthorityId, control: &ControlId) -> String {
    format!("oqto://{authority}/control/{control}")
}
