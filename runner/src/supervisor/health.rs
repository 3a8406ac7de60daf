//! How sessions do: what is told of their processes every few seconds, and for how long a harness that works may be
//! silent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oqto_protocol::event::{Event, Heartbeat, ProcessHealth, Transient};
use oqto_protocol::id::SessionId;

use super::fleet::Supervisor;
use super::handle::Handle;
use super::settings::HealthSettings;
use super::vitals::{Vital, Vitals};
use crate::clock;
use crate::session::{Fact, Silence, SilentAct};
use crate::shim::Hold;

impl Supervisor {
    /// Looks after the health of sessions for ever: every interval one look at all their processes, told to whoever
    /// is connected. Nothing of it is kept, and under load it is the first to go.
    pub async fn beat(&self) {
        let mut ticks = tokio::time::interval(self.settings.health.heartbeat);
        // A host that slept is looked at once, not once for every interval that it missed.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let live: Vec<_> = self.handles().filter(Handle::lives).collect();
            // A host on which nothing runs is left asleep.
            if live.is_empty() {
                continue;
            }
            let dirs: Vec<_> = live
                .iter()
                .filter_map(|handle| Some((handle.record.id.clone(), handle.shim_dir.borrow().clone()?)))
                .collect();
            let vitals = self.vitals.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let shims = dirs.into_iter().filter_map(|(session, dir)| {
                    // By its lock, since a number that was written down may be another process's by now.
                    let shim = Hold::of(&dir).ok()??.holder().ok()??;
                    Some((session, shim))
                });
                let shims: Vec<_> = shims.collect();
                vitals.look(shims);
            });
            if looked.await.is_err() {
                tracing::error!("looking at the processes of sessions panicked");
            }
            for handle in live {
                let vital = self.vitals.of(&handle.record.id);
                let event = Event::Heartbeat(Heartbeat {
                    process: process_health(vital),
                });
                // Nobody may be listening.
                let _ = self.transients.send(Transient {
                    session_id: handle.record.id,
                    ts: clock::unix_ms(),
                    event,
                });
            }
        }
    }
}

fn process_health(vital: Option<Vital>) -> ProcessHealth {
    match vital {
        Some(vital) => ProcessHealth {
            alive: true,
            pid: Some(vital.pid),
            rss_bytes: Some(vital.rss_bytes),
            cpu_pct: vital.cpu_pct,
            uptime_s: Some(vital.uptime_s),
        },
        None => ProcessHealth {
            alive: false,
            pid: None,
            rss_bytes: None,
            cpu_pct: None,
            uptime_s: None,
        },
    }
}

/// How long a session's harness has been silent, by a clock that does not count the time in which the host slept.
pub(super) struct Watchdog {
    settings: HealthSettings,
    vitals: Arc<Vitals>,
    session: SessionId,
    silence: Option<Counted>,
    armed: bool,
}

/// A silence that is being counted.
struct Counted {
    /// Since when, as the session says.
    since: u64,
    /// When this runner first knew of it.
    from: Instant,
    warned: bool,
    acted: bool,
}

impl Watchdog {
    pub(super) fn new(settings: HealthSettings, vitals: Arc<Vitals>, session: SessionId) -> Self {
        Self {
            settings,
            vitals,
            session,
            silence: None,
            armed: false,
        }
    }

    /// Takes since when the harness is silent. Only when all that it said was read can it be said to be.
    pub(super) fn observe(&mut self, since: Option<u64>, all_read: bool) {
        self.armed = all_read;
        if self.silence.as_ref().map(|counted| counted.since) != since {
            self.silence = since.map(|since| Counted {
                since,
                from: clock::instant(),
                warned: false,
                acted: false,
            });
        }
    }

    /// Counts anew: what was to be told could not be kept.
    pub(super) fn lost(&mut self) {
        self.silence = None;
    }

    /// Waits until there is something to be told of the silence, and for ever when there is none.
    pub(super) async fn bark(&mut self) -> Fact {
        let due = self.due();
        match due {
            Some((at, act)) => {
                tokio::time::sleep_until(at.into()).await;
                self.fact(act)
            }
            None => std::future::pending().await,
        }
    }

    /// What is due next, and when.
    fn due(&self) -> Option<(Instant, Option<SilentAct>)> {
        let counted = self.silence.as_ref().filter(|_| self.armed)?;
        let warn = self.settings.silent_warn.filter(|_| !counted.warned);
        let act = self.settings.silent_act.filter(|_| !counted.acted);
        let warn = warn.map(|after| (after, None));
        let act = act.map(|(after, act)| (after, Some(act)));
        let (after, act) = warn.into_iter().chain(act).min_by_key(|(after, _)| *after)?;
        Some((counted.from + after, act))
    }

    fn fact(&mut self, act: Option<SilentAct>) -> Fact {
        let cpu_pct = self.vitals.of(&self.session).and_then(|vital| vital.cpu_pct);
        let (mut since, mut silent) = (0, Duration::ZERO);
        if let Some(counted) = &mut self.silence {
            // What acts says why, and needs no warning after it.
            counted.warned = true;
            counted.acted |= act.is_some();
            (since, silent) = (counted.since, counted.from.elapsed());
        }
        Fact::Silent(Silence {
            since,
            silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
            // A percentage has no more digits than people read.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "never negative, and a host has no forty million processors"
            )]
            cpu_pct: cpu_pct.map(|pct| pct.round() as u32),
            act,
        })
    }
}
