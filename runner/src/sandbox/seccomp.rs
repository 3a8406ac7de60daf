//! Seccomp: the system calls that a policy refuses, as a program for the kernel.
//!
//! [`filters`] makes it outside, while nothing runs yet, for either architecture; [`restrict`] installs it inside. It
//! says of every number what becomes of the call, the first of these that holds:
//!
//! 1. who calls by another architecture's numbers, x32's included, is killed;
//! 2. a number that nobody knows is answered with `ENOSYS`;
//! 3. a call that is refused gets its answer; where several refusals hold, the later one in the order of [`Refusal`];
//! 4. if there is a list of allowed calls, what is not in it is not permitted.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, apply_filter, sock_filter};

use super::entry::{Filters, Instruction};
use super::filter::{self, Answer, Judgement, TooLong};
use crate::policy::{Architecture, Calls, Condition, Refusal, Syscall};

/// The kernel refuses the filter.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refuses the filter")]
pub(super) struct SeccompError {
    /// Why.
    #[from]
    pub(super) source: seccompiler::Error,
}

/// The program of a policy.
pub(super) fn filters(calls: &Calls, architecture: Architecture) -> Result<Filters, TooLong> {
    let listed = match &calls.allowed {
        Some(allowed) => format!("{} allowed, ", distinct(allowed.iter().map(|permit| permit.call))),
        None => String::new(),
    };
    let denied = distinct(calls.denied.iter().map(|denial| denial.call));
    Ok(Filters {
        program: filter::program(&judgements(calls, architecture), architecture)?,
        detail: format!(
            "{listed}{denied} system calls refused or restricted, unknown ones refused, foreign architectures killed"
        ),
    })
}

/// Whether the kernel has filters of system calls.
pub(super) fn known() -> bool {
    std::path::Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
}

/// Installs the program in this thread, for good.
pub(super) fn restrict(filters: &Filters) -> Result<String, SeccompError> {
    let instruction = |Instruction(code, jt, jf, k): &Instruction| sock_filter {
        code: *code,
        jt: *jt,
        jf: *jf,
        k: *k,
    };
    let program: BpfProgram = filters.program.iter().map(instruction).collect();
    apply_filter(&program)?;
    Ok(filters.detail.clone())
}

fn distinct(calls: impl Iterator<Item = Syscall>) -> usize {
    calls.collect::<std::collections::BTreeSet<_>>().len()
}

/// x32 is a second door to the same calls under other numbers, marked by this bit.
const X32: u32 = 0x4000_0000;

/// What becomes of every number, from zero on.
fn judgements(calls: &Calls, architecture: Architecture) -> Vec<(u32, Judgement<'_>)> {
    let unknown = Judgement::always(refused(Refusal::NotImplemented));
    let known: BTreeMap<u32, Syscall> = Syscall::all()
        .filter_map(|call| Some((u32::try_from(call.number(architecture)?).ok()?, call)))
        .collect();
    let mut judgements = Vec::new();
    let mut next = 0;
    for (number, call) in known {
        if number != next {
            judgements.push((next, unknown.clone()));
        }
        judgements.push((number, judgement(calls, call)));
        next = number + 1;
    }
    judgements.push((next, unknown));
    if architecture == Architecture::X86_64 {
        judgements.push((X32, Judgement::always(nix::libc::SECCOMP_RET_KILL_PROCESS)));
    }
    judgements
}

/// What [`Calls::judge`] says of a call, before its arguments are known.
fn judgement(calls: &Calls, call: Syscall) -> Judgement<'_> {
    let mut cases: Vec<(&[Condition], Answer)> = Vec::new();
    for refusal in [Refusal::Ignored, Refusal::NotImplemented, Refusal::NotPermitted] {
        let denials = calls.denied.iter();
        let denials = denials.filter(|denial| denial.call == call && denial.refusal == refusal);
        cases.extend(denials.map(|denial| (denial.when.as_slice(), refused(refusal))));
    }
    let permits = calls
        .allowed
        .iter()
        .flatten()
        .filter(|permit| permit.call == call);
    cases.extend(permits.map(|permit| (permit.when.as_slice(), nix::libc::SECCOMP_RET_ALLOW)));
    let mut otherwise = match calls.allowed {
        Some(_) => refused(Refusal::NotPermitted),
        None => nix::libc::SECCOMP_RET_ALLOW,
    };
    // Nothing is asked after what always holds, nor where every answer is the same.
    if let Some(always) = cases.iter().position(|(when, _)| when.is_empty()) {
        otherwise = cases[always].1;
        cases.truncate(always);
    }
    while cases.last().is_some_and(|(_, answer)| *answer == otherwise) {
        cases.pop();
    }
    Judgement { cases, otherwise }
}

fn refused(refusal: Refusal) -> Answer {
    let errno = match refusal {
        Refusal::NotPermitted => nix::libc::EPERM,
        Refusal::NotImplemented => nix::libc::ENOSYS,
        Refusal::Ignored => 0,
    };
    nix::libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::bpf::{Call, I386, answer_of};
    use super::*;
    use crate::policy::{Catalog, Denial, Permit, Test, Verdict};

    /// The answer that the kernel must give for what the data says.
    fn expected(calls: &Calls, number: i64, args: &[u64; 6], architecture: Architecture) -> u32 {
        match calls.judge(Syscall::of(number, architecture), args) {
            Verdict::Allowed => nix::libc::SECCOMP_RET_ALLOW,
            Verdict::Refused(refusal) => refused(refusal),
        }
    }

    fn agrees(calls: &Calls, number: i64, args: [u64; 6]) -> Result<(), TestCaseError> {
        for architecture in Architecture::ALL {
            let program = filters(calls, architecture).unwrap().program;
            let call = Call::of(number, architecture, args);
            prop_assert_eq!(
                answer_of(&program, &call),
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
    fn every_number_gets_its_answer() {
        let catalog = Catalog::shipped();
        let allowed = catalog.allow_groups().unwrap();
        let allowed = allowed.names().flat_map(|name| allowed.group(name).unwrap());
        let strict = Calls {
            allowed: Some(allowed.cloned().collect()),
            ..shipped()
        };
        for (calls, architecture) in [
            (&shipped(), Architecture::X86_64),
            (&shipped(), Architecture::Aarch64),
            (&strict, Architecture::X86_64),
            (&strict, Architecture::Aarch64),
        ] {
            let program = filters(calls, architecture).unwrap().program;
            for number in (0..1024).chain([0x3fff_ffff]) {
                for args in [[0; 6], [1; 6], [u64::MAX; 6]] {
                    assert_eq!(
                        answer_of(&program, &Call::of(number, architecture, args)),
                        expected(calls, number, &args, architecture),
                        "call {number} of {architecture:?} with {args:x?}"
                    );
                }
            }
        }
    }

    #[test]
    fn whoever_calls_by_foreign_numbers_is_killed() {
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
            let program = filters(&calls, architecture).unwrap().program;
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
                let answer = answer_of(&program, call);
                assert_eq!(answer, nix::libc::SECCOMP_RET_KILL_PROCESS, "{call:?}");
            }
        }
    }

    #[test]
    fn a_call_that_is_always_refused_stays_so_beside_a_condition() {
        let call = Syscall::try_from("ioctl".to_owned()).unwrap();
        let number = call.number(Architecture::NATIVE).unwrap();
        let narrow = Condition {
            arg: 1,
            test: Test::Is(vec![1]),
        };
        for order in [[vec![], vec![narrow.clone()]], [vec![narrow], vec![]]] {
            let denial = |when| Denial {
                call,
                refusal: Refusal::NotPermitted,
                when,
            };
            let calls = Calls {
                denied: order.map(denial).into(),
                allowed: None,
            };
            let program = filters(&calls, Architecture::NATIVE).unwrap().program;
            let asked = Call::of(number, Architecture::NATIVE, [0; 6]);
            assert_eq!(answer_of(&program, &asked), refused(Refusal::NotPermitted));
        }
    }

    #[test]
    fn a_condition_of_more_values_than_a_jump_reaches_over_is_an_error_and_not_another_condition() {
        let condition = |count| Condition {
            arg: 0,
            test: Test::Is((0..count).collect()),
        };
        let calls = |count| Calls {
            denied: vec![Denial {
                call: Syscall::try_from("ioctl".to_owned()).unwrap(),
                refusal: Refusal::NotPermitted,
                when: vec![condition(count)],
            }],
            allowed: None,
        };
        assert!(filters(&calls(255), Architecture::NATIVE).is_ok());
        assert!(filters(&calls(256), Architecture::NATIVE).is_err());
    }
}
