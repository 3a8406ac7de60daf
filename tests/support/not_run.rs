//! What this host cannot exercise.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Says that a test was not run, and why: on standard output, and in the file that `OQTO_TEST_NOT_RUN` names, since
/// what a test that passes prints is rarely shown.
///
/// # Panics
/// When that file cannot be written: what was not run is never passed in silence.
pub fn not_run(name: &str, why: &str) {
    let line = format!("NOT RUN: {name}: {why}\n");
    print!("{line}");
    if let Some(path) = std::env::var_os("OQTO_TEST_NOT_RUN") {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
