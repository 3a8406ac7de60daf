//! Who may do what: every rule stands in this file, and dispatch takes nothing that did not pass it.
//!
//! Until roles are told apart, there is one rule: a control whose certificate the runner's own authority signed
//! owns the runner. Who asks is kept beside what is asked.

use oqto_protocol::command::CommandEnvelope;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::RunnerId;
use oqto_protocol::query::Query;
use oqto_protocol::stream::Subscribe;

use crate::identity::Peer;

/// Something asked for by somebody who may ask it. Only [`authorise`] makes one.
#[derive(Debug)]
pub(super) struct Authorised<C> {
    asked: C,
}

impl<C> Authorised<C> {
    /// What is asked.
    pub(super) fn into_asked(self) -> C {
        self.asked
    }
}

/// Something that can be asked for.
pub(super) trait Asked {
    /// The runner that it is for, when it says so.
    fn runner_id(&self) -> Option<&RunnerId>;
    /// What it is called, for logs.
    fn name(&self) -> &'static str;
}

impl Asked for CommandEnvelope {
    fn runner_id(&self) -> Option<&RunnerId> {
        self.runner_id.as_ref()
    }

    fn name(&self) -> &'static str {
        self.command.name()
    }
}

impl Asked for Query {
    fn runner_id(&self) -> Option<&RunnerId> {
        None
    }

    fn name(&self) -> &'static str {
        Self::name(self)
    }
}

impl Asked for Subscribe {
    fn runner_id(&self) -> Option<&RunnerId> {
        None
    }

    fn name(&self) -> &'static str {
        "subscribe"
    }
}

/// Decides whether `peer` may have `asked` of runner `here`.
///
/// # Errors
/// A fault for the peer when it may not, or when it means another runner.
pub(super) fn authorise<C: Asked>(peer: &Peer, here: &RunnerId, asked: C) -> Result<Authorised<C>, Fault> {
    match asked.runner_id() {
        Some(meant) if meant != here => Err(Fault::new(
            FaultCode::NotFound,
            format!("{} is for runner {meant}, this is runner {here}", asked.name()),
        )),
        _ => {
            // A peer whose certificate is of another authority never came this far: `Peer` is made of ours alone.
            tracing::debug!(control = %peer.control, asked = asked.name(), "authorised");
            Ok(Authorised { asked })
        }
    }
}
