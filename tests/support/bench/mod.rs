//! What the benches share: a house of its own, a harness that prints at a known pace, honest figures.
//!
//! A bench prints only what it measured in this run, each figure beside the floor that the same run measured.

mod bare;
mod bed;
mod certificates;
mod cpu;
mod figures;
mod frames;
mod generator;
mod house;

pub use bare::{Bare, Raw, announced, bare_if_asked, end, run, session_of, this_program};
pub use bed::Bed;
pub use certificates::{Certificates, SERVER_NAME};
pub use cpu::{children, cpu_s, tree};
pub use figures::{Spread, Table, ratio};
pub use frames::{Frames, Taker, paced, ready};
pub use generator::{Plan, STAMP_LEN, generate_if_asked, now_ns, stamp_of_delta, stamp_of_line};
pub use house::{House, RunnerProgram, open_bed};

/// How thoroughly a bench measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// A few seconds: shows that the bench works; its figures are not to be quoted.
    Smoke,
    /// As long as it takes.
    Full,
}

impl Effort {
    /// What the command line asks for: `--quick` is [`Effort::Smoke`].
    #[must_use]
    pub fn asked() -> Self {
        if std::env::args().any(|word| word == "--quick") {
            Self::Smoke
        } else {
            Self::Full
        }
    }

    /// One of two, by effort.
    #[must_use]
    pub fn of<T>(self, smoke: T, full: T) -> T {
        match self {
            Self::Smoke => smoke,
            Self::Full => full,
        }
    }
}
