//! Work inside of the sandbox against the same work outside, command by command in turns.
//!
//! `cargo bench -p oqto-tests --bench inside [-- --quick]`
//!
//! One process on either side runs commands and times them itself, so a start of the sandbox is in no figure.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use oqto_runner::launch::{Arg, spawn};
use oqto_tests::bench::{Bed, Effort, Spread, Table, ratio};

const TARGET: f64 = 1.05;

/// How the timing process is asked for by its command line.
const CLOCK: &str = "--clock";

/// The files that `find` and `git status` go over: so many directories, and so many files in each.
const DIRECTORIES: usize = 200;
const FILES: usize = 100;

/// What is run, in the workspace.
const WORK: &[(&str, &str)] = &[
    ("find over 20,000 files", "find . -type f -size +1000k"),
    ("git status of 20,000 files", "git status --porcelain"),
    ("cc of a small program", "cc -O1 -o small small.c"),
    ("node -e 0", "node -e 0"),
];

/// What a program of a few screens asks of a compiler.
const PROGRAM: &str = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\n\
                       int main(int c, char **v) { printf(\"%s %d\\n\", v[0], c); return 0; }\n";

fn main() -> ExitCode {
    if std::env::args().any(|word| word == CLOCK) {
        return clock();
    }
    let effort = Effort::asked();
    match Bed::asked() {
        Some(bed) => measure(effort, &bed),
        None => return Bed::make(effort),
    }
    ExitCode::SUCCESS
}

/// Runs the command of each line that it reads, and writes how long that took, in nanoseconds.
fn clock() -> ExitCode {
    for line in std::io::stdin().lines() {
        let line = line.expect("a pipe");
        let words: Vec<&str> = line.split(' ').collect();
        let began = Instant::now();
        let status = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        let took = began.elapsed();
        match status {
            Ok(status) if status.success() => println!("{}", took.as_nanos()),
            failed => {
                eprintln!("{line}: {failed:?}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// A process that times commands.
struct Clock {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Clock {
    fn of(mut child: Child) -> Self {
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Self {
            child,
            orders,
            answers,
        }
    }

    fn inside(bed: &Bed) -> Self {
        let launch = bed.wrapped(bed.bench(), vec![Arg::Text(CLOCK.into())]);
        let spawned = spawn(&launch, Stdio::piped(), Stdio::piped(), Stdio::inherit());
        let spawned = spawned.expect("it starts");
        let report = spawned.report.expect("a sandbox reports");
        let said = std::io::read_to_string(File::from(report)).expect("a pipe");
        assert!(said.contains("confined"), "not confined: {said}");
        Self::of(spawned.child)
    }

    /// With the variables that the sandbox sets, and nothing that somebody's shell does.
    fn outside(bed: &Bed) -> Self {
        let mut command = Command::new(bed.bench());
        command
            .arg(CLOCK)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").expect("a shell started this"))
            .env("HOME", bed.home())
            .current_dir(bed.workspace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Self::of(command.spawn().expect("it starts"))
    }

    /// Milliseconds.
    fn time(&mut self, command: &str) -> f64 {
        let orders = self.orders.as_mut().expect("not ended yet");
        writeln!(orders, "{command}").expect("it listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("a pipe");
        let took: u64 = line.trim().parse().expect("it said what failed");
        Duration::from_nanos(took).as_secs_f64() * 1e3
    }

    fn end(mut self) {
        drop(self.orders.take());
        let status = self.child.wait().expect("our own child");
        assert!(status.success(), "a clock ended with {status}");
    }
}

fn measure(effort: Effort, bed: &Bed) {
    let rounds = effort.of(5, 60);
    furnish(&bed.workspace());
    let (mut inside, mut outside) = (Clock::inside(bed), Clock::outside(bed));
    let mut took: Vec<[Vec<f64>; 2]> = WORK.iter().map(|_| Default::default()).collect();
    // The first of each reads files that the others then find in memory.
    for round in 0..=rounds {
        for ((_, command), [in_it, out_of_it]) in WORK.iter().zip(&mut took) {
            // Whoever comes second may find more in memory, so it is not always the same.
            let figures = if round % 2 == 0 {
                let first = inside.time(command);
                (first, outside.time(command))
            } else {
                let first = outside.time(command);
                (inside.time(command), first)
            };
            if round > 0 {
                in_it.push(figures.0);
                out_of_it.push(figures.1);
            }
        }
    }
    inside.end();
    outside.end();
    print(rounds, took);
}

fn print(rounds: usize, took: Vec<[Vec<f64>; 2]>) {
    println!("work in the sandbox and outside of it, median ms; {rounds} rounds in turns");
    let mut table = Table::new(["work", "outside", "inside", "inside to outside", "target"]);
    for ((name, _), [inside, outside]) in WORK.iter().zip(took) {
        let (inside, outside) = (Spread::of(inside).median(), Spread::of(outside).median());
        let met = if inside / outside <= TARGET {
            "met"
        } else {
            "missed"
        };
        table.row([
            (*name).to_owned(),
            format!("{outside:.2}"),
            format!("{inside:.2}"),
            ratio(inside, outside),
            format!("{TARGET:.2}x {met}"),
        ]);
    }
    table.print();
}

/// A repository of many files, all of them older than its index, and a program.
fn furnish(workspace: &Path) {
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
    for directory in 0..DIRECTORIES {
        let directory = workspace.join(format!("d{directory}"));
        fs::create_dir(&directory).expect("our own directory");
        for file in 0..FILES {
            let path = directory.join(format!("f{file}.txt"));
            fs::write(&path, format!("{}\n", path.display())).expect("our own directory");
            let file = File::options().write(true).open(&path).expect("our own file");
            file.set_modified(long_ago).expect("our own file");
        }
    }
    fs::write(workspace.join("small.c"), PROGRAM).expect("our own directory");
    for words in [
        "init --quiet",
        "config user.name bench",
        "config user.email bench@localhost",
        // Nothing tidies up while others look.
        "config gc.auto 0",
        "config maintenance.auto false",
        "add .",
        "commit --quiet --message all",
    ] {
        let status = Command::new("git")
            .args(words.split(' '))
            .current_dir(workspace)
            .env("HOME", workspace)
            .status();
        assert!(status.is_ok_and(|status| status.success()), "git {words}");
    }
}
