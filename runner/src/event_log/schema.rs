//! The store's file: how it is made, recognised and opened.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use oqto_protocol::event::splice;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};

use super::session::Known;
use super::writer::WAL_MAX;

/// Says in the file's header whose it is.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"oqtE");

/// The version of the tables. A store of another one is refused, never guessed at.
const VERSION: i32 = 3;

/// A batch is a row, keyed by its last number so that the one with a given event is found by one seek. An epoch's
/// `after_seq` is the last number that was kept of the epochs before it. A message's `seq` is at most the last number of
/// the row with its end, so both go together. What is `leaving` has rows left of a session that was deleted. Rows up to
/// `thinned_seq` have lost the deltas of finished messages. Long rows are found through an index of their numbers: a
/// table without rowids reads whole rows to compare them with what is looked for.
const TABLES: &str = "
    CREATE TABLE store (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        boot_id TEXT NOT NULL,
        clean INTEGER NOT NULL,
        first_epoch INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE sessions (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        created_ms INTEGER NOT NULL,
        acked_seq INTEGER NOT NULL,
        thinned_seq INTEGER NOT NULL,
        state BLOB NOT NULL
    ) STRICT;
    CREATE TABLE leaving (session INTEGER PRIMARY KEY) STRICT;
    CREATE TABLE marks (
        session INTEGER PRIMARY KEY,
        mark BLOB NOT NULL
    ) STRICT;
    CREATE TABLE epochs (
        session INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        after_seq INTEGER NOT NULL,
        PRIMARY KEY (session, epoch)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE batches (
        session INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        first_seq INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        committed_ms INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        UNIQUE (session, last_seq)
    ) STRICT;
    CREATE TABLE messages (
        session INTEGER NOT NULL,
        idx INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        id TEXT NOT NULL,
        frame BLOB NOT NULL,
        UNIQUE (session, idx)
    ) STRICT;
    CREATE INDEX messages_by_id ON messages (session, id);
";

/// What every connection of a store is set to. The cache is small because rows are written once and read in order;
/// when the write-ahead log is put into the file is decided by the writer, not by a commit that happens to be the
/// thousandth.
const CONNECTION: &str = "
    PRAGMA cache_size = -512;
    PRAGMA mmap_size = 0;
    PRAGMA temp_store = MEMORY;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA synchronous = FULL;
";

/// What a damaged store's name ends with, before the time at which it was set aside.
const ASIDE: &str = ".damaged-";

/// What the name of the note ends with that a store is damaged.
const NOTE: &str = "-damage";

/// Why a store could not be opened. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its directory cannot be used.
    #[error("cannot reach event log {path}")]
    Io {
        /// The store.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is damaged. It stays as it is.
    #[error("event log {path} is damaged")]
    Damaged {
        /// The store.
        path: PathBuf,
        /// What SQLite found; none when the file or its journal is missing, or it was found damaged before.
        source: Option<rusqlite::Error>,
    },
    /// The file is something else.
    #[error("{path} is no event log")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by another version.
    #[error(
        "event log {path} has version {version}, not {VERSION}: start the runner that wrote it, or move its directory away"
    )]
    Version {
        /// The store.
        path: PathBuf,
        /// Its version.
        version: i32,
    },
    /// SQLite could not do it.
    #[error("cannot open event log {path}")]
    Sqlite {
        /// The store.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl OpenError {
    fn of(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        if is_damage(&source) {
            return Self::Damaged {
                path,
                source: Some(source),
            };
        }
        Self::Sqlite { path, source }
    }
}

/// Whether SQLite found that the file is not what it wrote.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// An opened store.
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) reader: Connection,
    pub(super) sessions: Vec<Known>,
    /// The greatest key that a session has or had.
    pub(super) last_key: i64,
    /// In which epoch new sessions begin.
    pub(super) first_epoch: u64,
}

/// Opens the store at `path`, or makes it, for sessions that begin in `first_epoch`, when nothing is there.
pub(super) fn open(path: &Path, boot_id: &str, first_epoch: u64) -> Result<Opened, OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    if beside(path, NOTE).try_exists().map_err(io)? {
        let path = path.to_owned();
        return Err(OpenError::Damaged { path, source: None });
    }
    if !path.try_exists().map_err(io)? {
        create(path, first_epoch)?;
    }
    // SQLite makes the journal before its index, and removes it after it.
    if beside(path, "-shm").try_exists().map_err(io)? && !wal(path).try_exists().map_err(io)? {
        let path = path.to_owned();
        return Err(OpenError::Damaged { path, source: None });
    }
    let mut writer = connect(path)?;
    check(&writer, path)?;
    let sqlite = |source| OpenError::of(path, source);
    begin_boot(&mut writer, boot_id).map_err(sqlite)?;
    let sessions = sessions(&writer).map_err(sqlite)?;
    let (first_epoch, last_key) = writer
        .query_row(
            "SELECT first_epoch, max(coalesce((SELECT max(key) FROM sessions), 0),
                    coalesce((SELECT max(session) FROM leaving), 0)) FROM store",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(sqlite)?;
    Ok(Opened {
        reader: connect(path)?,
        first_epoch,
        last_key,
        writer,
        sessions,
    })
}

/// Makes a store aside and moves it to its place whole, so that an empty file there is damage and never a beginning.
fn create(path: &Path, first_epoch: u64) -> Result<(), OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    if wal(path).try_exists().map_err(io)? {
        return Err(OpenError::Damaged {
            path: path.to_owned(),
            source: None,
        });
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io)?;
    let new = beside(path, "-new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(io)?;
    fill(&new, first_epoch).map_err(|source| OpenError::of(path, source))?;
    fs::rename(&new, path).map_err(io)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

/// Moves a damaged store out of the way, with what SQLite keeps beside it, and gives its new name. Nothing of it is
/// lost: it may be mended, and its journal belongs to it.
///
/// # Errors
/// When it cannot be moved.
pub fn set_aside(path: &Path, now_ms: u64) -> io::Result<PathBuf> {
    let aside = beside(path, &format!("{ASIDE}{now_ms}"));
    // Whoever finds it half moved must not take what is left for a whole one: the note comes first and goes last.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(beside(path, NOTE))?
        .sync_all()?;
    for suffix in ["-shm", "-wal", "", NOTE] {
        match fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // Of one whose file is gone there is a name all the same, by which its sessions know what became of them.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&aside)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(aside)
}

/// The stores that were set aside in this one's place, each with when, Unix milliseconds; the newest last.
///
/// # Errors
/// When the directory cannot be read.
pub fn set_asides(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let (dir, prefix) = (path.parent().unwrap_or(Path::new("/")), beside(path, ASIDE));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let time = path
            .as_os_str()
            .as_bytes()
            .strip_prefix(prefix.as_os_str().as_bytes());
        // What SQLite keeps beside one has a longer name.
        let time = time.and_then(|time| std::str::from_utf8(time).ok()?.parse().ok());
        if let Some(time) = time {
            found.push((time, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Notes beside a store that it was found to be damaged while it was used: opening it may not find that again.
pub(super) fn note_damage(path: &Path, text: &str) -> io::Result<()> {
    fs::write(beside(path, NOTE), text)
}

/// Where SQLite keeps what is committed and not in the file yet.
pub(super) fn wal(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn fill(path: &Path, first_epoch: u64) -> rusqlite::Result<()> {
    let store = Connection::open(path)?;
    store.execute_batch(CONNECTION)?;
    store.pragma_update(None, "application_id", APPLICATION_ID)?;
    store.pragma_update(None, "user_version", VERSION)?;
    store.execute_batch(TABLES)?;
    store.execute("INSERT INTO store VALUES (1, '', 1, ?1)", [first_epoch])?;
    store.pragma_update(None, "journal_mode", "WAL")?;
    store.close().map_err(|(_, error)| error)
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sqlite = |source| OpenError::of(path, source);
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.execute_batch(CONNECTION).map_err(sqlite)?;
    // It is made shorter only when it was longer than it may get: the commit that does so waits for that.
    connection
        .pragma_update(None, "journal_size_limit", WAL_MAX)
        .map_err(sqlite)?;
    // Statements stay as they were prepared, whatever is bound to them.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(sqlite)?;
    Ok(connection)
}

fn check(store: &Connection, path: &Path) -> Result<(), OpenError> {
    let number = |name| {
        let found = store.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        found.map_err(|source| OpenError::of(path, source))
    };
    let path = path.to_owned();
    match (number("application_id")?, number("user_version")?) {
        (APPLICATION_ID, VERSION) => Ok(()),
        (APPLICATION_ID, version) => Err(OpenError::Version { path, version }),
        // A file of no bytes has neither: somebody cut it, since ours are never seen that short.
        (0, 0) => Err(OpenError::Damaged { path, source: None }),
        _ => Err(OpenError::Foreign { path }),
    }
}

/// Notes that the store is in use. When it was in use as the host went down, what was committed last may be lost,
/// so every session goes on in its next epoch.
fn begin_boot(store: &mut Connection, boot_id: &str) -> rusqlite::Result<()> {
    let change = store.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (last_boot, clean): (String, bool) =
        change.query_row("SELECT boot_id, clean FROM store", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if !clean && last_boot != boot_id {
        settle(&change)?;
        change.execute_batch(
            "INSERT INTO epochs
             SELECT session, max(epoch) + 1,
                    (SELECT coalesce(max(last_seq), 0) FROM batches WHERE batches.session = epochs.session)
             FROM epochs GROUP BY session;
             UPDATE sessions SET
                acked_seq = min(acked_seq, (SELECT coalesce(max(last_seq), 0) FROM batches WHERE session = key));",
        )?;
    }
    change.execute("UPDATE store SET boot_id = ?1, clean = 0", params![boot_id])?;
    change.commit()
}

/// Gives up the deltas at the end of every session. Some that followed them may be lost, and a reader may have been told
/// both as one event, of which it cannot give back a part. The message that they are of has no end; what the tape
/// still has of it is told again, behind the new epoch's beginning.
fn settle(change: &Connection) -> rusqlite::Result<()> {
    let mut keys = change.prepare("SELECT key FROM sessions")?;
    let keys = keys.query_map([], |row| row.get::<_, i64>(0))?;
    for key in keys.collect::<Result<Vec<_>, _>>()? {
        while settle_row(change, key)? {}
    }
    Ok(())
}

/// Gives up the deltas at the end of a session's newest row; whether the row before is to be looked at too.
fn settle_row(change: &Connection, key: i64) -> rusqlite::Result<bool> {
    let mut newest = change.prepare_cached(
        "SELECT first_seq, last_seq, bytes FROM batches WHERE session = ?1 ORDER BY last_seq DESC LIMIT 2",
    )?;
    let mut rows = newest.query([key])?;
    let Some(row) = rows.next()? else {
        return Ok(false);
    };
    let (first_seq, last_seq): (u64, u64) = (row.get(0)?, row.get(1)?);
    let bytes = row.get_ref(2)?.as_blob()?;
    match splice::settled(bytes, first_seq) {
        Some((_, seq)) if seq == last_seq => Ok(false),
        Some((len, seq)) => {
            let kept = bytes[..len].to_vec();
            drop(rows);
            let mut cut = change.prepare_cached(
                "UPDATE batches SET last_seq = ?3, bytes = ?4 WHERE session = ?1 AND last_seq = ?2",
            )?;
            cut.execute(params![key, last_seq, seq, kept])?;
            Ok(false)
        }
        // The only row says which number is next.
        None if rows.next()?.is_none() => Ok(false),
        None => {
            drop(rows);
            let mut give_up =
                change.prepare_cached("DELETE FROM batches WHERE session = ?1 AND last_seq = ?2")?;
            give_up.execute(params![key, last_seq])?;
            Ok(true)
        }
    }
}

fn sessions(store: &Connection) -> rusqlite::Result<Vec<Known>> {
    let mut epochs =
        store.prepare("SELECT epoch, after_seq FROM epochs WHERE session = ?1 ORDER BY epoch")?;
    let mut sessions = store.prepare(
        "SELECT key, id, created_ms,
                (SELECT coalesce(max(last_seq), 0) FROM batches WHERE session = key),
                (SELECT max(idx) FROM messages WHERE session = key),
                acked_seq,
                (SELECT first_seq FROM batches WHERE session = key ORDER BY last_seq LIMIT 1)
         FROM sessions",
    )?;
    let mut rows = sessions.query([])?;
    let mut known = Vec::new();
    while let Some(row) = rows.next()? {
        let key: i64 = row.get(0)?;
        let begun = epochs.query_map([key], |row| Ok((row.get(0)?, row.get(1)?)))?;
        known.push(Known {
            key,
            id: row.get(1)?,
            created_ms: row.get(2)?,
            epochs: begun.collect::<Result<_, _>>()?,
            last_seq: row.get(3)?,
            last_idx: row.get(4)?,
            acked_seq: row.get(5)?,
            oldest_seq: row.get::<_, Option<u64>>(6)?.unwrap_or(1),
        });
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_store_that_was_moved_by_half_is_not_taken_for_a_whole_one() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("events.sqlite");
        drop(open(&path, "boot", 1).unwrap());
        fs::write(wal(&path), "its newest events").unwrap();
        // Its journal goes, and then it cannot be moved itself.
        let in_the_way = home.path().join("events.sqlite.damaged-7");
        fs::create_dir(&in_the_way).unwrap();
        set_aside(&path, 7).unwrap_err();
        assert!(path.exists() && !wal(&path).exists());
        assert!(matches!(open(&path, "boot", 1), Err(OpenError::Damaged { .. })));
        fs::remove_dir(&in_the_way).unwrap();
        let aside = set_aside(&path, 8).unwrap();
        assert_eq!(set_asides(&path).unwrap(), [(8, aside)]);
        assert!(open(&path, "boot", 9).is_ok());
    }
}
