//! The house's transport beside gRPC and WebSocket: the same frames, at a pace and as fast as they go, in turns.
//!
//! `cargo bench --manifest-path tests/peers/Cargo.toml [-- --quick]`
//!
//! Each way goes between two processes, over TLS 1.3 with certificates on both sides. `oqto` is the runner's listener and
//! outbox, the control's library at the other end. `oqto, the whole way` is everything: from a harness that
//! prints lines, over the shim, its tape and the event log on the disk; no peer has to do that.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use oqto_control::{Cursor, Event, Session};
use oqto_peers::{Asked, Grpc, Messages, WebSocket, serve_if_asked};
use oqto_tests::bench::{
    Bare, Effort, House, Plan, RunnerProgram, Spread, Table, Taker, bare_if_asked, children, cpu_s,
    generate_if_asked, now_ns, ratio, run, session_of, stamp_of_delta,
};

const DELTA_LEN: usize = 100;

/// The first events of a round meet cold caches and a path that is still being discovered.
const WARM_UP: usize = 200;

fn main() -> ExitCode {
    if let Some(code) = generate_if_asked().or_else(bare_if_asked).or_else(serve_if_asked) {
        return code;
    }
    let effort = Effort::asked();
    let program = RunnerProgram::ready();
    run(measure(effort, program));
    ExitCode::SUCCESS
}

/// Both ends of everything.
struct Ways {
    bare: Bare,
    grpc: Grpc,
    websocket: WebSocket,
    house: House,
    session: Session,
}

async fn measure(effort: Effort, program: RunnerProgram) {
    let house = House::open(&program).await;
    let session = house.session().await;
    let ways = Ways {
        bare: Bare::open().await,
        grpc: Grpc::open().await,
        websocket: WebSocket::open(),
        house,
        session,
    };
    for (per_second, lines) in [
        (1_000, effort.of(1_500, 5_000)),
        (20_000, effort.of(15_000, 100_000)),
    ] {
        let plan = Plan {
            lines,
            per_second: Some(per_second),
            delta_len: DELTA_LEN,
        };
        ways.latency(plan, effort.of(1, 7)).await;
    }
    let plan = Plan {
        lines: effort.of(100_000, 1_000_000),
        per_second: None,
        delta_len: DELTA_LEN,
    };
    ways.flood(plan, effort.of(3, 11)).await;
    ways.session.close().await.expect("a session ends");
    ways.house.close().await;
    ways.bare.close().await;
    ways.grpc.close();
    ways.websocket.close();
}

/// What one way's rounds gave.
struct Figures {
    name: &'static str,
    /// Those who send.
    senders: Vec<u32>,
    rounds: Vec<Vec<f64>>,
    seconds: Vec<f64>,
    sender_s: f64,
    reader_s: f64,
}

impl Figures {
    fn new(name: &'static str, senders: Vec<u32>) -> Self {
        Self {
            name,
            senders,
            rounds: Vec::new(),
            seconds: Vec::new(),
            sender_s: 0.0,
            reader_s: 0.0,
        }
    }

    async fn round(&mut self, plan: Plan, take: impl Future<Output = Vec<f64>>) {
        let sent = |senders: &[u32]| senders.iter().map(|&pid| cpu_s(pid)).sum::<f64>();
        let (sender_s, reader_s) = (sent(&self.senders), cpu_s(std::process::id()));
        let began = Instant::now();
        let mut samples = take.await;
        self.seconds.push(began.elapsed().as_secs_f64());
        self.sender_s += sent(&self.senders) - sender_s;
        self.reader_s += cpu_s(std::process::id()) - reader_s;
        if plan.per_second.is_some() {
            self.rounds.push(samples.split_off(WARM_UP));
        }
    }

    /// The median over the rounds of each one's percentile.
    fn middle(&self, share: f64) -> f64 {
        let each = self.rounds.iter().map(|round| Spread::of(round.iter().copied()));
        Spread::of(each.map(|round| round.percentile(share))).median()
    }

    fn cost(&self, plan: Plan) -> [String; 2] {
        let events = (plan.lines * self.seconds.len()) as f64;
        [self.sender_s, self.reader_s].map(|seconds| format!("{:.1}", seconds / events * 1e6))
    }
}

impl Ways {
    async fn latency(&self, plan: Plan, rounds: usize) {
        let mut ours = Figures::new("oqto", vec![self.bare.pid()]);
        let mut grpc = Figures::new("gRPC", vec![self.grpc.pid()]);
        let mut websocket = Figures::new("WebSocket", vec![self.websocket.pid()]);
        let mut senders = children(self.house.pid());
        senders.push(self.house.pid());
        let mut whole = Figures::new("oqto, the whole way", senders);
        let asked = Asked {
            plan,
            messages: Messages::Each,
        };
        let fed = self.bare.runner.session(session_of(plan));
        for _ in 0..rounds {
            ours.round(plan, follow(plan, &fed)).await;
            grpc.round(plan, self.grpc.take(asked)).await;
            websocket.round(plan, self.websocket.take(asked)).await;
            whole.round(plan, through_everything(plan, &self.session)).await;
        }
        println!(
            "{} events/s of {DELTA_LEN} bytes, one way, us; medians of {rounds} rounds of {}; CPU s per million events",
            plan.per_second.unwrap_or_default(),
            plan.lines - WARM_UP
        );
        let mut table = Table::new([
            "way",
            "p50",
            "p99",
            "p99.9",
            "p99 to gRPC's",
            "CPU sender",
            "reader",
        ]);
        for figures in [&ours, &grpc, &websocket, &whole] {
            let [sender, reader] = figures.cost(plan);
            table.row([
                figures.name.to_owned(),
                format!("{:.0}", figures.middle(0.5)),
                format!("{:.0}", figures.middle(0.99)),
                format!("{:.0}", figures.middle(0.999)),
                ratio(figures.middle(0.99), grpc.middle(0.99)),
                sender,
                reader,
            ]);
        }
        table.print();
        let met = ours.middle(0.99) <= grpc.middle(0.99);
        println!(
            "p99 no worse than gRPC's: {}\n",
            if met { "met" } else { "missed" }
        );
    }

    async fn flood(&self, plan: Plan, rounds: usize) {
        let mut ours = Figures::new("oqto", vec![self.bare.pid()]);
        let mut grpc = [
            (Messages::Each, "gRPC, an event a message"),
            (Messages::Chunks, "gRPC, 64 KiB of events a message"),
        ]
        .map(|(messages, name)| {
            (
                Asked { plan, messages },
                Figures::new(name, vec![self.grpc.pid()]),
            )
        });
        let mut websocket = [
            (Messages::Each, "WebSocket, an event a message"),
            (Messages::Chunks, "WebSocket, 64 KiB of events a message"),
        ]
        .map(|(messages, name)| {
            let senders = vec![self.websocket.pid()];
            (Asked { plan, messages }, Figures::new(name, senders))
        });
        let fed = self.bare.runner.session(session_of(plan));
        for _ in 0..rounds {
            ours.round(plan, follow(plan, &fed)).await;
            for (asked, figures) in &mut grpc {
                figures.round(plan, self.grpc.take(*asked)).await;
            }
            for (asked, figures) in &mut websocket {
                figures.round(plan, self.websocket.take(*asked)).await;
            }
        }
        println!(
            "as fast as they go, {DELTA_LEN} bytes, medians of {rounds} rounds of {}; making the frames is in every figure",
            plan.lines
        );
        let mut table = Table::new([
            "way",
            "events/s",
            "to oqto",
            "CPU s per million: sender",
            "reader",
        ]);
        let rate =
            |figures: &Figures| plan.lines as f64 / Spread::of(figures.seconds.iter().copied()).median();
        let floor = rate(&ours);
        let peers = grpc.iter().chain(&websocket).map(|(_, figures)| figures);
        for figures in std::iter::once(&ours).chain(peers) {
            let [sender, reader] = figures.cost(plan);
            table.row([
                figures.name.to_owned(),
                format!("{:.0}", rate(figures)),
                ratio(rate(figures), floor),
                sender,
                reader,
            ]);
        }
        table.print();
    }
}

/// All events of a runner that is nothing but its transport.
async fn follow(plan: Plan, session: &Session) -> Vec<f64> {
    let events = session.events_from(Cursor::default()).await;
    let mut events = events.expect("a session is followed");
    let mut taker = Taker::new(plan);
    while let Some(event) = events.next().await {
        let envelope = event.expect("events in order");
        taker.admit(envelope.seq.expect("a number"), &envelope.event);
    }
    taker.finish()
}

async fn through_everything(plan: Plan, session: &Session) -> Vec<f64> {
    let mut samples = Vec::with_capacity(plan.lines);
    let mut count = 0;
    let prompted = session.prompt(plan.to_string()).await;
    let from = prompted.expect("a session takes a prompt");
    let mut events = session.events_from(from).await.expect("a session is followed");
    while let Some(event) = events.next().await {
        match event.expect("events in order").event {
            Event::TextDelta(text) => {
                // Neighbours that were merged are here at the same time; each has its own.
                for delta in text.delta.as_bytes().chunks(DELTA_LEN) {
                    let delta = std::str::from_utf8(delta).expect("our own delta");
                    let stamp = stamp_of_delta(delta).expect("our own delta");
                    samples.push(now_ns().saturating_sub(stamp) as f64 / 1e3);
                    count += 1;
                }
            }
            Event::StreamDone(_) => break,
            _ => {}
        }
    }
    assert_eq!(count, plan.lines, "an event is missing or there twice");
    samples
}
