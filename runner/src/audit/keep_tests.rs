//! How long a log gets, who hears of it, and what somebody else's copy of its head is good for.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use super::chain::Wrong;
use super::record::{Line, Record};
use super::seal::Head;
use super::segment::{Segment, head_path};
use super::writer::{Checkpoint, Writer};
use super::writer_tests::{Hand, entry, runner, wrong};
use super::{Anchor, AtBound, Expected, Log, Settings, Sink, Tail, TailError, verify};

/// How long a file gets here, bytes.
const FILE_LEN: u64 = 4000;

fn bounded(keep_len: u64, at_bound: AtBound) -> Settings {
    Settings {
        keep_len,
        at_bound,
        sinks: Vec::new(),
    }
}

fn writer(hand: &Hand, dir: &Path, settings: &Settings) -> Writer {
    let (mut writer, _) = Writer::open(dir, runner(), &hand.key, hand.sign.clone(), settings).unwrap();
    writer.rotate_at(FILE_LEN);
    writer
}

fn len(dir: &Path) -> u64 {
    let files = Segment::all(dir).unwrap();
    files
        .iter()
        .map(|file| fs::metadata(&file.path).unwrap().len())
        .sum()
}

fn expecting(anchor: Anchor) -> Expected {
    Expected {
        from: None,
        anchors: vec![anchor],
    }
}

#[test]
fn at_its_bound_a_log_takes_nothing_until_somebody_has_made_room() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("audit");
    let hand = Hand::new();
    let settings = bounded(5 * FILE_LEN, AtBound::Stop);
    let mut writer = writer(&hand, &dir, &settings);
    let mut written = 0;
    let refused = loop {
        match writer.commit(vec![entry(written)], Checkpoint::WhenDue) {
            Ok(_) => written += 1,
            Err(refused) => break refused,
        }
    };
    assert!(refused.to_string().contains("[audit] keep_bytes"), "{refused}");
    assert!(len(&dir) <= settings.keep_len && len(&dir) > settings.keep_len - 1000);
    let before = verify(&dir, &Expected::default(), Some(&hand.key)).unwrap();
    writer
        .commit(vec![entry(written)], Checkpoint::WhenDue)
        .unwrap_err();
    let files = Segment::all(&dir).unwrap();
    let oldest = home.path().join("elsewhere");
    fs::rename(&files[0].path, &oldest).unwrap();
    writer.commit(vec![entry(written)], Checkpoint::WhenDue).unwrap();
    let missing = verify(&dir, &Expected::default(), Some(&hand.key)).unwrap_err();
    let last = files[1].first - 1;
    assert_eq!(wrong(missing), Wrong::Missing { first: 1, last });
    fs::rename(&oldest, &files[0].path).unwrap();
    let after = verify(&dir, &Expected::default(), Some(&hand.key)).unwrap();
    assert!(after.whole.last > before.whole.last);
}

#[test]
fn where_the_oldest_file_goes_the_log_says_so_and_nothing_else_may_be_gone() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("audit");
    let hand = Hand::new();
    let settings = bounded(5 * FILE_LEN, AtBound::Rotate);
    for start in 0..3 {
        let mut writer = writer(&hand, &dir, &settings);
        for at in 0..80 {
            writer
                .commit(vec![entry(start * 80 + at)], Checkpoint::WhenDue)
                .unwrap();
            assert!(len(&dir) <= settings.keep_len + 1000, "{}", len(&dir));
        }
    }
    let found = verify(&dir, &Expected::default(), Some(&hand.key)).unwrap();
    assert!(found.first > 1 && found.files >= 3, "{found:?}");
    assert_eq!(found.whole.removed, found.first - 1);
    let files = Segment::all(&dir).unwrap();
    fs::remove_file(&files[0].path).unwrap();
    let missing = verify(&dir, &Expected::default(), Some(&hand.key)).unwrap_err();
    let gone = Wrong::Missing {
        first: files[0].first,
        last: files[1].first - 1,
    };
    assert_eq!(wrong(missing), gone);
}

#[test]
fn what_the_keys_owner_writes_anew_is_found_by_who_kept_a_head_or_a_record_elsewhere() {
    let home = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let dir = home.path().join("audit");
    let settings = Settings::default();
    let mut writer = self::writer(&hand, &dir, &settings);
    for at in 0..10 {
        writer.commit(vec![entry(at)], Checkpoint::WhenDue).unwrap();
    }
    let kept = Head::from_bytes(&fs::read(head_path(&dir)).unwrap()).unwrap();
    assert!(kept.is_signed_by(&hand.key));
    let anchor = Anchor {
        seq: kept.seq,
        hash: kept.hash,
    };
    writer.commit(vec![entry(10)], Checkpoint::WhenDue).unwrap();
    verify(&dir, &expecting(anchor), Some(&hand.key)).unwrap();

    // Root, with the key: another log, as long, and a shorter one.
    for (entries, found) in [
        (20, Wrong::NotExpected { seq: anchor.seq }),
        (
            3,
            Wrong::EndsBefore {
                last: 4,
                expected: anchor.seq,
            },
        ),
    ] {
        let anew = home.path().join(format!("anew-{entries}"));
        let mut writer = self::writer(&hand, &anew, &settings);
        for at in 0..entries {
            writer.commit(vec![entry(100 + at)], Checkpoint::WhenDue).unwrap();
        }
        verify(&anew, &Expected::default(), Some(&hand.key)).expect("by itself it is whole");
        let error = verify(&anew, &expecting(anchor), Some(&hand.key)).unwrap_err();
        assert_eq!(wrong(error), found);
    }
}

#[test]
fn who_follows_a_log_reads_every_record_once_through_all_its_files() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("audit");
    let hand = Hand::new();
    let mut writer = writer(&hand, &dir, &Settings::default());
    let mut tail = Tail::new(&dir, 1);
    let mut late = Tail::new(&dir, 40);
    let mut read = Vec::new();
    for at in 0..60 {
        writer
            .commit(vec![entry(at), entry(at)], Checkpoint::WhenDue)
            .unwrap();
        if at % 7 == 0 {
            read.extend(tail.read(writer.last()).unwrap());
        }
    }
    loop {
        let more = tail.read(writer.last()).unwrap();
        if more.is_empty() {
            break;
        }
        read.extend(more);
    }
    let seqs: Vec<_> = read.iter().map(|line| Line::read(line).unwrap().seq).collect();
    assert_eq!(seqs, (1..=writer.last()).collect::<Vec<_>>());
    assert_eq!(late.read(41).unwrap(), read[39..41]);
    assert_eq!(late.read(41).unwrap(), Vec::<Vec<u8>>::new());
    fs::remove_file(&Segment::all(&dir).unwrap()[0].path).unwrap();
    let gone = Tail::new(&dir, 1).read(writer.last()).unwrap_err();
    assert!(matches!(gone, TailError::Gone { seq: 1 }), "{gone:?}");
    // What no file has is not waited for.
    let last = writer.last();
    let mut beyond = Tail::new(&dir, last);
    assert_eq!(beyond.read(last + 1).unwrap().len(), 1);
    let gone = beyond.read(last + 1).unwrap_err();
    assert!(
        matches!(gone, TailError::Gone { seq } if seq == last + 1),
        "{gone:?}"
    );
}

/// A log with these sinks.
fn told(hand: &Hand, dir: &Path, sinks: Vec<Sink>) -> Log {
    let settings = Settings {
        sinks,
        ..Settings::default()
    };
    Log::open(dir, runner(), &hand.key, hand.sign.clone(), settings).unwrap()
}

fn records(dir: &Path) -> Vec<Record> {
    let text = fs::read_to_string(&Segment::all(dir).unwrap()[0].path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn every_record_is_told_to_the_journal_and_to_syslog_once_it_is_on_disk() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("audit");
    let hand = Hand::new();
    let [journal, syslog] = ["journal", "log"].map(|name| home.path().join(name));
    let heard = [&journal, &syslog].map(|path| UnixDatagram::bind(path).unwrap());
    let log = told(&hand, &dir, vec![Sink::Journal(journal), Sink::Syslog(syslog)]);
    for at in 0..3 {
        log.record(entry(at)).await.unwrap();
    }
    log.close().await;
    let written = fs::read_to_string(&Segment::all(&dir).unwrap()[0].path).unwrap();
    for socket in heard {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for line in written.lines() {
            let mut bytes = vec![0; 64 * 1024];
            let len = socket.recv(&mut bytes).unwrap();
            let text = String::from_utf8(bytes[..len].to_vec()).unwrap();
            assert!(text.contains(line), "{text}\n{line}");
        }
    }
    assert!(!records(&dir).iter().any(|record| record.what == "audit.unheard"));
}

#[tokio::test]
async fn a_sink_that_takes_nothing_holds_up_nobody_and_what_it_missed_is_said() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("audit");
    let hand = Hand::new();
    let [full, absent] = ["full", "absent"].map(|name| home.path().join(name));
    // Nobody reads it: a few datagrams fill it.
    let _unread = UnixDatagram::bind(&full).unwrap();
    let log = told(&hand, &dir, vec![Sink::Journal(full), Sink::Syslog(absent)]);
    let begun = Instant::now();
    for at in 0..100 {
        log.record(entry(at)).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    // All that it has is tried at once; the other takes its time, and is not waited for.
    tokio::time::timeout(Duration::from_secs(20), async {
        while log.unheard()[1] < 101 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    log.close().await;
    let unheard: Vec<_> = records(&dir)
        .into_iter()
        .filter(|record| record.what == "audit.unheard")
        .collect();
    let syslog = unheard
        .iter()
        .find(|record| {
            record
                .detail
                .as_deref()
                .is_some_and(|detail| detail.contains("syslog"))
        })
        .expect("a record of what was not heard");
    assert!(syslog.count >= Some(101), "{syslog:?}");
    verify(&dir, &Expected::default(), Some(&hand.key)).unwrap();
}
