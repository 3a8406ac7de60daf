//! What a human hears of a link that is away: two lines an outage, and none when it was short.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::clean::clean;
use super::error::chain;
use super::output::note;
use crate::LinkState;

/// How long a link may be away before it is worth a line: a runner that is started again takes less.
const QUIET: Duration = Duration::from_secs(2);

/// How long it is without a line where it is not known yet why it is away.
const QUIET_MAX: Duration = Duration::from_secs(10);

/// Tells of outages until the runner's handle is gone.
pub(super) async fn tell(mut link: watch::Receiver<LinkState>) {
    while link.wait_for(is_away).await.is_ok() {
        let lost = Instant::now();
        if timeout(QUIET, link.wait_for(|state| !is_away(state)))
            .await
            .is_ok()
        {
            continue;
        }
        // An attempt that goes on has not failed yet; why it did not get on is worth a moment more.
        let told = async {
            let told = link.wait_for(|state| !is_away(state) || state.failed().is_some());
            told.await.is_ok_and(|state| is_away(&state))
        };
        if timeout(QUIET_MAX.saturating_sub(QUIET), told).await == Ok(false) {
            continue;
        }
        let failed = link.borrow().failed().cloned();
        let why = failed
            .map(|error| format!(": {}", chain(&*error)))
            .unwrap_or_default();
        say(&format!(
            "oqtoctl: the link to the runner is lost{why}; trying again, Ctrl-C leaves"
        ));
        if link
            .wait_for(|state| !is_away(state))
            .await
            .is_ok_and(|state| state.is_connected())
        {
            say(&format!(
                "oqtoctl: the runner is back after {} s",
                lost.elapsed().as_secs()
            ));
        }
    }
}

fn is_away(state: &LinkState) -> bool {
    matches!(
        state,
        LinkState::Connecting { .. } | LinkState::Open { .. } | LinkState::HalfOpen { .. }
    )
}

/// A line of its own, also where a spinner stands.
fn say(text: &str) {
    let text = clean(text);
    if io::stderr().is_terminal() {
        note(&format!("\r\x1b[K{text}"));
    } else {
        note(&text);
    }
}
