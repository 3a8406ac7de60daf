//! The heap of the daemon, which glibc lets a program shape only through the environment that it starts with.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Where glibc looks.
const VARIABLE: &str = "GLIBC_TUNABLES";

/// One arena: each keeps what it once held, and our threads are few. What a burst needed, in pieces of 64 KiB and
/// more, goes back to the kernel as soon as it is free: left to itself glibc learns from the first burst to keep
/// all of the next.
const SETTINGS: &str =
    "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=131072";

/// Starts this program again, as the same process, with a heap that stays small. Who set tunables keeps them, and
/// where it cannot be done the daemon runs as well, only bigger.
pub(super) fn shape() {
    if !cfg!(target_env = "gnu") || env::var_os(VARIABLE).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut words = env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = words.next() {
        again.arg0(name);
    }
    let error = again.args(words).env(VARIABLE, SETTINGS).exec();
    tracing::debug!(%error, "the heap keeps its default shape");
}
