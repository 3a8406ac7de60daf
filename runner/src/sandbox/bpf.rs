//! What the kernel does with seccomp's programs, for tests: a filter for an architecture that is not here, or for
//! arguments that would do harm, can only be tried this way.

use nix::libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET,
    BPF_W,
};

use super::entry::Instruction;
use crate::policy::Architecture;

/// The kernel's names of architectures (`linux/audit.h`).
const X86_64: u32 = 0xc000_003e;
const AARCH64: u32 = 0xc000_00b7;
/// 32-bit programs on x86.
pub(super) const I386: u32 = 0x4000_0003;

/// A system call as a filter sees it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) architecture: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    pub(super) fn of(number: i64, architecture: Architecture, args: [u64; 6]) -> Self {
        Self {
            number: u32::try_from(number).unwrap(),
            architecture: match architecture {
                Architecture::X86_64 => X86_64,
                Architecture::Aarch64 => AARCH64,
            },
            args,
        }
    }

    /// The 32 bits at an offset of `struct seccomp_data`, on a machine whose low bytes come first.
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.architecture,
            16..64 => {
                let value = self.args[(offset as usize - 16) / 8];
                (value >> (8 * (offset % 8))) as u32
            }
            _ => panic!("no program of ours looks at offset {offset}"),
        }
    }
}

/// The kernel's answer to a call.
pub(super) fn answer_of(program: &[Instruction], call: &Call) -> u32 {
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let Instruction(code, jt, jf, k) = program[at];
        at += 1;
        let holds = match u32::from(code) {
            code if code == BPF_LD | BPF_W | BPF_ABS => {
                accumulator = call.word(k);
                continue;
            }
            code if code == BPF_ALU | BPF_AND | BPF_K => {
                accumulator &= k;
                continue;
            }
            code if code == BPF_RET | BPF_K => return k,
            code if code == BPF_JMP | BPF_JA => {
                at += k as usize;
                continue;
            }
            code if code == BPF_JMP | BPF_JEQ | BPF_K => accumulator == k,
            code if code == BPF_JMP | BPF_JGT | BPF_K => accumulator > k,
            code if code == BPF_JMP | BPF_JGE | BPF_K => accumulator >= k,
            code if code == BPF_JMP | BPF_JSET | BPF_K => accumulator & k != 0,
            code => panic!("no program of ours has the instruction {code:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}
