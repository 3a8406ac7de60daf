//! A runner under attack, an honest control beside it, and what both are measured by.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use oqto_control::{Control, Event, Runner, Session, SessionConfig};
use oqto_protocol::frame::Kind;
use oqto_tests::Home;
use quinn::Connection;
use tokio::task::JoinHandle;

use crate::stranger::{Stranger, control_papers, first_answer, hello};

/// How many commands make a round. The worst but one is its 99th percentile.
const ROUND: usize = 100;

/// How many rounds there are at least, quiet or loud; the median of them counts.
const ROUNDS_MIN: usize = 3;

/// Below this nobody notices, and a machine of two cores that the attackers run on too says nothing about the runner. One
/// that was built without optimisations takes some twenty times as long for what it decodes, and a flood is all decoding.
const P99_FLOOR: Duration = Duration::from_millis(if cfg!(debug_assertions) { 250 } else { 10 });

/// How long one attack may last.
const ATTACK_MAX: Duration = Duration::from_secs(120);

/// The runner, the control, and a session that talks without end.
pub(crate) struct Siege {
    pub(crate) control: Control,
    pub(crate) runner: Runner,
    session: Session,
    home: Home,
    pid: i32,
    heard: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

/// Told to whoever attacks when enough was measured.
#[derive(Clone, Default)]
pub(crate) struct Enough(Arc<AtomicBool>);

impl Enough {
    pub(crate) fn is_it(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Others who come to the same runner.
#[derive(Clone)]
pub(crate) struct Door {
    control: Control,
    runner: Runner,
    authority: std::path::PathBuf,
}

impl Door {
    /// One without papers.
    pub(crate) fn stranger(&self) -> Stranger {
        Stranger::of(&self.control, self.runner.addr())
    }

    /// One with good papers, who says nothing yet.
    pub(crate) async fn known(&self) -> Result<Connection, String> {
        let papers = control_papers(&self.authority, self.control.authority().id().as_str());
        self.stranger().with(papers).connect().await
    }

    /// One who was welcomed.
    pub(crate) async fn welcomed(&self) -> Result<Connection, String> {
        let connection = self.known().await?;
        match first_answer(&connection, &hello(1, 1)).await? {
            (Kind::WELCOME, _) => Ok(connection),
            (other, _) => Err(format!("answered with {other:?}")),
        }
    }
}

impl Siege {
    pub(crate) async fn new() -> Self {
        let home = Home::new();
        let control = home.control();
        let runner = control.local().await.unwrap();
        let config = SessionConfig {
            harness: "exec".to_owned(),
            cwd: Some(home.workspace().to_str().unwrap().to_owned()),
            ..SessionConfig::default()
        };
        let session = runner.create(config).await.unwrap();
        let mut events = session.events().await.unwrap();
        session
            .prompt("while :; do echo as ever; sleep 0.02; done")
            .await
            .unwrap();
        let heard = Arc::new(AtomicUsize::new(0));
        let counted = heard.clone();
        let listening = tokio::spawn(async move {
            let mut last = None;
            while let Some(event) = events.next().await {
                let event = event.unwrap();
                if matches!(event.event, Event::SessionClosed(_)) {
                    return;
                }
                // In order and without a gap, whatever goes on.
                let Some(seq) = event.seq else { continue };
                if let Some(last) = last {
                    assert_eq!(event.first_seq.unwrap_or(seq), last + 1);
                }
                last = Some(seq);
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let pid = home.runner_pid().unwrap();
        Self {
            control,
            runner,
            session,
            home,
            pid,
            heard,
            listening,
        }
    }

    pub(crate) fn door(&self) -> Door {
        Door {
            control: self.control.clone(),
            runner: self.runner.clone(),
            authority: self.home.path("data/oqto/authority"),
        }
    }

    /// Attacks, and asserts that the runner's memory grows by no more than `growth_max` bytes, that the honest control is
    /// answered about as fast as before or afterwards, whichever the machine was slower at, and hears everything, and that the same runner is there afterwards, for new ones
    /// too.
    pub(crate) async fn endures<Attack: Future<Output = ()> + Send + 'static>(
        self,
        what: &str,
        growth_max: u64,
        attack: impl FnOnce(Door, Enough) -> Attack,
    ) {
        // What a first command makes is not the attack's.
        self.p99().await;
        let base = self.memory("VmRSS");
        std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5").unwrap();
        let before = self.quiet().await;
        let enough = Enough::default();
        let heard = self.heard.load(Ordering::SeqCst);
        let begun = Instant::now();
        let attack = attack(self.door(), enough.clone());
        let attacking = std::thread::spawn(move || elsewhere().block_on(attack));
        let mut loud = Vec::new();
        while loud.len() < ROUNDS_MIN || !attacking.is_finished() {
            loud.push(self.p99().await);
            if loud.len() >= ROUNDS_MIN {
                enough.0.store(true, Ordering::SeqCst);
            }
            assert!(begun.elapsed() < ATTACK_MAX, "the attack does not end");
        }
        attacking.join().expect("the attack went as it should");
        let growth = self.memory("VmHWM").saturating_sub(base);
        let heard = self.heard.load(Ordering::SeqCst) - heard;
        let loud = median(loud);
        let after = self.quiet().await;
        eprintln!(
            "{what}: p99 {before:?} before, {loud:?} meanwhile, {after:?} after; {} KiB more, of {} KiB; {heard} events in {:?}",
            growth / 1024,
            growth_max / 1024,
            begun.elapsed()
        );
        assert!(growth <= growth_max, "{what}: {growth} bytes more");
        assert!(heard > 0, "{what}: no event came");
        assert!(
            loud <= (2 * before.max(after)).max(P99_FLOOR),
            "{what}: {before:?} became {loud:?} and then {after:?}"
        );
        self.still_stands().await;
    }

    /// The 99th percentile while nobody attacks.
    async fn quiet(&self) -> Duration {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS_MIN {
            rounds.push(self.p99().await);
        }
        median(rounds)
    }

    /// The 99th percentile of a round of commands.
    async fn p99(&self) -> Duration {
        let mut took = Vec::with_capacity(ROUND);
        for _ in 0..ROUND {
            let begun = Instant::now();
            self.session.state().await.unwrap();
            took.push(begun.elapsed());
        }
        took.sort_unstable();
        took[ROUND - 2]
    }

    /// A figure of the runner's process, bytes.
    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    async fn still_stands(self) {
        assert_eq!(self.home.runner_pid(), Some(self.pid));
        assert!(!self.listening.is_finished(), "the stream of events ended");
        let other = self.home.control();
        // Strangers may hold every place until they have to have said hello.
        let until = Instant::now() + Duration::from_secs(30);
        let fresh = loop {
            match other.connect(self.runner.addr()).await {
                Ok(fresh) => break fresh,
                Err(error) if Instant::now() > until => panic!("nobody new is let in: {error:?}"),
                Err(_) => {}
            }
        };
        assert_eq!(fresh.status().await.unwrap().sessions, 1);
        other.close().await;
        self.session.close().await.unwrap();
        tokio::time::timeout(ATTACK_MAX, self.listening)
            .await
            .unwrap()
            .unwrap();
        self.control.close().await;
        let home = self.home;
        tokio::task::spawn_blocking(move || drop(home)).await.unwrap();
    }
}

/// Who attacks is somewhere else, on processors of their own: here, they take what others leave.
fn elsewhere() -> tokio::runtime::Runtime {
    let last = || rustix::process::setpriority_process(None, 19).unwrap();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_start(last)
        .enable_all()
        .build()
        .unwrap()
}

fn median(mut figures: Vec<Duration>) -> Duration {
    figures.sort_unstable();
    figures[figures.len() / 2]
}
