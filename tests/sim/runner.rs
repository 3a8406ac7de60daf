//! A runner: its drivers obey the mind that decides in the real one, and its subscriptions read what is committed.

use std::collections::VecDeque;

use oqto_protocol::command::{Command, CommandEnvelope};
use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::splice;
use oqto_protocol::event::{Event, Numbered, StreamReset};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::frame;
use oqto_protocol::id::{CommandId, Digest};
use oqto_protocol::policy::{NetworkAccess, SandboxReport};
use oqto_protocol::reply::Reply;
use oqto_protocol::session::SessionState;
use oqto_protocol::stream::Subscribed;
use oqto_runner::event_log::Resume;
use oqto_runner::harness::Edition;
use oqto_runner::session::Setup;
use oqto_runner::shim::Notice;
use oqto_runner::supervisor::simulation::{Deed, Mind, Origin, Said};

use crate::oracle::read;
use crate::plan::Flaw;
use crate::shim::Order;
use crate::store::Unaccepted;
use crate::user::session_id;
use crate::world::{Downward, Happening, Inbox, Upward, World};

/// How long a released shim may take to end.
const RELEASE_MS: u64 = 5000;

/// Who waits for a reply: at the other end of this connection.
type Waiter = u32;

/// Where a driver is.
#[derive(Debug)]
enum Stage {
    Reads,
    /// It appends what was said, and reads on or looks what is next.
    Appends(Said<Waiter>, Then),
    Decides,
    Waits,
    /// Its harness has ended: all of it is to be committed, then the shim goes.
    Leaves {
        until: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Read,
    Decide,
}

/// What came of a step.
enum Step {
    Again,
    Blocked,
    Over,
    Lost(String),
}

/// One session's driver.
#[derive(Debug)]
pub(crate) struct Driver {
    mind: Mind<Waiter>,
    /// How far the tape was read.
    at: u64,
    pub(crate) link: Option<u32>,
    pub(crate) inbox: Inbox,
    asks: VecDeque<(Box<CommandEnvelope>, Waiter)>,
    /// Who waits for the answer to what.
    asked: Vec<(CommandId, Waiter)>,
    stage: Stage,
    /// Answers that wait until this event is committed.
    unanswered: VecDeque<(u64, Vec<(Waiter, Reply)>)>,
    appended: u64,
    /// When it wakes by itself, in virtual time.
    wakes_at: u64,
    /// Nothing of the session ran when this runner came.
    was_gone: bool,
    start_due: bool,
}

/// A subscription.
#[derive(Debug)]
pub(crate) struct Sub {
    /// What was sent last.
    seq: u64,
    pub(crate) in_flight: usize,
    is_pumping: bool,
}

fn setup(session: usize, world: &World) -> Setup {
    let place = &world.places[session];
    Setup {
        session_id: session_id(session),
        harness: place.dialect.harness(),
        cwd: "/w".to_owned(),
        sandbox: SandboxReport {
            policy: "standard".to_owned(),
            digest: Digest([0; 32]),
            network: NetworkAccess::None,
            layers: Vec::new(),
        },
        edition: Edition::default(),
        permissions: oqto_runner::policy::Permissions::default(),
        continue_session: None,
        title: None,
        provider: None,
        model: None,
        labels: std::collections::BTreeMap::default(),
        created_at: place.created_at,
        cursor: Cursor {
            seq: 0,
            ..world.store.sessions[session].cursor()
        },
        next_idx: 0,
    }
}

impl World {
    /// A runner starts: it finds the sessions of the one before.
    pub(crate) fn start_runner(&mut self) {
        if self.is_runner_up {
            return;
        }
        self.is_runner_up = true;
        self.runner += 1;
        self.store.open(self.boot);
        for session in 0..self.places.len() {
            self.find(session);
        }
    }

    fn find(&mut self, session: usize) {
        let mark = self.store.sessions[session].mark().cloned();
        let created_at = self.places[session].created_at;
        let origin =
            || Origin::new(mark.as_deref(), setup(session, self), created_at).expect("a mark of ours");
        let (origin, again) = (origin(), origin());
        let was_down = origin.is_down();
        let generation = origin.generation() + u64::from(was_down);
        if self.places[session].generation != generation {
            // Of a start that has ended and is told everything is known.
            self.kill_shim(session);
            self.places[session].tape = None;
        }
        let place = &mut self.places[session];
        let mut tape_len = 0;
        let mut link = None;
        if let Some(tape) = &place.tape {
            tape_len = tape.len;
            if let Some(shim) = &mut place.shim {
                place.link += 1;
                tape_len = shim.greet(tape);
                link = Some(place.link);
            }
        } else if !was_down {
            return;
        }
        let has_tape = place.tape.is_some();
        self.read_again(session, again, tape_len);
        let at = if was_down { 0 } else { origin.tape() };
        let kept = &self.store.sessions[session];
        let mut mind = Mind::new(origin, tape_len, kept.cursor(), kept.next_idx());
        if was_down && has_tape {
            mind.begin_tape(tape_len);
        }
        self.drivers[session] = Some(Driver {
            mind,
            at,
            link,
            inbox: VecDeque::new(),
            asks: VecDeque::new(),
            asked: Vec::new(),
            stage: Stage::Reads,
            unanswered: VecDeque::new(),
            appended: 0,
            wakes_at: 0,
            was_gone: link.is_none(),
            start_due: false,
        });
        self.wake_driver(session, 0);
    }

    /// Reads a tape into a mind that nobody obeys: it must tell what the log has.
    fn read_again(&mut self, session: usize, origin: Origin, tape_len: u64) {
        let Some(tape) = &self.places[session].tape else {
            return;
        };
        let was_down = origin.is_down();
        let mut at = if was_down { 0 } else { origin.tape() };
        let kept = &self.store.sessions[session];
        let nothing = Cursor {
            seq: 0,
            ..kept.cursor()
        };
        let mut mind: Mind<Waiter> = Mind::new(origin, tape_len, nothing, kept.next_idx());
        if was_down {
            mind.begin_tape(tape_len);
        }
        while let Ok(Some(record)) = tape.read(at, tape_len) {
            at = record.end;
            if mind.feed(&record).is_err() {
                return;
            }
        }
        let Ok(Said {
            batch: Some(batch), ..
        }) = mind.take()
        else {
            return;
        };
        let mut from = 0;
        while let Some(frame) = splice::frame_at(batch.bytes(), from) {
            from += frame.len();
            self.oracle.told_again(session, &self.store, &read(frame));
        }
    }

    /// A driver has the processor: it goes on until it must wait, or for a moment.
    pub(crate) fn drive(&mut self, session: usize) {
        let Some(mut driver) = self.drivers[session].take() else {
            return;
        };
        for _ in 0..=self.dice.below(6) {
            match self.step(session, &mut driver) {
                Step::Again => {}
                Step::Blocked => {
                    self.drivers[session] = Some(driver);
                    return;
                }
                Step::Over => {
                    let asks = driver.asks.iter().map(|(envelope, net)| (envelope.id, *net));
                    for (id, net) in driver.asked.iter().copied().chain(asks) {
                        self.refuse_ended(net, session, id);
                    }
                    return;
                }
                Step::Lost(text) => {
                    self.oracle.accuse(format!("session {session} is lost: {text}"));
                    return;
                }
            }
        }
        self.drivers[session] = Some(driver);
        self.wake_driver(session, 0);
    }

    fn step(&mut self, session: usize, driver: &mut Driver) -> Step {
        self.answer(session, driver);
        match std::mem::replace(&mut driver.stage, Stage::Waits) {
            Stage::Reads => self.read_tape(session, driver),
            Stage::Appends(said, then) => self.append(session, driver, said, then),
            Stage::Decides => self.decide(session, driver),
            Stage::Waits => self.wait(session, driver),
            Stage::Leaves { until } => self.leave(session, driver, until),
        }
    }

    /// Answers that wait for a commit which was made.
    fn answer(&mut self, session: usize, driver: &mut Driver) {
        let committed = self.store.sessions[session].last_seq();
        while driver
            .unanswered
            .front()
            .is_some_and(|(seq, _)| *seq <= committed)
        {
            let (_, answers) = driver.unanswered.pop_front().unwrap_or_default();
            self.reply_all(session, answers);
        }
    }

    fn reply_all(&mut self, session: usize, answers: Vec<(Waiter, Reply)>) {
        for (net, reply) in answers {
            let reply = Box::new(reply);
            self.send_down(net, Downward::Reply { session, reply });
        }
    }

    fn read_tape(&mut self, session: usize, driver: &mut Driver) -> Step {
        driver.mind.reading().begin_turn();
        loop {
            let Some(tape) = &self.places[session].tape else {
                return Step::Lost("its tape is gone".to_owned());
            };
            let until = driver.mind.reading().until();
            let record = match tape.read(driver.at, until) {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(text) => return Step::Lost(text),
            };
            driver.at = record.end;
            let deeds = match driver.mind.feed(&record) {
                Ok(deeds) => deeds,
                Err(error) => return Step::Lost(error.to_string()),
            };
            self.perform(session, driver, deeds);
            if driver.mind.is_full() {
                return say(driver, Then::Read);
            }
            if driver.mind.reading().turn_is_over() || self.dice.percent(20) {
                break;
            }
        }
        say(driver, Then::Decide)
    }

    fn perform(&mut self, session: usize, driver: &mut Driver, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                Deed::Send => self.send(session, driver),
                Deed::CloseStdin if driver.link.is_some() => self.tell_shim(session, Order::CloseStdin),
                Deed::Kill if driver.link.is_some() => self.tell_shim(session, Order::Kill),
                Deed::Start => driver.start_due = true,
                Deed::CloseStdin | Deed::Kill => {}
            }
        }
    }

    fn send(&mut self, session: usize, driver: &mut Driver) {
        if driver.link.is_none() {
            return;
        }
        let now = self.unix_ms();
        while let Some(write) = driver.mind.next_write(now) {
            let order = Order::Write(write.id, write.to, write.bytes.clone());
            self.tell_shim(session, order);
        }
    }

    fn append(&mut self, session: usize, driver: &mut Driver, said: Said<Waiter>, then: Then) -> Step {
        let Said {
            batch,
            answers,
            outcome,
        } = said;
        match batch {
            None => self.reply_all(session, answers),
            Some(batch) => {
                let last_seq = batch.last_seq();
                match self.store.accept(session, batch) {
                    Ok(()) => {}
                    Err(Unaccepted::Full(batch)) => {
                        self.refuse_asks(session, driver);
                        let said = Said {
                            batch: Some(batch),
                            answers,
                            outcome,
                        };
                        driver.stage = Stage::Appends(said, then);
                        return Step::Blocked;
                    }
                    Err(Unaccepted::Wrong(text)) => return Step::Lost(text),
                }
                driver.appended = last_seq;
                driver.unanswered.push_back((last_seq, answers));
                self.wake_writer();
            }
        }
        driver.stage = match then {
            Then::Read => Stage::Reads,
            Then::Decide => Stage::Decides,
        };
        Step::Again
    }

    /// What is next, when some of the tape was read.
    fn decide(&mut self, session: usize, driver: &mut Driver) -> Step {
        let committed = self.store.sessions[session].last_seq();
        if driver.link.is_some() && self.dice.percent(30) {
            let (read, needed) = driver.mind.reading().position(committed);
            self.tell_shim(session, Order::Consumed(read, needed));
        }
        let _looks = driver.mind.wants_look();
        let more = driver.mind.reading().has_more();
        let (is_down, now) = (driver.mind.is_down(), self.unix_ms());
        driver.start_due &= is_down;
        if driver.mind.state() == SessionState::Closed {
            driver.stage = Stage::Leaves { until: None };
        } else if driver.was_gone && !more {
            driver.was_gone = false;
            let boot = driver.mind.boot_id();
            let is_new_boot = !boot.is_empty() && boot != self.boot.to_string();
            if is_new_boot || !is_down {
                driver.mind.left(&[], "it was gone", now);
                return say(driver, Then::Read);
            }
            driver.stage = Stage::Decides;
        } else if is_down && self.places[session].tape.is_some() {
            driver.stage = Stage::Leaves { until: None };
        } else if is_down && driver.start_due {
            driver.stage = Stage::Decides;
            if committed < driver.appended {
                return Step::Blocked;
            }
            self.start_again(session, driver);
        } else if !is_down && driver.link.is_none() && !more {
            driver.mind.orphaned(&[], now);
            return say(driver, Then::Read);
        } else {
            driver.stage = Stage::Waits;
        }
        Step::Again
    }

    fn start_again(&mut self, session: usize, driver: &mut Driver) {
        driver.start_due = false;
        let setup = setup(session, self);
        driver
            .mind
            .prepared(setup.harness, setup.sandbox, setup.edition, setup.permissions);
        let generation = driver.mind.generation() + 1;
        let (tape_len, link) = self.start_shim(session, generation);
        driver.mind.begin_tape(tape_len);
        driver.inbox.clear();
        (driver.at, driver.link, driver.stage) = (0, Some(link), Stage::Reads);
    }

    /// The store cannot be written: who asks is answered instead of waiting along.
    fn refuse_asks(&mut self, session: usize, driver: &mut Driver) {
        if !self.store.is_failing {
            return;
        }
        while let Some((envelope, net)) = driver.asks.pop_front() {
            if matches!(envelope.command, Command::SessionClose(_)) && driver.link.is_some() {
                self.tell_shim(session, Order::Kill);
            }
            match driver.mind.ask_while_full(&envelope, "the disk is full", net) {
                Some(answer) => self.reply_all(session, vec![answer]),
                None => driver.asked.push((envelope.id, net)),
            }
        }
    }

    fn wait(&mut self, session: usize, driver: &mut Driver) -> Step {
        self.send(session, driver);
        let now = self.unix_ms();
        let ask = driver.asks.pop_front();
        let notice = driver.inbox.pop_front();
        let is_idle = ask.is_none() && notice.is_none();
        if let Some((envelope, net)) = ask {
            match driver.mind.ask(&envelope, net, now) {
                Some(answer) => self.reply_all(session, vec![answer]),
                None => driver.asked.push((envelope.id, net)),
            }
        }
        if let Some(notice) = notice {
            self.hear_shim(session, driver, &notice);
        }
        let is_alone = driver.link.is_none();
        let has_tape = self.places[session].tape.is_some();
        if !is_idle || is_alone && has_tape || !is_alone && driver.mind.reading().has_more() {
            if is_alone && !has_tape {
                return say(driver, Then::Read);
            }
            driver.stage = Stage::Reads;
            return Step::Again;
        }
        match driver.mind.wake_at() {
            Some(at) if at <= now => {
                let deeds = driver.mind.expire(now);
                self.perform(session, driver, deeds);
                say(driver, Then::Read)
            }
            Some(at) => {
                let due = self.now + (at - now).max(1);
                if driver.wakes_at <= self.now || due < driver.wakes_at {
                    driver.wakes_at = due;
                    self.wake_driver_at(session, at);
                }
                driver.stage = Stage::Waits;
                Step::Blocked
            }
            None => Step::Blocked,
        }
    }

    fn hear_shim(&mut self, session: usize, driver: &mut Driver, notice: &Notice) {
        match notice {
            Notice::Grown { len } => driver.mind.reading().grown(*len),
            Notice::Wrote { id } => driver.mind.wrote(*id),
            Notice::Refused { id, why } => {
                let now = self.unix_ms();
                if let Some(unkept) = driver.mind.refused(*id, *why, now) {
                    if unkept.kill {
                        self.tell_shim(session, Order::Kill);
                    }
                    self.reply_all(session, unkept.answers);
                }
            }
            Notice::Trouble { .. } | Notice::Recovered | Notice::Exited { .. } => {}
            Notice::Gone => {
                driver.link = None;
                if let Some(tape) = &self.places[session].tape {
                    driver.mind.reading().cut(tape.len);
                }
            }
        }
    }

    /// Parts with the shim, once all that its tape told is committed.
    fn leave(&mut self, session: usize, driver: &mut Driver, until: Option<u64>) -> Step {
        driver.stage = Stage::Leaves { until };
        if self.store.sessions[session].last_seq() < driver.appended {
            return Step::Blocked;
        }
        if driver.link.is_none() {
            return self.left(session, driver);
        }
        let Some(until) = until else {
            self.tell_shim(session, Order::Release);
            driver.stage = Stage::Leaves {
                until: Some(self.now + RELEASE_MS),
            };
            let runner = self.runner;
            self.soon(RELEASE_MS, Happening::Drives { runner, session });
            return Step::Again;
        };
        match driver.inbox.pop_front() {
            Some(Notice::Gone) => self.left(session, driver),
            Some(Notice::Exited { .. }) => {
                self.tell_shim(session, Order::Release);
                Step::Again
            }
            Some(_) => Step::Again,
            None if self.now >= until => self.left(session, driver),
            None => Step::Blocked,
        }
    }

    /// Nothing of this start of the harness is left.
    fn left(&mut self, session: usize, driver: &mut Driver) -> Step {
        self.kill_shim(session);
        driver.link = None;
        self.places[session].tape = None;
        if driver.mind.state() == SessionState::Closed {
            return Step::Over;
        }
        driver.stage = Stage::Decides;
        Step::Again
    }
}

/// What was said is appended next.
fn say(driver: &mut Driver, then: Then) -> Step {
    match driver.mind.take() {
        Ok(said) => {
            driver.stage = Stage::Appends(said, then);
            Step::Again
        }
        Err(error) => Step::Lost(error.to_string()),
    }
}

/// The runner's end of the links.
impl World {
    pub(crate) fn runner_hears(&mut self, net: u32, what: Upward) {
        let it = &self.nets[net as usize];
        if !it.is_up || it.runner != self.runner || !self.is_runner_up {
            return;
        }
        match what {
            Upward::Subscribe { session, cursor } => self.subscribe(net, session, cursor),
            Upward::Ack { session, seq } => {
                let control = &self.controls[it.control];
                if !control.is_durable || control.follows[session].kept_seq() < seq {
                    self.oracle.accuse(format!(
                        "session {session}: event {seq} was acknowledged and not kept"
                    ));
                }
            }
            Upward::Command { session, envelope } => match &mut self.drivers[session] {
                Some(driver) => {
                    driver.asks.push_back((envelope, net));
                    self.wake_driver(session, 0);
                }
                None => self.refuse_ended(net, session, envelope.id),
            },
        }
    }

    /// The session is over, and nobody will answer any more.
    fn refuse_ended(&mut self, net: u32, session: usize, id: CommandId) {
        let fault = Fault::new(FaultCode::WrongState, format!("session {session} has ended"));
        self.reply_all(session, vec![(net, Reply::refused(id, "", fault))]);
    }

    fn subscribe(&mut self, net: u32, session: usize, cursor: Cursor) {
        let kept = &self.store.sessions[session];
        let newest = kept.cursor();
        if cursor > newest
            && (cursor.epoch > newest.epoch || cursor.seq > newest.seq)
            && cursor.epoch >= newest.epoch
        {
            self.oracle.accuse(format!(
                "session {session}: a reader has {cursor:?}, and the log ends at {newest:?}"
            ));
            return;
        }
        let (from, is_reset) = match kept.resume(cursor) {
            Resume::After(seq) => (
                Cursor {
                    epoch: cursor.epoch.max(1),
                    seq,
                },
                false,
            ),
            Resume::Reset { epoch, seq } => (
                Cursor {
                    epoch: epoch as u32,
                    seq,
                },
                true,
            ),
        };
        let Cursor { epoch, seq } = from;
        let subscribed = Subscribed {
            cursor: from,
            oldest: 1,
            newest,
        };
        let mut bytes = Vec::new();
        let mut written = frame::append(&subscribed, &mut bytes);
        if is_reset {
            let event = Event::StreamReset(StreamReset { epoch, seq });
            let numbered = Numbered {
                epoch,
                seq,
                first_seq: None,
                ts: self.unix_ms(),
                event,
            };
            written = written.and(frame::append(&numbered, &mut bytes));
        }
        assert!(written.is_ok(), "both are short");
        let in_flight = bytes.len();
        self.nets[net as usize].subs[session] = Some(Sub {
            seq,
            in_flight,
            is_pumping: false,
        });
        self.send_down(net, Downward::Bytes { session, bytes });
        self.wake_pump(net, session);
    }

    /// Something may have to be sent.
    pub(crate) fn wake_pump(&mut self, net: u32, session: usize) {
        let it = &mut self.nets[net as usize];
        if it.is_up
            && let Some(sub) = &mut it.subs[session]
            && !std::mem::replace(&mut sub.is_pumping, true)
        {
            let after_ms = self.dice.below(3);
            self.soon(after_ms, Happening::Pumps { net, session });
        }
    }

    pub(crate) fn pump(&mut self, net: u32, session: usize) {
        let it = &mut self.nets[net as usize];
        if !it.is_up || it.runner != self.runner {
            return;
        }
        let Some(sub) = &mut it.subs[session] else { return };
        sub.is_pumping = false;
        let kept = &self.store.sessions[session];
        let mut chunks = Vec::new();
        while sub.in_flight < self.plan.window && sub.seq < kept.last_seq() {
            let len_max = 1 + self.dice.index(self.plan.window);
            let mut bytes = Vec::new();
            while sub.seq < kept.last_seq() && (bytes.is_empty() || bytes.len() < len_max) {
                bytes.extend_from_slice(&kept.events[sub.seq as usize].frame);
                sub.seq += 1;
            }
            // Who is behind gets neighbouring deltas as one.
            if self.dice.percent(40) {
                let mut merged = Vec::new();
                splice::merge(&bytes, &mut merged);
                bytes = merged;
            }
            sub.in_flight += bytes.len();
            self.oracle.sent(session, sub.seq);
            let cut = self.dice.index(bytes.len());
            let rest = bytes.split_off(cut);
            chunks.extend([bytes, rest]);
        }
        for bytes in chunks.into_iter().filter(|bytes| !bytes.is_empty()) {
            if self.plan.flaw == Flaw::LinkRepeatsBytes && self.dice.percent(3) {
                let in_flight = bytes.len();
                if let Some(sub) = &mut self.nets[net as usize].subs[session] {
                    sub.in_flight += in_flight;
                }
                self.send_down(
                    net,
                    Downward::Bytes {
                        session,
                        bytes: bytes.clone(),
                    },
                );
            }
            self.send_down(net, Downward::Bytes { session, bytes });
        }
    }
}
