//! Chaos: real processes and real agents, of which anything is killed at any moment, while their links lose, part and move.
//!
//! Two controls in processes of their own follow the same sessions into histories on disk, and one of them drives them.
//! They live in one network, the runner in another, and what lies between drops packets, is cut, and translates
//! addresses anew. Runner, controls, and of some sessions the shim and what it runs, are killed by a seed. In the end
//! both histories must be whole and equal, and tell what a session tells that nobody disturbed.
//!
//! A failing run prints its seed: `OQTO_CHAOS_SEED=SEED cargo test -p oqto-tests --all-features --test chaos`. What is
//! done follows from the seed; what it meets depends on the host as well. `OQTO_CHAOS_KILLS=N` kills so often.
#![expect(
    clippy::unwrap_used,
    reason = "a bed that cannot be made is a test that failed"
)]

mod bed;
mod dice;
mod follower;
mod net;
mod oracle;
mod plan;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use oqto_tests::{is_root, not_run, signal, wait_until};

use bed::{Bed, Who};
use dice::{Dice, SEED};
use follower::{ROLE, Role};
use net::Net;
use plan::{PLACES, Place};

/// The variable that says how often something is killed.
const KILLS: &str = "OQTO_CHAOS_KILLS";

/// How often something is killed in every run of the tests.
const KILLS_SHORT: u32 = 20;

/// How often a session's own processes are killed in a run so short: one that dies more often stays down for a minute.
const INSIDE_SHORT: usize = 3;

/// How long everything may take to come to rest once nothing is broken any more.
const REST_MAX: Duration = Duration::from_secs(120);

/// How long a runner may be gone before it is started, whoever else may do so.
const RUNNERLESS_MAX: Duration = Duration::from_secs(3);

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Runner,
    Driver,
    Watcher,
    Inside,
    Part,
    Forget,
    Move,
    /// The runner hangs for a while, and then goes on as if nothing had been.
    FreezeRunner,
    FreezeWatcher,
    /// The runner ends and leaves its agents running, as for an upgrade.
    HandOver,
    /// Runner, controls and the link at once.
    All,
}

/// Each as often as it comes.
const FAULTS: [Fault; 22] = [
    Fault::Runner,
    Fault::Runner,
    Fault::Runner,
    Fault::Runner,
    Fault::Runner,
    Fault::Driver,
    Fault::Driver,
    Fault::Driver,
    Fault::Watcher,
    Fault::Watcher,
    Fault::Inside,
    Fault::Inside,
    Fault::Inside,
    Fault::Inside,
    Fault::Part,
    Fault::Forget,
    Fault::Move,
    Fault::FreezeRunner,
    Fault::FreezeWatcher,
    Fault::HandOver,
    Fault::HandOver,
    Fault::All,
];

#[test]
fn whatever_is_killed_nothing_is_lost_and_nothing_is_done_twice() {
    let kills = match std::env::var(KILLS) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => KILLS_SHORT,
    };
    let seed = Dice::seed();
    println!("{SEED}={seed} {KILLS}={kills}");
    let net = if is_root() {
        Net::new()
    } else {
        Err("only root can join networks".to_owned())
    };
    let net = net
        .inspect_err(|why| not_run("links that break, in the chaos test", why))
        .ok();
    let mut chaos = Chaos {
        bed: Bed::new(net),
        dice: Dice::new(seed),
        kills: 0,
        is_short: kills <= KILLS_SHORT,
        died: Vec::new(),
        gone_since: None,
        next_runner: None,
    };
    chaos.run(kills);
}

struct Chaos {
    bed: Bed,
    dice: Dice,
    kills: u32,
    is_short: bool,
    /// Sessions of which something was killed, each time.
    died: Vec<Place>,
    /// Since when no runner lives.
    gone_since: Option<Instant>,
    /// When this test starts the next one; the library may be faster.
    next_runner: Option<Instant>,
}

impl Chaos {
    fn run(&mut self, kills: u32) {
        self.bed.start(Who::Driver);
        self.bed.start(Who::Watcher);
        wait_until("the calm session to end", || {
            self.bed.start(Who::Driver);
            self.bed.is_calm_over().then_some(())
        });
        let begun = Instant::now();
        while self.kills < kills {
            // This is the disturbance, which waits for nothing.
            std::thread::sleep(self.dice.ms(50, 600));
            let fault = *self.dice.one_of(&FAULTS);
            println!("{:>6} ms: {fault:?}", begun.elapsed().as_millis());
            self.disturb(fault);
            self.mend();
        }
        println!("{} kills in {:?}", self.kills, begun.elapsed());
        self.bed.enough();
        let over = Instant::now() + REST_MAX;
        while self.bed.runner().is_none() {
            self.mend();
            assert!(Instant::now() < over, "no runner");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.bed.start(Who::Driver);
        self.bed.start(Who::Watcher);
        self.bed.wait_for_controls(REST_MAX);
        oracle::judge(&self.bed);
        if let Some(net) = &self.bed.net {
            println!("{} packets were lost on the way", net.lost());
        }
    }

    fn disturb(&mut self, fault: Fault) {
        match fault {
            Fault::Runner => self.kill_runner(),
            Fault::Driver => self.kill_control(Who::Driver),
            Fault::Watcher => self.kill_control(Who::Watcher),
            Fault::Inside => {
                let mortal: Vec<_> = PLACES.into_iter().filter(|place| place.is_mortal()).collect();
                let place: Place = *self.dice.one_of(&mortal);
                if self.is_short && self.died.iter().filter(|died| **died == place).count() == INSIDE_SHORT {
                    return;
                }
                if let Some(what) = self.bed.kill_inside(place, &mut self.dice) {
                    println!("           {place:?}: {what}");
                    self.died.push(place);
                    self.kills += 1;
                }
            }
            Fault::Part => {
                let for_so_long = self.dice.ms(100, 2500);
                if let Some(net) = &self.bed.net {
                    net.part();
                    std::thread::sleep(for_so_long);
                    net.join();
                }
            }
            Fault::Forget => {
                if let Some(net) = &self.bed.net {
                    net.forget();
                }
            }
            Fault::Move => {
                if let Some(net) = &mut self.bed.net {
                    net.move_control();
                }
            }
            Fault::FreezeRunner => {
                let for_so_long = self.dice.ms(100, 2500);
                if let Some(runner) = self.bed.runner() {
                    freeze(runner.pid, for_so_long);
                }
            }
            Fault::FreezeWatcher => {
                let for_so_long = self.dice.ms(100, 2500);
                if let Some(pid) = self.bed.control_pid(Who::Watcher) {
                    freeze(pid, for_so_long);
                }
            }
            Fault::HandOver => {
                if self.bed.hand_over() {
                    self.leave_to_others();
                }
            }
            Fault::All => {
                if let Some(net) = &self.bed.net {
                    net.part();
                }
                self.kill_control(Who::Driver);
                self.kill_runner();
                self.kill_control(Who::Watcher);
                if let Some(net) = &self.bed.net {
                    net.join();
                }
            }
        }
    }

    fn kill_runner(&mut self) {
        if self.bed.kill_runner() {
            self.kills += 1;
            self.leave_to_others();
        }
    }

    /// The runner is gone: half of the time the library is left to bring it back.
    fn leave_to_others(&mut self) {
        self.gone_since = Some(Instant::now());
        let at_once = self.dice.below(2) == 0;
        let wait = if at_once {
            self.dice.ms(0, 300)
        } else {
            RUNNERLESS_MAX
        };
        self.next_runner = Some(Instant::now() + wait);
    }

    fn kill_control(&mut self, who: Who) {
        self.bed.kill_control(who);
        self.kills += 1;
    }

    /// Starts again what is not there.
    fn mend(&mut self) {
        self.bed.start(Who::Driver);
        self.bed.start(Who::Watcher);
        if self.bed.runner().is_some() {
            (self.gone_since, self.next_runner) = (None, None);
            return;
        }
        let gone_since = *self.gone_since.get_or_insert_with(Instant::now);
        let at = self.next_runner.unwrap_or(gone_since + RUNNERLESS_MAX);
        if Instant::now() >= at {
            self.bed.start_runner();
            self.next_runner = Some(Instant::now() + RUNNERLESS_MAX);
        }
    }
}

/// Stops a process for so long.
fn freeze(pid: i32, for_so_long: Duration) {
    signal(pid, Signal::SIGSTOP);
    std::thread::sleep(for_so_long);
    signal(pid, Signal::SIGCONT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of the chaos test, which starts and kills it"]
async fn a_control_that_may_be_killed() {
    let role: Role = serde_json::from_str(&std::env::var(ROLE).unwrap()).unwrap();
    role.play().await;
}
