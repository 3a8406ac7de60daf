//! Seccomp: the system calls that a policy refuses, as programs for the kernel.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use crate::policy::{Architecture, Condition, Denial, Refusal, Test};

/// Why seccomp does not hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum SeccompError {
    /// The refusals cannot be said in a filter.
    #[error("the refused system calls make no filter")]
    Filter {
        /// Why not.
        #[from]
        source: BackendError,
    },
    /// The kernel refuses the filter.
    #[error("the kernel refuses the filter")]
    Refused {
        /// Why.
        #[from]
        source: seccompiler::Error,
    },
}

const REFUSALS: [Refusal; 3] = [Refusal::NotPermitted, Refusal::NotImplemented, Refusal::Ignored];

/// Refuses the system calls to this thread, for good.
pub(super) fn restrict(denials: &[Denial]) -> Result<String, SeccompError> {
    let mut rules_count = 0;
    // One filter holds one answer. The order does not matter: no call is in both with the same arguments.
    for refusal in REFUSALS {
        let rules = rules(denials.iter().filter(|denial| denial.refusal == refusal))?;
        // The first filter also stops foreign calls, so it is needed without a rule too.
        if rules.is_empty() && refusal != Refusal::NotPermitted {
            continue;
        }
        rules_count += rules.len();
        apply_filter(&program(rules, refusal)?)?;
    }
    Ok(format!(
        "{rules_count} system calls refused or restricted, foreign architectures killed"
    ))
}

/// Every rule a call has; a call without conditions has none, which means always.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules<'a>(denials: impl Iterator<Item = &'a Denial>) -> Result<Rules, BackendError> {
    let mut rules: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for denial in denials {
        let Some(number) = denial.call.number(Architecture::NATIVE) else {
            continue;
        };
        let of_call = rules.entry(number).or_insert_with(|| Some(Vec::new()));
        if denial.when.is_empty() {
            *of_call = None;
        } else if let Some(of_call) = of_call {
            of_call.extend(alternatives(&denial.when)?);
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

fn program(rules: Rules, refusal: Refusal) -> Result<BpfProgram, BackendError> {
    let errno = match refusal {
        Refusal::NotPermitted => nix::libc::EPERM,
        Refusal::NotImplemented => nix::libc::ENOSYS,
        Refusal::Ignored => 0,
    };
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let program: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?;
    Ok(without_x32(program, arch))
}

/// x32 is a second door to the same calls under other numbers, which a filter by number would not see.
#[cfg(target_arch = "x86_64")]
fn without_x32(mut program: BpfProgram, arch: TargetArch) -> BpfProgram {
    use nix::libc::{BPF_ABS, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_KILL_PROCESS};
    use seccompiler::sock_filter;

    /// The bit that marks a call as one of x32.
    const X32: u32 = 0x4000_0000;
    /// The check of the architecture, which has to stay first, because numbers mean nothing before it.
    const ARCHITECTURE_CHECK_LEN: usize = 3;

    debug_assert_eq!(arch, TargetArch::x86_64);
    let statement = |code: u32, jf: u8, k: u32| sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let check = [
        statement(BPF_LD | BPF_W | BPF_ABS, 0, 0),
        statement(BPF_JMP | BPF_JGE | BPF_K, 1, X32),
        statement(BPF_RET | BPF_K, 0, SECCOMP_RET_KILL_PROCESS),
    ];
    program.splice(ARCHITECTURE_CHECK_LEN..ARCHITECTURE_CHECK_LEN, check);
    program
}

#[cfg(not(target_arch = "x86_64"))]
fn without_x32(program: BpfProgram, _: TargetArch) -> BpfProgram {
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Catalog;

    #[test]
    fn every_shipped_group_makes_a_filter() {
        let groups = Catalog::shipped().groups().unwrap();
        let all: Vec<Denial> = groups
            .names()
            .flat_map(|name| groups.group(name).unwrap())
            .cloned()
            .collect();
        for refusal in REFUSALS {
            let rules = rules(all.iter().filter(|denial| denial.refusal == refusal)).unwrap();
            assert!(!rules.is_empty());
            program(rules, refusal).unwrap();
        }
    }

    #[test]
    fn a_call_that_is_always_refused_stays_so_beside_a_condition() {
        let denial = |when| Denial {
            call: "ioctl".to_owned().try_into().unwrap(),
            refusal: Refusal::NotPermitted,
            when,
        };
        let narrow = denial(vec![Condition {
            arg: 1,
            test: Test::Is(vec![1]),
        }]);
        for order in [[denial(Vec::new()), narrow.clone()], [narrow, denial(Vec::new())]] {
            let rules = rules(order.iter()).unwrap();
            assert!(rules.values().all(Vec::is_empty), "{rules:?}");
        }
    }

    #[test]
    fn conditions_multiply_into_rules() {
        let when = [
            Condition {
                arg: 0,
                test: Test::Is(vec![2, 10]),
            },
            Condition {
                arg: 1,
                test: Test::AnyBit(0b101),
            },
            Condition {
                arg: 2,
                test: Test::Not(vec![0, 6, 17]),
            },
        ];
        assert_eq!(alternatives(&when).unwrap().len(), 4);
    }
}
