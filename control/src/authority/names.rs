//! The names in certificates.

use oqto_protocol::id::{AuthorityId, ControlId, RunnerId};

/// The name under which a runner answers a handshake. It is never looked up.
pub(crate) fn server_name(runner: &RunnerId) -> String {
    format!("{runner}.runner.oqto.internal")
}

/// What a runner's certificate says it is.
pub(crate) fn runner_uri(authority: &AuthorityId, runner: &RunnerId) -> String {
    format!("oqto://{authority}/runner/{runner}")
}

/// What a control's certificate says it is.
pub(super) fn control_uri(authority: &AuthorityId, control: &ControlId) -> String {
    format!("oqto://{authority}/control/{control}")
}
