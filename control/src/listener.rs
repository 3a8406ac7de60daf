//! Runners that dial by themselves, taken up one by one.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::connection::Listening;
use crate::history::HistoryStore;
use crate::runner::Runner;

/// How a control is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Where it listens; port 0 is any that is free.
    pub address: SocketAddr,
}

/// Where runners dial in. It also gives those that have a token their first certificate; [`Control::records`] tells of
/// them. Without it nobody is taken in any more: links that stand go on, and those that are lost do not come back.
///
/// [`Control::records`]: crate::Control::records
#[derive(Debug)]
pub struct Listener {
    listening: Listening,
    history: Option<Arc<dyn HistoryStore>>,
}

impl Listener {
    pub(crate) fn new(listening: Listening, history: Option<Arc<dyn HistoryStore>>) -> Self {
        Self { listening, history }
    }

    /// Where it listens, the port filled in.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    /// The next runner that dialled in, has proved its name and answered Hello; `None` when the control was closed. One
    /// that comes again while a handle to it lives goes on under that handle, and does not come here a second time.
    /// Who lets the handle go hangs up.
    pub async fn accept(&mut self) -> Option<Runner> {
        let line = self.listening.accept().await?;
        Some(Runner::new(line.at().id, line, self.history.clone()))
    }
}
