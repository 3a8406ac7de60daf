//! Who may connect to whom, and what happens when the other side does not play by the rules.

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{Ask, Reaction, TestRunner, frames, welcome};
use oqto_control::protocol::cursor::Cursor;
use oqto_control::protocol::fault::{Fault, FaultCode};
use oqto_control::protocol::frame::{HEADER_LEN, Kind};
use oqto_control::protocol::query::{Answer, SessionList};
use oqto_control::protocol::reply::{Accepted, Reply, ReplyData};
use oqto_control::{CommandError, ConnectError, Control, ExchangeError, Options, QueryError};
use tempfile::TempDir;

fn control() -> (TempDir, Control) {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(Options::under(dir.path().join("oqto"))).unwrap();
    (dir, control)
}

/// A runner that welcomes and answers everything else as it is told.
fn welcoming(
    control: &Control,
    answer: impl Fn(usize, &Ask) -> Reaction + Send + Sync + 'static,
) -> TestRunner {
    TestRunner::start(control.authority(), move |number, ask| match ask {
        Ask::Hello(_) => Reaction::Begin(welcome("r-1")),
        other => answer(number, other),
    })
}

#[tokio::test]
async fn a_runner_of_the_same_authority_is_connected() {
    let (_dir, control) = control();
    let runner = welcoming(&control, |_, _| Reaction::HangUp);
    let connected = control.connect(runner.at.clone()).await.unwrap();
    assert_eq!(connected.id().as_str(), "r-1");
    assert_eq!(connected.welcome().await.unwrap().limits.sessions_max, 8);
}

#[tokio::test]
async fn a_runner_of_another_authority_is_refused_by_the_control() {
    let (_dir, control) = control();
    let (_other_dir, other) = self::control();
    let runner = TestRunner::start_as("r-1", other.authority(), control.authority(), |_, _| {
        Reaction::Begin(welcome("r-1"))
    });
    let error = control.connect(runner.at.clone()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error:?}");
}

#[tokio::test]
async fn a_control_of_another_authority_is_refused_by_the_runner_and_never_counts_as_connected() {
    let (_dir, control) = control();
    let (_other_dir, other) = self::control();
    let runner = TestRunner::start_as("r-1", control.authority(), other.authority(), |_, _| {
        Reaction::Begin(welcome("r-1"))
    });
    let error = control.connect(runner.at.clone()).await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Handshake { .. } | ConnectError::Hello(ExchangeError::Lost(_))
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_runner_with_another_name_is_refused() {
    let (_dir, control) = control();
    let authority = control.authority();
    let runner = TestRunner::start_as("r-2", authority, authority, |_, _| {
        Reaction::Begin(welcome("r-1"))
    });
    let mut at = runner.at.clone();
    at.id = "r-1".parse().unwrap();
    let error = control.connect(at).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error:?}");
}

#[tokio::test]
async fn a_runner_that_calls_itself_otherwise_than_its_certificate_is_refused() {
    let (_dir, control) = control();
    let runner = TestRunner::start(control.authority(), |_, _| Reaction::Begin(welcome("r-2")));
    let error = control.connect(runner.at.clone()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Stranger { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refused_hello_says_why() {
    let (_dir, control) = control();
    let runner = TestRunner::start(control.authority(), |_, _| {
        Reaction::Answer(frames([Fault::new(
            FaultCode::Version,
            "this runner speaks 1.9 only",
        )]))
    });
    let error = control.connect(runner.at.clone()).await.unwrap_err();
    let ConnectError::Hello(ExchangeError::Refused(refusal)) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(refusal.0.code, FaultCode::Version);
    assert_eq!(refusal.to_string(), "this runner speaks 1.9 only");
}

#[tokio::test]
async fn a_welcome_in_a_version_that_was_not_offered_is_refused() {
    let (_dir, control) = control();
    let runner = TestRunner::start(control.authority(), |_, ask| {
        let Ask::Hello(hello) = ask else {
            return Reaction::HangUp;
        };
        let mut bytes = welcome("r-1");
        // The first field of the body, behind the body's own length.
        bytes[HEADER_LEN + 1] = u8::try_from(hello.minor).unwrap() + 1;
        Reaction::Begin(bytes)
    });
    let error = control.connect(runner.at.clone()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Version { .. }), "{error:?}");
}

#[tokio::test]
async fn a_command_whose_link_is_lost_is_sent_again_under_the_same_id() {
    let (_dir, control) = control();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let runner = welcoming(&control, move |number, ask| {
        let Ask::Command(command) = ask else {
            return Reaction::HangUp;
        };
        log.lock().unwrap().push(command.id);
        if number == 0 {
            return Reaction::HangUp;
        }
        let accepted = ReplyData::Accepted(Accepted {
            cursor: Cursor { epoch: 1, seq: 4 },
        });
        Reaction::Answer(frames([Reply::done(command.id, "prompt", Some(accepted))]))
    });
    let session = control
        .connect(runner.at.clone())
        .await
        .unwrap()
        .session("s-1".parse().unwrap());
    assert_eq!(
        session.prompt("hello").await.unwrap(),
        Cursor { epoch: 1, seq: 4 }
    );
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_command_whose_link_is_lost_each_time_is_given_up() {
    let (_dir, control) = control();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let runner = welcoming(&control, move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Reaction::HangUp
    });
    let session = control
        .connect(runner.at.clone())
        .await
        .unwrap()
        .session("s-1".parse().unwrap());
    let error = session.prompt("hello").await.unwrap_err();
    assert!(
        matches!(
            error,
            CommandError::Exchange {
                source: ExchangeError::Lost(_),
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(sent.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn a_refused_command_says_why_and_is_not_sent_again() {
    let (_dir, control) = control();
    let runner = welcoming(&control, |_, ask| {
        let Ask::Command(command) = ask else {
            return Reaction::HangUp;
        };
        let fault = Fault::new(FaultCode::WrongState, "the session is streaming");
        Reaction::Answer(frames([Reply::refused(command.id, "prompt", fault)]))
    });
    let session = control
        .connect(runner.at.clone())
        .await
        .unwrap()
        .session("s-1".parse().unwrap());
    let error = session.prompt("hello").await.unwrap_err();
    assert_eq!(error.to_string(), "the runner refused prompt");
    assert_eq!(error.source().unwrap().to_string(), "the session is streaming");
}

#[tokio::test]
async fn a_reply_to_another_command_is_not_believed() {
    let (_dir, control) = control();
    let runner = welcoming(&control, |_, ask| {
        let Ask::Command(command) = ask else {
            return Reaction::HangUp;
        };
        let mut id = command.id;
        id.0[0] ^= 1;
        Reaction::Answer(frames([Reply::done(id, "abort", None)]))
    });
    let session = control
        .connect(runner.at.clone())
        .await
        .unwrap()
        .session("s-1".parse().unwrap());
    let error = session.abort().await.unwrap_err();
    assert!(
        matches!(error, CommandError::Answer { cmd: "abort" }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_query_is_answered() {
    let (_dir, control) = control();
    let runner = welcoming(&control, |_, _| {
        Reaction::Answer(frames([Answer::SessionList(SessionList {
            sessions: Vec::new(),
        })]))
    });
    let runner = control.connect(runner.at.clone()).await.unwrap();
    assert_eq!(runner.sessions().await.unwrap(), []);
}

#[tokio::test]
async fn answers_that_are_none_are_errors_and_never_panics() {
    let frame = |len: u32, kind: Kind, body: &[u8]| {
        [&len.to_le_bytes()[..], &kind.0.to_le_bytes()[..], body].concat()
    };
    let table = [
        ("nothing", Vec::new()),
        ("half a header", vec![9, 0]),
        ("a length below a kind's", frame(1, Kind::ANSWER, &[])),
        ("a giant length", frame(u32::MAX, Kind::ANSWER, b"x")),
        (
            "a long length and little behind",
            frame(30 << 20, Kind::ANSWER, b"x"),
        ),
        ("another kind", frame(3, Kind::REPLY, b"x")),
        ("an unknown kind", frame(3, Kind(999), b"x")),
        ("an answer's garbage", frame(10, Kind::ANSWER, &[0xff; 8])),
        ("a fault's garbage", frame(10, Kind::FAULT, &[0xfe; 8])),
    ];
    let (_dir, control) = control();
    for (what, bytes) in table {
        let runner = welcoming(&control, move |_, _| Reaction::Answer(bytes.clone()));
        let runner = control.connect(runner.at.clone()).await.unwrap();
        let error = runner.sessions().await.unwrap_err();
        assert!(
            matches!(error, QueryError::Exchange { .. } | QueryError::Answer { .. }),
            "{what}: {error:?}"
        );
    }
}
