//! Frames as a runner sends them, without a runner: text deltas with the time in them, at a pace or all at once.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use oqto_control::Event;
use oqto_protocol::event::{Numbered, TextDelta};
use oqto_protocol::frame::{self, Frame};
use oqto_protocol::id::MessageId;
use tokio::sync::mpsc;

use super::generator::{Plan, STAMP_LEN, now_ns, stamp_of_delta};

/// How many frames may wait for a transport before the source waits for it.
const WAITING_MAX: usize = 64 * 1024;

/// What is written at once when nothing is paced, bytes: what the runner reads from its log at once.
const CHUNK_LEN: usize = 64 * 1024;

/// All frames of a plan, made before they are sent.
#[derive(Clone, Debug)]
pub struct Frames {
    bytes: Bytes,
    ends: Vec<usize>,
}

impl Frames {
    /// Those of `plan`, numbered from 1, the time left blank.
    #[must_use]
    pub fn of(plan: Plan) -> Self {
        let mut bytes = Vec::with_capacity(plan.lines * (plan.delta_len + 48));
        let mut ends = Vec::with_capacity(plan.lines);
        for seq in 1..=plan.lines as u64 {
            append(seq, 0, plan.delta_len, &mut bytes);
            ends.push(bytes.len());
        }
        Self {
            bytes: bytes.into(),
            ends,
        }
    }

    /// How long all of them are, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One after the other.
    pub fn each(&self) -> impl Iterator<Item = Bytes> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| self.bytes.slice(start..end))
    }

    /// As many at once as fit into [`CHUNK_LEN`].
    pub fn chunks(&self) -> impl Iterator<Item = Bytes> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let fits = self.ends.partition_point(|&end| end <= start + CHUNK_LEN);
            let end = *self.ends.get(fits.checked_sub(1)?)?;
            (end > start).then(|| {
                let chunk = self.bytes.slice(start..end);
                start = end;
                chunk
            })
        })
    }
}

fn append(seq: u64, stamp: u64, delta_len: usize, out: &mut Vec<u8>) {
    let event = Event::TextDelta(TextDelta {
        message_id: MessageId::numbered(7),
        delta: format!("{stamp:019}{:x<filler$}", "", filler = delta_len - STAMP_LEN),
        content_index: 0,
    });
    let numbered = Numbered {
        epoch: 1,
        seq,
        first_seq: None,
        ts: now_ns() / 1_000_000,
        event,
    };
    frame::append(&numbered, out).expect("a short frame");
}

/// The frames of a paced plan as their time comes, made and stamped by a thread of its own.
#[must_use]
pub fn paced(plan: Plan) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    std::thread::spawn(move || {
        let pause = Duration::from_secs(1) / plan.per_second.expect("a paced plan");
        let began = Instant::now();
        for seq in 1..=plan.lines {
            let due = pause * u32::try_from(seq).expect("a paced plan is short");
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let mut frame = Vec::new();
            append(seq as u64, now_ns(), plan.delta_len, &mut frame);
            // Who reads may be gone.
            if sender.blocking_send(frame.into()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What is ready, up to [`CHUNK_LEN`], copied into one piece, as the log puts together what it commits.
pub async fn ready(frames: &mut mpsc::Receiver<Bytes>) -> Option<Bytes> {
    let first = frames.recv().await?;
    let Ok(second) = frames.try_recv() else {
        return Some(first);
    };
    let mut all = BytesMut::from(&first[..]);
    all.extend_from_slice(&second);
    while all.len() < CHUNK_LEN
        && let Ok(frame) = frames.try_recv()
    {
        all.extend_from_slice(&frame);
    }
    Some(all.freeze())
}

/// Who takes a plan's frames: counts, and finds out how long each was on its way.
#[derive(Debug)]
pub struct Taker {
    plan: Plan,
    seq: u64,
    /// How long each was on its way, microseconds; empty where nothing is paced.
    pub samples: Vec<f64>,
}

impl Taker {
    /// Of a plan.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            seq: 0,
            samples: Vec::new(),
        }
    }

    /// Takes bytes that are whole frames.
    ///
    /// # Panics
    /// When one is missing, there twice or malformed.
    pub fn take(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((frame, next)) = Frame::split(rest, usize::MAX).expect("our own frame") {
            let numbered: Numbered = frame.body().expect("our own event");
            self.admit(numbered.seq, &numbered.event);
            rest = next;
        }
        assert!(rest.is_empty(), "a frame is cut");
    }

    /// Takes one event.
    ///
    /// # Panics
    /// When it is not the next one.
    pub fn admit(&mut self, seq: u64, event: &Event) {
        self.seq += 1;
        assert_eq!(seq, self.seq, "an event is missing or there twice");
        if let (Some(_), Event::TextDelta(text)) = (self.plan.per_second, event) {
            let stamp = stamp_of_delta(&text.delta).expect("our own delta");
            self.samples.push(now_ns().saturating_sub(stamp) as f64 / 1e3);
        }
    }

    /// All came.
    ///
    /// # Panics
    /// When not.
    pub fn finish(self) -> Vec<f64> {
        assert_eq!(self.seq, self.plan.lines as u64, "events are missing");
        self.samples
    }
}
