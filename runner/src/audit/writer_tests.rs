//! What the writer leaves, whenever it dies.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use oqto_protocol::id::RunnerId;
use rcgen::{PublicKeyData as _, SigningKey as _};

use super::chain::Wrong;
use super::log::OpenError;
use super::segment::{Segment, head_path};
use super::writer::{Checkpoint, Left, Writer};
use super::{Entry, Expected, Found, Log, Outcome, PublicKey, Settings, Sign, VerifyError, seal, verify};

/// A key and what it signs.
pub(super) struct Hand {
    pub(super) key: PublicKey,
    pub(super) sign: Sign,
}

impl Hand {
    pub(super) fn new() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self {
            key: PublicKey(pair.der_bytes().to_vec()),
            sign: Arc::new(move |message| pair.sign(message).map_err(|_| seal::NoSignature)),
        }
    }

    pub(super) fn writer(&self, dir: &Path) -> Result<(Writer, Left), OpenError> {
        Writer::open(dir, runner(), &self.key, self.sign.clone(), &Settings::default())
    }

    fn verify(&self, dir: &Path) -> Result<Found, VerifyError> {
        verify(dir, &Expected::default(), Some(&self.key))
    }
}

pub(super) fn runner() -> RunnerId {
    "r-test".parse().unwrap()
}

/// As many bytes as a record of a command has.
pub(super) fn entry(number: u64) -> Entry {
    let mut entry = Entry::new("prompt", Outcome::Allowed);
    entry.authority = Some("an-authority".parse().unwrap());
    entry.control = Some("a-control".parse().unwrap());
    entry.session = Some(format!("s-{number}").parse().unwrap());
    entry.arguments = Some(super::record::digest_of(&[&number.to_le_bytes()]));
    entry
}

pub(super) fn wrong(error: VerifyError) -> Wrong {
    match error {
        VerifyError::Wrong { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

/// A directory for what is cut at each byte and written on: where memory holds files, no sync is waited for.
fn fleeting() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_log_goes_on_where_it_was_left_through_files_and_starts() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("audit");
    let hand = Hand::new();
    let mut written = 0;
    for _ in 0..4 {
        let (mut writer, left) = hand.writer(&dir).unwrap();
        assert_eq!(left, Left::default());
        writer.rotate_at(2000);
        for _ in 0..5 {
            writer
                .commit(vec![entry(written), entry(written + 1)], Checkpoint::WhenDue)
                .unwrap();
            written += 2;
        }
    }
    let found = hand.verify(&dir).unwrap();
    assert!(
        found.files > 3 && found.whole.checkpoints >= found.files as u64,
        "{found:?}"
    );
    assert_eq!(found.whole.last, written + found.whole.checkpoints);
    assert_eq!(found.whole.unsigned, 0);
    for file in fs::read_dir(&dir).unwrap() {
        assert_eq!(
            file.unwrap().metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    // Older files may be taken elsewhere, by who says so.
    let oldest = Segment::all(&dir).unwrap();
    fs::remove_file(&oldest[0].path).unwrap();
    let last = oldest[1].first - 1;
    assert_eq!(
        wrong(hand.verify(&dir).unwrap_err()),
        Wrong::Missing { first: 1, last }
    );
    let from = Expected {
        from: Some(last + 1),
        anchors: Vec::new(),
    };
    verify(&dir, &from, Some(&hand.key)).unwrap();
}

/// Where a write is cut is where a process or the host died: whatever of it is there, what was acknowledged is, and the log
/// goes on.
#[test]
fn a_crash_at_any_byte_of_a_group_loses_nothing_that_was_acknowledged() {
    let home = fleeting();
    let hand = Hand::new();
    let dir = home.path().join("audit");
    let (mut writer, _) = hand.writer(&dir).unwrap();
    writer
        .commit(vec![entry(1), entry(2)], Checkpoint::WhenDue)
        .unwrap();
    let acknowledged = hand.verify(&dir).unwrap();
    let head = fs::read(head_path(&dir)).unwrap();
    let path = Segment::new(&dir, 1).path;
    let before = fs::metadata(&path).unwrap().len() as usize;
    writer
        .commit(vec![entry(3), entry(4)], Checkpoint::WhenDue)
        .unwrap();
    let signed = fs::read(head_path(&dir)).unwrap();
    let whole = fs::read(&path).unwrap();
    for len in before..=whole.len() {
        let died = home.path().join(format!("died-{len}"));
        copy(&dir, &died);
        fs::write(Segment::new(&died, 1).path, &whole[..len]).unwrap();
        fs::write(head_path(&died), &head).unwrap();
        let (mut writer, left) = hand.writer(&died).unwrap();
        let torn = whole[..len]
            .iter()
            .rev()
            .take_while(|byte| **byte != b'\n')
            .count();
        let ended = whole[before..len].iter().filter(|byte| **byte == b'\n').count();
        let expected = Left {
            torn_len: torn as u64,
            unsigned: ended as u64,
        };
        assert_eq!(left, expected, "{len}");
        writer.commit(vec![entry(5)], Checkpoint::WhenDue).unwrap();
        let found = hand.verify(&died).unwrap();
        assert_eq!(found.whole.last, acknowledged.whole.last + left.unsigned + 1);
        assert!(
            fs::read(Segment::new(&died, 1).path)
                .unwrap()
                .starts_with(&whole[..before])
        );

        // Acknowledged, and then cut: no crash does that.
        if len < whole.len() {
            fs::write(Segment::new(&died, 1).path, &whole[..len]).unwrap();
            fs::write(head_path(&died), &signed).unwrap();
            let Err(OpenError::Damaged(error)) = hand.writer(&died) else {
                panic!("{len} was opened");
            };
            let last = acknowledged.whole.last + left.unsigned;
            let signed = acknowledged.whole.last + 2;
            assert_eq!(wrong(error), Wrong::CutShort { last, signed });
            assert_eq!(fs::read(Segment::new(&died, 1).path).unwrap(), whole[..len]);
        }
        fs::remove_dir_all(died).unwrap();
    }
}

#[test]
fn a_crash_at_any_byte_of_a_new_file_loses_nothing_that_was_acknowledged() {
    let home = fleeting();
    let hand = Hand::new();
    let dir = home.path().join("audit");
    let (mut writer, _) = hand.writer(&dir).unwrap();
    writer.rotate_at(1);
    let empty = fs::read(head_path(&dir)).unwrap();
    writer.commit(vec![entry(1)], Checkpoint::WhenDue).unwrap();
    let head = fs::read(head_path(&dir)).unwrap();
    let acknowledged = hand.verify(&dir).unwrap().whole.last;
    writer.commit(vec![entry(2)], Checkpoint::WhenDue).unwrap();
    let path = Segment::new(&dir, acknowledged + 1).path;
    let whole = fs::read(&path).unwrap();
    // The head of before, and one that a loss of power left behind.
    for (head, behind) in [(&head, 0), (&empty, acknowledged)] {
        for len in 0..=whole.len() {
            let died = home.path().join("died");
            copy(&dir, &died);
            fs::write(Segment::new(&died, acknowledged + 1).path, &whole[..len]).unwrap();
            fs::write(head_path(&died), head).unwrap();
            let (mut writer, left) = hand.writer(&died).unwrap();
            let ended = whole[..len].iter().filter(|byte| **byte == b'\n').count() as u64;
            assert_eq!(left.unsigned, ended + behind, "{len}");
            writer.commit(vec![entry(3)], Checkpoint::WhenDue).unwrap();
            let found = hand.verify(&died).unwrap();
            assert!(found.whole.last > acknowledged + ended, "{len}: {found:?}");
            let first = fs::read(Segment::new(&dir, 1).path).unwrap();
            assert!(fs::read(Segment::new(&died, 1).path).unwrap().starts_with(&first));
            fs::remove_dir_all(died).unwrap();
        }
    }
}

#[test]
fn a_file_that_was_just_begun_when_the_runner_died_is_begun_again() {
    let home = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let dir = home.path().join("audit");
    let (mut writer, _) = hand.writer(&dir).unwrap();
    writer.commit(vec![entry(1)], Checkpoint::WhenDue).unwrap();
    let found = hand.verify(&dir).unwrap();
    drop(writer);
    fs::write(Segment::new(&dir, found.whole.last + 1).path, "").unwrap();
    let (mut writer, left) = hand.writer(&dir).unwrap();
    assert_eq!(left, Left::default());
    writer.commit(vec![entry(2)], Checkpoint::WhenDue).unwrap();
    // It begins with a checkpoint, as every file.
    let again = hand.verify(&dir).unwrap();
    assert_eq!((again.files, again.whole.last), (2, found.whole.last + 2));
}

#[test]
fn a_log_that_is_not_as_it_was_left_is_not_gone_on_with() {
    let home = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let dir = home.path().join("audit");
    let (mut writer, _) = hand.writer(&dir).unwrap();
    writer
        .commit(vec![entry(1), entry(2)], Checkpoint::WhenDue)
        .unwrap();
    drop(writer);
    let path = Segment::new(&dir, 1).path;
    let whole = fs::read(&path).unwrap();
    let head = fs::read(head_path(&dir)).unwrap();

    let mut changed = whole.clone();
    changed[40] ^= 1;
    fs::write(&path, changed).unwrap();
    assert!(matches!(hand.writer(&dir), Err(OpenError::Damaged(_))));
    fs::remove_file(&path).unwrap();
    assert!(
        matches!(hand.writer(&dir), Err(OpenError::Damaged(_))),
        "all of it is gone"
    );
    fs::write(&path, &whole).unwrap();
    fs::remove_file(head_path(&dir)).unwrap();
    assert!(
        matches!(hand.writer(&dir), Err(OpenError::Damaged(_))),
        "its head is gone"
    );
    fs::write(head_path(&dir), head).unwrap();
    assert!(
        matches!(Hand::new().writer(&dir), Err(OpenError::Damaged(_))),
        "another key's"
    );
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(hand.writer(&dir), Err(OpenError::Exposed { .. })));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    hand.writer(&dir).unwrap();
}

#[tokio::test]
async fn many_at_once_are_each_recorded_once_and_strangers_are_one_record() {
    let home = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let dir = home.path().join("audit");
    let log = Log::open(&dir, runner(), &hand.key, hand.sign.clone(), Settings::default()).unwrap();
    let log = Arc::new(log);
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..3000 {
        let log = log.clone();
        asked.spawn(async move { log.record(entry(number)).await });
    }
    while let Some(answered) = asked.join_next().await {
        answered.unwrap().unwrap();
    }
    for _ in 0..1000 {
        log.count_stranger();
    }
    log.close().await;
    assert!(log.record(entry(0)).await.is_err(), "it is closed");
    let found = hand.verify(&dir).unwrap();
    let text = fs::read_to_string(Segment::new(&dir, 1).path).unwrap();
    let records: Vec<super::Record> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records.len() as u64, found.whole.last);
    let said = |what: &str| {
        records
            .iter()
            .filter(|record| record.what == what)
            .collect::<Vec<_>>()
    };
    assert_eq!(said("prompt").len(), 3000);
    let numbers: std::collections::BTreeSet<_> = said("prompt")
        .iter()
        .map(|record| record.session.clone().unwrap())
        .collect();
    assert_eq!(numbers.len(), 3000);
    let strangers = said("connection.open");
    assert_eq!((strangers.len(), strangers[0].count), (1, Some(1000)));
    assert_eq!((said("audit.start").len(), said("audit.stop").len()), (1, 1));
    assert_eq!(said("audit.checkpoint").len() as u64, found.whole.checkpoints);
    assert!(
        found.whole.checkpoints >= 5,
        "at a start, a stop, and every 1024 records"
    );
    assert_eq!(records.last().unwrap().what, "audit.checkpoint");
}

#[tokio::test]
async fn whatever_is_said_in_a_record_it_is_written_and_so_are_those_beside_it() {
    let home = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let dir = home.path().join("audit");
    let log = Log::open(&dir, runner(), &hand.key, hand.sign.clone(), Settings::default()).unwrap();
    let long = "\u{202e}\"\\\u{1}\n".repeat(4000);
    let mut entry = Entry::new("session.create", Outcome::Refused);
    for name in [&mut entry.detail, &mut entry.reason] {
        *name = Some(long.clone());
    }
    entry.on_behalf_of = Some("\"".repeat(256));
    let name = "a".repeat(63);
    entry.authority = Some(name.parse().unwrap());
    entry.control = Some(name.parse().unwrap());
    entry.session = Some(name.parse().unwrap());
    entry.arguments = Some(super::record::digest_of(&[]));
    entry.policy = Some(super::record::digest_of(&[]));
    entry.address = Some("[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap());
    entry.count = Some(u64::MAX);
    let (first, second) = tokio::join!(log.record(entry), log.record(self::entry(1)));
    first.unwrap();
    second.unwrap();
    log.close().await;
    hand.verify(&dir).unwrap();
}
