//! A runner that makes room for the next one, and what a service manager is told.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use nix::sys::signal::Signal;
use oqto_protocol::event::{Envelope, Event};
use oqto_tests::{Home, Process, signal, wait_until};

#[test]
fn a_runner_that_makes_room_leaves_its_agents_to_the_next_one() {
    let home = Home::new();
    let script = "echo begun; touch begun; while ! test -e go; do sleep 0.01; done; echo done";
    let mut first = home
        .ctl(&["exec", "--json", "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Kept open: who writes to a reader that is gone takes its session along.
    let mut reader = BufReader::new(first.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let created: Envelope = serde_json::from_str(&line).unwrap();
    wait_until("the program to begin", || {
        home.path("workspace/begun").exists().then_some(())
    });
    let agents = home.agents();
    let runner = Process {
        pid: home.runner_pid().expect("a runner"),
        words: String::new(),
    };
    // It would bring the runner back by itself.
    first.kill().unwrap();
    first.wait().unwrap();
    signal(runner.pid, Signal::SIGUSR2);
    wait_until("the runner to make room", || (!runner.lives()).then_some(()));
    assert!(!home.state().join("runner.json").exists());
    let ours = |process: &&Process| process.words.contains("shim") || process.words.contains("sleep");
    let left = agents
        .iter()
        .filter(ours)
        .filter(|process| process.lives())
        .count();
    assert!(left > 0, "{agents:?}");

    home.file("workspace/go", "");
    let session = created.session_id.to_string();
    assert_eq!(home.run(&["close", &session]).code, 0);
    let text = home.run(&["attach", &session, "--json"]).ok();
    let told = oqto_tests::events(&text);
    let cursors: Vec<_> = told
        .iter()
        .map(|event| (event.epoch, event.seq.unwrap()))
        .collect();
    let expected: Vec<_> = (1..=told.len() as u64).map(|seq| (1, seq)).collect();
    assert_eq!(cursors, expected);
    assert!(matches!(told.last().unwrap().event, Event::SessionClosed(_)));
    assert!(text.contains("done"), "{text}");
    home.no_agents();
}

#[test]
fn a_service_manager_is_told_when_the_runner_serves_and_when_it_stops() {
    let home = Home::new();
    // Only a runner that was signed serves.
    assert_eq!(home.sh("true").code, 0);
    assert_eq!(home.stop(), []);
    let path = home.path("manager");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(std::time::Duration::from_secs(30)))
        .unwrap();
    let heard = || {
        let mut said = [0; 64];
        let len = manager.recv(&mut said).unwrap();
        String::from_utf8_lossy(&said[..len]).into_owned()
    };
    let mut serving = home
        .environment(&home.runner_program())
        .env("NOTIFY_SOCKET", &path)
        .args(["serve", "--state-dir"])
        .arg(home.state())
        .spawn()
        .unwrap();
    assert_eq!(heard(), "READY=1");
    assert!(home.runner_pid().is_some(), "it serves and says where");
    signal(i32::try_from(serving.id()).unwrap(), Signal::SIGTERM);
    assert_eq!(heard(), "STOPPING=1");
    assert!(serving.wait().unwrap().success());
}
