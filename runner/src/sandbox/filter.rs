//! What becomes of each system call by its number, as one program for the kernel.
//!
//! Calls are looked up by halving: the kernel runs a program once for every number of two architectures when it is
//! installed, to remember which calls are always allowed, and asking one number after the other would make that the
//! dearest part of a start. For the same reason there is one program and not one for each answer.

use nix::libc;

use super::entry::Instruction;
use crate::policy::{Architecture, Condition, Test};

/// What the kernel is told to do with a call: a `SECCOMP_RET_…` with its data.
pub(super) type Answer = u32;

/// What becomes of the calls from a number up to the next entry's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement<'a> {
    /// Answers of which the first whose conditions all hold is given.
    pub(super) cases: Vec<(&'a [Condition], Answer)>,
    /// The answer where none of them do.
    pub(super) otherwise: Answer,
}

impl Judgement<'_> {
    /// The same answer whatever the arguments are.
    pub(super) const fn always(answer: Answer) -> Self {
        Self {
            cases: Vec::new(),
            otherwise: answer,
        }
    }
}

/// What is refused is too much for one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the kernel takes no program of more than {INSTRUCTIONS_MAX} instructions, nor a condition of more than 255 values"
)]
pub struct TooLong;

/// The kernel's bound.
const INSTRUCTIONS_MAX: usize = 4096;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const GOTO: u32 = libc::BPF_JMP | libc::BPF_JA;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Where the kernel shows a program the number of the call, its architecture, and the low half of an argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn argument(index: u8) -> u32 {
    16 + 8 * index as u32
}

/// The program. Each judgement holds from its number on; the first has to begin at zero, and none at the same number
/// as another. Whoever calls by another architecture's numbers is killed.
pub(super) fn program(
    judgements: &[(u32, Judgement<'_>)],
    architecture: Architecture,
) -> Result<Vec<Instruction>, TooLong> {
    let name = match architecture {
        Architecture::X86_64 => 0xc000_003e,
        Architecture::Aarch64 => 0xc000_00b7,
    };
    let mut program = vec![
        statement(LOAD, ARCHITECTURE),
        jump(EQUAL, name, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(LOAD, NUMBER),
    ];
    let mut merged: Vec<&(u32, Judgement<'_>)> = Vec::new();
    for judgement in judgements {
        if merged.last().is_none_or(|(_, last)| *last != judgement.1) {
            merged.push(judgement);
        }
    }
    program.extend(halved(&merged)?);
    match program.len() {
        ..=INSTRUCTIONS_MAX => Ok(program),
        _ => Err(TooLong),
    }
}

/// Finds the judgement of the number that was loaded.
fn halved(judgements: &[&(u32, Judgement<'_>)]) -> Result<Vec<Instruction>, TooLong> {
    let (lower, upper) = match judgements {
        [] => return Ok(Vec::new()),
        [(_, judgement)] => return judged(judgement),
        more => more.split_at(more.len() / 2),
    };
    let (from, _) = upper[0];
    let (lower, upper) = (halved(lower)?, halved(upper)?);
    let mut all = match u8::try_from(lower.len()) {
        Ok(past) => vec![jump(AT_LEAST, *from, past, 0)],
        // Only jumps without a condition reach so far.
        Err(_) => vec![jump(AT_LEAST, *from, 0, 1), goto(lower.len())?],
    };
    all.extend(lower);
    all.extend(upper);
    Ok(all)
}

fn judged(judgement: &Judgement<'_>) -> Result<Vec<Instruction>, TooLong> {
    let mut all = Vec::new();
    for (conditions, answer) in &judgement.cases {
        all.extend(case(conditions, *answer)?);
    }
    all.push(statement(RETURN, judgement.otherwise));
    Ok(all)
}

/// Answers if all conditions hold, and goes on behind itself if one does not.
fn case(conditions: &[Condition], answer: Answer) -> Result<Vec<Instruction>, TooLong> {
    let mut all = vec![statement(RETURN, answer)];
    for condition in conditions.iter().rev() {
        let mut tested = test(condition)?;
        tested.push(goto(all.len())?);
        tested.extend(all);
        all = tested;
    }
    Ok(all)
}

/// Skips one instruction if the condition holds, and none if it does not.
fn test(condition: &Condition) -> Result<Vec<Instruction>, TooLong> {
    let low = argument(condition.arg);
    let mut all = vec![statement(LOAD, low)];
    match &condition.test {
        Test::Is(values) => all.extend(one_of(values.iter().copied())?),
        Test::MaskedIs(mask, values) => {
            all.push(statement(AND, *mask));
            all.extend(one_of(values.iter().map(|value| value & mask))?);
        }
        Test::Not(values) => {
            all.extend(one_of(values.iter().copied())?);
            // Whoever is none of them goes on here, and has to skip what the others are sent to.
            all.push(goto(1)?);
        }
        Test::AnyBit(bits) => all.push(jump(ANY_BIT, *bits, 1, 0)),
        // Kernels of either architecture keep the low half first.
        Test::Given => all.extend([
            jump(EQUAL, 0, 0, 3),
            statement(LOAD, low + 4),
            jump(EQUAL, 0, 0, 1),
        ]),
    }
    Ok(all)
}

/// Skips one instruction if what was loaded is one of the values, and none if it is not.
fn one_of(values: impl ExactSizeIterator<Item = u32>) -> Result<Vec<Instruction>, TooLong> {
    let count = values.len();
    let compare = |(at, value)| {
        let past = u8::try_from(count - at).map_err(|_| TooLong)?;
        Ok(jump(EQUAL, value, past, 0))
    };
    values.enumerate().map(compare).collect()
}

fn statement(code: u32, value: u32) -> Instruction {
    jump(code, value, 0, 0)
}

fn goto(past: usize) -> Result<Instruction, TooLong> {
    Ok(statement(GOTO, u32::try_from(past).map_err(|_| TooLong)?))
}

fn jump(code: u32, value: u32, holds: u8, fails: u8) -> Instruction {
    // Every code is below a hundred; the kernel's field has 16 bits.
    Instruction(code as u16, holds, fails, value)
}
