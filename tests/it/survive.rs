//! What survives what: the runner's death in the middle of a session, a second runner, an orderly end.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use oqto_protocol::event::{Envelope, Event};
use oqto_tests::{Home, end, events, wait_until};

/// What a program wrote, in the order of the events.
fn output(events: &[Envelope]) -> String {
    let pieces = events.iter().filter_map(|envelope| match &envelope.event {
        Event::ToolProgress(progress) => progress.partial_output.value()["stdout"]
            .as_str()
            .map(str::to_owned),
        _ => None,
    });
    pieces.collect()
}

#[test]
fn a_harness_outlives_its_runner_and_every_event_is_told_once_under_the_same_number() {
    let home = Home::new();
    // It goes on only when it is told to: what is said before the runner dies and after is no matter of time.
    let script = "for n in $(seq 50); do echo $n; done; touch first; \
                  while ! test -e go; do sleep 0.01; done; for n in $(seq 51 100); do echo $n; done; \
                  touch second; while ! test -e end; do sleep 0.01; done; echo last";
    let mut first = home
        .ctl(&["exec", "--json", "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    let mut before: Vec<Envelope> = Vec::new();
    while !output(&before).ends_with("50\n") {
        let line = lines.next().expect("more events").unwrap();
        before.push(serde_json::from_str(&line).unwrap());
    }
    let session = before[0].session_id.to_string();
    let runner = home.runner_pid().expect("a runner");
    let agents = home.agents();
    home.kill_runner();
    // Who asked finds out by itself; here it would only ask on.
    first.kill().unwrap();
    first.wait().unwrap();
    home.file("workspace/go", "");
    wait_until("the harness to go on without a runner", || {
        home.path("workspace/second").exists().then_some(())
    });
    let inside = agents
        .iter()
        .filter(|process| process.words.contains("exec-agent") && !process.words.starts_with("oqto-runner"));
    for process in inside {
        assert!(process.lives(), "{process:?}");
    }

    // Asking for it starts a runner again.
    let mut again = home
        .ctl(&["attach", &session, "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(again.stdout.take().unwrap()).lines();
    let mut after: Vec<Envelope> = Vec::new();
    while !output(&after).ends_with("100\n") {
        let line = lines.next().expect("more events").unwrap();
        after.push(serde_json::from_str(&line).unwrap());
    }
    assert_ne!(home.runner_pid(), Some(runner));
    home.file("workspace/end", "");
    while !after
        .iter()
        .any(|envelope| matches!(envelope.event, Event::StreamDone(_)))
    {
        let line = lines.next().expect("more events").unwrap();
        after.push(serde_json::from_str(&line).unwrap());
    }
    assert_eq!(home.run(&["close", &session]).code, 0);
    after.extend(lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()));
    assert!(again.wait().unwrap().success());

    assert_eq!(&after[..before.len()], &before[..], "what was told changed");
    let numbers: Vec<u64> = after.iter().map(|envelope| envelope.seq.unwrap()).collect();
    assert_eq!(numbers, (1..=after.len() as u64).collect::<Vec<_>>());
    let mut expected: String = (1..=100).map(|n| format!("{n}\n")).collect();
    expected.push_str("last\n");
    assert_eq!(output(&after), expected);
    assert_eq!(
        events(&home.run(&["attach", &session, "--json"]).ok()),
        after,
        "a session that is over tells the same"
    );
    home.no_agents();
}

#[test]
fn a_session_that_ends_while_there_is_no_runner_is_told_to_the_end() {
    let home = Home::new();
    let mut first = home
        .ctl(&[
            "exec",
            "--json",
            "--",
            "sh",
            "-c",
            "echo begun; touch begun; while ! test -e go; do sleep 0.01; done; echo done; exit 7",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    // Kept open: who writes to a reader that is gone takes its session along.
    let mut reader = BufReader::new(first.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    let created: Envelope = serde_json::from_str(&line).unwrap();
    wait_until("the program to begin", || {
        home.path("workspace/begun").exists().then_some(())
    });
    home.kill_runner();
    first.kill().unwrap();
    first.wait().unwrap();
    home.file("workspace/go", "");
    let session = created.session_id.to_string();
    let shown = home.run(&["close", &session]);
    assert_eq!(shown.code, 0, "{shown:?}");
    let told = events(&home.run(&["attach", &session, "--json"]).ok());
    let numbers: Vec<u64> = told.iter().map(|envelope| envelope.seq.unwrap()).collect();
    assert_eq!(numbers, (1..=told.len() as u64).collect::<Vec<_>>());
    assert!(matches!(told.last().unwrap().event, Event::SessionClosed(_)));
    assert!(output(&told).starts_with("begun\n"));
    home.no_agents();
}

#[test]
fn a_session_that_is_found_again_is_listed_as_what_it_is_doing() {
    let home = Home::new();
    let mut first = home
        .ctl(&[
            "exec",
            "--",
            "sh",
            "-c",
            "touch begun; while ! test -e go; do sleep 0.01; done",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the program to begin", || {
        home.path("workspace/begun").exists().then_some(())
    });
    home.kill_runner();
    first.kill().unwrap();
    first.wait().unwrap();
    let streaming = || {
        let listed = home.run(&["sessions", "--json"]).ok();
        listed.contains(r#""state":"streaming""#).then_some(listed)
    };
    let listed = wait_until("the tape to be read again", streaming);
    home.file("workspace/go", "");
    let session = listed
        .split(r#""session_id":""#)
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert_eq!(home.run(&["close", session]).code, 0);
    home.no_agents();
}

#[test]
fn a_second_runner_of_the_same_state_is_refused() {
    let home = Home::new();
    assert_eq!(home.sh("true").code, 0);
    let runner = home.runner_pid();
    let ended = end(home
        .environment(&home.runner_program())
        .arg("serve")
        .arg("--state-dir")
        .arg(home.state()));
    ended.failed(125, &["another runner uses the state directory"]);
    assert_eq!(home.sh("echo still").ok(), "still\n");
    assert_eq!(home.runner_pid(), runner);
}

#[test]
fn a_state_directory_that_others_could_look_into_is_refused_with_the_step_that_mends_it() {
    let home = Home::new();
    fs::create_dir_all(home.state()).unwrap();
    fs::set_permissions(home.state(), fs::Permissions::from_mode(0o777)).unwrap();
    let serve = || {
        let mut command = home.environment(&home.runner_program());
        command.args(["serve", "--state-dir"]).arg(home.state());
        end(&mut command)
    };
    let refused = serve();
    let step = refused
        .err
        .split("nobody else may write or list it: ")
        .nth(1)
        .expect("a step");
    refused.failed(125, &["mode 777"]);
    assert_eq!(
        end(Command::new("sh").args(["-c", step.trim()])).code,
        0,
        "{step}"
    );
    // What stops it now is that nobody has signed it.
    serve().failed(125, &["this runner has no certificate yet"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_told_to_end_ends_its_sessions_and_leaves_nothing() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(home.exec()).await.unwrap();
    let id = session.id().to_string();
    session.prompt("touch begun; sleep 1000").await.unwrap();
    wait_until("the program to begin", || {
        home.path("workspace/begun").exists().then_some(())
    });
    // Who still wants something of a runner would start the next one.
    control.close().await;
    assert_eq!(home.stop(), []);
    assert!(!home.state().join("runner.json").exists());
    let told = events(&home.run(&["attach", &id, "--json"]).ok());
    // The program was asked to end by signal 15, and did.
    let signals: Vec<_> = told
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::ToolEnd(end) => Some(end.output.value()["signal"].clone()),
            _ => None,
        })
        .collect();
    assert_eq!(signals, [15]);
    assert!(
        told.iter()
            .any(|envelope| matches!(envelope.event, Event::StreamDone(_)))
    );
    assert!(
        matches!(told.last().unwrap().event, Event::SessionClosed(_)),
        "{:?}",
        told.last()
    );
}

#[test]
fn the_runner_of_a_dead_host_is_not_waited_for() {
    let home = Home::new();
    assert_eq!(home.sh("true").code, 0);
    let runner = home.runner_pid().expect("a runner");
    home.kill_runner();
    // Its announcement is still there.
    assert_eq!(home.runner_pid(), Some(runner));
    assert_eq!(home.sh("echo again").ok(), "again\n");
    assert_ne!(home.runner_pid(), Some(runner));
}

#[test]
fn many_sessions_at_once_each_tell_their_own_story_to_the_end() {
    let home = Home::new();
    let started: Vec<_> = (0..12)
        .map(|n| {
            let mut command: Command =
                home.ctl(&["exec", "--json", "--", "sh", "-c", &format!("echo {n}; exit {n}")]);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for (n, child) in started.into_iter().enumerate() {
        let ended = child.wait_with_output().unwrap();
        assert_eq!(
            ended.status.code(),
            Some(i32::try_from(n).unwrap()),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
        let told = events(&String::from_utf8(ended.stdout).unwrap());
        assert_eq!(output(&told), format!("{n}\n"));
        let session = told[0].session_id.to_string();
        let whole = events(&home.run(&["attach", &session, "--json"]).ok());
        assert!(matches!(whole.last().unwrap().event, Event::SessionClosed(_)));
    }
    home.no_agents();
}
