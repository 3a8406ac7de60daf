//! Another build takes over in the middle of everything: what sessions say comes whole, once, under one number.

use std::collections::BTreeMap;
use std::time::Duration;

use oqto_control::{Envelope, Event, Runner, Session, SessionConfig};
use oqto_protocol::id::SessionId;
use oqto_tests::Home;

/// How many sessions speak at once.
const SESSIONS: usize = 20;

/// How many lines each says.
const LINES: usize = 400;

/// Makes every mark one that another build wrote, of which this one understands nothing but the outline.
const ANOTHER_BUILD: &str = r#"
import glob, json, sqlite3, sys
found = 0
for path in glob.glob(sys.argv[1] + "/events/*/events.sqlite"):
    log = sqlite3.connect(path)
    for session, mark in log.execute("SELECT session, mark FROM marks").fetchall():
        mark = json.loads(mark)
        mark["of_a_later_build"] = {"anything": 1}
        mark["core"]["version"] += 1
        mark["core"]["inside"] = ["something", "else"]
        mark["core"]["outline"]["of_a_later_build"] = True
        log.execute("UPDATE marks SET mark = ? WHERE session = ?", (json.dumps(mark).encode(), session))
        found += 1
    log.commit()
print(found)
"#;

fn exec(home: &Home) -> SessionConfig {
    SessionConfig {
        harness: "exec".to_owned(),
        cwd: Some(home.workspace().display().to_string()),
        ..SessionConfig::default()
    }
}

/// Sessions that each say their lines, slowly enough that runners die meanwhile.
async fn speaking(home: &Home, runner: &Runner) -> Vec<SessionId> {
    let mut ids = Vec::new();
    for _ in 0..SESSIONS {
        let session = runner.create(exec(home)).await.unwrap();
        let script = format!("n=0; while [ $n -lt {LINES} ]; do echo $n; n=$((n+1)); sleep 0.02; done");
        session.prompt(script).await.unwrap();
        ids.push(session.id().clone());
    }
    ids
}

/// All events of a session up to the end of its run.
async fn told(session: &Session) -> Vec<Envelope> {
    let mut events = session.events().await.unwrap();
    let mut told = Vec::new();
    let read = async {
        loop {
            let envelope = events.next().await.expect("the stream goes on").unwrap();
            let is_end = matches!(envelope.event, Event::AgentIdle(_));
            told.push(envelope);
            if is_end {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), read)
        .await
        .unwrap();
    told
}

/// What the program wrote, in the order of the events, which have every number once.
fn output(told: &[Envelope]) -> String {
    let mut last = 0;
    let mut text = String::new();
    for envelope in told {
        let seq = envelope.seq.unwrap();
        assert_eq!(envelope.first_seq.unwrap_or(seq), last + 1, "{envelope:?}");
        last = seq;
        if let Event::ToolProgress(progress) = &envelope.event
            && let Some(piece) = progress.partial_output.value()["stdout"].as_str()
        {
            text.push_str(piece);
        }
    }
    text
}

async fn survive(kills: usize, between: impl Fn(&Home)) {
    let home = Home::new();
    let control = home.control();
    let mut runner = control.local().await.unwrap();
    let ids = speaking(&home, &runner).await;
    let mut numbers: BTreeMap<SessionId, u64> = BTreeMap::new();
    for _ in 0..kills {
        // Some of what is said is committed and some is not, whenever it is.
        for info in runner.sessions().await.unwrap() {
            let before = numbers.insert(info.session_id.clone(), info.cursor.seq);
            assert!(before <= Some(info.cursor.seq), "a number was taken back");
        }
        home.kill_runner();
        between(&home);
        runner = control.local().await.unwrap();
    }
    let expected: String = (0..LINES).map(|n| format!("{n}\n")).collect();
    for id in ids {
        let session = runner.session(id);
        let told = told(&session).await;
        assert!(output(&told) == expected, "{}", output(&told).len());
        session.close().await.unwrap();
    }
    home.no_agents();
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_sessions_speak_on_under_the_same_numbers_however_often_the_runner_is_killed() {
    survive(8, |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_sessions_speak_on_under_the_same_numbers_when_other_builds_take_over() {
    survive(4, |home| {
        let patched = std::process::Command::new("python3")
            .args(["-c", ANOTHER_BUILD])
            .arg(home.state())
            .output()
            .unwrap();
        assert!(patched.status.success(), "{patched:?}");
        let marks: usize = String::from_utf8(patched.stdout).unwrap().trim().parse().unwrap();
        assert!(marks > 0, "nothing was handed over");
    })
    .await;
}
