//! The processor time that processes take.

use std::fs;

/// Processor seconds that a process's threads have taken, in user and in kernel mode together; 0 once it is gone.
///
/// # Panics
/// When the kernel writes `/proc` in another form.
#[must_use]
pub fn cpu_s(pid: u32) -> f64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0.0;
    };
    // To the nanosecond, where the time of the whole process is counted in hundredths of a second.
    let nanoseconds = threads.flatten().filter_map(|thread| {
        let taken = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        let (taken, _) = taken.split_once(' ').expect("the kernel says it");
        Some(taken.parse::<f64>().expect("a number"))
    });
    nanoseconds.sum::<f64>() / 1e9
}

/// The processes that `pid` has started and that live.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|pids| {
            let pids = pids.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .collect()
}

/// `pid` and everything below it that lives.
#[must_use]
pub fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(&pid) = all.get(at) {
        all.extend(children(pid));
        at += 1;
    }
    all
}
