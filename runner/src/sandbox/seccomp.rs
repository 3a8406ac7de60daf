//! Seccomp: the system calls that a policy refuses, as programs for the kernel.
//!
//! [`filters`] makes them outside, while nothing runs yet, for either architecture; [`restrict`] installs them inside.
//! The kernel asks every program, and the strictest answer counts; of two error codes the one of the program that was
//! installed later. So the order is part of what they mean:
//!
//! 1. the list of allowed calls, if there is one: everything else is not permitted;
//! 2. one program for each answer that a refused call gets, `ENOSYS` after `EPERM`. The one for `ENOSYS` also answers
//!    for numbers that nobody knows.
//!
//! Every program kills whoever calls by another architecture's numbers, x32's included.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

use super::entry::{Filters, Instruction};
use crate::policy::{Architecture, Calls, Condition, Refusal, Syscall, Test};

/// The kernel refuses the filter.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refuses the filter")]
pub(super) struct SeccompError {
    /// Why.
    #[from]
    pub(super) source: seccompiler::Error,
}

/// Every program of a policy, in the order of installation.
pub(super) fn filters(calls: &Calls, architecture: Architecture) -> Result<Filters, BackendError> {
    let programs = programs(calls, architecture)?;
    let listed = match &calls.allowed {
        Some(allowed) => format!("{} allowed, ", distinct(allowed.iter().map(|permit| permit.call))),
        None => String::new(),
    };
    let denied = distinct(calls.denied.iter().map(|denial| denial.call));
    Ok(Filters {
        programs: programs.iter().map(|program| packed(program)).collect(),
        detail: format!(
            "{listed}{denied} system calls refused or restricted, unknown ones refused, foreign architectures killed"
        ),
    })
}

/// Installs the programs in this thread, for good.
pub(super) fn restrict(filters: &Filters) -> Result<String, SeccompError> {
    for program in &filters.programs {
        let program: BpfProgram = program
            .iter()
            .map(|Instruction(code, jt, jf, k)| sock_filter {
                code: *code,
                jt: *jt,
                jf: *jf,
                k: *k,
            })
            .collect();
        apply_filter(&program)?;
    }
    Ok(filters.detail.clone())
}

fn distinct(calls: impl Iterator<Item = Syscall>) -> usize {
    calls.collect::<std::collections::BTreeSet<_>>().len()
}

fn packed(program: &[sock_filter]) -> Vec<Instruction> {
    program
        .iter()
        .map(|at| Instruction(at.code, at.jt, at.jf, at.k))
        .collect()
}

fn programs(calls: &Calls, architecture: Architecture) -> Result<Vec<BpfProgram>, BackendError> {
    let mut programs = Vec::new();
    if let Some(allowed) = &calls.allowed {
        let permits = allowed.iter().map(|permit| (permit.call, permit.when.as_slice()));
        let rules = rules(permits, architecture)?;
        programs.push(program(
            rules,
            SeccompAction::Allow,
            answer(Refusal::NotPermitted),
            architecture,
        )?);
    }
    for refusal in [Refusal::NotPermitted, Refusal::NotImplemented, Refusal::Ignored] {
        let denials = calls.denied.iter().filter(|denial| denial.refusal == refusal);
        let denials = denials.map(|denial| (denial.call, denial.when.as_slice()));
        let rules = rules(denials, architecture)?;
        if rules.is_empty() && refusal != Refusal::NotImplemented {
            continue;
        }
        let mut program = program(rules, answer(refusal), SeccompAction::Allow, architecture)?;
        if refusal == Refusal::NotImplemented {
            insert(&mut program, &unknown(architecture));
        }
        programs.push(program);
    }
    // Last, so that it comes before everything else that is asked of a number.
    if architecture == Architecture::X86_64 {
        for program in &mut programs {
            insert(program, &X32_KILLED);
        }
    }
    Ok(programs)
}

fn answer(refusal: Refusal) -> SeccompAction {
    let errno = match refusal {
        Refusal::NotPermitted => nix::libc::EPERM,
        Refusal::NotImplemented => nix::libc::ENOSYS,
        Refusal::Ignored => 0,
    };
    SeccompAction::Errno(errno.unsigned_abs())
}

/// Every rule a call has; a call without conditions has none, which means always.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules<'a>(
    calls: impl Iterator<Item = (Syscall, &'a [Condition])>,
    architecture: Architecture,
) -> Result<Rules, BackendError> {
    let mut rules: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for (call, when) in calls {
        let Some(number) = call.number(architecture) else {
            continue;
        };
        let of_call = rules.entry(number).or_insert_with(|| Some(Vec::new()));
        if when.is_empty() {
            *of_call = None;
        } else if let Some(of_call) = of_call {
            of_call.extend(alternatives(when)?);
        }
    }
    Ok(rules
        .into_iter()
        .map(|(number, rules)| (number, rules.unwrap_or_default()))
        .collect())
}

/// All conditions have to hold, and some hold in more than one way: one rule for each combination of the ways.
fn alternatives(when: &[Condition]) -> Result<Vec<SeccompRule>, BackendError> {
    let mut rules: Vec<Vec<SeccompCondition>> = vec![Vec::new()];
    for condition in when {
        let ways = ways(condition)?;
        let joined = |rule: &Vec<SeccompCondition>| -> Vec<Vec<SeccompCondition>> {
            ways.iter()
                .map(|way| [rule.as_slice(), way.as_slice()].concat())
                .collect()
        };
        rules = rules.iter().flat_map(joined).collect();
    }
    rules.into_iter().map(SeccompRule::new).collect()
}

fn ways(condition: &Condition) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    let one = |operator: SeccompCmpOp, value: u32| {
        SeccompCondition::new(condition.arg, SeccompCmpArgLen::Dword, operator, u64::from(value))
    };
    match &condition.test {
        Test::Is(values) => values
            .iter()
            .map(|value| Ok(vec![one(SeccompCmpOp::Eq, *value)?]))
            .collect(),
        Test::Not(values) => {
            let all: Result<Vec<_>, _> = values.iter().map(|value| one(SeccompCmpOp::Ne, *value)).collect();
            Ok(vec![all?])
        }
        Test::AnyBit(bits) => {
            let bits = (0..u32::BITS).map(|at| 1 << at).filter(|bit| bits & bit != 0);
            bits.map(|bit| Ok(vec![one(SeccompCmpOp::MaskedEq(u64::from(bit)), bit)?]))
                .collect()
        }
        Test::Given => {
            let width = SeccompCmpArgLen::Qword;
            let given = SeccompCondition::new(condition.arg, width, SeccompCmpOp::Ne, 0)?;
            Ok(vec![vec![given]])
        }
        Test::MaskedIs(mask, values) => {
            let masked = |value: &u32| Ok(vec![one(SeccompCmpOp::MaskedEq(u64::from(*mask)), *value)?]);
            values.iter().map(masked).collect()
        }
    }
}

fn program(
    rules: Rules,
    matching: SeccompAction,
    others: SeccompAction,
    architecture: Architecture,
) -> Result<BpfProgram, BackendError> {
    let target = match architecture {
        Architecture::X86_64 => TargetArch::x86_64,
        Architecture::Aarch64 => TargetArch::aarch64,
    };
    SeccompFilter::new(rules, others, matching, target)?.try_into()
}

const LOAD: u16 = (nix::libc::BPF_LD | nix::libc::BPF_W | nix::libc::BPF_ABS) as u16;
const AT_LEAST: u16 = (nix::libc::BPF_JMP | nix::libc::BPF_JGE | nix::libc::BPF_K) as u16;
const RETURN: u16 = (nix::libc::BPF_RET | nix::libc::BPF_K) as u16;

/// Where the kernel shows a filter the number of the call.
const NUMBER: u32 = 0;

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// x32 is a second door to the same calls under other numbers, marked by a bit, which a filter by number would not see.
const X32_KILLED: [sock_filter; 3] = [
    instruction(LOAD, 0, 0, NUMBER),
    instruction(AT_LEAST, 0, 1, 0x4000_0000),
    instruction(RETURN, 0, 0, nix::libc::SECCOMP_RET_KILL_PROCESS),
];

/// Answers `ENOSYS` for every number between and after the known ones.
fn unknown(architecture: Architecture) -> Vec<sock_filter> {
    let mut known: Vec<u32> = Syscall::all()
        .filter_map(|call| u32::try_from(call.number(architecture)?).ok())
        .collect();
    known.sort_unstable();
    let refuse = instruction(RETURN, 0, 0, u32::from(answer(Refusal::NotImplemented)));
    let mut program = vec![instruction(LOAD, 0, 0, NUMBER)];
    for pair in known.windows(2).filter(|pair| pair[0] + 1 != pair[1]) {
        // From the first number of the gap, and not from the first one after it.
        program.push(instruction(AT_LEAST, 0, 2, pair[0] + 1));
        program.push(instruction(AT_LEAST, 1, 0, pair[1]));
        program.push(refuse.clone());
    }
    program.push(instruction(
        AT_LEAST,
        0,
        1,
        known.last().map_or(0, |last| last + 1),
    ));
    program.push(refuse);
    program
}

/// Puts instructions behind the check of the architecture, before which a number means nothing.
fn insert(program: &mut BpfProgram, instructions: &[sock_filter]) {
    /// How long that check is.
    const ARCHITECTURE_CHECK_LEN: usize = 3;
    let at = ARCHITECTURE_CHECK_LEN..ARCHITECTURE_CHECK_LEN;
    program.splice(at, instructions.iter().cloned());
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::bpf::{Call, I386, answer_of};
    use super::*;
    use crate::policy::{Catalog, Denial, Permit, Verdict};

    /// The answer that the kernel must give for what the data says.
    fn expected(calls: &Calls, number: i64, args: &[u64; 6], architecture: Architecture) -> u32 {
        match calls.judge(Syscall::of(number, architecture), args) {
            Verdict::Allowed => nix::libc::SECCOMP_RET_ALLOW,
            Verdict::Refused(refusal) => u32::from(answer(refusal)),
        }
    }

    fn agrees(calls: &Calls, number: i64, args: [u64; 6]) -> Result<(), TestCaseError> {
        for architecture in Architecture::ALL {
            let programs = filters(calls, architecture).unwrap().programs;
            let call = Call::of(number, architecture, args);
            prop_assert_eq!(
                answer_of(&programs, &call),
                expected(calls, number, &args, architecture),
                "call {} of {:?} with {:x?}",
                number,
                architecture,
                args
            );
        }
        Ok(())
    }

    /// Few values, so that conditions and arguments meet; with the upper half of the register set at times.
    fn value() -> impl Strategy<Value = u32> {
        prop_oneof![0..8_u32, select(vec![0x4000_0000, 0x2000_0000, u32::MAX, 0o6000])]
    }

    fn args() -> impl Strategy<Value = [u64; 6]> {
        let upper = select(vec![0, 1, u64::from(u32::MAX)]);
        proptest::array::uniform6((value(), upper).prop_map(|(low, upper)| upper << 32 | u64::from(low)))
    }

    fn conditions() -> impl Strategy<Value = Vec<Condition>> {
        let test = prop_oneof![
            vec(value(), 1..4).prop_map(Test::Is),
            vec(value(), 1..6).prop_map(Test::Not),
            // Each bit is a rule of its own, and no program may be longer than the kernel takes.
            vec(0..u32::BITS, 1..4).prop_map(|bits| Test::AnyBit(
                bits.iter().map(|bit| 1 << bit).fold(0, |all, bit: u32| all | bit)
            )),
            (value(), vec(value(), 1..4)).prop_map(|(mask, values)| Test::MaskedIs(mask, values)),
            Just(Test::Given),
        ];
        vec(
            (0..6_u8, test).prop_map(|(arg, test)| Condition { arg, test }),
            0..3,
        )
    }

    /// Calls of both architectures, of one, of old and new numbers.
    fn call() -> impl Strategy<Value = Syscall> {
        let names = ["read", "open", "socket", "clone3", "mseal", "uretprobe", "ioctl"];
        select(
            names
                .map(|name| Syscall::try_from(name.to_owned()).unwrap())
                .to_vec(),
        )
    }

    fn number() -> impl Strategy<Value = i64> {
        let named = (call(), select(Architecture::ALL.to_vec()))
            .prop_map(|(call, architecture)| call.number(architecture).unwrap_or(0));
        prop_oneof![named, 0..600_i64]
    }

    fn calls() -> impl Strategy<Value = Calls> {
        let refusal = select(vec![
            Refusal::NotPermitted,
            Refusal::NotImplemented,
            Refusal::Ignored,
        ]);
        let denial =
            (call(), refusal, conditions()).prop_map(|(call, refusal, when)| Denial { call, refusal, when });
        let permit = (call(), conditions()).prop_map(|(call, when)| Permit { call, when });
        (vec(denial, 0..5), proptest::option::of(vec(permit, 0..8)))
            .prop_map(|(denied, allowed)| Calls { denied, allowed })
    }

    fn shipped() -> Calls {
        let catalog = Catalog::shipped();
        let groups = catalog.groups().unwrap();
        let denied = groups.names().flat_map(|name| groups.group(name).unwrap());
        Calls {
            denied: denied.cloned().collect(),
            allowed: None,
        }
    }

    proptest! {
        #[test]
        fn the_kernel_is_told_what_the_data_says(calls in calls(), number in number(), args in args()) {
            agrees(&calls, number, args)?;
        }

        #[test]
        fn the_kernel_is_told_what_the_shipped_groups_say(
            at in any::<proptest::sample::Index>(),
            filler in args(),
            choices in vec(any::<proptest::sample::Index>(), 6),
        ) {
            let calls = shipped();
            let denial = at.get(&calls.denied);
            // Arguments that its conditions speak of.
            let mut args = filler;
            for condition in &denial.when {
                let slot = usize::from(condition.arg);
                let values = match &condition.test {
                    Test::Is(values) | Test::Not(values) | Test::MaskedIs(_, values) => values.clone(),
                    Test::AnyBit(bits) => vec![*bits, bits & bits.wrapping_neg(), !bits],
                    Test::Given => vec![0, 1],
                };
                args[slot] = u64::from(*choices[slot].get(&values));
            }
            for architecture in Architecture::ALL {
                if let Some(number) = denial.call.number(architecture) {
                    agrees(&calls, number, args)?;
                }
            }
        }
    }

    #[test]
    fn whoever_calls_by_foreign_numbers_is_killed_by_every_program() {
        let read = Syscall::try_from("read".to_owned()).unwrap();
        let permit = Permit {
            call: read,
            when: Vec::new(),
        };
        let calls = Calls {
            allowed: Some(vec![permit]),
            ..shipped()
        };
        for architecture in Architecture::ALL {
            let programs = filters(&calls, architecture).unwrap().programs;
            assert_eq!(programs.len(), 4);
            let mut foreign = vec![Call {
                architecture: I386,
                ..Call::of(3, architecture, [0; 6])
            }];
            for other in Architecture::ALL
                .into_iter()
                .filter(|other| *other != architecture)
            {
                foreign.push(Call::of(0, other, [0; 6]));
            }
            if architecture == Architecture::X86_64 {
                foreign.push(Call::of(0x4000_0000, architecture, [0; 6]));
                foreign.push(Call::of(0xffff_ffff, architecture, [0; 6]));
            }
            for call in &foreign {
                for program in &programs {
                    let alone = answer_of(std::slice::from_ref(program), call);
                    assert_eq!(alone, nix::libc::SECCOMP_RET_KILL_PROCESS, "{call:?}");
                }
            }
        }
    }

    #[test]
    fn a_call_that_is_always_refused_stays_so_beside_a_condition() {
        let call = Syscall::try_from("ioctl".to_owned()).unwrap();
        let narrow = [Condition {
            arg: 1,
            test: Test::Is(vec![1]),
        }];
        for order in [[&[][..], &narrow], [&narrow, &[]]] {
            let rules = rules(order.into_iter().map(|when| (call, when)), Architecture::NATIVE).unwrap();
            assert!(rules.values().all(Vec::is_empty), "{rules:?}");
        }
    }
}
