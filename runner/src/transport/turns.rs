//! Turns: how much of what one peer asks is looked at at once, so that others need not wait for all of it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many commands of a connection are decided about at once. Each may wait for the disk with others, so that a few are
/// too few; a stranger's command waits behind as many of each peer.
const COMMANDS_MAX: usize = 32;

/// How many queries of a connection are answered at once. Each takes a processor for as long as it lasts.
const QUERIES_MAX: usize = 4;

/// The turns of one connection. They are taken in the order in which they are asked for.
#[derive(Clone)]
pub struct Turns {
    commands: Arc<Semaphore>,
    queries: Arc<Semaphore>,
}

/// It is somebody's turn for as long as this lives.
pub struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            commands: Arc::new(Semaphore::new(COMMANDS_MAX)),
            queries: Arc::new(Semaphore::new(QUERIES_MAX)),
        }
    }

    /// For deciding about a command, not for waiting until it is carried out.
    pub async fn command(&self) -> Turn {
        // Nobody closes it.
        let _permit = self.commands.clone().acquire_owned().await.ok();
        Turn { _permit }
    }

    /// For answering a query.
    pub async fn query(&self) -> Turn {
        let _permit = self.queries.clone().acquire_owned().await.ok();
        Turn { _permit }
    }
}
