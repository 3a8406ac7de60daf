//! When a runner is left alone because it does not answer.

use std::time::{Duration, Instant};

use super::backoff::share;

/// How many dials may fail one after the other before the circuit opens.
const FAILURES_MAX: u32 = 5;

/// How long the circuit stays open at first, at most.
const OPEN_FIRST: Duration = Duration::from_secs(2);

/// How long it stays open later, at most: half a minute after its return at the latest a runner is found.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// What may be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Dial. Say afterwards how it went.
    Dial,
    /// Dial, as the only one. Say afterwards how it went.
    Probe,
    /// Nobody dials before this moment.
    Wait(Instant),
    /// Somebody else probes; how it went is told to all.
    Busy,
}

/// The circuit breaker of one runner: closed while dials succeed now and then, open after several that failed one
/// after the other, half open while a single probe finds out how it stands. Each failed probe doubles the time until
/// the next; half of that time is left to chance, so that a thousand circuits do not close at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, opens: u32 },
    HalfOpen { opens: u32 },
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed { failures: 0 },
        }
    }
}

impl Breaker {
    /// Asks to dial.
    pub fn admit(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Dial,
            State::Open { until, .. } if now < until => Admission::Wait(until),
            State::Open { opens, .. } => {
                self.state = State::HalfOpen { opens };
                Admission::Probe
            }
            State::HalfOpen { .. } => Admission::Busy,
        }
    }

    /// A dial, or the probe, reached the runner.
    pub fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// A dial, or the probe, did not; `random` is any number.
    pub fn failed(&mut self, now: Instant, random: u64) {
        self.state = match self.state {
            State::Closed { failures } if failures + 1 < FAILURES_MAX => State::Closed {
                failures: failures + 1,
            },
            State::Closed { .. } => open(now, 0, random),
            State::HalfOpen { opens } => open(now, opens, random),
            // A dial that was begun before the circuit opened says nothing new.
            State::Open { until, opens } => State::Open { until, opens },
        };
    }

    /// The probe was given up before it knew: the next one need not wait.
    pub fn abandoned(&mut self, now: Instant) {
        if let State::HalfOpen { opens } = self.state {
            self.state = State::Open { until: now, opens };
        }
    }

    /// Until when nobody dials, if it is open.
    pub fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }
}

/// Opened for the time that goes with how often it was before.
fn open(now: Instant, opens: u32, random: u64) -> State {
    let longest = 2_u32
        .checked_pow(opens)
        .and_then(|factor| OPEN_FIRST.checked_mul(factor))
        .map_or(OPEN_MAX, |longest| longest.min(OPEN_MAX));
    State::Open {
        until: now + longest / 2 + share(longest / 2, random),
        opens: opens.saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opened(at: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            assert_eq!(breaker.admit(at), Admission::Dial);
            breaker.failed(at, u64::MAX);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_after_as_many_with_a_success_between() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..10 * FAILURES_MAX {
            breaker.failed(now, 0);
            breaker.failed(now, 0);
            breaker.succeeded();
            assert_eq!(breaker.admit(now), Admission::Dial);
        }
        assert_eq!(opened(now).admit(now), Admission::Wait(now + OPEN_FIRST));
    }

    #[test]
    fn one_probes_and_the_others_hear_how_it_went() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let then = now + OPEN_FIRST;
        assert_eq!(breaker.admit(then), Admission::Probe);
        assert_eq!(breaker.admit(then), Admission::Busy);
        assert_eq!(breaker.open_until(), None);
        let mut failed = breaker.clone();
        failed.failed(then, u64::MAX);
        assert_eq!(failed.admit(then), Admission::Wait(then + 2 * OPEN_FIRST));
        breaker.succeeded();
        assert_eq!(breaker.admit(then), Admission::Dial);
    }

    #[test]
    fn a_probe_that_was_given_up_leaves_its_place_to_the_next() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let then = now + OPEN_FIRST;
        assert_eq!(breaker.admit(then), Admission::Probe);
        breaker.abandoned(then);
        assert_eq!(breaker.admit(then), Admission::Probe);
    }

    #[test]
    fn a_failure_that_comes_late_does_not_keep_it_open_longer() {
        let now = Instant::now();
        let mut breaker = opened(now);
        breaker.failed(now + OPEN_FIRST / 2, u64::MAX);
        assert_eq!(breaker.open_until(), Some(now + OPEN_FIRST));
    }

    proptest! {
        #[test]
        fn whatever_happens_it_lets_somebody_dial_again_within_its_bound(
            steps in proptest::collection::vec((0..4_u8, any::<u64>(), 0..40_000_u64), 0..200),
        ) {
            let mut now = Instant::now();
            let (mut breaker, mut probing) = (Breaker::default(), false);
            for (step, random, ms) in steps {
                now += Duration::from_millis(ms);
                match step {
                    0 => match breaker.admit(now) {
                        Admission::Probe => {
                            prop_assert!(!probing, "two probe at once");
                            probing = true;
                        }
                        Admission::Busy => prop_assert!(probing, "nobody probes"),
                        Admission::Wait(until) => prop_assert!(until > now && until <= now + OPEN_MAX),
                        Admission::Dial => {}
                    },
                    1 => (breaker.failed(now, random), probing = false).0,
                    2 => (breaker.succeeded(), probing = false).0,
                    _ => (breaker.abandoned(now), probing = false).0,
                }
            }
            breaker.abandoned(now);
            prop_assert!(matches!(
                breaker.admit(now + OPEN_MAX),
                Admission::Dial | Admission::Probe
            ));
        }
    }
}
