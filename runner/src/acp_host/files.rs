//! Reading and writing the text files of an agent.
//!
//! Only regular files: nothing is waited for in the place of one. What may be opened is the kernel's to say.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;

use super::message::{Done, Outcome, Read, Refusal, Write};

/// How much text of a file is given at once, in bytes: more is no text that somebody reads.
const TEXT_LEN_MAX: u64 = 8 * 1024 * 1024;

/// How much of a file is looked through for its lines, in bytes: the agent waits for all that it asked meanwhile.
const SEARCH_LEN_MAX: u64 = 256 * 1024 * 1024;

/// Reads a file, or some of its lines.
pub(super) fn read(asked: &Read) -> Outcome {
    let path = absolute(&asked.path)?;
    let from = u64::from(asked.line.unwrap_or(1).max(1)) - 1;
    text(path, from, asked.limit.map_or(u64::MAX, u64::from))
        .map(|content| Done::Read { content })
        .map_err(|error| refusal("read", path, &error))
}

/// Writes a file whole, making it where it is not there.
pub(super) fn write(asked: &Write<'_>) -> Outcome {
    let path = absolute(&asked.path)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    let written = regular(&options, path).and_then(|mut file| {
        file.set_len(0)?;
        file.write_all(asked.content.as_bytes())
    });
    match written {
        Ok(()) => Ok(Done::Nothing {}),
        Err(error) => Err(refusal("write", path, &error)),
    }
}

fn absolute(path: &Path) -> Result<&Path, Refusal> {
    if path.is_absolute() {
        Ok(path)
    } else {
        let message = format!("the path {} is relative, it must be absolute", path.display());
        Err(Refusal::invalid(message))
    }
}

fn refusal(what: &str, path: &Path, error: &io::Error) -> Refusal {
    let message = format!("cannot {what} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound => Refusal::not_found(message),
        _ => Refusal::failed(message),
    }
}

/// Opens a file that is one: a pipe or a device would be waited for.
fn regular(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let file = options
        .clone()
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

/// The lines of a file behind the first `skip`, at most `limit` of them.
fn text(path: &Path, skip: u64, limit: u64) -> io::Result<String> {
    let file = regular(OpenOptions::new().read(true), path)?;
    let mut from = BufReader::with_capacity(64 * 1024, file.take(SEARCH_LEN_MAX));
    for _ in 0..skip {
        if from.skip_until(b'\n')? == 0 {
            break;
        }
    }
    let mut found = Vec::new();
    let mut lines = 0;
    while lines < limit && found.len() as u64 <= TEXT_LEN_MAX {
        let room = TEXT_LEN_MAX + 1 - found.len() as u64;
        if from.by_ref().take(room).read_until(b'\n', &mut found)? == 0 {
            break;
        }
        lines += 1;
    }
    if from.get_ref().limit() == 0 {
        let message = format!("it has more than {SEARCH_LEN_MAX} bytes before what was asked for ends");
        return Err(io::Error::other(message));
    }
    if found.len() as u64 > TEXT_LEN_MAX {
        let message = format!("that is more than {TEXT_LEN_MAX} bytes of text; ask for fewer lines");
        return Err(io::Error::other(message));
    }
    String::from_utf8(found).map_err(|_| io::Error::other("it is no text in UTF-8"))
}
