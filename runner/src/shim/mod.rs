//! The shim: one small process per session that keeps a program alive and everything it says on disk.
//!
//! Floor: shell. Uses `launch`, `sys`, `clock`, `bounds`, and of `session` the form of a fact. The runner prepares a directory and starts
//! `oqto-runner shim --dir DIR` there ([`mod@start`]); the shim starts the program, puts each of its bytes on the
//! [`tape`] and serves one runner at a time on a socket in the directory ([`wire`], [`client`]). The runner may
//! die, be killed and be replaced: the program does not notice.
//!
//! Promises: bytes stand on the tape before they go on, in both directions. When the tape is too far ahead of its
//! reader, or the disk is full, the program is not read: its pipe fills and it waits; nothing is dropped and
//! nothing piles up in memory. A write with an id that was seen before has no second effect. The exit is kept until
//! the runner releases the shim.
//!
//! What it cannot promise: a shim that is killed takes its program with it only when the program dies with its
//! parent, as everything in our sandbox does (`bwrap --die-with-parent`).
//!
//! Not here: what the bytes mean (`harness`), what the program may do (`sandbox`).

pub mod client;
pub mod start;
pub mod tape;
pub mod wire;

mod hold;
mod inbox;
mod input;
mod link;
mod relay;
mod run;

pub use client::{Client, Notice};
pub use hold::Hold;
pub use relay::Look;
pub use run::{RunError, run};
pub use start::{Order, Principal, start};
pub use tape::{Exit, Kind, Reader as TapeReader, Record};
pub use wire::{Refusal, Target, WriteId};
