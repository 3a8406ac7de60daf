//! What a store forgets, what it never does, and what it costs while nobody lets it.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use oqto_protocol::event::{AgentIdle, Event, MessageEnd, MessageStart, Numbered, TextDelta};
use oqto_protocol::frame::{self, Frame};
use oqto_protocol::id::MessageId;
use oqto_protocol::message::{Message, Role};
use oqto_runner::event_log::{
    Batch, CreateError, EventLog, Health, MessageRow, ReadError, Retention, SessionLog, Sync,
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const MIB: u64 = 1024 * 1024;

/// How many deltas a turn has.
const DELTAS: u64 = 20;

/// How many events: a start, the deltas, an end, idle.
const TURN: u64 = DELTAS + 3;

fn bounded(len_max: u64) -> Retention {
    Retention {
        len_max,
        ..Retention::DEFAULT
    }
}

fn store(home: &tempfile::TempDir) -> PathBuf {
    home.path().join("events.sqlite")
}

fn message_id(turn: u64) -> MessageId {
    format!("m-{turn}").parse().unwrap()
}

/// The events of a turn whose deltas have so many bytes each.
fn turn(turn: u64, len: usize) -> Vec<Event> {
    let message_id = message_id(turn);
    let mut events = vec![Event::MessageStart(MessageStart {
        message_id,
        role: Role::Assistant,
    })];
    events.extend((0..DELTAS).map(|_| {
        Event::TextDelta(TextDelta {
            message_id,
            delta: "d".repeat(len),
            content_index: 0,
        })
    }));
    events.push(Event::MessageEnd(MessageEnd {
        message: Box::new(message(turn)),
    }));
    events.push(Event::AgentIdle(AgentIdle {}));
    events
}

fn message(turn: u64) -> Message {
    serde_json::from_value(serde_json::json!({
        "id": message_id(turn).to_string(),
        "idx": turn,
        "role": "assistant",
        "parts": [],
        "created_at": 1,
    }))
    .unwrap()
}

/// Appends a turn in batches of a few events, and waits for the last.
async fn say(session: &SessionLog, at: u64, len: usize) {
    let first = at * TURN + 1;
    let events: Vec<_> = (first..).zip(turn(at, len)).collect();
    let mut pending = None;
    for some in events.chunks(4) {
        let mut bytes = Vec::new();
        let mut messages = Vec::new();
        for (seq, event) in some {
            if let Event::MessageEnd(end) = event {
                messages.push(MessageRow {
                    idx: end.message.idx,
                    id: end.message.id.to_string(),
                    frame: Bytes::from_static(b"message"),
                });
            }
            let numbered = Numbered {
                epoch: 1,
                seq: *seq,
                first_seq: None,
                ts: 1,
                event: event.clone(),
            };
            frame::append(&numbered, &mut bytes).unwrap();
        }
        let batch = Batch::new(some[0].0, bytes.into(), Sync::Process).unwrap();
        pending = Some(session.append(batch.with_messages(messages)).await.unwrap());
    }
    pending.unwrap().committed().await.unwrap();
}

/// Reads to the end; every event goes on right behind the one before.
async fn read(session: &SessionLog, after: u64) -> Result<Vec<Numbered>, ReadError> {
    let (mut seq, mut events) = (after, Vec::new());
    while let Some(chunk) = session.read(seq, 64 * 1024).await? {
        let mut bytes = &chunk.bytes[..];
        while let Some((frame, rest)) = Frame::split(bytes, usize::MAX).unwrap() {
            let event: Numbered = frame.body().unwrap();
            assert_eq!(event.first_seq.unwrap_or(event.seq), seq + 1);
            seq = event.seq;
            events.push(event);
            bytes = rest;
        }
        assert_eq!(chunk.last_seq, seq);
    }
    assert_eq!(seq, session.last_seq());
    Ok(events)
}

fn count(events: &[Numbered], is_it: impl Fn(&Event) -> bool) -> u64 {
    events.iter().filter(|event| is_it(&event.event)).count() as u64
}

fn is_delta(event: &Event) -> bool {
    matches!(event, Event::TextDelta(_))
}

async fn until(what: &str, is_it: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_it() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the store takes nothing more.
async fn full(log: &EventLog) -> String {
    let mut health = log.health();
    let failing = tokio::time::timeout(PATIENCE, health.wait_for(|health| *health != Health::Fine)).await;
    match &*failing.unwrap().unwrap() {
        Health::Failing { text } => text.clone(),
        Health::Fine => panic!("it was failing a moment ago"),
    }
}

fn number(path: &Path, query: &str) -> u64 {
    let store = rusqlite::Connection::open(path).unwrap();
    store.query_row(query, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn deltas_of_finished_messages_go_first_and_whoever_reads_misses_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let log = EventLog::open(&store(&home), bounded(4 * MIB)).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    // Some 10 MiB of deltas and next to nothing else.
    for at in 0..250 {
        say(&session, at, 2048).await;
        session.acknowledge(session.last_seq());
    }
    assert_eq!(
        *log.health().borrow(),
        Health::Fine,
        "what may go makes room by itself"
    );
    assert_eq!(session.oldest_seq(), 1, "no event but deltas had to go");
    let events = read(&session, 0).await.unwrap();
    assert_eq!(count(&events, |event| matches!(event, Event::MessageEnd(_))), 250);
    assert_eq!(
        count(&events, |event| matches!(event, Event::MessageStart(_))),
        250
    );
    let deltas = count(&events, is_delta);
    assert!(deltas < 4 * MIB / 2048, "{deltas}");
    // Wherever a reader stands, also among numbers that are gone, it goes on right behind.
    for after in (0..session.last_seq()).step_by(61) {
        read(&session, after).await.unwrap();
    }
    log.close().await;
    assert!(number(&store(&home), "SELECT page_count * 4096 FROM pragma_page_count") < 5 * MIB);

    let log = EventLog::open(&store(&home), bounded(4 * MIB)).unwrap();
    let session = log.session("one").unwrap();
    assert_eq!((session.oldest_seq(), session.acked_seq()), (1, 250 * TURN));
    let events = read(&session, 0).await.unwrap();
    assert_eq!(count(&events, |event| matches!(event, Event::MessageEnd(_))), 250);
    log.close().await;
}

#[tokio::test]
async fn when_there_are_no_deltas_left_the_oldest_events_go_with_their_messages_and_who_asks_is_told() {
    let home = tempfile::tempdir().unwrap();
    let log = EventLog::open(&store(&home), bounded(MIB)).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    let mut at = 0;
    while session.oldest_seq() == 1 {
        assert!(at < 20_000, "nothing ever goes");
        say(&session, at, 1).await;
        session.acknowledge(session.last_seq());
        at += 1;
    }
    let next_idx = session.next_idx();
    log.close().await;

    // From which event on there are any is said before the others are gone; a log that was closed has done it.
    let log = EventLog::open(&store(&home), bounded(MIB)).unwrap();
    let session = log.session("one").unwrap();
    let oldest = session.oldest_seq();
    assert!(oldest > 1);
    let refused = read(&session, oldest - 2).await.unwrap_err();
    assert!(
        matches!(refused, ReadError::Expired { from, oldest: told } if (from, told) == (oldest - 1, oldest)),
        "{refused:?}"
    );
    let events = read(&session, oldest - 1).await.unwrap();
    let ends = count(&events, |event| matches!(event, Event::MessageEnd(_)));
    let (messages, _) = session.messages(None, usize::MAX).await.unwrap();
    assert_eq!(messages.len() as u64, ends, "history and stream agree");
    log.close().await;

    let log = EventLog::open(&store(&home), bounded(MIB)).unwrap();
    let session = log.session("one").unwrap();
    assert_eq!((session.oldest_seq(), session.next_idx()), (oldest, next_idx));
    log.close().await;
}

#[tokio::test]
async fn what_nobody_acknowledged_stops_the_session_until_somebody_does() {
    let home = tempfile::tempdir().unwrap();
    let log = EventLog::open(&store(&home), bounded(2 * MIB)).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    let saying = session.clone();
    let said = tokio::spawn(async move {
        for at in 0..100 {
            say(&saying, at, 4096).await;
        }
    });
    let text = full(&log).await;
    assert!(
        text.contains("bound of 2097152") && text.contains("acknowledge"),
        "{text}"
    );
    let stuck = session.last_seq();
    assert!(!read(&session, 0).await.unwrap().is_empty());
    assert!(matches!(
        log.create_session("two", Bytes::new()).await,
        Err(CreateError::Failing { .. })
    ));
    // Acknowledging is heard also now, and what is said goes on without anybody telling it to.
    while !said.is_finished() {
        session.acknowledge(session.last_seq());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    said.await.unwrap();
    assert!(stuck < 100 * TURN);
    assert_eq!(session.last_seq(), 100 * TURN);
    read(&session, session.oldest_seq() - 1).await.unwrap();
    log.close().await;
}

#[tokio::test]
async fn a_deletion_makes_room_for_who_waits_also_when_it_is_the_one_that_waits() {
    let home = tempfile::tempdir().unwrap();
    let log = EventLog::open(&store(&home), bounded(2 * MIB)).unwrap();
    let one = log.create_session("one", Bytes::new()).await.unwrap();
    let two = log.create_session("two", Bytes::new()).await.unwrap();
    for at in 0..20 {
        say(&one, at, 4096).await;
    }
    let saying = two.clone();
    let waiting = tokio::spawn(async move {
        for at in 0.. {
            let bytes = vec![0; 300 * 1024];
            let mut event = (bytes.len() as u32).to_le_bytes().to_vec();
            event.extend(bytes);
            let batch = Batch::new(at + 1, event.into(), Sync::Process).unwrap();
            match saying.append(batch).await {
                Ok(pending) => drop(pending),
                Err(error) => return error,
            }
        }
        unreachable!("nothing takes that much");
    });
    full(&log).await;
    let stuck = two.last_seq();
    log.delete_session("one").await.unwrap();
    until("the other session goes on", || two.last_seq() > stuck).await;
    full(&log).await;
    two.abandon();
    assert!(waiting.await.unwrap().to_string().contains("deleted"));
    log.delete_session("two").await.unwrap();
    let mut health = log.health();
    health.wait_for(|health| *health == Health::Fine).await.unwrap();
    log.create_session("three", Bytes::new()).await.unwrap();
    log.close().await;
}

#[tokio::test]
async fn what_is_too_old_goes_by_itself_but_never_unread() {
    let home = tempfile::tempdir().unwrap();
    let retention = Retention {
        age_max_ms: 1,
        ..Retention::DEFAULT
    };
    let log = EventLog::open(&store(&home), retention).unwrap();
    let (read_one, unread) = (
        log.create_session("read", Bytes::new()).await.unwrap(),
        log.create_session("unread", Bytes::new()).await.unwrap(),
    );
    for at in 0..5 {
        say(&read_one, at, 10).await;
        say(&unread, at, 10).await;
    }
    read_one.acknowledge(3 * TURN);
    until("old events go", || read_one.oldest_seq() > 2 * TURN).await;
    assert!(read_one.oldest_seq() <= 3 * TURN + 1, "{}", read_one.oldest_seq());
    assert_eq!(unread.oldest_seq(), 1);
    let kept = read(&unread, 0).await.unwrap();
    assert_eq!(kept.last().unwrap().seq, 5 * TURN);
    log.close().await;
}

#[tokio::test]
async fn the_space_of_a_deleted_session_is_used_again_and_a_restart_in_between_does_not_matter() {
    let home = tempfile::tempdir().unwrap();
    let mut len = Vec::new();
    for round in 0..4 {
        let log = EventLog::open(&store(&home), Retention::DEFAULT).unwrap();
        let session = log.create_session("one", Bytes::new()).await.unwrap();
        assert_eq!(
            (
                session.last_seq(),
                session.messages(None, 1).await.unwrap().0.len()
            ),
            (0, 0)
        );
        for at in 0..25 {
            say(&session, at, 8192).await;
        }
        log.delete_session("one").await.unwrap();
        if round % 2 == 0 {
            let left = || {
                number(
                    &store(&home),
                    "SELECT (SELECT count(*) FROM batches) + (SELECT count(*) FROM leaving)",
                )
            };
            until("its rows are gone", || left() == 0).await;
        }
        log.close().await;
        // Whether the journal was moved into the file when it was closed is SQLite's business.
        let pages = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        len.push(number(&store(&home), pages));
    }
    assert!(len[0] > 3 * MIB, "{len:?}");
    // A round that did not wait leaves its rows to the next, which may find no space yet.
    assert!(len[3] <= 2 * len[0] + MIB, "{len:?}");
}

#[tokio::test]
async fn a_session_has_one_mark_however_often_it_rests() {
    let home = tempfile::tempdir().unwrap();
    let log = EventLog::open(&store(&home), Retention::DEFAULT).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    for seq in 1..=50 {
        let batch = Batch::new(seq, Bytes::from_static(&[2, 0, 0, 0, 9, 9]), Sync::Process).unwrap();
        let batch = batch.with_mark(Bytes::from(vec![seq as u8; 1000]));
        session.append(batch).await.unwrap().committed().await.unwrap();
    }
    log.close().await;
    assert_eq!(number(&store(&home), "SELECT sum(length(mark)) FROM marks"), 1000);
    let log = EventLog::open(&store(&home), Retention::DEFAULT).unwrap();
    let mark = log.session("one").unwrap().mark().await.unwrap().unwrap();
    assert_eq!(*mark, vec![50; 1000]);
    log.close().await;
}

#[tokio::test]
async fn a_mark_that_comes_by_itself_is_not_replaced_by_an_older_one_of_the_same_commit() {
    let home = tempfile::tempdir().unwrap();
    let log = EventLog::open(&store(&home), bounded(2 * MIB)).unwrap();
    let (one, two) = (
        log.create_session("one", Bytes::new()).await.unwrap(),
        log.create_session("two", Bytes::new()).await.unwrap(),
    );
    let saying = one.clone();
    let said = tokio::spawn(async move {
        for at in 0..30 {
            say(&saying, at, 4096).await;
        }
    });
    full(&log).await;
    // While nothing is committed both wait, and then they are one commit.
    let batch = Batch::new(1, Bytes::from_static(&[2, 0, 0, 0, 9, 9]), Sync::Process).unwrap();
    let older = two
        .append(batch.with_mark(Bytes::from_static(b"older")))
        .await
        .unwrap();
    let newer = two.put_mark(Bytes::from_static(b"newer")).await.unwrap();
    while !said.is_finished() {
        one.acknowledge(one.last_seq());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    said.await.unwrap();
    older.committed().await.unwrap();
    newer.await.unwrap();
    log.close().await;
    let log = EventLog::open(&store(&home), bounded(2 * MIB)).unwrap();
    let mark = log.session("two").unwrap().mark().await.unwrap().unwrap();
    assert_eq!(*mark, "newer");
    log.close().await;
}

#[tokio::test]
async fn an_acknowledgement_waits_for_the_next_commit_or_for_a_moment_in_which_there_is_none() {
    let home = tempfile::tempdir().unwrap();
    let log = EventLog::open(&store(&home), Retention::DEFAULT).unwrap();
    let session = log.create_session("one", Bytes::new()).await.unwrap();
    let acked = || number(&store(&home), "SELECT acked_seq FROM sessions");
    let begun = Instant::now();
    say(&session, 0, 1).await;
    session.acknowledge(1);
    until("it is kept by itself", || acked() == 1).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    session.acknowledge(2);
    say(&session, 1, 1).await;
    assert_eq!(acked(), 2, "it is kept with the next commit");
    session.acknowledge(3);
    log.close().await;
    assert_eq!(acked(), 3, "it is kept when the log is closed");
}
