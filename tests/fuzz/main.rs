//! Runs every decoder over its seeds and over a fixed number of mutations of each, the same every time.
//!
//! Seeds are the files in `corpus/<target>/` and the golden values of the protocol. libFuzzer goes further: see
//! `README.md`. What it finds becomes a file here.
#![expect(clippy::unwrap_used, reason = "a helper of a test may end it")]

mod runner;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use targets::{Golden, TARGETS, Target};

/// How long each target is tried further, seconds, where this variable says so: with other mutations each time.
const SECONDS: &str = "FUZZ_SECONDS";

/// The only target that is tried, where this variable names one.
const ONLY: &str = "FUZZ_TARGET";

/// How many mutations are kept beside the seeds, and how long one may be, bytes.
const POOL: usize = 256;
const LEN_MAX: usize = 16 * 1024;

/// How often each seed is mutated: enough to meet every byte of a short one, done in seconds.
const MUTATIONS: u64 = 300;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = target.golden.iter().flat_map(golden).collect();
    if let Ok(files) = fs::read_dir(here("fuzz/corpus").join(target.name)) {
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        seeds.extend(paths.iter().map(|path| fs::read(path).unwrap()));
    }
    seeds
}

/// The golden values: behind a line of comment, blocks of name, hex and JSON.
fn golden(golden: &Golden) -> Vec<Vec<u8>> {
    let (file, is_wire) = match golden {
        Golden::Wire(file) => (file, true),
        Golden::Json(file) => (file, false),
    };
    let mut seeds = Vec::new();
    for version in fs::read_dir(here("../protocol/tests/golden")).unwrap() {
        let path = version.unwrap().path().join(format!("{file}.txt"));
        // A version may lack a family that came later.
        let text = fs::read_to_string(path).unwrap_or_default();
        for block in text.split("\n\n").skip(1) {
            let mut lines = block.lines().skip(1);
            let (wire, json) = (lines.next().unwrap(), lines.next().unwrap());
            seeds.push(if is_wire { unhex(wire) } else { json.into() });
        }
    }
    seeds
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text
        .chars()
        .map(|digit| digit.to_digit(16).unwrap() as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Numbers that are the same every time (xorshift).
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.throw() % end.max(1) as u64) as usize
    }
}

/// Changes a seed once to four times.
fn mutate(seed: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(7) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            // The edges of a varint, and bytes that no UTF-8 has.
            2 if !bytes.is_empty() => bytes[at] = [0, 1, 250, 251, 252, 253, 254, 255][dice.below(8)],
            3 if !bytes.is_empty() => bytes[at] = dice.throw() as u8,
            4 => bytes.insert(at, dice.throw() as u8),
            5 if !bytes.is_empty() => drop(bytes.remove(at)),
            _ => {
                let from = dice.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from.min(other.len())..]);
            }
        }
    }
    bytes
}

/// Says what a target was at when it panics.
struct Tried<'a> {
    target: &'a str,
    bytes: &'a [u8],
}

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let shown: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("target {} at the bytes {shown}", self.target);
        }
    }
}

fn all() -> impl Iterator<Item = &'static Target> {
    TARGETS.iter().chain(runner::TARGETS)
}

fn attempt(target: &Target, bytes: &[u8]) {
    let _tried = Tried {
        target: target.name,
        bytes,
    };
    (target.run)(bytes);
}

#[test]
fn no_decoder_breaks_its_promise() {
    for target in all() {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for seed in &seeds {
            attempt(target, seed);
            for _ in 0..MUTATIONS {
                let other = &seeds[dice.below(seeds.len())];
                attempt(target, &mutate(seed, other, &mut dice));
            }
        }
    }
}

/// With `FUZZ_SECONDS=<n>` each target is tried for so long, or the one that `FUZZ_TARGET` names. Nothing tells
/// which mutation was worth something, so some are kept by chance and mutated further.
#[test]
fn no_decoder_breaks_its_promise_for_as_long_as_is_asked() {
    let Some(seconds) = std::env::var_os(SECONDS) else {
        return;
    };
    let seconds = Duration::from_secs(seconds.to_str().unwrap().parse().unwrap());
    let only = std::env::var_os(ONLY);
    let chosen: Vec<_> = all()
        .filter(|target| only.as_ref().is_none_or(|only| only == target.name))
        .collect();
    assert!(!chosen.is_empty(), "{ONLY} names no target");
    let begin = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                while let Some(target) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let count = search(target, begin, seconds);
                    eprintln!("{}: {count} inputs in {} s", target.name, seconds.as_secs());
                }
            });
        }
    });
}

/// Tries a target for so long, and says on how many inputs.
fn search(target: &Target, begin: u64, time: Duration) -> u64 {
    let mut pool = seeds(target);
    let first = pool.len();
    let mut dice = Dice(begin);
    let until = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < until {
        // Looking at the clock costs more than a short attempt.
        for _ in 0..100 {
            let (seed, other) = (dice.below(pool.len()), dice.below(pool.len()));
            let bytes = mutate(&pool[seed], &pool[other], &mut dice);
            attempt(target, &bytes);
            count += 1;
            if dice.below(50) > 0 || bytes.len() > LEN_MAX {
                continue;
            }
            if pool.len() < first + POOL {
                pool.push(bytes);
            } else {
                pool[first + dice.below(POOL)] = bytes;
            }
        }
    }
    count
}

/// With `FUZZ_SEEDS=<dir>` all seeds are written there, a directory a target, for libFuzzer to begin with.
#[test]
fn every_directory_of_the_corpus_is_of_a_target() {
    for directory in fs::read_dir(here("fuzz/corpus")).unwrap() {
        let name = directory.unwrap().file_name();
        assert!(all().any(|target| name == target.name), "{name:?}");
    }
    let Some(to) = std::env::var_os("FUZZ_SEEDS") else {
        return;
    };
    for target in all() {
        let directory = Path::new(&to).join(target.name);
        fs::create_dir_all(&directory).unwrap();
        for (index, seed) in seeds(target).iter().enumerate() {
            fs::write(directory.join(format!("seed-{index}")), seed).unwrap();
        }
    }
}
