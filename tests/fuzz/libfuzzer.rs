//! The door for libFuzzer: runs the target that `FUZZ_TARGET` names.
//!
//! One program for all, so that a new target is one line in `targets.rs` and nothing here.
#![no_main]

#[expect(dead_code, reason = "golden values come to libFuzzer as files")]
mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    match targets::TARGETS.iter().find(|target| target.name == name) {
        Some(target) => target.run,
        None => {
            let names: Vec<_> = targets::TARGETS.iter().map(|target| target.name).collect();
            panic!("FUZZ_TARGET must be one of {}", names.join(", "))
        }
    }
});

fuzz_target!(|bytes: &[u8]| RUN(bytes));
