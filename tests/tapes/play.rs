//! Gives a tape to a session and keeps what it wants done.

use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::Event;
use oqto_protocol::id::Digest;
use oqto_protocol::policy::{NetworkAccess, SandboxReport};
use oqto_runner::harness::{Edition, Harness};
use oqto_runner::session::{Action, Input, Session, Setup};
use serde_json::{Value, json};

use crate::tape::{BEGAN, Record, What};

pub(crate) fn setup(harness: Harness, continue_session: Option<String>) -> Setup {
    Setup {
        session_id: "tape".parse().expect("a name"),
        harness,
        cwd: "/home/dev/work".to_owned(),
        sandbox: SandboxReport {
            policy: "workspace".to_owned(),
            digest: Digest([7; 32]),
            network: NetworkAccess::Gateway,
            layers: Vec::new(),
        },
        edition: Edition::default(),
        permissions: oqto_runner::policy::Permissions::default(),
        continue_session,
        title: None,
        provider: None,
        model: None,
        labels: Default::default(),
        created_at: BEGAN,
        cursor: Cursor { epoch: 1, seq: 0 },
        next_idx: 0,
    }
}

/// A session at the beginning of its tape.
pub(crate) fn session(setup: &Setup) -> Session {
    Session::new(setup.clone(), BEGAN)
}

/// Gives the session the records, as when a tape is read again: nobody looks at the clock.
pub(crate) fn play(session: &mut Session, records: &[Record]) -> Vec<Action> {
    let mut out = Vec::new();
    for record in records {
        session.step(&record.what.input(), record.at, &mut out);
    }
    out
}

/// Gives the session the records, as they come: between them the clock runs.
pub(crate) fn live(session: &mut Session, records: &[Record]) -> Vec<Action> {
    let mut out = Vec::new();
    for record in records {
        while let Some(at) = session.poll_timeout().filter(|at| *at <= record.at) {
            session.step(&Input::Deadline, at, &mut out);
        }
        session.step(&record.what.input(), record.at, &mut out);
    }
    out
}

/// What is kept and written, without the marks at which a snapshot can be taken: those follow the cuts of the bytes.
pub(crate) fn lasting(actions: Vec<Action>) -> Vec<Action> {
    actions
        .into_iter()
        .filter(|action| !matches!(action, Action::Rest))
        .collect()
}

pub(crate) fn events(actions: &[Action]) -> impl Iterator<Item = &Event> {
    actions.iter().filter_map(|action| match action {
        Action::Record { event, .. } => Some(event),
        _ => None,
    })
}

/// The tape with its output cut anew: what was printed at one time is joined, then cut where `next` says.
pub(crate) fn recut(records: &[Record], mut next: impl FnMut() -> usize) -> Vec<Record> {
    let mut joined: Vec<Record> = Vec::new();
    for record in records {
        match (joined.last_mut(), &record.what) {
            (
                Some(Record {
                    at,
                    what: What::Out(bytes),
                }),
                What::Out(more),
            ) if *at == record.at => bytes.extend_from_slice(more),
            _ => joined.push(record.clone()),
        }
    }
    let mut cut = Vec::new();
    for record in joined {
        let What::Out(bytes) = &record.what else {
            cut.push(record);
            continue;
        };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(next().clamp(1, rest.len()));
            cut.push(Record {
                at: record.at,
                what: What::Out(head.to_vec()),
            });
            rest = tail;
        }
    }
    cut
}

/// An action as a line of a golden file.
pub(crate) fn golden(seq: u64, action: &Action) -> Value {
    match action {
        Action::Record { at, event } => json!({ "seq": seq, "at": at - BEGAN, "record": event }),
        Action::Write { bytes, .. } => json!({ "write": String::from_utf8_lossy(bytes) }),
        Action::CloseStdin => json!("close_stdin"),
        Action::Kill => json!("kill"),
        Action::Start => json!("start"),
        Action::Reply(reply) => json!({ "reply": reply }),
        Action::Messages { id, .. } => json!({ "messages": id }),
        Action::Rest => json!("rest"),
    }
}
