//! The last stage, inside the sandbox: read what is to be enforced, close what was inherited, `confine`, report,
//! become the harness. What fails ends this process with its reason in the report.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;

use super::confine::{ConfineError, confine, exec_agent};
use super::entry::{self, Entry};
use super::report::{Layer, Report};
use crate::cause::chain;

/// The answer of a start that failed, as `env` and container engines give it.
const FAILED: u8 = 125;
/// The program is there and cannot be run.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such program.
const NOT_FOUND: u8 = 127;

/// Why the program was not started.
#[derive(Debug, thiserror::Error)]
enum EnterError {
    /// The arguments are not those of this door.
    #[error("enter is started by the runner only: --plan-fd N --report-fd N -- PROGRAM [ARGS]")]
    Arguments,
    /// A descriptor cannot be had.
    #[error("cannot open descriptor {number}")]
    Descriptor {
        /// Its number.
        number: RawFd,
        /// Why not.
        source: io::Error,
    },
    /// The entry cannot be read.
    #[error("cannot read what is to be enforced")]
    Entry {
        /// Why not.
        source: serde_json::Error,
    },
    /// The program cannot be started.
    #[error("cannot start {}", program.display())]
    Program {
        /// Which program.
        program: OsString,
        /// Why not.
        source: io::Error,
    },
    /// What was inherited cannot be listed.
    #[error("cannot list the descriptors")]
    Descriptors {
        /// Why not.
        source: io::Error,
    },
    /// One of the three streams is a directory: a place outside, from which links, modes and sockets can be reached
    /// without opening anything.
    #[error("standard stream {number} is a directory, which would lead out of the sandbox")]
    Directory {
        /// Its number.
        number: RawFd,
    },
    /// A layer does not hold.
    #[error(transparent)]
    Confine(ConfineError),
}

/// The door: `--plan-fd N --report-fd N -- PROGRAM [ARGS]`. Returns only if it failed.
///
/// The arguments are read by hand: only [`wrap`](super::wrap()) writes them, and every start pays for reading them.
#[must_use]
pub fn enter(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(Arguments {
        plan,
        report,
        program,
        args,
    }) = Arguments::parse(arguments)
    else {
        // Without a descriptor there is nobody else to tell.
        let _ = writeln!(io::stderr(), "oqto-runner: {}", EnterError::Arguments);
        return ExitCode::from(FAILED);
    };
    let Ok(mut report) = OpenOptions::new().write(true).open(descriptor(report)) else {
        return ExitCode::from(FAILED);
    };
    let confined = read(plan)
        .map_err(|error| (Layer::Entry, error))
        .and_then(|entry| {
            close_all_but(report.as_raw_fd()).map_err(|error| (Layer::Entry, error))?;
            no_directories().map_err(|error| (Layer::Entry, error))?;
            let confined = confine(&entry).map_err(|(layer, error)| (layer, EnterError::Confine(error)))?;
            let (confined, layers) = confined;
            Ok((confined, layers, entry.env))
        });
    match confined {
        Ok((confined, layers, env)) => {
            if tell(&mut report, &Report::Confined { layers }).is_err() {
                return ExitCode::from(FAILED);
            }
            let source = exec_agent(confined, &program, args, env);
            let code = match source.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            };
            failed(
                &mut report,
                Layer::Program,
                &EnterError::Program { program, source },
                code,
            )
        }
        Err((layer, error)) => failed(&mut report, layer, &error, FAILED),
    }
}

struct Arguments {
    plan: RawFd,
    report: RawFd,
    program: OsString,
    args: Vec<OsString>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut number = |name: &str| -> Option<RawFd> {
            (words.next()? == name).then_some(())?;
            words.next()?.to_str()?.parse().ok().filter(|number| *number > 2)
        };
        let (plan, report) = (number("--plan-fd")?, number("--report-fd")?);
        (words.next()? == "--").then_some(())?;
        Some(Self {
            plan,
            report,
            program: words.next()?,
            args: words.collect(),
        })
    }
}

/// A descriptor that somebody else opened, by its name in the file system: opening it again gives one of our own,
/// which the program will not inherit.
fn descriptor(number: RawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{number}"))
}

fn read(number: RawFd) -> Result<Entry, EnterError> {
    let mut text = Vec::new();
    File::open(descriptor(number))
        .and_then(|file| file.take(entry::LEN_MAX).read_to_end(&mut text))
        .map_err(|source| EnterError::Descriptor { number, source })?;
    serde_json::from_slice(&text).map_err(|source| EnterError::Entry { source })
}

/// Closes whatever was inherited: a descriptor left open by mistake would be a hole that no layer sees.
fn close_all_but(kept: RawFd) -> Result<(), EnterError> {
    let path = "/proc/self/fd";
    let numbers = || -> io::Result<Vec<RawFd>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(path)? {
            numbers.extend(
                entry?
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<RawFd>().ok()),
            );
        }
        Ok(numbers)
    };
    let numbers = numbers().map_err(|source| EnterError::Descriptors { source })?;
    for number in numbers
        .into_iter()
        .filter(|number| *number > 2 && *number != kept)
    {
        // One of them was the listing's own and is closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

fn no_directories() -> Result<(), EnterError> {
    for number in 0..3 {
        match fs::metadata(descriptor(number)) {
            Ok(found) if found.is_dir() => return Err(EnterError::Directory { number }),
            // A stream that is closed leads nowhere.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

fn tell(report: &mut File, line: &Report) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    report.write_all(&text)
}

fn failed(report: &mut File, layer: Layer, error: &EnterError, code: u8) -> ExitCode {
    // If nobody listens any more, the exit code still says it.
    let _ = tell(
        report,
        &Report::Failed {
            layer,
            error: chain(error),
        },
    );
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_opens_for_its_own_arguments_only() {
        let parse = |words: &[&str]| Arguments::parse(words.iter().map(OsString::from));
        assert!(parse(&["--plan-fd", "3", "--report-fd", "4", "--", "sh"]).is_some());
        for words in [
            &["--plan-fd", "3", "--report-fd", "4", "sh"][..],
            &["--plan-fd", "0", "--report-fd", "4", "--", "sh"],
            &["--plan-fd", "3", "--report-fd", "4", "--"],
            &["--report-fd", "3", "--plan-fd", "4", "--", "sh"],
            &[],
        ] {
            assert!(parse(words).is_none(), "{words:?}");
        }
    }
}
