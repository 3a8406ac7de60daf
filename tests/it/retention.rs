//! What a runner does with event logs: a damaged one is set aside under a name that is said, and what can go on does.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use oqto_protocol::event::{Envelope, Event};
use oqto_runner::event_log::{EventLog, Retention};
use oqto_tests::{Home, events, wait_until};

/// The one event log that there is.
fn store(home: &Home) -> PathBuf {
    let dirs = fs::read_dir(home.state().join("events")).unwrap();
    let dirs: Vec<_> = dirs.map(|dir| dir.unwrap().path()).collect();
    assert_eq!(dirs.len(), 1, "{dirs:?}");
    dirs[0].join("events.sqlite")
}

fn sessions(home: &Home) -> Vec<String> {
    let listed: serde_json::Value = serde_json::from_str(&home.run(&["sessions", "--json"]).ok()).unwrap();
    let listed = listed["sessions"].as_array().unwrap();
    listed
        .iter()
        .map(|session| session["session_id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_damaged_event_log_is_set_aside_and_said_and_what_lives_is_told_again_in_a_new_epoch() {
    let home = Home::new();
    assert_eq!(home.sh("echo over").ok(), "over\n");
    let over = sessions(&home);
    let script = "echo before; touch begun; while ! test -e go; do sleep 0.01; done; echo after";
    let mut living = home
        .ctl(&["exec", "--json", "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the program to begin", || {
        home.path("workspace/begun").exists().then_some(())
    });
    let session = sessions(&home).into_iter().find(|id| !over.contains(id)).unwrap();
    let before = wait_until("the first words", || {
        let listed = home.run(&["sessions", "--json"]).ok();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let listed = listed["sessions"].as_array().unwrap().clone();
        let cursor = listed.iter().find(|one| one["session_id"] == session.as_str())?["cursor"].clone();
        (cursor["seq"].as_u64()? >= 3).then_some(cursor)
    });
    // It would bring the runner back by itself.
    living.kill().unwrap();
    living.wait().unwrap();
    home.kill_runner();
    let path = store(&home);
    fs::write(&path, vec![b'?'; 64 * 1024]).unwrap();

    home.file("workspace/go", "");
    let mut attached = home
        .ctl(&["attach", &session, "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(attached.stdout.take().unwrap()).lines();
    let mut told: Vec<Envelope> = Vec::new();
    for line in lines {
        told.push(serde_json::from_str(&line.unwrap()).unwrap());
        if matches!(told.last().unwrap().event, Event::StreamDone(_)) {
            assert_eq!(home.run(&["close", &session]).code, 0);
        }
    }
    attached.wait().unwrap();
    let numbers: Vec<u64> = told.iter().map(|envelope| envelope.seq.unwrap()).collect();
    assert_eq!(numbers.first(), Some(&1));
    assert!(
        matches!(told.last().unwrap().event, Event::SessionClosed(_)),
        "{told:?}"
    );
    let epoch = u64::from(told[0].epoch);
    assert!(epoch > before["epoch"].as_u64().unwrap() + 1_000_000, "{epoch}");
    let words = serde_json::to_string(&told).unwrap();
    assert!(words.contains("before") && words.contains("after"), "{words}");

    let beside = fs::read_dir(path.parent().unwrap()).unwrap();
    let aside: Vec<_> = beside
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            name.contains(".damaged-") && !["-wal", "-shm", "-damage"].iter().any(|end| name.ends_with(end))
        })
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(
        fs::read(path.with_file_name(&aside[0])).unwrap()[0],
        b'?',
        "it is as it was"
    );
    // What was over is there still, and says where its events are.
    let told = events(&home.run(&["attach", &over[0], "--json"]).ok());
    let said = told.iter().any(|envelope| match &envelope.event {
        Event::AgentError(error) => error.error.contains(&aside[0]) && !error.recoverable,
        _ => false,
    });
    assert!(said, "{told:?}");
    assert!(home.run(&["status"]).ok().contains(&aside[0]));
    // And again, after a restart that finds nothing damaged.
    assert_eq!(home.stop(), []);
    assert_eq!(events(&home.run(&["attach", &over[0], "--json"]).ok()), told);
    assert_eq!(home.sh("echo on").ok(), "on\n");
}

#[test]
fn a_deletion_that_was_cut_off_is_finished_by_the_next_runner() {
    let home = Home::new();
    assert_eq!(home.sh("echo noted").ok(), "noted\n");
    let first = sessions(&home).remove(0);
    assert_eq!(home.sh("echo written again").ok(), "written again\n");
    let all = sessions(&home);
    let dirs: Vec<_> = all
        .iter()
        .map(|id| home.state().join("sessions").join(id))
        .collect();
    home.kill_runner();
    // What a kill leaves between the note that it is to go and its removal.
    for (id, dir) in all.iter().zip(&dirs) {
        let (record, note) = (dir.join("session.json"), dir.join("session.json.leaving"));
        fs::copy(&record, note).unwrap();
        if *id == first {
            fs::remove_file(record).unwrap();
        }
    }
    assert_eq!(sessions(&home), Vec::<String>::new());
    home.no_sessions();
    assert!(home.stop().is_empty());
    let log = EventLog::open(&store(&home), Retention::DEFAULT).unwrap();
    let left: Vec<_> = all.iter().filter(|id| log.session(id).is_some()).collect();
    assert!(left.is_empty(), "events are left of {left:?}");
}
