//! A shim and its tape, as `oqto_runner::shim` has them, over a disk and pipes that are not there.

use std::collections::VecDeque;

use oqto_runner::bounds::TAPE_BACKLOG_MAX;
use oqto_runner::shim::tape::Start;
use oqto_runner::shim::{Exit, Kind, Notice, Record, Refusal, Target, WriteId};

use crate::agent::Agent;
use crate::dice::Dice;

/// What stands before a record's payload.
const HEADER_LEN: u64 = 13;

/// What a pipe holds, bytes: small, so that it is full at times.
pub(crate) const PIPE_LEN: usize = 2048;

/// The tape: a file below the session's directory.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    records: VecDeque<Kept>,
    pub(crate) len: u64,
    /// Below this the blocks were given back.
    pub(crate) trimmed: u64,
    /// How much of it is on the platter: it is synced by chance alone.
    pub(crate) synced: u64,
}

#[derive(Debug)]
struct Kept {
    offset: u64,
    end: u64,
    kind: Kind,
    unix_ms: u64,
    payload: Vec<u8>,
}

impl Tape {
    /// A tape that begins in this boot.
    pub(crate) fn begin(boot: u32, unix_ms: u64) -> Self {
        let start = Start {
            shim_version: 1,
            shim_pid: 2,
            harness_pid: 3,
            boot_id: boot.to_string(),
        };
        let mut tape = Self::default();
        let start = serde_json::to_vec(&start).expect("a start has a form");
        tape.append(Kind::Start, unix_ms, start);
        tape
    }

    fn append(&mut self, kind: Kind, unix_ms: u64, payload: Vec<u8>) {
        let offset = self.len;
        let end = offset + HEADER_LEN + payload.len() as u64;
        self.len = end;
        self.records.push_back(Kept {
            offset,
            end,
            kind,
            unix_ms,
            payload,
        });
    }

    /// The record that starts at `offset`, if it ends at or before `until`; an error when there is none to be read.
    pub(crate) fn read(&self, offset: u64, until: u64) -> Result<Option<Record<'_>>, String> {
        if offset >= until {
            return Ok(None);
        }
        let at = self.records.binary_search_by_key(&offset, |kept| kept.offset);
        let kept = at
            .ok()
            .map(|at| &self.records[at])
            .ok_or_else(|| format!("no record starts at offset {offset} of the tape"))?;
        Ok((kept.end <= until).then_some(Record {
            offset,
            end: kept.end,
            kind: kept.kind,
            unix_ms: kept.unix_ms,
            payload: &kept.payload,
        }))
    }

    /// Gives back what is below `offset`. The real one does so in steps of megabytes; here each record goes.
    fn trim(&mut self, offset: u64) {
        while self.records.front().is_some_and(|kept| kept.end <= offset) {
            self.records.pop_front();
        }
        self.trimmed = self.trimmed.max(offset);
    }

    /// The host lost power: what no sync reached is gone, from some record on.
    pub(crate) fn lose_power(&mut self, dice: &mut Dice) {
        let until = dice.between(self.synced, self.len);
        while self.records.back().is_some_and(|kept| kept.end > until) {
            self.records.pop_back();
        }
        self.len = self
            .records
            .back()
            .map_or(self.trimmed.min(until), |kept| kept.end);
    }
}

/// What the driver tells the shim.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Write(WriteId, Target, Vec<u8>),
    CloseStdin,
    Kill,
    Consumed(u64, u64),
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Alive,
    Draining(Exit),
    Recorded(Exit),
}

/// How the world wrongs a shim, to see that it is noticed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flaws {
    pub(crate) forgets_writes: bool,
    pub(crate) trims_early: bool,
    pub(crate) loses_bursts: bool,
}

/// The shim's process, with the harness that is its child.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) agent: Option<Agent>,
    ending: Ending,
    report: VecDeque<u8>,
    stdout: VecDeque<u8>,
    /// What waits for the harness.
    input: VecDeque<Vec<u8>>,
    closing: bool,
    /// The pipe to the harness is closed.
    pub(crate) is_input_closed: bool,
    held: Option<(Kind, Vec<u8>)>,
    pub(crate) trouble: bool,
    pub(crate) remembered: Vec<WriteId>,
    consumed: u64,
    told_len: u64,
    released: bool,
    pub(crate) inbox: VecDeque<Order>,
    pub(crate) flaws: Flaws,
}

impl Shim {
    pub(crate) fn new(agent: Agent, report: Vec<u8>, flaws: Flaws) -> Self {
        Self {
            agent: Some(agent),
            ending: Ending::Alive,
            report: report.into(),
            stdout: VecDeque::new(),
            input: VecDeque::new(),
            closing: false,
            is_input_closed: false,
            held: None,
            trouble: false,
            remembered: Vec::new(),
            consumed: 0,
            told_len: 0,
            released: false,
            inbox: VecDeque::new(),
            flaws,
        }
    }

    /// A runner connects: how long the tape is.
    pub(crate) fn greet(&mut self, tape: &Tape) -> u64 {
        self.told_len = tape.len;
        self.inbox.clear();
        if self.flaws.forgets_writes {
            self.told_len = self.consumed;
        }
        self.told_len
    }

    pub(crate) fn is_over(&self) -> bool {
        self.released && matches!(self.ending, Ending::Recorded(_))
    }

    pub(crate) fn has_room(&self) -> bool {
        self.stdout.len() < PIPE_LEN
    }

    /// The harness prints.
    pub(crate) fn print(&mut self, bytes: &[u8]) {
        self.stdout.extend(bytes);
    }

    /// The harness's process has ended.
    pub(crate) fn ended(&mut self, exit: Exit) {
        if self.agent.take().is_some() {
            self.ending = Ending::Draining(exit);
            self.input.clear();
        }
    }

    /// What goes into the harness's pipe now.
    pub(crate) fn feed(&mut self) -> Vec<u8> {
        let fed = self.input.drain(..).flatten().collect();
        self.is_input_closed |= self.closing;
        fed
    }

    /// One round of its loop; what it tells the runner.
    pub(crate) fn turn(&mut self, tape: &mut Tape, now: u64, is_full: bool, dice: &mut Dice) -> Vec<Notice> {
        let mut notices = Vec::new();
        while let Some(order) = self.inbox.pop_front() {
            match order {
                Order::Write(id, to, bytes) => {
                    notices.push(match self.take_write(tape, now, is_full, id, to, bytes) {
                        Ok(()) => Notice::Wrote { id },
                        Err(why) => Notice::Refused { id, why },
                    });
                }
                Order::CloseStdin => self.closing = true,
                Order::Kill => self.ended(Exit::Signal(9)),
                Order::Consumed(read, needed) => {
                    self.consumed = self.consumed.max(read.min(tape.len));
                    let needed = if self.flaws.trims_early { read } else { needed };
                    tape.trim(needed.min(self.consumed));
                }
                Order::Release => self.released = matches!(self.ending, Ending::Recorded(_)),
            }
        }
        self.write_held(tape, now, is_full, &mut notices);
        let first = dice.index(2);
        for source in [first, 1 - first] {
            self.pull(source, tape, now, is_full, dice, &mut notices);
        }
        self.record_exit(tape, now, is_full, &mut notices);
        if self.told_len < tape.len {
            self.told_len = tape.len;
            notices.push(Notice::Grown { len: tape.len });
        }
        notices
    }

    fn take_write(
        &mut self,
        tape: &mut Tape,
        now: u64,
        is_full: bool,
        id: WriteId,
        to: Target,
        bytes: Vec<u8>,
    ) -> Result<(), Refusal> {
        if self.remembered.contains(&id) && !self.flaws.forgets_writes {
            return Ok(());
        }
        if self.held.is_some() {
            return Err(Refusal::NoSpace);
        }
        if tape.len - self.consumed > 2 * TAPE_BACKLOG_MAX {
            return Err(Refusal::Busy);
        }
        match (to, self.ending) {
            (Target::Note, Ending::Alive | Ending::Draining(_)) => {}
            (Target::Stdin, Ending::Alive) if !self.closing => {}
            (Target::Stdin | Target::Note, _) => return Err(Refusal::Closed),
        }
        if is_full {
            return Err(Refusal::NoSpace);
        }
        self.remembered.push(id);
        match to {
            Target::Note => tape.append(Kind::Note, now, bytes),
            Target::Stdin => {
                tape.append(Kind::In, now, [&id[..], &bytes].concat());
                self.input.push_back(bytes);
            }
        }
        Ok(())
    }

    fn write_held(&mut self, tape: &mut Tape, now: u64, is_full: bool, notices: &mut Vec<Notice>) {
        if self.held.is_none() {
            return;
        }
        self.tell_trouble(is_full, notices);
        if !is_full && let Some((kind, bytes)) = self.held.take() {
            tape.append(kind, now, bytes);
        }
    }

    fn pull(
        &mut self,
        source: usize,
        tape: &mut Tape,
        now: u64,
        is_full: bool,
        dice: &mut Dice,
        notices: &mut Vec<Notice>,
    ) {
        if self.held.is_some() {
            return;
        }
        let (kind, pipe) = match source {
            0 => (Kind::Report, &mut self.report),
            _ => (Kind::Out, &mut self.stdout),
        };
        if pipe.is_empty() {
            return;
        }
        // A report is written at once; what a harness prints may be cut anywhere.
        let len = match kind {
            Kind::Out if dice.percent(30) => 1 + dice.index(pipe.len()),
            _ => pipe.len(),
        };
        let bytes: Vec<u8> = pipe.drain(..len).collect();
        if self.flaws.loses_bursts && kind == Kind::Out && dice.percent(5) {
            return;
        }
        self.held = Some((kind, bytes));
        self.write_held(tape, now, is_full, notices);
    }

    /// Whether there is something that another round would do.
    pub(crate) fn has_more(&self) -> bool {
        let waits =
            !self.stdout.is_empty() || !self.report.is_empty() || matches!(self.ending, Ending::Draining(_));
        waits && !self.trouble
    }

    fn record_exit(&mut self, tape: &mut Tape, now: u64, is_full: bool, notices: &mut Vec<Notice>) {
        let Ending::Draining(exit) = self.ending else {
            return;
        };
        if self.held.is_some() || !self.stdout.is_empty() || !self.report.is_empty() {
            return;
        }
        self.tell_trouble(is_full, notices);
        if is_full {
            return;
        }
        let (tag, number) = match exit {
            Exit::Code(code) => (0, code),
            Exit::Signal(signal) => (1, signal),
        };
        let payload = [&[tag][..], &i32::to_le_bytes(number)].concat();
        tape.append(Kind::Exit, now, payload);
        self.ending = Ending::Recorded(exit);
        self.is_input_closed = true;
        self.told_len = tape.len;
        notices.push(Notice::Grown { len: tape.len });
        notices.push(Notice::Exited { exit });
    }

    fn tell_trouble(&mut self, is_full: bool, notices: &mut Vec<Notice>) {
        if is_full && !self.trouble {
            let text = "no space".to_owned();
            notices.push(Notice::Trouble { text });
        } else if !is_full && self.trouble {
            notices.push(Notice::Recovered);
        }
        self.trouble = is_full;
    }
}
