//! Files that nobody else may read, written whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::AuthorityError;

/// What tells one content of a file from another without reading it: each is a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    inode: u64,
    len: u64,
    changed: SystemTime,
}

impl Seen {
    pub(super) fn of(metadata: &fs::Metadata) -> io::Result<Self> {
        Ok(Self {
            inode: metadata.ino(),
            len: metadata.len(),
            changed: metadata.modified()?,
        })
    }
}

/// Makes a directory for its owner alone, and refuses one that is not.
pub(super) fn private_dir(dir: &Path) -> Result<(), AuthorityError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed("make", dir))?;
    refuse_exposed(&fs::metadata(dir).map_err(failed("look at", dir))?, dir)
}

pub(super) fn refuse_exposed(metadata: &fs::Metadata, path: &Path) -> Result<(), AuthorityError> {
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(AuthorityError::Exposed {
            path: path.to_owned(),
            mode,
        })
    }
}

/// What a file holds, wiped from memory when it is let go, and which content that is.
pub(super) type Content = (Zeroizing<Vec<u8>>, Seen);

/// Reads a file that only its owner may read; `None` when it is not there.
pub(super) fn read(path: &Path, len_max: u64) -> Result<Option<Content>, AuthorityError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("open", path)(source)),
    };
    let metadata = file.metadata().map_err(failed("look at", path))?;
    refuse_exposed(&metadata, path)?;
    if metadata.len() > len_max {
        return Err(AuthorityError::TooLong {
            path: path.to_owned(),
        });
    }
    let seen = Seen::of(&metadata).map_err(failed("look at", path))?;
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0)));
    file.take(metadata.len())
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    Ok(Some((bytes, seen)))
}

/// Reads a JSON file; `None` when it is not there.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, len_max: u64) -> Result<Option<T>, AuthorityError> {
    let Some((bytes, _)) = read(path, len_max)? else {
        return Ok(None);
    };
    parse(&bytes, path).map(Some)
}

pub(super) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], path: &Path) -> Result<T, AuthorityError> {
    serde_json::from_slice(bytes).map_err(|source| AuthorityError::Malformed {
        path: path.to_owned(),
        source,
    })
}

/// Writes a JSON file as [`write_whole`] does.
pub(super) fn write_json<T: Serialize>(dir: &Path, name: &str, value: &T) -> Result<Seen, AuthorityError> {
    let text = serde_json::to_vec(value).map_err(|source| AuthorityError::Malformed {
        path: dir.join(name),
        source,
    })?;
    write_whole(dir, name, &text)
}

/// Writes beside, syncs and renames, so that the file is whole or not there, also after a power cut.
pub(super) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> Result<Seen, AuthorityError> {
    let beside = dir.join(format!("{name}.new"));
    let mut file = private_file(&beside).map_err(failed("make", &beside))?;
    let seen = file
        .set_len(0)
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .and_then(|()| Seen::of(&file.metadata()?))
        .map_err(failed("write", &beside))?;
    fs::rename(&beside, dir.join(name)).map_err(failed("rename", &beside))?;
    sync_dir(dir)?;
    Ok(seen)
}

/// Makes what was renamed or removed in a directory last.
pub(super) fn sync_dir(dir: &Path) -> Result<(), AuthorityError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", dir))
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), AuthorityError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The names of the files in a directory; none when it is not there.
pub(super) fn names(dir: &Path, count_max: usize) -> Result<Vec<String>, AuthorityError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("read", dir)(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is no text is none of ours.
        if let Ok(name) = entry.map_err(failed("read", dir))?.file_name().into_string() {
            if names.len() >= count_max {
                return Err(AuthorityError::TooMany {
                    path: dir.to_owned(),
                    max: count_max,
                });
            }
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

pub(super) fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

pub(super) fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> AuthorityError + 'a {
    move |source| AuthorityError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
