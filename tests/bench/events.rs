//! What one event costs: to encode, to decode, to understand from pi's line.
//!
//! `cargo bench -p oqto-tests --bench events [-- --quick]`
#![forbid(unsafe_code)]

use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, Divan, black_box};
use oqto_control::Event;
use oqto_control::protocol::event::{Numbered, TextDelta};
use oqto_control::protocol::frame::{self, Frame};
use oqto_control::protocol::id::MessageId;
use oqto_runner::harness::{Dialect, Tongue};
use oqto_tests::bench::Effort;

/// Frames or lines at once, as they come in bursts.
const BURST: usize = 100;

fn main() {
    // Its own options would refuse ours.
    let time = Effort::asked().of(Duration::from_millis(200), Duration::from_secs(3));
    Divan::default().max_time(time).main();
}

fn numbered() -> Numbered {
    Numbered {
        epoch: 1,
        seq: 123_456,
        first_seq: None,
        ts: 1_795_381_958_773,
        event: Event::TextDelta(TextDelta {
            message_id: MessageId::numbered(7),
            delta: "x".repeat(100),
            content_index: 0,
        }),
    }
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let event = numbered();
    let mut out = Vec::with_capacity(BURST * 256);
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
        out.clear();
        for _ in 0..BURST {
            frame::append(black_box(&event), &mut out).expect("it fits");
        }
        out.len()
    });
}

#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    for _ in 0..BURST {
        frame::append(&numbered(), &mut bytes).expect("it fits");
    }
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
        let mut rest = black_box(&bytes[..]);
        while let Some((frame, next)) = Frame::split(rest, usize::MAX).expect("our own frame") {
            black_box(frame.body::<Numbered>().expect("our own event"));
            rest = next;
        }
    });
}

#[divan::bench]
fn understand_pi_line(bencher: Bencher<'_, '_>) {
    let delta = "x".repeat(100);
    let line = format!(
        r#"{{"type":"message_update","usage":{{"input":657,"output":32,"cacheRead":0,"cacheWrite":0,"reasoning":0,"totalTokens":689,"cost":{{"input":0,"output":0,"cacheRead":0,"cacheWrite":0,"total":0}}}},"assistantMessageEvent":{{"type":"text_delta","contentIndex":0,"delta":"{delta}"}}}}"#
    );
    let mut dialect = Dialect::new(Tongue::Pi);
    let mut fragments = Vec::new();
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
        for _ in 0..BURST {
            dialect.push(black_box(line.as_bytes()), 0, &mut fragments);
        }
        fragments.drain(..).count()
    });
}
