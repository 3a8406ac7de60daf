//! The event log on a real disk, killed and filled for real.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use oqto_runner::event_log::{
    AppendError, Batch, ChangeError, Closed, CreateError, EventLog, Health, MessageRow, OpenError, Resume,
    Retention, SessionLog, Sync,
};
use proptest::prelude::*;

/// What SQLite reads and writes at once.
const PAGE: u64 = 4096;

/// Where a test that runs itself again as a child finds its store.
const STORE: &str = "OQTO_TEST_STORE";

fn open(path: &Path) -> Result<EventLog, OpenError> {
    EventLog::open(path, Retention::DEFAULT)
}

/// A frame that says which event it is.
fn frame(session: &str, seq: u64, len: usize) -> Vec<u8> {
    let mut body = format!("{session}/{seq}").into_bytes();
    body.resize(body.len().max(len), b'.');
    [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], &body].concat()
}

fn batch(session: &SessionLog, first: u64, count: u64, sync: Sync) -> Batch {
    let bytes: Vec<u8> = (first..first + count)
        .flat_map(|seq| frame(session.id(), seq, 20))
        .collect();
    Batch::new(first, bytes.into(), sync).unwrap()
}

async fn append(session: &SessionLog, count: u64, sync: Sync) {
    let batch = batch(session, session.last_seq() + 1, count, sync);
    session.append(batch).await.unwrap().committed().await.unwrap();
}

/// Reads from a cursor to the end; every event is checked to be the next one of this session.
async fn read_all(session: &SessionLog, after: u64, max_bytes: usize) -> u64 {
    let mut seq = after;
    while let Some(chunk) = session.read(seq, max_bytes).await.unwrap() {
        assert_eq!(chunk.first_seq, seq + 1);
        let mut bytes = &chunk.bytes[..];
        while let Some((len, rest)) = bytes.split_first_chunk() {
            let (body, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
            seq += 1;
            let expected = format!("{}/{seq}", session.id());
            assert_eq!(String::from_utf8_lossy(body).trim_end_matches('.'), expected);
            bytes = rest;
        }
        assert_eq!(chunk.last_seq, seq);
    }
    seq
}

fn store(home: &tempfile::TempDir) -> PathBuf {
    home.path().join("logs").join("events.db")
}

#[tokio::test]
async fn what_was_appended_is_there_after_it_was_opened_again() {
    let home = tempfile::tempdir().unwrap();
    let log = open(&store(&home)).unwrap();
    let session = log
        .create_session("one", Bytes::from_static(b"{}"))
        .await
        .unwrap();
    append(&session, 3, Sync::Process).await;
    let message = |idx| MessageRow {
        idx,
        id: format!("m{idx}"),
        frame: format!("text {idx}").into(),
    };
    let ending = batch(&session, 4, 2, Sync::Power)
        .with_messages(vec![message(0), message(1)])
        .with_mark(Bytes::from_static(b"offset 77"));
    assert_eq!(
        *session.append(ending).await.unwrap().committed().await.unwrap(),
        5
    );
    session
        .put_state(Bytes::from_static(b"{\"title\":1}"))
        .await
        .unwrap();
    log.close().await;

    let log = open(&store(&home)).unwrap();
    let session = log.session("one").unwrap();
    assert_eq!((session.last_seq(), session.epoch()), (5, 1));
    assert_eq!(*session.mark().await.unwrap().unwrap(), "offset 77");
    assert_eq!(read_all(&session, 0, usize::MAX).await, 5);
    let messages = |after, limit| {
        let session = session.clone();
        async move {
            let (found, more) = session.messages(after, limit).await.unwrap();
            let found = found.into_iter().map(oqto_runner::event_log::Durable::into_inner);
            (found.collect::<Vec<_>>(), more)
        }
    };
    let page = |texts: &[&'static str], more| {
        (
            texts.iter().map(|text| Bytes::from(*text)).collect::<Vec<_>>(),
            more,
        )
    };
    assert_eq!(messages(None, 10).await, page(&["text 0", "text 1"], false));
    assert_eq!(messages(None, 2).await, page(&["text 0", "text 1"], false));
    assert_eq!(messages(Some(0), 10).await, page(&["text 1"], false));
    assert_eq!(messages(None, 1).await, page(&["text 0"], true));
    let rows = log.sessions().await.unwrap();
    assert_eq!(
        (rows[0].id.as_str(), &rows[0].state[..], rows[0].last_seq),
        ("one", &b"{\"title\":1}"[..], 5)
    );
    append(&session, 1, Sync::Power).await;
    assert_eq!(read_all(&session, 5, usize::MAX).await, 6);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let wal = home.path().join("logs").join("events.db-wal");
    assert_eq!(
        (
            mode(&store(&home)),
            mode(&wal),
            mode(store(&home).parent().unwrap())
        ),
        (0o600, 0o600, 0o700)
    );
    log.close().await;
}

#[tokio::test]
async fn a_reader_starts_in_the_middle_of_a_batch_from_memory_and_from_disk() {
    let home = tempfile::tempdir().unwrap();
    let log = open(&store(&home)).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    append(&session, 10, Sync::Process).await;
    append(&session, 10, Sync::Process).await;
    for after in 0..=20 {
        assert_eq!(read_all(&session, after, 60).await, 20);
    }
    log.close().await;
    let log = open(&store(&home)).unwrap();
    let session = log.session("one").unwrap();
    for (after, max_bytes) in (0..=20).flat_map(|after| [(after, 0), (after, 60), (after, usize::MAX)]) {
        assert_eq!(read_all(&session, after, max_bytes).await, 20);
    }
    assert!(session.read(20, 100).await.unwrap().is_none());
    assert!(session.read(21, 100).await.unwrap().is_none());
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_write_at_once_never_mix() {
    let home = tempfile::tempdir().unwrap();
    let log = open(&store(&home)).unwrap();
    let mut writers = Vec::new();
    for id in ["one", "two", "three"] {
        let session = log.create_session(id, Bytes::new()).await.unwrap();
        writers.push(tokio::spawn(async move {
            for round in 0..200 {
                let sync = if round % 50 == 49 {
                    Sync::Power
                } else {
                    Sync::Process
                };
                let batch = batch(&session, round * 3 + 1, 3, sync);
                let pending = session.append(batch).await.unwrap();
                if round % 7 == 0 {
                    pending.committed().await.unwrap();
                }
            }
            session.wait_past(599).await.unwrap();
            assert_eq!(read_all(&session, 0, 1000).await, 600);
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    log.close().await;
}

#[tokio::test]
async fn a_subscriber_is_woken_by_each_commit_and_by_the_end() {
    let home = tempfile::tempdir().unwrap();
    let log = open(&store(&home)).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    let follower = session.clone();
    let (read, mut has_read) = tokio::sync::watch::channel(0);
    let following = tokio::spawn(async move {
        let mut seq = 0;
        while follower.wait_past(seq).await.is_ok() {
            seq = read_all(&follower, seq, 64).await;
            read.send_replace(seq);
        }
        seq
    });
    for _ in 0..20 {
        append(&session, 2, Sync::Process).await;
    }
    has_read.wait_for(|seq| *seq == 40).await.unwrap();
    log.delete_session("one").await.unwrap();
    assert_eq!(following.await.unwrap(), 40);
    assert!(matches!(
        session.append(batch(&session, 41, 1, Sync::Power)).await,
        Err(AppendError::Deleted)
    ));
    assert_eq!(log.delete_session("one").await, Err(ChangeError::Unknown));
    let again = log.create_session("one", Bytes::new()).await.unwrap();
    assert_eq!((again.last_seq(), read_all(&again, 0, 100).await), (0, 0));
    log.close().await;
    assert_eq!(again.wait_past(0).await, Err(Closed));
    assert!(matches!(
        again.append(batch(&again, 1, 1, Sync::Power)).await,
        Err(AppendError::Closed(_))
    ));
}

#[tokio::test]
async fn numbers_that_do_not_follow_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let log = open(&store(&home)).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    assert!(matches!(
        log.create_session("one", Bytes::new()).await,
        Err(CreateError::Exists)
    ));
    append(&session, 2, Sync::Process).await;
    for first in [1, 2, 4] {
        let refused = session
            .append(batch(&session, first, 1, Sync::Process))
            .await
            .unwrap_err();
        assert_eq!(
            refused,
            AppendError::OutOfOrder {
                first_seq: first,
                last_seq: 2
            }
        );
    }
    let message = |idx| MessageRow {
        idx,
        id: "m".to_owned(),
        frame: Bytes::new(),
    };
    let twice = batch(&session, 3, 1, Sync::Process).with_messages(vec![message(4), message(4)]);
    let refused = session.append(twice).await.unwrap_err();
    assert_eq!(refused, AppendError::MessageOutOfOrder { idx: 4 });
    append(&session, 1, Sync::Process).await;
    log.close().await;
}

#[tokio::test]
async fn what_memory_gave_up_is_read_from_the_disk_without_a_gap() {
    let home = tempfile::tempdir().unwrap();
    let log = open(&store(&home)).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    let mut first = 1;
    for _ in 0..64 {
        let bytes: Vec<u8> = (first..first + 16)
            .flat_map(|seq| frame("one", seq, 2048))
            .collect();
        let batch = Batch::new(first, bytes.into(), Sync::Process).unwrap();
        session.append(batch).await.unwrap().committed().await.unwrap();
        first += 16;
    }
    assert_eq!(read_all(&session, 0, 100_000).await, 1024);
    assert_eq!(read_all(&session, 777, 5000).await, 1024);
    log.close().await;
}

#[tokio::test]
async fn a_store_whose_journal_was_taken_away_is_damaged() {
    let home = tempfile::tempdir().unwrap();
    let path = store(&home);
    let log = open(&path).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    append(&session, 3, Sync::Process).await;
    // What a killed runner leaves, with and without it.
    let left = tempfile::tempdir().unwrap();
    let copy = store(&left);
    std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
    let beside = |path: &Path, suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    for suffix in ["", "-shm", "-wal"] {
        std::fs::copy(beside(&path, suffix), beside(&copy, suffix)).unwrap();
    }
    let journal = beside(&copy, "-wal");
    let taken = beside(&copy, "-taken");
    std::fs::rename(&journal, &taken).unwrap();
    assert!(matches!(open(&copy), Err(OpenError::Damaged { .. })));
    std::fs::rename(&taken, &journal).unwrap();
    assert_eq!(open(&copy).unwrap().session("one").unwrap().last_seq(), 3);
    log.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_store_is_named_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("events.db");
    let refused = || open(&path).unwrap_err();
    std::fs::write(&path, vec![b'?'; 8192]).unwrap();
    assert!(matches!(refused(), OpenError::Damaged { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), vec![b'?'; 8192]);
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(refused(), OpenError::Damaged { .. }));
    std::fs::remove_file(&path).unwrap();
    let journal = home.path().join("events.db-wal");
    std::fs::write(&journal, b"what is left").unwrap();
    assert!(matches!(refused(), OpenError::Damaged { source: None, .. }));
    std::fs::remove_file(&journal).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.pragma_update(None, "application_id", 7).unwrap();
    drop(other);
    assert!(matches!(refused(), OpenError::Foreign { .. }));
    std::fs::remove_file(&path).unwrap();
    open(&path).unwrap().close().await;
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    assert!(matches!(refused(), OpenError::Version { version: 99, .. }));
}

/// This test program again, to be killed or to be given a disk of its own.
fn again(name: &str, store: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture", "--include-ignored"])
        .env(STORE, store);
    command
}

#[tokio::test]
#[ignore = "a part of the test below, which runs it in a process of its own"]
async fn appends_until_killed() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let log = open(Path::new(&path)).unwrap();
    let session = log.session("one").unwrap();
    loop {
        let count = session.last_seq() % 5 + 1;
        let sync = if count == 5 { Sync::Power } else { Sync::Process };
        append(&session, count, sync).await;
        println!("acked {}", session.last_seq());
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let home = tempfile::tempdir().unwrap();
    let path = store(&home);
    let log = open(&path).unwrap();
    log.create_session("one", Bytes::new()).await.unwrap();
    log.close().await;
    for round in 1..=4 {
        let mut child = again("appends_until_killed", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acked = |line: &str| Some(line.strip_prefix("acked ")?.parse::<u64>().unwrap());
        let mut last = 0;
        for _ in 0..round * 100 {
            last = acked(&lines.next().unwrap().unwrap()).unwrap_or(last);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        last = lines
            .map_while(Result::ok)
            .filter_map(|line| acked(&line))
            .last()
            .unwrap_or(last);
        let log = open(&path).unwrap();
        let session = log.session("one").unwrap();
        assert!(
            session.last_seq() >= last && last > 0,
            "{} < {last}",
            session.last_seq()
        );
        assert_eq!(session.epoch(), 1, "the host did not go down");
        assert_eq!(read_all(&session, 0, 4096).await, session.last_seq());
        assert_eq!(session.resume(1, last), Resume::After(last));
        log.close().await;
    }
}

#[tokio::test]
#[ignore = "a part of the test below, which runs it on a small disk"]
async fn fills_its_disk() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let path = PathBuf::from(path);
    let filler = path.with_file_name("filler");
    let log = open(&path).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    std::fs::write(&filler, vec![1; 16 << 20]).unwrap();
    let mut health = log.health();
    let appending = session.clone();
    let appended = tokio::spawn(async move {
        let mut pending = Vec::new();
        for first in 1..=400 {
            let bytes = frame("one", first, 16 * 1024);
            let batch = Batch::new(first, bytes.into(), Sync::Power).unwrap();
            pending.push(appending.append(batch).await.unwrap());
        }
        for pending in pending {
            pending.committed().await.unwrap();
        }
    });
    health
        .wait_for(|health| matches!(health, Health::Failing { .. }))
        .await
        .unwrap();
    let kept = session.last_seq();
    assert!(kept < 400 && !appended.is_finished());
    assert_eq!(read_all(&session, 0, usize::MAX).await, session.last_seq());
    std::fs::remove_file(&filler).unwrap();
    log.retry();
    health.wait_for(|health| *health == Health::Fine).await.unwrap();
    appended.await.unwrap();
    assert_eq!(read_all(&session, 0, usize::MAX).await, 400);
    log.close().await;
    println!("filled");
}

/// Takes all the room that there is, but for this much. The store may take of it meanwhile.
fn fill(path: &Path, left: u64) {
    let found = nix::sys::statvfs::statvfs(path.parent().unwrap()).unwrap();
    let len = room(path) - left.div_ceil(found.fragment_size()) * found.fragment_size();
    let written = std::fs::write(path, vec![1; usize::try_from(len).unwrap()]);
    assert!(written.is_ok() || room(path) == 0, "{written:?}");
}

/// How much room there is beside this file, bytes.
fn room(path: &Path) -> u64 {
    let found = nix::sys::statvfs::statvfs(path.parent().unwrap()).unwrap();
    found.blocks_available() * found.fragment_size()
}

#[tokio::test]
#[ignore = "a part of the test below, which runs it on a small disk"]
async fn fills_its_disk_while_nothing_is_said() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let path = PathBuf::from(path);
    let filler = path.with_file_name("filler");
    let log = open(&path).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    let append = async |session: &SessionLog, count: u64| {
        let first = session.last_seq() + 1;
        let frames: Vec<u8> = (first..first + count)
            .flat_map(|seq| frame("one", seq, 16 * 1024))
            .collect();
        let batch = Batch::new(first, frames.into(), Sync::Power).unwrap();
        session.append(batch).await.unwrap()
    };
    // Room for what is committed first, some 5 MB before it is moved into the file, and not for that too. It is moved when
    // nothing is said for a while, and takes what is left.
    fill(&filler, 6 << 20);
    append(&session, 300).await.committed().await.unwrap();
    while room(&filler) > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(read_all(&session, 0, usize::MAX).await, 300);
    let waits = append(&session, 60).await;
    let mut health = log.health();
    health
        .wait_for(|health| matches!(health, Health::Failing { .. }))
        .await
        .unwrap();
    std::fs::remove_file(&filler).unwrap();
    waits.committed().await.unwrap();
    assert_eq!(*log.health().borrow(), Health::Fine);
    assert_eq!(read_all(&session, 0, usize::MAX).await, 360);

    // Closed while nothing can be moved, it is opened and read all the same.
    fill(&filler, 0);
    log.close().await;
    let log = open(&path).unwrap();
    assert_eq!(read_all(&log.session("one").unwrap(), 0, usize::MAX).await, 360);
    std::fs::remove_file(&filler).unwrap();
    log.close().await;
    // One that cannot be opened for want of room is no damaged one.
    fill(&filler, 0);
    let error = open(&path).unwrap_err();
    assert!(!matches!(error, OpenError::Damaged { .. }), "{error:?}");
    std::fs::remove_file(&filler).unwrap();
    let log = open(&path).unwrap();
    let session = log.session("one").unwrap();
    assert_eq!(read_all(&session, 0, usize::MAX).await, 360);
    assert_eq!(session.epoch(), 1);
    append(&session, 1).await.committed().await.unwrap();
    log.close().await;
    println!("filled");
}

/// Runs a part on a disk of its own that holds 20 MiB.
fn on_a_small_disk(name: &str) {
    let home = tempfile::tempdir().unwrap();
    let disk = home.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let inner = again(name, &disk.join("events.db"));
    let mut outer = Command::new("unshare");
    outer.args(["--user", "--map-root-user", "--mount", "--"]);
    outer.args([
        "sh",
        "-c",
        "mount -t tmpfs -o size=20m tmpfs \"$0\" || exit 77; exec \"$@\"",
    ]);
    outer.arg(&disk).arg(inner.get_program()).args(inner.get_args());
    outer.env(STORE, disk.join("events.db"));
    let output = outer.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(77) || (!output.status.success() && text.is_empty()) {
        eprintln!(
            "not run: this host gives no mount namespaces: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    assert!(
        output.status.success() && text.contains("filled"),
        "{text}{output:?}"
    );
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    on_a_small_disk("fills_its_disk");
}

#[test]
fn a_disk_that_is_full_when_a_store_is_moved_closed_or_opened_loses_nothing() {
    on_a_small_disk("fills_its_disk_while_nothing_is_said");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_is_appended_is_read_in_order(
        steps in prop::collection::vec((0_usize..3, 1_u64..20, any::<bool>(), any::<bool>()), 1..40),
        reads in prop::collection::vec((0_usize..3, 0_u64..200, 0_usize..2000), 1..10),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            // What is read counts, and not what a disk keeps: where memory holds files, no sync is waited for.
            let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
            let mut log = open(&store(&home)).unwrap();
            let ids = ["a", "b", "c"];
            for id in ids {
                log.create_session(id, Bytes::new()).await.unwrap();
            }
            let mut last = [0; 3];
            for (at, count, power, reopen) in steps {
                let session = log.session(ids[at]).unwrap();
                let sync = if power { Sync::Power } else { Sync::Process };
                let pending = session.append(batch(&session, last[at] + 1, count, sync)).await.unwrap();
                last[at] += count;
                if power {
                    pending.committed().await.unwrap();
                }
                if reopen {
                    log.close().await;
                    log = open(&store(&home)).unwrap();
                }
            }
            log.close().await;
            log = open(&store(&home)).unwrap();
            for (at, after, max_bytes) in reads {
                let session = log.session(ids[at]).unwrap();
                let after = after.min(last[at]);
                assert_eq!(read_all(&session, after, max_bytes).await, last[at]);
            }
            log.close().await;
        });
    }
}

#[tokio::test]
async fn messages_that_do_not_fit_in_one_answer_are_said_to_be_more() {
    let home = tempfile::tempdir().unwrap();
    let log = open(&store(&home)).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    let large = |idx: u64| MessageRow {
        idx,
        id: format!("m-{idx}"),
        frame: Bytes::from(vec![b'.'; 3 * 1024 * 1024]),
    };
    let ending = batch(&session, 1, 1, Sync::Process).with_messages(vec![large(0), large(1), large(2)]);
    session.append(ending).await.unwrap().committed().await.unwrap();
    for (after, more) in [(None, true), (Some(0), true), (Some(1), false)] {
        let (found, is_more) = session.messages(after, 10).await.unwrap();
        assert_eq!((found.len(), is_more), (1, more), "{after:?}");
    }
    log.close().await;
}

/// How much processor time opening may take: programs and SQLite are slow when they are not optimised. How long the disk
/// takes to sync says nothing of the number of events.
const OPEN_MAX: std::time::Duration =
    std::time::Duration::from_millis(if cfg!(debug_assertions) { 800 } else { 200 });

/// Processor time that this thread has had.
fn thread_time() -> std::time::Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    std::time::Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_store_of_a_million_events_is_opened_at_once_also_after_a_crash() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("events.db");
    let log = open(&path).unwrap();
    let mut pending = Vec::new();
    for at in 0..10 {
        let session = log
            .create_session(&format!("s-{at}"), Bytes::new())
            .await
            .unwrap();
        let frames: Vec<u8> = (0..500).flat_map(|seq| frame("x", seq, 100)).collect();
        for first in (1..100_000).step_by(500) {
            let batch = Batch::new(first, frames.clone().into(), Sync::Process).unwrap();
            let batch = batch.with_mark(Bytes::from(vec![b'm'; 2000]));
            pending.push(session.append(batch).await.unwrap());
        }
    }
    for pending in pending {
        pending.committed().await.unwrap();
    }
    // As a process that was killed leaves it: with what is in the write-ahead log.
    let crashed = home.path().join("crashed.db");
    for suffix in ["-wal", ""] {
        let beside = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        std::fs::copy(beside(&path), beside(&crashed)).unwrap();
    }
    log.close().await;
    for path in [path, crashed] {
        let mut fastest = std::time::Duration::MAX;
        for _ in 0..3 {
            let before = thread_time();
            let log = open(&path).unwrap();
            fastest = fastest.min(thread_time() - before);
            assert!(log.session("s-9").unwrap().last_seq() >= 99_000);
            log.close().await;
        }
        eprintln!("{} opened in {fastest:?}", path.display());
        assert!(fastest < OPEN_MAX, "{}: {fastest:?}", path.display());
    }
}

#[tokio::test]
async fn a_lone_event_is_committed_at_once_and_a_burst_in_few_rows() {
    let home = tempfile::tempdir().unwrap();
    let path = store(&home);
    let log = open(&path).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    let begun = std::time::Instant::now();
    append(&session, 1, Sync::Process).await;
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(5),
        "nothing waits for company"
    );
    let mut pending = Vec::new();
    for first in 2..=1001 {
        pending.push(
            session
                .append(batch(&session, first, 1, Sync::Process))
                .await
                .unwrap(),
        );
    }
    for pending in pending {
        pending.committed().await.unwrap();
    }
    log.close().await;
    let rows: u64 = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM batches", [], |row| row.get(0))
        .unwrap();
    assert!(rows < 501, "{rows} rows of 1001 events");
}

#[tokio::test]
#[ignore = "a part of the test below, which looks at its system calls"]
async fn appends_what_must_survive_power_loss_and_what_need_not() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let log = open(Path::new(&path)).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    for round in 0..20 {
        for sync in [Sync::Process, Sync::Power] {
            println!("append {sync:?} {round}");
            append(&session, 1, sync).await;
            println!("kept {sync:?} {round}");
        }
    }
    log.close().await;
}

#[test]
fn what_must_survive_power_loss_is_on_the_disk_before_it_is_said_to_be_kept() {
    let home = tempfile::tempdir().unwrap();
    let (path, trace) = (home.path().join("events.db"), home.path().join("trace"));
    let inner = again("appends_what_must_survive_power_loss_and_what_need_not", &path);
    let mut outer = Command::new("strace");
    outer.args(["-f", "-e", "trace=fsync,fdatasync,write", "-s", "40", "-o"]);
    outer.arg(&trace).arg(inner.get_program()).args(inner.get_args());
    outer
        .env(STORE, &path)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if !outer.status().is_ok_and(|status| status.success()) {
        eprintln!("not run: system calls cannot be looked at here (strace)");
        return;
    }
    let trace = std::fs::read_to_string(&trace).unwrap();
    let synced = |sync: &str, round: u32| {
        let at = |word: &str| trace.find(&format!("{word} {sync} {round}\\n")).unwrap();
        let between = &trace[at("append")..at("kept")];
        between.contains("sync(")
    };
    assert!((0..20).all(|round| synced("Power", round)), "{trace}");
    assert!(
        (0..20).any(|round| !synced("Process", round)),
        "a delta waits for the disk: {trace}"
    );
}

#[tokio::test]
async fn damage_that_only_a_reader_meets_is_noted_for_the_next_runner() {
    let home = tempfile::tempdir().unwrap();
    let path = store(&home);
    let log = open(&path).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    for _ in 0..64 {
        append_long(&session, 256 * 1024).await;
    }
    log.close().await;
    let log = open(&path).unwrap();
    let session = log.session("one").unwrap();
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let middle = u32::try_from(file.metadata().unwrap().len() / 2 / PAGE).unwrap();
    // A long row's pages each begin with the number of the next: one of them says what cannot be.
    let at = (middle..)
        .map(|page| u64::from(page - 1) * PAGE)
        .zip(middle + 1..);
    let (at, _) = { at }
        .find(|(at, next)| {
            let mut begins = [0; 4];
            file.read_exact_at(&mut begins, *at).unwrap();
            begins == next.to_be_bytes()
        })
        .unwrap();
    file.write_all_at(&[0xff; 4], at).unwrap();
    let mut after = 0;
    let error = loop {
        match session.read(after, 1024 * 1024).await {
            Ok(chunk) => after = chunk.expect("damage before the end").last_seq,
            Err(error) => break error,
        }
    };
    log.close().await;
    let again = open(&path).unwrap_err();
    assert!(
        matches!(again, OpenError::Damaged { .. }),
        "{error:?}, then {again:?}"
    );
}

/// One event of that length, synced.
async fn append_long(session: &SessionLog, len: usize) {
    let seq = session.last_seq() + 1;
    let batch = Batch::new(seq, frame(session.id(), seq, len).into(), Sync::Power).unwrap();
    session.append(batch).await.unwrap().committed().await.unwrap();
}

#[tokio::test]
async fn while_commits_come_without_a_pause_the_write_ahead_log_begins_anew_before_it_is_long() {
    let home = tempfile::tempdir().unwrap();
    let path = store(&home);
    let log = open(&path).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    let wal = path.with_extension("db-wal");
    let mut under_way = std::collections::VecDeque::new();
    let mut longest = 0;
    for seq in 1..=3000 {
        let batch = Batch::new(seq, frame("one", seq, 64 * 1024).into(), Sync::Process).unwrap();
        under_way.push_back(session.append(batch).await.unwrap());
        if under_way.len() > 16 {
            under_way.pop_front().unwrap().committed().await.unwrap();
        }
        longest = longest.max(wal.metadata().unwrap().len());
    }
    for appended in under_way {
        appended.committed().await.unwrap();
    }
    // 190 MiB went through it. After every 16 MiB of frames, which are more in its pages, it is looked at whether it is
    // longer than 64, and what is under way then comes on top.
    assert!(longest < 112 * 1024 * 1024, "{longest} bytes");
    log.close().await;
}
