//! The audit log on a disk that is full.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

use oqto_runner::audit::segment::Segment;
use oqto_runner::audit::{Entry, Expected, Log, Outcome, PublicKey, Record, Settings, verify};
use oqto_runner::identity::Key;

/// Where the small disk is, for the half of a test that runs on it.
const DISK: &str = "OQTO_TEST_AUDIT_DISK";

/// More than the room that a log keeps, in records.
const TRIES_MAX: usize = 20_000;

fn open(dir: &Path) -> (Log, PublicKey) {
    let key = Key::generate().unwrap();
    let public = PublicKey(key.public().to_vec());
    let sign = std::sync::Arc::new(move |message: &[u8]| Ok(key.sign(message).unwrap()));
    let log = Log::open(dir, "r-test".parse().unwrap(), &public, sign, Settings::default()).unwrap();
    (log, public)
}

fn entry() -> Entry {
    let mut entry = Entry::new("prompt", Outcome::Allowed);
    entry.control = Some("a-control".parse().unwrap());
    entry
}

#[test]
fn a_full_disk_refuses_what_needs_a_record_and_says_so_when_there_is_room() {
    let home = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=4m tmpfs \"$0\" || exit 77; exec \"$@\"";
    let mut outer = Command::new("unshare");
    outer.args(["--user", "--map-root-user", "--mount", "--", "sh", "-c", script]);
    outer.arg(home.path()).arg(std::env::current_exe().unwrap());
    outer.args(["--exact", "fills_its_disk", "--nocapture", "--include-ignored"]);
    outer.env(DISK, home.path());
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

#[tokio::test]
#[ignore = "the inner half of the test above, which runs it on a disk of its own"]
async fn fills_its_disk() {
    let Some(disk) = std::env::var_os(DISK).map(PathBuf::from) else {
        return;
    };
    let dir = disk.join("audit");
    let (log, key) = open(&dir);
    log.record(entry()).await.unwrap();
    let ballast = disk.join("ballast");
    let full = std::fs::write(&ballast, vec![1; 8 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    // What makes room can still be recorded, for a while.
    let mut recorded = 1;
    let refused = loop {
        match log.record(entry()).await {
            Ok(()) => recorded += 1,
            Err(refused) => break refused,
        }
        assert!(recorded < TRIES_MAX, "the disk is not full");
    };
    assert!(recorded > 1000, "{recorded}");
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert!(log.failing().is_some());
    let found = verify(&dir, &Expected::default(), Some(&key)).unwrap();
    assert_eq!(
        (found.torn_len, found.whole.unsigned),
        (0, 0),
        "nothing half is left"
    );
    for _ in 0..2 {
        log.record(entry()).await.unwrap_err();
    }
    std::fs::remove_file(&ballast).unwrap();
    log.record(entry()).await.unwrap();
    assert_eq!(log.failing(), None);
    log.close().await;

    verify(&dir, &Expected::default(), Some(&key)).unwrap();
    let text = std::fs::read_to_string(&Segment::all(&dir).unwrap()[0].path).unwrap();
    let records: Vec<Record> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let prompts = records.iter().filter(|record| record.what == "prompt").count();
    assert_eq!(prompts, recorded + 1, "what was refused is not in it");
    let gap = records.iter().find(|record| record.what == "audit.gap").unwrap();
    assert_eq!((gap.count, gap.reason.as_deref()), (Some(3), Some("storage")));
    println!("filled");
}
