//! The records of runners: `ID.json`, a name and an address.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use oqto_protocol::id::RunnerId;

use crate::bounds::{RECORD_LEN_MAX, RECORDS_MAX};
use crate::connection::RunnerAddr;

/// Why the records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record is not one.
    #[error("{} is not the record of a runner", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The record is of another runner than its file's name says.
    #[error("{} is the record of runner {id}", path.display())]
    Misnamed {
        /// Which.
        path: PathBuf,
        /// What it says.
        id: RunnerId,
    },
    /// There are more records than are read.
    #[error("{} holds more than {RECORDS_MAX} records", path.display())]
    TooMany {
        /// Where.
        path: PathBuf,
    },
}

/// The records in one directory.
#[derive(Debug)]
pub(crate) struct Records {
    dir: PathBuf,
}

impl Records {
    /// Those in `dir`, which is made when the first is written.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The record of a runner.
    pub(crate) fn find(&self, id: &RunnerId) -> Result<Option<RunnerAddr>, RecordError> {
        let path = self.path(id);
        match File::open(&path) {
            Ok(file) => read(&file, &path, id).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("open", &path)(source)),
        }
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Result<Vec<RunnerAddr>, RecordError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed("read", &self.dir)(source)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed("read", &self.dir))?.file_name();
            let id = name
                .to_str()
                .and_then(|name| name.strip_suffix(".json")?.parse().ok());
            // Anything else in the directory is not a record.
            let Some(id) = id else { continue };
            if found.len() >= RECORDS_MAX {
                return Err(RecordError::TooMany {
                    path: self.dir.clone(),
                });
            }
            found.extend(self.find(&id)?);
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// Writes a record, instead of the one of that name.
    pub(crate) fn put(&self, runner: &RunnerAddr) -> Result<(), RecordError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(failed("make", &self.dir))?;
        let path = self.path(&runner.id);
        let text = serde_json::to_vec(runner).map_err(|source| RecordError::Malformed {
            path: path.clone(),
            source,
        })?;
        let beside = self.dir.join(format!("{}.new", runner.id));
        fs::write(&beside, text).map_err(failed("write", &beside))?;
        fs::rename(&beside, &path).map_err(failed("rename", &beside))
    }

    /// Removes a record, if there is one.
    pub(crate) fn remove(&self, id: &RunnerId) -> Result<(), RecordError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn path(&self, id: &RunnerId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
}

fn read(file: &File, path: &Path, id: &RunnerId) -> Result<RunnerAddr, RecordError> {
    let mut text = Vec::new();
    file.take(RECORD_LEN_MAX)
        .read_to_end(&mut text)
        .map_err(failed("read", path))?;
    let runner: RunnerAddr = serde_json::from_slice(&text).map_err(|source| RecordError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    if runner.id == *id {
        Ok(runner)
    } else {
        Err(RecordError::Misnamed {
            path: path.to_owned(),
            id: runner.id,
        })
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RecordError + 'a {
    move |source| RecordError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
