//! What a session costs that has been talked to for long: each turn what the first ones cost, and its tape no more than
//! what has been said since.
//!
//! The mind that decides in a driver, a tape and an event log on a real disk, and a pi that says what it is told to.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use oqto_protocol::command::{Command, CommandEnvelope, GetStats, Prompt};
use oqto_protocol::cursor::Cursor;
use oqto_protocol::id::CommandId;
use oqto_protocol::reply::Reply;
use oqto_protocol::session::SessionState;
use oqto_runner::event_log::{EventLog, Retention, SessionLog};
use oqto_runner::harness::Harness;
use oqto_runner::shim::tape::{FILE_NAME, Writer};
use oqto_runner::shim::{Kind, TapeReader, Target};
use oqto_runner::supervisor::simulation::{Mind, Origin};
use serde_json::{Value, json};

mod support;

use support::{T0, setup};

/// Where its event log is.
const STORE: &str = "log/events.sqlite";

/// Turns of a session that is old.
const OLD: u64 = 10_000;

/// Turns of a session that is young. The replies that a mark repeats are as many as they get by then.
const YOUNG: u64 = 300;

/// Turns that are measured together.
const LAP: u64 = 100;

/// What a tape may have on disk: two of the steps in which blocks are given back, one of those in which the shim is told,
/// and the step in which a mark is kept that no event comes with.
const TAPE_MAX: u64 = 10 * 1024 * 1024;

/// What is to be said of some turns.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// The longest mark, bytes.
    mark: usize,
    /// What went to the log beside frames and messages, bytes.
    beside: usize,
    /// What the tape has on disk, bytes.
    tape: u64,
    /// Processor time of all that decides, nanoseconds.
    core_ns: u64,
}

/// One session, driven by hand.
struct Bench {
    dir: tempfile::TempDir,
    store: EventLog,
    log: SessionLog,
    writer: Writer,
    tape: TapeReader,
    mind: Mind<()>,
    replies: Vec<Reply>,
    now: u64,
    ids: u64,
    cost: Cost,
    /// The last event that the log was given.
    appended: u64,
    /// Frames and messages that the log was given, bytes.
    said: u64,
}

impl Cost {
    /// Of both: of each thing the most, of processor time the least, since others run here too.
    fn and(self, lap: Self) -> Self {
        Self {
            mark: self.mark.max(lap.mark),
            beside: self.beside.max(lap.beside),
            tape: self.tape.max(lap.tape),
            core_ns: self.core_ns.min(lap.core_ns),
        }
    }
}

/// Processor time that this thread has had, nanoseconds.
fn thread_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = EventLog::open(&dir.path().join(STORE), Retention::DEFAULT).unwrap();
        let log = store.create_session("s", Bytes::new()).await.unwrap();
        let writer = Writer::create(&dir.path().join(FILE_NAME)).unwrap();
        let tape = TapeReader::open(dir.path(), 0).unwrap();
        let at = Cursor {
            epoch: u32::try_from(log.epoch()).unwrap(),
            seq: 0,
        };
        let mut bench = Self {
            mind: Mind::new(Origin::begin(setup(Harness::pi()), T0), 0, at, 0),
            dir,
            store,
            log,
            writer,
            tape,
            replies: Vec::new(),
            now: T0,
            ids: 0,
            cost: Cost::default(),
            appended: 0,
            said: 0,
        };
        let start = json!({ "shim_version": 1, "shim_pid": 1, "harness_pid": 2, "boot_id": "boot" });
        let start = start.to_string();
        bench.writer.append(Kind::Start, T0, &[start.as_bytes()]).unwrap();
        let report = json!({ "confined": { "layers": [] } }).to_string();
        bench
            .writer
            .append(Kind::Report, T0, &[report.as_bytes(), b"\n"])
            .unwrap();
        bench.settle().await;
        assert_eq!(bench.mind.state(), SessionState::Idle);
        bench
    }

    fn say(&mut self, line: &Value) {
        let line = line.to_string();
        self.writer
            .append(Kind::Out, self.now, &[line.as_bytes(), b"\n"])
            .unwrap();
    }

    /// Does what the mind wants written, as a shim does; pi answers what it is asked. Whether there was anything.
    fn write(&mut self) -> bool {
        let mut wrote = false;
        while let Some(write) = self.mind.next_write(self.now) {
            wrote = true;
            let (id, to, bytes) = (write.id, write.to, write.bytes.clone());
            match to {
                Target::Note => self.writer.append(Kind::Note, self.now, &[&bytes]).unwrap(),
                Target::Stdin => {
                    self.writer.append(Kind::In, self.now, &[&id, &bytes]).unwrap();
                    self.hear(&serde_json::from_slice(&bytes).unwrap());
                }
            }
            self.mind.wrote(id);
        }
        wrote
    }

    fn hear(&mut self, order: &Value) {
        let data = match order["type"].as_str().unwrap() {
            "get_state" => json!({ "sessionId": "one", "isStreaming": false }),
            "get_session_stats" => json!({ "totalMessages": 1, "padding": "x".repeat(20_000) }),
            _ => json!({}),
        };
        self.say(&json!({
            "id": order["id"], "type": "response", "command": order["type"], "success": true, "data": data
        }));
        if order["type"] == "prompt" {
            self.answer();
        }
    }

    /// One turn of a model that says a little.
    fn answer(&mut self) {
        let said = |role: &str, text: &str| json!({ "role": role, "content": [{ "type": "text", "text": text }], "stopReason": "stop" });
        self.say(&json!({ "type": "agent_start" }));
        let (user, assistant) = (said("user", "go on"), said("assistant", "one two three four "));
        self.say(&json!({ "type": "message_start", "message": user }));
        self.say(&json!({ "type": "message_end", "message": user }));
        self.say(&json!({ "type": "message_start", "message": { "role": "assistant" } }));
        for (n, word) in ["", "one ", "two ", "three ", "four "].iter().enumerate() {
            let kind = if n == 0 { "text_start" } else { "text_delta" };
            let event = json!({ "type": kind, "contentIndex": 0, "delta": word });
            self.say(&json!({ "type": "message_update", "assistantMessageEvent": event }));
        }
        self.say(&json!({ "type": "message_end", "message": assistant }));
        self.say(&json!({ "type": "agent_end", "messages": [] }));
        self.say(&json!({ "type": "agent_settled" }));
    }

    /// Goes on until nothing is left to do.
    async fn settle(&mut self) {
        loop {
            let before = thread_ns();
            let wrote = self.write();
            self.mind.reading().grown(self.writer.len());
            self.mind.reading().begin_turn();
            while let Some(record) = self.tape.next(self.mind.reading().until()).unwrap() {
                let _deeds = self.mind.feed(&record).unwrap();
            }
            let said = self.mind.take().unwrap();
            self.cost.core_ns += thread_ns() - before;
            let told = said.batch.is_some();
            if let Some(batch) = said.batch {
                let messages: usize = batch.messages().iter().map(|row| row.frame.len()).sum();
                self.cost.mark = self.cost.mark.max(batch.mark().map_or(0, Bytes::len));
                self.cost.beside += batch.weight() - batch.bytes().len() - messages;
                self.said += (batch.bytes().len() + messages) as u64;
                self.appended = batch.last_seq();
                let _pending = self.log.append(batch).await.unwrap();
            }
            self.replies
                .extend(said.answers.into_iter().map(|((), reply)| reply));
            if !wrote && !told {
                break;
            }
        }
        self.trim().await;
    }

    /// Gives back what nobody needs again, as driver and shim do.
    async fn trim(&mut self) {
        if let Some((at, mark)) = self.mind.reading().lone_mark() {
            self.log.put_mark(mark).await.unwrap().await.unwrap();
            self.mind.reading().kept(at);
        }
        if let Some((read, needed)) = self.mind.reading().news(self.log.last_seq()) {
            self.writer.trim(needed.min(read)).unwrap();
        }
    }

    async fn tell(&mut self, command: Command) {
        self.ids += 1;
        self.now += 1000;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.ids.to_le_bytes());
        let envelope = CommandEnvelope {
            id: CommandId(id),
            session_id: "s".parse().unwrap(),
            runner_id: None,
            command,
            on_behalf_of: None,
        };
        assert!(self.mind.ask(&envelope, (), self.now).is_none());
        self.settle().await;
        let reply = self.replies.pop().unwrap();
        assert!(reply.success && self.replies.is_empty(), "{reply:?}");
        assert_eq!(self.mind.state(), SessionState::Idle);
    }

    /// Some turns; what their laps cost.
    async fn turns(&mut self, count: u64) -> Cost {
        let mut whole = Cost {
            core_ns: u64::MAX,
            ..Cost::default()
        };
        for _ in 0..count / LAP {
            self.cost = Cost::default();
            for _ in 0..LAP {
                self.tell(Command::Prompt(Prompt {
                    message: "go on".to_owned(),
                    images: Vec::new(),
                    client_id: None,
                    resources: Vec::new(),
                }))
                .await;
            }
            self.committed().await;
            self.cost.tape = self.tape_on_disk();
            whole = whole.and(self.cost);
        }
        whole
    }

    async fn committed(&self) {
        self.log.wait_past(self.appended - 1).await.unwrap();
    }

    fn tape_path(&self) -> PathBuf {
        self.dir.path().join(FILE_NAME)
    }

    fn tape_on_disk(&self) -> u64 {
        std::fs::metadata(self.tape_path()).unwrap().blocks() * 512
    }

    /// How many records the next runner reads again. The session stands as it did.
    async fn found_again(&self) -> usize {
        self.store.close().await;
        let store = EventLog::open(&self.dir.path().join(STORE), Retention::DEFAULT).unwrap();
        let log = store.session("s").unwrap();
        let mark = log.mark().await.unwrap();
        let origin = Origin::new(mark.as_deref().map(|mark| &mark[..]), setup(Harness::pi()), T0).unwrap();
        let mut tape = TapeReader::open(self.dir.path(), origin.tape()).unwrap();
        let at = Cursor {
            epoch: u32::try_from(log.epoch()).unwrap(),
            seq: log.last_seq(),
        };
        let mut mind: Mind<()> = Mind::new(origin, self.writer.len(), at, log.next_idx());
        let mut count = 0;
        while let Some(record) = tape.next(self.writer.len()).unwrap() {
            mind.feed(&record).unwrap();
            count += 1;
        }
        assert!(mind.take().unwrap().batch.is_none(), "something is told twice");
        assert_eq!(mind.status().info, self.mind.status().info);
        store.close().await;
        count
    }
}

#[tokio::test]
async fn the_ten_thousandth_turn_costs_what_the_three_hundredth_does() {
    let (mut bench, mut other) = (Bench::new().await, Bench::new().await);
    bench.turns(OLD - 10 * LAP).await;
    other.turns(YOUNG - LAP).await;
    let (mut young, mut old) = (other.turns(LAP).await, bench.turns(LAP).await);
    // By turns: what is in the way for a while is in the way of both.
    for _ in 1..10 {
        young.core_ns = young.core_ns.min(other.turns(LAP).await.core_ns);
        old = old.and(bench.turns(LAP).await);
    }
    println!("100 turns, young: {young:?}\n100 turns, old: {old:?}");
    // Numbers get longer by some digits.
    assert!(old.mark <= young.mark + 64, "{young:?} {old:?}");
    assert!(
        old.beside <= young.beside + 64 * LAP as usize,
        "{young:?} {old:?}"
    );
    assert!(old.core_ns <= 2 * young.core_ns, "{young:?} {old:?}");
    assert!(old.tape <= TAPE_MAX, "{old:?}");
    // Without trimming there would be something to see.
    assert!(bench.writer.len() > TAPE_MAX, "{}", bench.writer.len());
    assert!(bench.found_again().await < 64);
    let store = std::fs::metadata(bench.dir.path().join(STORE)).unwrap();
    assert!(store.len() < 2 * bench.said, "{} for {}", store.len(), bench.said);
}

#[tokio::test]
async fn the_tape_of_a_session_that_is_only_asked_things_does_not_grow() {
    let mut bench = Bench::new().await;
    bench.turns(LAP).await;
    let told = bench.log.last_seq();
    let mut most = 0;
    while bench.writer.len() < 4 * TAPE_MAX {
        bench.tell(Command::GetStats(GetStats {})).await;
        most = most.max(bench.tape_on_disk());
    }
    assert_eq!(bench.log.last_seq(), told, "a question made an event");
    assert!(most <= TAPE_MAX, "{most} of {}", bench.writer.len());
    // What a successor begins with is no further behind than what is kept for it.
    let again = bench.found_again().await;
    assert!(again < 300, "{again}");
}
