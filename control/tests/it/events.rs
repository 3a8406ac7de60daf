//! A session's events on the way: in order, none missing in silence, kept before they are acknowledged.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Ask, Reaction, TestRunner, event, frames, subscribed, welcome};
use oqto_control::history::{File, HistoryStore, Memory, SessionAddr};
use oqto_control::protocol::cursor::Cursor;
use oqto_control::protocol::event::{Event, Numbered, SessionClosed, StreamReset, TextDelta};
use oqto_control::protocol::fault::{Fault, FaultCode};
use oqto_control::protocol::frame::Kind;
use oqto_control::protocol::id::MessageId;
use oqto_control::{
    CommandError, ConnectError, Control, Events, EventsError, ExchangeError, Mark, Options, OrderError,
    Session, SubscribeError, Update,
};
use tempfile::TempDir;

struct Bench {
    _dir: TempDir,
    runner: TestRunner,
    session: Session,
}

/// A session whose subscription is answered with `bytes` and the end of the stream.
async fn bench(
    history: Option<Arc<dyn HistoryStore>>,
    answer: impl Fn(&Ask) -> Reaction + Send + Sync + 'static,
) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::under(dir.path().join("oqto"));
    if let Some(history) = history {
        options = options.history(history);
    }
    let control = Control::open(options).unwrap();
    let runner = TestRunner::start(control.authority(), move |_, ask| match ask {
        Ask::Hello(_) => Reaction::Begin(welcome("r-1")),
        other => answer(other),
    });
    let session = control
        .connect(runner.at.clone())
        .await
        .unwrap()
        .session("s-1".parse().unwrap());
    Bench {
        _dir: dir,
        runner,
        session,
    }
}

async fn answered(bytes: Vec<u8>) -> Bench {
    bench(None, move |_| Reaction::Answer(bytes.clone())).await
}

async fn all(mut events: Events) -> (Vec<u64>, Option<EventsError>) {
    let mut seqs = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => seqs.extend(event.seq),
            Err(error) => {
                assert!(
                    events.next().await.is_none(),
                    "a stream ends with its first error"
                );
                return (seqs, Some(error));
            }
        }
    }
    (seqs, None)
}

fn addr() -> SessionAddr {
    SessionAddr {
        runner_id: "r-1".parse().unwrap(),
        session_id: "s-1".parse().unwrap(),
    }
}

#[tokio::test]
async fn events_come_in_order_and_the_stream_ends_with_the_session() {
    let bytes = [subscribed(1, 0, 1, 3), frames((1..=3).map(|seq| event(1, seq)))].concat();
    let bench = answered(bytes).await;
    let (seqs, error) = all(bench.session.events().await.unwrap()).await;
    assert_eq!(seqs, [1, 2, 3]);
    assert!(error.is_none(), "{error:?}");
}

#[tokio::test]
async fn an_event_that_comes_again_is_dropped() {
    let bytes = [
        subscribed(1, 0, 1, 3),
        frames([1, 2, 1, 2, 3].map(|seq| event(1, seq))),
    ]
    .concat();
    let bench = answered(bytes).await;
    let (seqs, error) = all(bench.session.events().await.unwrap()).await;
    assert_eq!((seqs, error.is_none()), (vec![1, 2, 3], true));
}

#[tokio::test]
async fn a_missing_event_is_named() {
    let bytes = [subscribed(1, 0, 1, 5), frames([1, 2, 5].map(|seq| event(1, seq)))].concat();
    let bench = answered(bytes).await;
    let (seqs, error) = all(bench.session.events().await.unwrap()).await;
    assert_eq!(seqs, [1, 2]);
    assert!(
        matches!(
            error,
            Some(EventsError::Order(OrderError::Gap { from: 3, to: 4 }))
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_frame_of_an_unknown_kind_is_passed_over() {
    let unknown = [&5_u32.to_le_bytes()[..], &Kind(4711).0.to_le_bytes()[..], b"new"].concat();
    let bytes = [
        subscribed(1, 0, 1, 2),
        frames([event(1, 1)]),
        unknown,
        frames([event(1, 2)]),
    ]
    .concat();
    let bench = answered(bytes).await;
    let (seqs, error) = all(bench.session.events().await.unwrap()).await;
    assert_eq!((seqs, error.is_none()), (vec![1, 2], true));
}

#[tokio::test]
async fn bytes_that_are_no_events_are_errors_and_never_panics() {
    let event_frame =
        |len: u32, body: &[u8]| [&len.to_le_bytes()[..], &Kind::EVENT.0.to_le_bytes()[..], body].concat();
    let table = [
        ("a giant length", event_frame(u32::MAX, b"x")),
        ("garbage", event_frame(10, &[0xff; 8])),
        ("no kind", 1_u32.to_le_bytes().to_vec()),
        ("a fault", frames([Fault::new(FaultCode::Denied, "not any more")])),
    ];
    for (what, bad) in table {
        let bench = answered([subscribed(1, 0, 1, 9), frames([event(1, 1)]), bad].concat()).await;
        let (seqs, error) = all(bench.session.events().await.unwrap()).await;
        assert_eq!(seqs, [1], "{what}: what came whole before is handed out");
        assert!(error.is_some(), "{what}");
    }
}

#[tokio::test]
async fn an_event_longer_than_any_buffer_comes_whole() {
    let delta = TextDelta {
        message_id: MessageId::numbered(1),
        delta: "x".repeat(3 << 20),
        content_index: 0,
    };
    let long = Numbered {
        event: Event::TextDelta(delta.clone()),
        ..event(1, 2)
    };
    let bytes = [subscribed(1, 0, 1, 3), frames([event(1, 1), long, event(1, 3)])].concat();
    let bench = answered(bytes).await;
    let mut events = bench.session.events().await.unwrap();
    events.next().await.unwrap().unwrap();
    assert_eq!(
        events.next().await.unwrap().unwrap().event,
        Event::TextDelta(delta)
    );
    assert_eq!(all(events).await.0, [3]);
}

#[tokio::test]
async fn a_session_that_is_not_there_is_said_before_any_event() {
    let bench = answered(frames([Fault::new(FaultCode::NotFound, "no session s-1")])).await;
    let error = bench.session.events().await.unwrap_err();
    assert!(
        matches!(
            error,
            SubscribeError::Exchange {
                source: ExchangeError::Refused(_),
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_cursor_whose_events_are_kept_no_longer_is_said_with_the_oldest() {
    let bench = answered(subscribed(1, 40, 41, 50)).await;
    let error = bench
        .session
        .events_from(Cursor { epoch: 1, seq: 3 })
        .await
        .unwrap_err();
    assert!(
        matches!(error, SubscribeError::Expired { asked: 3, oldest: 41 }),
        "{error:?}"
    );
}

#[tokio::test]
async fn after_a_reset_the_stream_goes_on_in_the_new_epoch() {
    let reset = Numbered {
        event: Event::StreamReset(StreamReset { epoch: 2, seq: 4 }),
        ..event(2, 4)
    };
    let bytes = [subscribed(2, 4, 1, 6), frames([reset, event(2, 5), event(2, 6)])].concat();
    let bench = answered(bytes).await;
    let events = bench
        .session
        .events_from(Cursor { epoch: 1, seq: 9 })
        .await
        .unwrap();
    let (seqs, error) = all(events).await;
    assert_eq!((seqs, error.is_none()), (vec![4, 5, 6], true));
}

/// A session whose subscriptions are answered with these, one after the other, and the last of them ever after.
async fn in_turn(history: Option<Arc<dyn HistoryStore>>, turns: Vec<Reaction>) -> (Bench, Asked) {
    let asked = Asked::default();
    let (log, turns) = (asked.clone(), Mutex::new(VecDeque::from(turns)));
    let bench = bench(history, move |ask| {
        let Ask::Subscribe(subscribe) = ask else {
            return Reaction::HangUp;
        };
        log.lock().unwrap().push(subscribe.cursor);
        let mut turns = turns.lock().unwrap();
        match turns.len() {
            1 => turns[0].clone(),
            _ => turns.pop_front().unwrap(),
        }
    })
    .await;
    (bench, asked)
}

/// From where was subscribed, each time.
type Asked = Arc<Mutex<Vec<Cursor>>>;

fn closed(seq: u64) -> Numbered {
    Numbered {
        event: Event::SessionClosed(SessionClosed { reason: None }),
        ..event(1, seq)
    }
}

fn at(epoch: u32, seq: u64) -> Cursor {
    Cursor { epoch, seq }
}

#[tokio::test]
async fn a_stream_whose_link_is_lost_goes_on_from_its_exact_cursor() {
    let first = [subscribed(1, 0, 1, 2), frames([event(1, 1), event(1, 2)])].concat();
    let last = [subscribed(1, 2, 1, 4), frames([event(1, 3), closed(4)])].concat();
    let turns = vec![Reaction::Break(first), Reaction::HangUp, Reaction::Answer(last)];
    let (bench, asked) = in_turn(None, turns).await;
    let (seqs, error) = all(bench.session.events().await.unwrap()).await;
    assert_eq!(seqs, [1, 2, 3, 4]);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(*asked.lock().unwrap(), [Cursor::default(), at(1, 2), at(1, 2)]);
}

#[tokio::test]
async fn who_asks_for_marks_is_told_of_the_loss_the_return_and_the_lag() {
    let first = [subscribed(1, 0, 1, 2), frames([event(1, 1), event(1, 2)])].concat();
    let last = [subscribed(1, 2, 1, 4), frames([event(1, 3), closed(4)])].concat();
    let (bench, _) = in_turn(None, vec![Reaction::Break(first), Reaction::Answer(last)]).await;
    let mut events = bench.session.events().await.unwrap();
    let mut told = Vec::new();
    while let Some(update) = events.update().await {
        told.push(match update.unwrap() {
            Update::Event(event) => format!("{}", event.seq.unwrap()),
            Update::Mark(Mark::Reconnected { .. }) => "reconnected".to_owned(),
            Update::Mark(mark) => format!("{mark:?}"),
        });
    }
    let lag = "Lagging { events: 2 }";
    assert_eq!(told, [lag, "1", "2", "Lost", "reconnected", lag, "3", "4"]);
}

#[tokio::test]
async fn who_asks_for_all_is_told_where_the_kept_history_begins() {
    let bytes = [subscribed(1, 40, 41, 41), frames([closed(41)])].concat();
    let bench = answered(bytes).await;
    let mut events = bench.session.events().await.unwrap();
    let first = events.update().await.unwrap().unwrap();
    assert_eq!(first, Update::Mark(Mark::CutOff { oldest: 41 }));
    assert_eq!(all(events).await.0, [41]);
}

#[tokio::test]
async fn a_stream_that_breaks_off_or_that_a_leaving_runner_ends_goes_on() {
    let begin = |seq, bytes| [subscribed(1, seq, 1, 9), bytes].concat();
    let fault = |code| frames([Fault::new(code, "not now")]);
    let turns = vec![
        // In the middle of an event.
        begin(
            0,
            [frames([event(1, 1)]), frames([event(1, 2)])[..9].to_vec()].concat(),
        ),
        // In good order, although the session has not ended.
        begin(1, frames([event(1, 2)])),
        // With the word that the runner is leaving, on the stream and instead of it.
        begin(2, [frames([event(1, 3)]), fault(FaultCode::Closing)].concat()),
        fault(FaultCode::Closing),
        fault(FaultCode::Busy),
        begin(3, frames([closed(4)])),
    ];
    let (bench, asked) = in_turn(None, turns.into_iter().map(Reaction::Answer).collect()).await;
    let (seqs, error) = all(bench.session.events().await.unwrap()).await;
    assert_eq!(seqs, [1, 2, 3, 4]);
    assert!(error.is_none(), "{error:?}");
    let asked: Vec<u64> = asked.lock().unwrap().iter().map(|cursor| cursor.seq).collect();
    assert_eq!(asked, [0, 1, 2, 3, 3, 3]);
}

#[tokio::test]
async fn a_stream_that_cannot_go_on_ends_with_the_reason() {
    let begin = || Reaction::Break([subscribed(1, 0, 1, 1), frames([event(1, 1)])].concat());
    let gone = frames([Fault::new(FaultCode::NotFound, "no session s-1")]);
    let (bench, _) = in_turn(None, vec![begin(), Reaction::Answer(gone)]).await;
    let (seqs, error) = all(bench.session.events().await.unwrap()).await;
    assert_eq!(seqs, [1]);
    let error = format!("{:?}", error.unwrap());
    assert!(error.contains("no session s-1"), "{error}");

    let (bench, _) = in_turn(None, vec![begin(), Reaction::Answer(subscribed(1, 40, 41, 50))]).await;
    let (seqs, error) = all(bench.session.events().await.unwrap()).await;
    assert_eq!(seqs, [1]);
    let expired = SubscribeError::Expired { asked: 1, oldest: 41 }.to_string();
    let error = error
        .as_ref()
        .and_then(std::error::Error::source)
        .unwrap()
        .to_string();
    assert_eq!(error, expired);
}

#[tokio::test]
async fn events_that_a_returning_runner_has_lost_are_taken_back_in_the_stream() {
    let first = [subscribed(1, 0, 1, 3), frames((1..=3).map(|seq| event(1, seq)))].concat();
    let reset = Numbered {
        event: Event::StreamReset(StreamReset { epoch: 2, seq: 1 }),
        ..event(2, 1)
    };
    let end = Numbered {
        epoch: 2,
        ..closed(2)
    };
    let last = [subscribed(2, 1, 1, 2), frames([reset, end])].concat();
    let (bench, _) = in_turn(None, vec![Reaction::Break(first), Reaction::Answer(last)]).await;
    let (seqs, error) = all(bench.session.events().await.unwrap()).await;
    assert_eq!((seqs, error.is_none()), (vec![1, 2, 3, 1, 2], true));
}

#[tokio::test]
async fn a_stream_ends_where_the_embedder_says_so() {
    let begin = || Reaction::Begin([subscribed(1, 0, 1, 1), frames([event(1, 1)])].concat());
    // By its patience, while nobody answers.
    let first = Reaction::Break([subscribed(1, 0, 1, 1), frames([event(1, 1)])].concat());
    let (bench, _) = in_turn(None, vec![first, Reaction::HangUp]).await;
    let events = bench.session.events().await.unwrap();
    let (seqs, error) = all(events.patience(Duration::from_millis(200))).await;
    assert_eq!(seqs, [1]);
    assert!(matches!(error, Some(EventsError::Subscribe(_))), "{error:?}");
    // By closing the runner, also while the stream waits.
    let (bench, _) = in_turn(None, vec![begin()]).await;
    let events = bench.session.events().await.unwrap();
    let runner = bench.session.runner().clone();
    let (ended, ()) = tokio::join!(all(events), async move { runner.close() });
    let error = ended.1.unwrap();
    let source = std::error::Error::source(&error).and_then(std::error::Error::source);
    assert_eq!(source.unwrap().to_string(), ConnectError::Closed.to_string());
    let refused = bench.session.abort().await.unwrap_err();
    assert!(
        matches!(refused, CommandError::Connect(ConnectError::Closed)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_was_acknowledged_on_a_lost_link_is_acknowledged_on_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(File::new(dir.path().to_owned()));
    let first = [subscribed(1, 0, 1, 2), frames([event(1, 1), event(1, 2)])].concat();
    let last = [subscribed(1, 2, 1, 3), frames([closed(3)])].concat();
    let turns = vec![Reaction::Break(first), Reaction::Answer(last)];
    let (mut bench, _) = in_turn(Some(store.clone()), turns).await;
    assert_eq!(all(bench.session.events().await.unwrap()).await.0, [1, 2, 3]);
    let mut acked = Vec::new();
    while let Some(ack) = bench.runner.acks.recv().await.unwrap() {
        acked.push(ack);
    }
    assert_eq!(acked.last(), Some(&3), "{acked:?}");
    assert_eq!(store.last(&addr()).unwrap(), at(1, 3));
    let kept = std::fs::read_to_string(dir.path().join("r-1/s-1.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 3, "{kept}");
}

#[tokio::test]
async fn what_is_on_disk_is_acknowledged_before_the_end_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(File::new(dir.path().to_owned()));
    let bytes = [
        subscribed(1, 0, 1, 500),
        frames((1..500).map(|seq| event(1, seq)).chain([closed(500)])),
    ]
    .concat();
    let mut bench = bench(Some(store.clone()), move |_| Reaction::Answer(bytes.clone())).await;
    let (seqs, error) = all(bench.session.events().await.unwrap()).await;
    assert_eq!((seqs.len(), error.is_none()), (500, true));
    assert_eq!(store.last(&addr()).unwrap(), Cursor { epoch: 1, seq: 500 });
    let mut last = 0;
    while last < 500 {
        let ack = bench.runner.acks.recv().await.unwrap().unwrap();
        assert!(ack > last, "acknowledgements only grow");
        last = ack;
    }
}

#[tokio::test]
async fn what_is_only_in_memory_is_never_acknowledged() {
    let store = Arc::new(Memory::new(NonZeroUsize::new(2).unwrap()));
    let bytes = [subscribed(1, 0, 1, 9), frames((1..=9).map(|seq| event(1, seq)))].concat();
    let mut bench = bench(Some(store.clone()), move |_| Reaction::Answer(bytes.clone())).await;
    assert_eq!(all(bench.session.events().await.unwrap()).await.0.len(), 9);
    assert_eq!(
        store
            .events(&addr())
            .iter()
            .filter_map(|event| event.seq)
            .collect::<Vec<_>>(),
        [8, 9]
    );
    assert_eq!(
        bench.runner.acks.recv().await,
        Some(None),
        "the stream ended without an acknowledgement"
    );
}

#[tokio::test]
async fn a_subscription_begins_behind_what_the_store_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(File::new(dir.path().to_owned()));
    let bench = bench(Some(store.clone()), |ask| {
        let Ask::Subscribe(subscribe) = ask else {
            return Reaction::HangUp;
        };
        let from = subscribe.cursor.seq;
        let events = frames([event(1, from + 1), event(1, from + 2), closed(from + 3)]);
        Reaction::Answer([subscribed(1, from, 1, from + 3), events].concat())
    })
    .await;
    assert_eq!(all(bench.session.events().await.unwrap()).await.0, [1, 2, 3]);
    assert_eq!(all(bench.session.events().await.unwrap()).await.0, [4, 5, 6]);
}

#[tokio::test]
async fn a_stream_that_skips_events_which_the_store_lacks_is_neither_kept_nor_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(File::new(dir.path().to_owned()));
    let bytes = [subscribed(1, 7, 1, 9), frames([event(1, 8), event(1, 9)])].concat();
    let mut bench = bench(Some(store.clone()), move |_| Reaction::Answer(bytes.clone())).await;
    let events = bench
        .session
        .events_from(Cursor { epoch: 1, seq: 7 })
        .await
        .unwrap();
    assert_eq!(all(events).await.0, [8, 9]);
    assert_eq!(store.last(&addr()).unwrap(), Cursor::default());
    assert_eq!(bench.runner.acks.recv().await, Some(None));
}

#[tokio::test]
async fn what_a_reader_has_already_is_a_repeat_even_if_the_runner_begins_earlier() {
    let bytes = [subscribed(1, 0, 1, 4), frames((1..=4).map(|seq| event(1, seq)))].concat();
    let bench = answered(bytes).await;
    let events = bench
        .session
        .events_from(Cursor { epoch: 1, seq: 3 })
        .await
        .unwrap();
    assert_eq!(all(events).await.0, [4]);
}

#[test]
fn what_was_handed_out_is_kept_although_the_stream_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(File::new(dir.path().to_owned()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let bytes = [subscribed(1, 0, 1, 9), frames([event(1, 1), event(1, 2)])].concat();
        let bench = bench(Some(store.clone()), move |ask| match ask {
            Ask::Subscribe(_) => Reaction::Begin(bytes.clone()),
            _ => Reaction::HangUp,
        })
        .await;
        let mut events = bench.session.events().await.unwrap();
        assert_eq!(events.next().await.unwrap().unwrap().seq, Some(1));
        assert_eq!(events.next().await.unwrap().unwrap().seq, Some(2));
        drop(events);
        while store.last(&addr()).unwrap() != (Cursor { epoch: 1, seq: 2 }) {
            tokio::task::yield_now().await;
        }
    });
}
