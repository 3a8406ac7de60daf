//! A world in which everything happens one after the other, in virtual time, as a seed has it: a host with a runner,
//! its shims and harnesses, a disk and a store; two controls; links between them; and faults in all of it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt::Write as _;

use oqto_protocol::command::CommandEnvelope;
use oqto_protocol::id::CommandId;
use oqto_protocol::reply::Reply;
use oqto_runner::shim::{Exit, Notice};

use crate::agent::{Agent, Dialect};
use crate::control::{Follow, is_rest};
use crate::dice::Dice;
use crate::oracle::Oracle;
use crate::plan::{Fault, Flaw, Plan};
use crate::runner::{Driver, Sub};
use crate::shim::{Order, Shim, Tape};
use crate::store::Store;
use crate::user::User;

/// The wall clock when virtual time begins, Unix milliseconds.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// How long after the last fault everything may take to come to rest, in virtual milliseconds: the longest deadlines
/// of a session are 30 s, and a few of them may follow one another.
const REST_MAX_MS: u64 = 300_000;

/// How many steps a run may have: one that never rests ends here.
const STEPS_MAX: u64 = 200_000;

pub(crate) const CONTROLS: usize = 2;

/// What happens next to somebody.
#[derive(Debug)]
pub(crate) enum Happening {
    Fault(Fault),
    Mended(Fault),
    RunnerStarts,
    /// The driver of a session has the processor.
    Drives {
        runner: u32,
        session: usize,
    },
    Commits {
        runner: u32,
    },
    ShimTurns {
        session: usize,
    },
    AgentSpeaks {
        session: usize,
        agent: u32,
    },
    AgentHears {
        session: usize,
        agent: u32,
        bytes: Vec<u8>,
    },
    AgentExits {
        session: usize,
        agent: u32,
        exit: Exit,
    },
    ToShim {
        session: usize,
        link: u32,
        order: Order,
    },
    ToDriver {
        session: usize,
        link: u32,
        notice: Notice,
    },
    Dials {
        control: usize,
        life: u32,
    },
    LinkIsLost {
        control: usize,
        life: u32,
        net: u32,
    },
    ControlStarts {
        control: usize,
    },
    ToRunner {
        net: u32,
        what: Upward,
    },
    ToControl {
        net: u32,
        what: Downward,
    },
    Pumps {
        net: u32,
        session: usize,
    },
    Keeps {
        control: usize,
        life: u32,
        session: usize,
    },
    UserActs {
        session: usize,
    },
    UserGivesUp {
        session: usize,
        prompt: usize,
    },
}

/// What a control sends.
#[derive(Clone, Debug)]
pub(crate) enum Upward {
    Subscribe {
        session: usize,
        cursor: oqto_protocol::cursor::Cursor,
    },
    Ack {
        session: usize,
        seq: u64,
    },
    Command {
        session: usize,
        envelope: Box<CommandEnvelope>,
    },
}

/// What a runner sends.
#[derive(Clone, Debug)]
pub(crate) enum Downward {
    Bytes { session: usize, bytes: Vec<u8> },
    Reply { session: usize, reply: Box<Reply> },
}

#[derive(Debug)]
struct Entry {
    at: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A session's directory and processes on the host.
pub(crate) struct Place {
    pub(crate) dialect: Dialect,
    pub(crate) created_at: u64,
    /// Which start of the harness the tape is of.
    pub(crate) generation: u64,
    /// `None` once the shim's directory was put away.
    pub(crate) tape: Option<Tape>,
    pub(crate) shim: Option<Shim>,
    /// Counts harnesses, so that what was meant for a dead one reaches no other.
    pub(crate) agent: u32,
    /// The connection between shim and driver, by its number; the shim serves one.
    pub(crate) link: u32,
    to_shim_at: u64,
    to_driver_at: u64,
    is_turning: bool,
    is_speaking: bool,
    /// Nobody ended its harness but itself and its user.
    pub(crate) is_undisturbed: bool,
}

/// A connection of a control with a runner.
pub(crate) struct Net {
    pub(crate) control: usize,
    pub(crate) runner: u32,
    pub(crate) is_up: bool,
    pub(crate) subs: Vec<Option<Sub>>,
    /// When what was sent last arrives, for each stream and way; streams overtake one another.
    arrives: Vec<[u64; 4]>,
}

pub(crate) struct Control {
    pub(crate) life: u32,
    pub(crate) is_up: bool,
    pub(crate) is_durable: bool,
    pub(crate) net: Option<u32>,
    pub(crate) follows: Vec<Follow>,
    is_keeping: Vec<bool>,
    tries: u32,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) dice: Dice,
    pub(crate) now: u64,
    /// By how much the wall clock was put back.
    set_back_ms: u64,
    heap: BinaryHeap<Reverse<Entry>>,
    order: u64,
    pub(crate) boot: u32,
    pub(crate) is_full: bool,
    is_store_broken: bool,
    is_partitioned: bool,
    pub(crate) places: Vec<Place>,
    pub(crate) store: Store,
    /// Counts runners; the drivers are those of the newest.
    pub(crate) runner: u32,
    pub(crate) is_runner_up: bool,
    pub(crate) drivers: Vec<Option<Driver>>,
    is_driving: Vec<bool>,
    is_committing: bool,
    pub(crate) nets: Vec<Net>,
    pub(crate) controls: Vec<Control>,
    pub(crate) users: Vec<User>,
    pub(crate) oracle: Oracle,
    pub(crate) steps: u64,
    pub(crate) trace: Option<String>,
    /// A number that follows from all that happened.
    pub(crate) digest: u64,
}

impl World {
    pub(crate) fn new(plan: Plan, is_traced: bool) -> Self {
        let mut dice = Dice::named(plan.seed, "world");
        let count = plan.dialects.len();
        let control = |is_durable| Control {
            life: 0,
            is_up: false,
            is_durable,
            net: None,
            follows: (0..count).map(|_| Follow::new()).collect(),
            is_keeping: vec![false; count],
            tries: 0,
        };
        let mut world = Self {
            now: 0,
            set_back_ms: 0,
            heap: BinaryHeap::new(),
            order: 0,
            boot: 0,
            is_full: false,
            is_store_broken: false,
            is_partitioned: false,
            places: Vec::new(),
            store: Store::new(count, plan.queue_max, plan.flaw.of_store()),
            runner: 0,
            is_runner_up: false,
            drivers: (0..count).map(|_| None).collect(),
            is_driving: vec![false; count],
            is_committing: false,
            nets: Vec::new(),
            controls: vec![control(true), control(false)],
            users: (0..count)
                .map(|session| User::new(session, &plan, &mut dice))
                .collect(),
            oracle: Oracle::default(),
            steps: 0,
            trace: is_traced.then(String::new),
            digest: plan.seed,
            dice,
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for session in 0..self.plan.dialects.len() {
            let dialect = self.plan.dialects[session];
            let dies_after = self.plan.dies_after[session];
            self.places.push(Place {
                dialect,
                created_at: EPOCH_MS,
                generation: 0,
                tape: None,
                shim: None,
                agent: 0,
                link: 0,
                to_shim_at: 0,
                to_driver_at: 0,
                is_turning: false,
                is_speaking: false,
                is_undisturbed: dies_after.is_none(),
            });
            self.start_shim(session, 0);
            let shim = self.places[session].shim.as_mut();
            if let Some(agent) = shim.and_then(|shim| shim.agent.as_mut()) {
                agent.dies_after = dies_after;
            }
        }
        self.soon(0, Happening::RunnerStarts);
        for control in 0..CONTROLS {
            self.soon(0, Happening::ControlStarts { control });
        }
        for (at, fault) in self.plan.faults.clone() {
            self.soon(at, Happening::Fault(fault));
        }
    }

    /// The wall clock, Unix milliseconds.
    pub(crate) fn unix_ms(&self) -> u64 {
        EPOCH_MS + self.now - self.set_back_ms
    }

    pub(crate) fn soon(&mut self, after_ms: u64, what: Happening) {
        self.order += 1;
        self.heap.push(Reverse(Entry {
            at: self.now + after_ms,
            order: self.order,
            what,
        }));
    }

    fn later(&mut self, what: Happening) {
        let after_ms = self.dice.delay();
        self.soon(after_ms, what);
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>7} {}", self.now, what());
        }
    }

    /// Runs until nothing more happens; what was wrong.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        while let Some(Reverse(Entry { at, what, .. })) = self.heap.pop() {
            self.now = self.now.max(at);
            self.steps += 1;
            self.digest = self.digest.rotate_left(5) ^ self.now ^ (self.steps << 32);
            if self.trace.is_some() {
                let text = format!("{what:?}");
                let text: String = text.chars().take(300).collect();
                self.note(|| text);
            }
            self.happens(what);
            if let Some(wrong) = self.oracle.wrong.take() {
                return Err(wrong);
            }
            if self.now > self.plan.calm_at + REST_MAX_MS || self.steps > STEPS_MAX {
                return Err(format!("it does not come to rest: {}", self.unrest()));
            }
        }
        self.look_at_rest()
    }

    fn happens(&mut self, what: Happening) {
        match what {
            Happening::Fault(fault) => self.strike(fault),
            Happening::Mended(fault) => self.mend(fault),
            Happening::RunnerStarts => self.start_runner(),
            Happening::Drives { runner, session } => {
                if self.is_runner_up && runner == self.runner {
                    self.is_driving[session] = false;
                    self.drive(session);
                }
            }
            Happening::Commits { runner } => {
                if self.is_runner_up && runner == self.runner {
                    self.commit();
                }
            }
            Happening::ShimTurns { session } => self.turn_shim(session),
            Happening::AgentSpeaks { session, agent } => self.speak(session, agent),
            Happening::AgentHears {
                session,
                agent,
                bytes,
            } => self.hear(session, agent, &bytes),
            Happening::AgentExits { session, agent, exit } => {
                if self.places[session].agent == agent {
                    self.end_agent(session, exit);
                }
            }
            Happening::ToShim { session, link, order } => {
                if self.places[session].link == link
                    && let Some(shim) = &mut self.places[session].shim
                {
                    shim.inbox.push_back(order);
                    self.wake_shim(session);
                }
            }
            Happening::ToDriver {
                session,
                link,
                notice,
            } => {
                if self.places[session].link == link
                    && let Some(driver) = &mut self.drivers[session]
                    && driver.link == Some(link)
                {
                    driver.inbox.push_back(notice);
                    self.wake_driver(session, 0);
                }
            }
            Happening::Dials { control, life } => self.dial(control, life),
            Happening::LinkIsLost { control, life, net } => self.lose_link(control, life, net),
            Happening::ControlStarts { control } => {
                let it = &mut self.controls[control];
                if !it.is_up {
                    (it.is_up, it.life) = (true, it.life + 1);
                    let life = it.life;
                    self.later(Happening::Dials { control, life });
                }
            }
            Happening::ToRunner { net, what } => self.runner_hears(net, what),
            Happening::ToControl { net, what } => self.control_hears(net, what),
            Happening::Pumps { net, session } => self.pump(net, session),
            Happening::Keeps {
                control,
                life,
                session,
            } => self.keep(control, life, session),
            Happening::UserActs { session } => self.act(session),
            Happening::UserGivesUp { session, prompt } => self.give_up(session, prompt),
        }
    }
}

/// The host's processes and its disk.
impl World {
    /// Starts a shim with its harness; how long its tape is, and the link to it.
    pub(crate) fn start_shim(&mut self, session: usize, generation: u64) -> (u64, u32) {
        let tape = Tape::begin(self.boot, self.unix_ms());
        let report = b"{\"confined\":{\"layers\":[]}}\n".to_vec();
        let flaws = self.plan.flaw.of_shim();
        let place = &mut self.places[session];
        let mut shim = Shim::new(Agent::new(place.dialect), report, flaws);
        place.agent += 1;
        place.link += 1;
        place.generation = generation;
        let (tape_len, link) = (shim.greet(&tape), place.link);
        (place.tape, place.shim) = (Some(tape), Some(shim));
        self.wake_shim(session);
        self.wake_agent(session);
        (tape_len, link)
    }

    pub(crate) fn wake_shim(&mut self, session: usize) {
        if self.places[session].shim.is_some()
            && !std::mem::replace(&mut self.places[session].is_turning, true)
        {
            let after_ms = self.dice.below(3) / 2;
            self.soon(after_ms, Happening::ShimTurns { session });
        }
    }

    fn turn_shim(&mut self, session: usize) {
        let now = self.unix_ms();
        let place = &mut self.places[session];
        place.is_turning = false;
        let (Some(shim), Some(tape)) = (&mut place.shim, &mut place.tape) else {
            return;
        };
        let notices = shim.turn(tape, now, self.is_full, &mut self.dice);
        if self.dice.percent(10) {
            tape.synced = tape.len;
        }
        let (bytes, was_closed) = (shim.feed(), shim.is_input_closed);
        let (is_over, has_more, trouble) = (shim.is_over(), shim.has_more(), shim.trouble);
        let (agent, link) = (place.agent, place.link);
        if !bytes.is_empty() {
            self.later(Happening::AgentHears {
                session,
                agent,
                bytes,
            });
        }
        if was_closed {
            let exit = Exit::Code(0);
            let after_ms = self.dice.between(1, 300);
            self.soon(after_ms, Happening::AgentExits { session, agent, exit });
        }
        for notice in notices {
            self.tell_driver(session, link, notice);
        }
        if is_over {
            self.places[session].shim = None;
            self.tell_driver(session, link, Notice::Gone);
            return;
        }
        if has_more {
            self.wake_shim(session);
        } else if trouble && !std::mem::replace(&mut self.places[session].is_turning, true) {
            self.soon(250, Happening::ShimTurns { session });
        }
        self.wake_agent(session);
    }

    fn tell_driver(&mut self, session: usize, link: u32, notice: Notice) {
        let at = self.places[session]
            .to_driver_at
            .max(self.now + self.dice.delay());
        self.places[session].to_driver_at = at;
        self.soon(
            at - self.now,
            Happening::ToDriver {
                session,
                link,
                notice,
            },
        );
    }

    pub(crate) fn tell_shim(&mut self, session: usize, order: Order) {
        let link = self.places[session].link;
        let at = self.places[session].to_shim_at.max(self.now + self.dice.delay());
        self.places[session].to_shim_at = at;
        self.soon(at - self.now, Happening::ToShim { session, link, order });
    }

    fn wake_agent(&mut self, session: usize) {
        let place = &mut self.places[session];
        let Some(shim) = &place.shim else { return };
        let Some(agent) = &shim.agent else { return };
        if let Some(after_ms) = agent.next_after()
            && shim.has_room()
            && !std::mem::replace(&mut place.is_speaking, true)
        {
            let agent = place.agent;
            self.soon(after_ms, Happening::AgentSpeaks { session, agent });
        }
    }

    fn speak(&mut self, session: usize, number: u32) {
        let place = &mut self.places[session];
        place.is_speaking = false;
        let Some(shim) = place.shim.as_mut().filter(|_| place.agent == number) else {
            return;
        };
        let Some(agent) = &mut shim.agent else { return };
        if let Some(left) = &mut agent.dies_after {
            if *left == 0 {
                self.end_agent(session, Exit::Signal(11));
                return;
            }
            *left -= 1;
        }
        if let Some(line) = agent.speak() {
            shim.print(&line);
        }
        self.wake_shim(session);
        self.wake_agent(session);
    }

    fn hear(&mut self, session: usize, number: u32, bytes: &[u8]) {
        let place = &mut self.places[session];
        if place.agent != number {
            return;
        }
        let Some(agent) = place.shim.as_mut().and_then(|shim| shim.agent.as_mut()) else {
            return;
        };
        for effect in agent.hear(bytes) {
            self.oracle.effect(effect);
        }
        self.wake_agent(session);
    }

    fn end_agent(&mut self, session: usize, exit: Exit) {
        if let Some(shim) = &mut self.places[session].shim {
            shim.ended(exit);
            self.places[session].agent += 1;
            self.wake_shim(session);
        }
    }

    /// The shim dies, and its harness with it.
    pub(crate) fn kill_shim(&mut self, session: usize) {
        if self.places[session].shim.take().is_some() {
            self.places[session].is_undisturbed = false;
            self.places[session].agent += 1;
            let link = self.places[session].link;
            self.tell_driver(session, link, Notice::Gone);
        }
    }

    pub(crate) fn wake_driver(&mut self, session: usize, after_ms: u64) {
        if self.drivers[session].is_some() && !std::mem::replace(&mut self.is_driving[session], true) {
            let runner = self.runner;
            let after_ms = after_ms + self.dice.below(4) / 3;
            self.soon(after_ms, Happening::Drives { runner, session });
        }
    }

    /// The driver sleeps until then, unless something wakes it before.
    pub(crate) fn wake_driver_at(&mut self, session: usize, unix_ms: u64) {
        let runner = self.runner;
        let after_ms = unix_ms.saturating_sub(self.unix_ms()).max(1);
        self.soon(after_ms, Happening::Drives { runner, session });
    }

    pub(crate) fn wake_writer(&mut self) {
        if self.store.has_work() && !std::mem::replace(&mut self.is_committing, true) {
            let runner = self.runner;
            let after_ms = if self.store.is_failing {
                250
            } else {
                self.dice.delay()
            };
            self.soon(after_ms, Happening::Commits { runner });
        }
    }

    fn commit(&mut self) {
        self.is_committing = false;
        if !self.store.has_work() {
            return;
        }
        let fails = self.is_full || self.is_store_broken;
        let told = self.store.commit(fails, &mut self.dice);
        self.oracle.look_at_log(&self.store);
        self.wake_writer();
        for session in 0..self.places.len() {
            if told.contains(&session) || fails {
                self.wake_driver(session, 0);
            }
        }
        for net in 0..self.nets.len() as u32 {
            for session in &told {
                self.wake_pump(net, *session);
            }
        }
        // Room in the queue is for whoever waits for it.
        for session in 0..self.places.len() {
            self.wake_driver(session, 0);
        }
    }
}

/// What goes wrong.
impl World {
    fn strike(&mut self, fault: Fault) {
        let mends_after = self.dice.between(20, 4000);
        match fault {
            Fault::KillRunner => self.kill_runner(),
            Fault::KillShim { session } => self.kill_shim(session),
            Fault::LosePower => self.lose_power(),
            Fault::KillControl { control } => self.kill_control(control),
            Fault::CutLink { control } => self.cut(control),
            Fault::Partition => {
                self.is_partitioned = true;
                for control in 0..CONTROLS {
                    self.cut(control);
                }
                self.soon(mends_after, Happening::Mended(fault));
            }
            Fault::DiskFull => {
                self.is_full = true;
                self.soon(mends_after, Happening::Mended(fault));
            }
            Fault::StoreFails => {
                self.is_store_broken = true;
                self.soon(mends_after, Happening::Mended(fault));
            }
            Fault::ClockBack { ms } => self.set_back_ms = (self.set_back_ms + ms).min(EPOCH_MS / 2),
        }
    }

    fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::Partition => self.is_partitioned = false,
            Fault::DiskFull => self.is_full = false,
            Fault::StoreFails => self.is_store_broken = false,
            _ => {}
        }
    }

    fn kill_runner(&mut self) {
        if !std::mem::take(&mut self.is_runner_up) {
            return;
        }
        // What was being committed is committed, or is not.
        if self.is_committing && !self.is_full && !self.is_store_broken && self.dice.percent(50) {
            let _told = self.store.commit(false, &mut self.dice);
            self.oracle.look_at_log(&self.store);
        }
        self.is_committing = false;
        for session in 0..self.places.len() {
            self.drivers[session] = None;
            self.is_driving[session] = false;
        }
        for control in 0..CONTROLS {
            self.cut(control);
        }
        let after_ms = self.dice.between(1, 3000);
        self.soon(after_ms, Happening::RunnerStarts);
    }

    fn lose_power(&mut self) {
        for session in 0..self.places.len() {
            self.kill_shim(session);
            if let Some(tape) = &mut self.places[session].tape {
                tape.lose_power(&mut self.dice);
            }
        }
        self.kill_runner();
        let before: Vec<_> = self
            .store
            .sessions
            .iter()
            .map(|kept| kept.events.clone())
            .collect();
        self.store.lose_power(&mut self.dice);
        self.oracle.look_at_power_loss(&before, &self.store);
        self.boot += 1;
    }

    fn kill_control(&mut self, control: usize) {
        self.cut(control);
        let it = &mut self.controls[control];
        if !std::mem::take(&mut it.is_up) {
            return;
        }
        it.net = None;
        for follow in &mut it.follows {
            follow.crash(it.is_durable);
        }
        it.is_keeping.fill(false);
        let after_ms = self.dice.between(1, 3000);
        self.soon(after_ms, Happening::ControlStarts { control });
    }

    fn cut(&mut self, control: usize) {
        let Some(net) = self.controls[control].net else {
            return;
        };
        if std::mem::take(&mut self.nets[net as usize].is_up) {
            let life = self.controls[control].life;
            let after_ms = self.dice.between(0, 2000);
            self.soon(after_ms, Happening::LinkIsLost { control, life, net });
        }
    }
}

/// The links.
impl World {
    fn dial(&mut self, control: usize, life: u32) {
        let it = &self.controls[control];
        if !it.is_up || it.life != life || it.net.is_some() {
            return;
        }
        if !self.is_runner_up || self.is_partitioned {
            let tries = self.controls[control].tries.min(6);
            self.controls[control].tries += 1;
            let after_ms = self.dice.between(10, 20 << tries);
            self.soon(after_ms, Happening::Dials { control, life });
            return;
        }
        let count = self.places.len();
        let net = self.nets.len() as u32;
        self.nets.push(Net {
            control,
            runner: self.runner,
            is_up: true,
            subs: (0..count).map(|_| None).collect(),
            arrives: vec![[0; 4]; count],
        });
        let it = &mut self.controls[control];
        (it.net, it.tries) = (Some(net), 0);
        for session in 0..count {
            let cursor = self.controls[control].follows[session].subscribe();
            self.send_up(net, Upward::Subscribe { session, cursor });
            if self.users[session].control == control {
                self.resend(session);
            }
        }
    }

    fn lose_link(&mut self, control: usize, life: u32, net: u32) {
        let it = &mut self.controls[control];
        if it.is_up && it.life == life && it.net == Some(net) {
            it.net = None;
            self.later(Happening::Dials { control, life });
        }
    }

    /// When something arrives that is sent now: on one stream in order, on several in any.
    fn arrival(&mut self, net: u32, session: usize, stream: usize) -> u64 {
        let delay = self.dice.delay();
        let at = &mut self.nets[net as usize].arrives[session][stream];
        *at = (*at).max(self.now + delay);
        *at - self.now
    }

    pub(crate) fn send_up(&mut self, net: u32, what: Upward) {
        let after_ms = match &what {
            Upward::Subscribe { session, .. } | Upward::Ack { session, .. } => self.arrival(net, *session, 0),
            // Each command has a stream of its own.
            Upward::Command { .. } => self.dice.delay(),
        };
        self.soon(after_ms, Happening::ToRunner { net, what });
    }

    pub(crate) fn send_down(&mut self, net: u32, what: Downward) {
        let after_ms = match &what {
            Downward::Bytes { session, .. } => self.arrival(net, *session, 1),
            Downward::Reply { .. } => self.dice.delay(),
        };
        self.soon(after_ms, Happening::ToControl { net, what });
    }

    fn control_hears(&mut self, net: u32, what: Downward) {
        let (control, is_up) = (self.nets[net as usize].control, self.nets[net as usize].is_up);
        if !is_up || self.controls[control].net != Some(net) {
            return;
        }
        match what {
            Downward::Bytes { session, bytes } => {
                if let Some(sub) = &mut self.nets[net as usize].subs[session] {
                    sub.in_flight -= bytes.len();
                }
                self.wake_pump(net, session);
                if self.plan.flaw == Flaw::LinkLosesFrames && self.dice.percent(3) {
                    return;
                }
                match self.controls[control].follows[session].hear(&bytes) {
                    Err(wrong) => self
                        .oracle
                        .accuse(format!("session {session}, control {control}: {wrong}")),
                    Ok(new) => {
                        for numbered in &new {
                            self.oracle.handed_out(session, numbered);
                        }
                        if new.iter().any(|numbered| is_rest(&numbered.event)) {
                            self.soon(1, Happening::UserActs { session });
                        }
                        self.begin_keeping(control, session);
                    }
                }
            }
            Downward::Reply { session, reply } => self.answered(session, &reply),
        }
    }

    fn begin_keeping(&mut self, control: usize, session: usize) {
        let it = &mut self.controls[control];
        if it.follows[session].has_unkept() && !std::mem::replace(&mut it.is_keeping[session], true) {
            let life = it.life;
            self.later(Happening::Keeps {
                control,
                life,
                session,
            });
        }
    }

    fn keep(&mut self, control: usize, life: u32, session: usize) {
        let it = &mut self.controls[control];
        if !it.is_up || it.life != life {
            return;
        }
        it.is_keeping[session] = false;
        let says_so = it.is_durable || self.plan.flaw == Flaw::VolatileAcknowledges;
        if let (Some(seq), Some(net)) = (it.follows[session].keep(says_so), it.net) {
            self.send_up(net, Upward::Ack { session, seq });
        }
    }
}

/// The end.
impl World {
    fn unrest(&self) -> String {
        let next = self.heap.peek().map(|Reverse(entry)| format!("{:?}", entry.what));
        next.unwrap_or_default().chars().take(300).collect()
    }

    fn look_at_rest(&mut self) -> Result<(), String> {
        self.oracle.look_at_commands();
        if let Some(wrong) = self.oracle.wrong.take() {
            return Err(wrong);
        }
        for (session, kept) in self.store.sessions.iter().enumerate() {
            let log: Vec<_> = kept
                .events
                .iter()
                .map(|stored| crate::oracle::read(&stored.frame))
                .collect();
            let whole = crate::control::view(log.iter());
            for (control, it) in self.controls.iter().enumerate() {
                let follow = &it.follows[session];
                if follow.has_unkept()
                    || follow.cursor() != kept.cursor() && follow.cursor().seq != kept.last_seq()
                {
                    let (at, end) = (follow.cursor(), kept.cursor());
                    return Err(format!(
                        "session {session}: control {control} rests at {at:?}, the log at {end:?}"
                    ));
                }
                let seen = crate::control::view(follow.kept.iter());
                if let Some(n) = (0..whole.len().max(seen.len())).find(|n| whole.get(*n) != seen.get(*n)) {
                    let (log, seen) = (whole.get(n), seen.get(n));
                    return Err(format!(
                        "session {session}: control {control} has {seen:?}, the log {log:?}"
                    ));
                }
            }
            let ends = log
                .iter()
                .filter(|it| matches!(it.event, oqto_protocol::event::Event::MessageEnd(_)));
            let (ends, rows) = (ends.count(), kept.messages.len());
            if ends != rows {
                return Err(format!(
                    "session {session}: {ends} messages have ended, and {rows} are kept"
                ));
            }
            self.users[session].judge(&self.places[session], kept)?;
        }
        Ok(())
    }
}

pub(crate) fn command_id(session: usize, number: u32) -> CommandId {
    let mut id = [0; 16];
    id[0] = session as u8 + 1;
    id[1..5].copy_from_slice(&number.to_le_bytes());
    id[15] = 7;
    CommandId(id)
}

pub(crate) type Inbox = VecDeque<Notice>;
