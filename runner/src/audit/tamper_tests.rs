//! Whatever is done to a log by who has not the runner's key is found, and named.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

use super::chain::{Verifier, Wrong};
use super::record::{CHECKPOINT, Line, Record};
use super::seal::{Head, PublicKey};
use super::segment::{Segment, head_path};
use super::writer::Checkpoint;
use super::writer_tests::{Hand, entry, wrong};
use super::{Expected, VerifyError, verify};

/// How many records the log has that is tampered with.
const RECORDS: u64 = 100_000;

/// A log in memory.
struct Bed {
    key: PublicKey,
    head: Vec<u8>,
    files: Vec<Vec<Vec<u8>>>,
}

/// Writes a log of so many records or a few more, into files of that length.
fn bed(records: u64, file_len: u64) -> Bed {
    let home = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let dir = home.path().join("audit");
    let (mut writer, _) = hand.writer(&dir).unwrap();
    writer.rotate_at(file_len);
    for group in 0..records.div_ceil(500) {
        let first = group * 500;
        let entries = (first..records.min(first + 500)).map(entry).collect();
        writer.commit(entries, Checkpoint::WhenDue).unwrap();
    }
    let files = Segment::all(&dir).unwrap();
    let read = |segment: &Segment| {
        let text = fs::read(&segment.path).unwrap();
        text.split_inclusive(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect()
    };
    Bed {
        key: hand.key.clone(),
        head: fs::read(head_path(&dir)).unwrap(),
        files: files.iter().map(read).collect(),
    }
}

static LARGE: LazyLock<Bed> = LazyLock::new(|| bed(RECORDS, 8 * 1024 * 1024));

impl Bed {
    fn last(&self) -> u64 {
        self.files.iter().map(Vec::len).sum::<usize>() as u64
    }

    /// Verifies these lines as files that begin where the true ones do.
    fn verify(&self, files: &[Vec<&[u8]>]) -> Result<(), VerifyError> {
        let dir = tempfile::tempdir().unwrap();
        let mut first = 1;
        for (file, was) in files.iter().zip(&self.files) {
            fs::write(Segment::new(dir.path(), first).path, file.concat()).unwrap();
            first += was.len() as u64;
        }
        self.verify_in(dir.path(), &self.head)
    }

    fn verify_in(&self, dir: &Path, head: &[u8]) -> Result<(), VerifyError> {
        fs::write(head_path(dir), head).unwrap();
        verify(dir, &Expected::default(), Some(&self.key)).map(|_| ())
    }

    fn lines(&self) -> Vec<Vec<&[u8]>> {
        self.files
            .iter()
            .map(|file| file.iter().map(Vec::as_slice).collect())
            .collect()
    }

    /// In which file, and where there, a record is.
    fn place(&self, seq: u64) -> (usize, usize) {
        let mut at = (seq - 1) as usize;
        for (file, lines) in self.files.iter().enumerate() {
            if at < lines.len() {
                return (file, at);
            }
            at -= lines.len();
        }
        panic!("there is no record {seq}");
    }

    fn line(&self, seq: u64) -> &[u8] {
        let (file, at) = self.place(seq);
        &self.files[file][at]
    }
}

/// What somebody does to a log. Records are chosen from all there are.
#[derive(Clone, Debug)]
enum Tampering {
    Flip { record: Index, byte: Index, bit: u8 },
    Remove { record: Index },
    RemoveMany { record: Index, count: usize },
    Swap { one: Index, other: Index },
    Duplicate { record: Index, after: Index },
    Insert { after: Index },
    Replace { record: Index },
    Cut { record: Index, byte: Index },
    RemoveFile { file: Index },
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let any = any::<Index>;
    prop_oneof![
        3 => (any(), any(), 0..8_u8).prop_map(|(record, byte, bit)| Tampering::Flip { record, byte, bit }),
        1 => any().prop_map(|record| Tampering::Remove { record }),
        1 => (any(), 2..2000_usize).prop_map(|(record, count)| Tampering::RemoveMany { record, count }),
        1 => (any(), any()).prop_map(|(one, other)| Tampering::Swap { one, other }),
        1 => (any(), any()).prop_map(|(record, after)| Tampering::Duplicate { record, after }),
        1 => any().prop_map(|after| Tampering::Insert { after }),
        1 => any().prop_map(|record| Tampering::Replace { record }),
        1 => (any(), any()).prop_map(|(record, byte)| Tampering::Cut { record, byte }),
        1 => any().prop_map(|file| Tampering::RemoveFile { file }),
    ]
}

/// A record that somebody made who has no key: everything in it fits together.
fn made_up(after: &[u8], seq: u64) -> Vec<u8> {
    let before = Line::read(&after[..after.len() - 1]).unwrap();
    let mut line = Vec::new();
    Record::new(seq, 1, before.hash, entry(7))
        .write(&mut line)
        .unwrap();
    line
}

/// Does it, and gives what has to be found; `None` where nothing is changed.
#[expect(clippy::too_many_lines, reason = "one arm a tampering")]
fn tamper(bed: &Bed, tampering: &Tampering) -> Option<(Result<(), VerifyError>, Wrong)> {
    let last = bed.last();
    let seq_of = |index: &Index| index.index(last as usize) as u64 + 1;
    let mut files = bed.lines();
    let changed;
    let expected = match tampering {
        Tampering::Flip { record, byte, bit } => {
            let seq = seq_of(record);
            let (file, at) = bed.place(seq);
            let mut line = bed.line(seq).to_vec();
            let byte = byte.index(line.len());
            let is_end = byte + 1 == line.len();
            line[byte] ^= 1 << bit;
            changed = line;
            files[file][at] = &changed;
            if seq == last && is_end {
                Wrong::CutShort {
                    last: last - 1,
                    signed: last,
                }
            } else {
                Wrong::Changed { seq }
            }
        }
        Tampering::Remove { record } => {
            let seq = seq_of(record);
            let (file, at) = bed.place(seq);
            files[file].remove(at);
            missing(seq, seq, last)
        }
        Tampering::RemoveMany { record, count } => {
            let first = seq_of(record);
            let (file, at) = bed.place(first);
            let end = files[file].len().min(at + count);
            files[file].drain(at..end);
            missing(first, first + (end - at) as u64 - 1, last)
        }
        Tampering::Swap { one, other } => {
            let (one, other) = (seq_of(one), seq_of(other));
            let (seq, after) = (one.min(other), one.max(other));
            if seq == after {
                return None;
            }
            let ((file, at), (other_file, other_at)) = (bed.place(seq), bed.place(after));
            files[file][at] = bed.line(after);
            files[other_file][other_at] = bed.line(seq);
            Wrong::OutOfOrder { seq, after }
        }
        Tampering::Duplicate { record, after } => {
            let (seq, after) = (seq_of(record), seq_of(after));
            let (file, at) = bed.place(after);
            files[file].insert(at + 1, bed.line(seq));
            if seq <= after {
                Wrong::Repeated { seq, after }
            } else if seq == after + 1 {
                // It stands where it should, and the true one is the second.
                Wrong::Repeated { seq, after: seq }
            } else {
                // What comes next stands behind what was put before it.
                Wrong::OutOfOrder {
                    seq: after + 1,
                    after: seq,
                }
            }
        }
        Tampering::Insert { after } => {
            let after = seq_of(after);
            if after == last {
                return None;
            }
            let (file, at) = bed.place(after);
            changed = made_up(bed.line(after), after + 1);
            files[file].insert(at + 1, &changed);
            if after + 1 == last {
                Wrong::NotSigned { seq: last }
            } else {
                Wrong::Repeated {
                    seq: after + 1,
                    after: after + 1,
                }
            }
        }
        Tampering::Replace { record } => {
            let seq = seq_of(record);
            if seq == 1 {
                return None;
            }
            let (file, at) = bed.place(seq);
            changed = made_up(bed.line(seq - 1), seq);
            files[file][at] = &changed;
            if seq == last {
                Wrong::NotSigned { seq }
            } else {
                Wrong::Replaced { seq: seq + 1 }
            }
        }
        Tampering::Cut { record, byte } => {
            let seq = seq_of(record);
            let (file, at) = bed.place(seq);
            let line = bed.line(seq);
            files.truncate(file + 1);
            files[file].truncate(at);
            files[file].push(&line[..byte.index(line.len())]);
            Wrong::CutShort {
                last: seq - 1,
                signed: last,
            }
        }
        Tampering::RemoveFile { file } => {
            let file = file.index(files.len());
            let first = 1 + bed.files[..file].iter().map(Vec::len).sum::<usize>() as u64;
            let count = files[file].len() as u64;
            files[file].clear();
            missing(first, first + count - 1, last)
        }
    };
    Some((bed.verify(&files), expected))
}

fn missing(first: u64, to: u64, last: u64) -> Wrong {
    if to == last {
        return Wrong::CutShort {
            last: first - 1,
            signed: last,
        };
    }
    Wrong::Missing { first, last: to }
}

#[test]
fn a_pipe_or_a_link_among_the_files_is_refused_and_not_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let dir = home.path().join("audit");
    let (mut writer, _) = hand.writer(&dir).unwrap();
    writer.commit(vec![entry(0)], Checkpoint::WhenDue).unwrap();
    drop(writer);
    let verified = || verify(&dir, &Expected::default(), Some(&hand.key));
    verified().unwrap();
    for path in [Segment::new(&dir, 1_000_000).path, head_path(&dir)] {
        fs::rename(&path, home.path().join("moved")).ok();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = verified().unwrap_err();
        assert!(
            matches!(&error, VerifyError::Io { path: found, .. } if *found == path),
            "{error:?}"
        );
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let error = verified().unwrap_err();
        assert!(
            matches!(&error, VerifyError::Io { path: found, .. } if *found == path),
            "{error:?}"
        );
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn whatever_is_done_to_a_hundred_thousand_records_is_found_and_named() {
    LARGE.verify(&LARGE.lines()).unwrap();
    assert!(LARGE.last() > RECORDS && LARGE.files.len() > 3);
    let config = ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let found = TestRunner::new(config).run(&tampering(), |tampering| {
        if let Some((found, expected)) = tamper(&LARGE, &tampering) {
            let found = found.expect_err("it is found");
            prop_assert_eq!(wrong(found), expected);
        }
        Ok(())
    });
    found.unwrap();
}

#[test]
fn whatever_is_done_to_a_few_records_is_found_and_named() {
    let bed = bed(40, 4000);
    bed.verify(&bed.lines()).unwrap();
    let config = ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let found = TestRunner::new(config).run(&tampering(), |tampering| {
        if let Some((found, expected)) = tamper(&bed, &tampering) {
            let found = found.expect_err("it is found");
            prop_assert_eq!(wrong(found), expected);
        }
        Ok(())
    });
    found.unwrap();
}

#[test]
fn every_bit_of_every_byte_of_a_record_counts() {
    let bed = bed(4, u64::MAX);
    let head = Head::from_bytes(&bed.head).unwrap();
    let lines: Vec<&[u8]> = bed.files[0].iter().map(|line| &line[..line.len() - 1]).collect();
    for (at, line) in lines.iter().enumerate() {
        for bit in 0..line.len() * 8 {
            let mut changed = line.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut verifier = Verifier::new(1, &[], Some(&head), Some(&bed.key));
            let mut found = Ok(());
            for (other, line) in lines.iter().enumerate() {
                found = found.and_then(|()| verifier.line(if other == at { &changed } else { line }));
            }
            let seq = at as u64 + 1;
            assert_eq!(found, Err(Wrong::Changed { seq }), "bit {bit}");
        }
    }
}

#[test]
fn every_bit_of_the_head_counts_and_so_does_its_absence() {
    let bed = bed(4, u64::MAX);
    let dir = tempfile::tempdir().unwrap();
    fs::write(Segment::new(dir.path(), 1).path, bed.files[0].concat()).unwrap();
    bed.verify_in(dir.path(), &bed.head).unwrap();
    for bit in 0..bed.head.len() * 8 {
        let mut changed = bed.head.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let found = bed.verify_in(dir.path(), &changed);
        assert!(
            matches!(
                found,
                Err(VerifyError::HeadDamaged { .. } | VerifyError::HeadForged { .. })
            ),
            "bit {bit}: {found:?}"
        );
    }
    assert!(matches!(
        bed.verify_in(dir.path(), b""),
        Err(VerifyError::NoHead { .. })
    ));
}

/// Who has no key can make a chain of their own, but sign none of it.
#[test]
fn a_rest_that_was_written_anew_does_not_get_past_the_next_checkpoint() {
    let bed = bed(2000, u64::MAX);
    let mut files = [bed.files[0].clone()];
    let mut next = None;
    for at in 500..files[0].len() {
        let line = files[0][at].clone();
        let line = Line::read(&line[..line.len() - 1]).unwrap();
        if line.says(CHECKPOINT) && next.is_none() {
            next = Some(line.seq);
        }
        let before = files[0][at - 1].clone();
        let before = Line::read(&before[..before.len() - 1]).unwrap();
        let mut record = line.record().unwrap();
        record.prev = before.hash;
        record.control = Some("somebody-else".parse().unwrap());
        let mut anew = Vec::new();
        record.write(&mut anew).unwrap();
        files[0][at] = anew;
    }
    let lines = vec![files[0].iter().map(Vec::as_slice).collect()];
    let found = wrong(bed.verify(&lines).unwrap_err());
    assert_eq!(found, Wrong::Forged { seq: next.unwrap() });
}

/// The bound of what is found, so that nobody believes more: behind the newest signature nothing but the chain speaks.
#[test]
fn what_is_added_behind_the_newest_signature_is_said_to_be_unsigned() {
    let bed = bed(4, u64::MAX);
    let dir = tempfile::tempdir().unwrap();
    let added = made_up(bed.line(bed.last()), bed.last() + 1);
    let text = [bed.files[0].concat(), added].concat();
    fs::write(Segment::new(dir.path(), 1).path, text).unwrap();
    fs::write(head_path(dir.path()), &bed.head).unwrap();
    let found = verify(dir.path(), &Expected::default(), Some(&bed.key)).unwrap();
    assert_eq!((found.whole.last, found.whole.unsigned), (bed.last() + 1, 1));
}
