//! The dialect of agents that speak the Agent Client Protocol.

use oqto_protocol::command::Command;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::session::Capability;
use serde::{Deserialize, Serialize};

use super::dialect::{Asked, Beginning, Speech};
use super::fragment::Fragment;

/// What every such agent can do; the rest each says itself.
pub(super) const CAPABILITIES: &[Capability] = &[
    Capability::Abort,
    Capability::Permission,
    Capability::Plan,
    Capability::Commands,
];

/// What such an agent has said so far, as far as its next line depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acp {}

impl Acp {
    pub(in crate::harness) fn begin(&mut self, _beginning: &Beginning) -> Vec<u8> {
        Vec::new()
    }

    pub(in crate::harness) fn push(&mut self, _line: &[u8], _now_ms: u64, out: &mut Vec<Fragment>) {
        out.push(Fragment::Stray);
    }

    pub(in crate::harness) fn say(
        &mut self,
        command: &Command,
        _id: CommandId,
        _asked: &[Asked],
    ) -> Result<Speech, Fault> {
        Err(Fault::new(FaultCode::Unsupported, command.name()))
    }

    pub(in crate::harness) fn deadline(&self) -> Option<u64> {
        None
    }

    pub(in crate::harness) fn expire(&mut self, _out: &mut Vec<Fragment>) {}

    pub(in crate::harness) fn at_rest(&self) -> bool {
        true
    }
}
