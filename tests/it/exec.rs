//! `oqtoctl exec`: a program in the sandbox, with its own output and exit code.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use nix::sys::signal::Signal;
use oqto_protocol::event::Event;
use oqto_tests::{Home, end, signal, wait_until};

#[test]
fn output_and_errors_go_where_the_program_sends_them() {
    let home = Home::new();
    let ended = home.sh("echo out; echo err >&2; pwd");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.text(), format!("out\n{}\n", home.workspace().display()));
    assert_eq!(ended.err, "err\n");
    home.no_agents();
}

#[test]
fn the_exit_code_is_the_programs_own() {
    let home = Home::new();
    for code in [0, 1, 2, 42, 125, 255] {
        assert_eq!(home.sh(&format!("exit {code}")).code, code);
    }
    for (signal, code) in [("TERM", 143), ("KILL", 137), ("SEGV", 139)] {
        assert_eq!(home.sh(&format!("kill -{signal} $$")).code, code, "{signal}");
    }
    assert_eq!(home.run(&["exec", "--", "/no/such/program"]).code, 127);
    assert_eq!(home.run(&["exec", "--", "no-such-program"]).code, 127);
    home.file("workspace/plain", "no program");
    assert_eq!(home.run(&["exec", "--", "./plain"]).code, 126);
    home.no_agents();
}

#[test]
fn what_oqtoctl_itself_cannot_do_is_125_and_a_wrong_command_line_is_2() {
    let home = Home::new();
    home.run(&["exec", "--cwd", "/no/such/directory", "--", "true"])
        .failed(125, &["/no/such/directory", "No such file or directory"]);
    home.run(&["exec", "--no-such-option", "--", "true"])
        .failed(2, &["--no-such-option"]);
    assert_eq!(home.run(&["exec"]).code, 2);
}

#[test]
fn bytes_that_are_no_text_come_through() {
    let home = Home::new();
    let script = "import sys\nfor stream in (sys.stdout, sys.stderr):\n    stream.buffer.write(bytes(range(256)) * 300)";
    let ended = end(&mut home.ctl(&["exec", "--", "/usr/bin/python3", "-c", script]));
    let expected: Vec<u8> = (0..=u8::MAX).cycle().take(256 * 300).collect();
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out == expected, "{} bytes came", ended.out.len());
    assert_eq!(ended.err, String::from_utf8_lossy(&expected));
}

#[test]
fn sixty_four_megabytes_come_through_whole() {
    const LINES: usize = 8 * 1024 * 1024;
    let home = Home::new();
    let ended = home.sh(&format!("seq -f %07.0f {LINES}"));
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert_eq!(ended.out.len(), LINES * 8);
    for (line, at) in ended.out.chunks(8).zip(1..) {
        assert_eq!(line, format!("{at:07}\n").as_bytes());
    }
}

#[test]
fn standard_input_is_empty() {
    let home = Home::new();
    let mut child = home
        .ctl(&["exec", "--", "sh", "-c", "cat; echo end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It stays open and says nothing: a program that waited for its end would never end.
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "end\n");
}

#[test]
fn as_json_nothing_but_canonical_events_is_printed() {
    let home = Home::new();
    let ended = home.run(&[
        "exec",
        "--json",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
    ]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert_eq!(ended.err, "");
    let events = oqto_tests::events(ended.text());
    let numbers: Vec<u64> = events.iter().map(|event| event.seq.unwrap()).collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected);
    assert!(matches!(events.first().unwrap().event, Event::SessionCreated(_)));
    assert!(matches!(events.last().unwrap().event, Event::AgentIdle(_)));
    let ends: Vec<_> = events
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::ToolEnd(end) => Some(end.output.value()),
            _ => None,
        })
        .collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0]["exit_code"], 3);
    assert_eq!(ends[0]["stdout_bytes"], 4);
}

#[test]
fn an_interrupt_ends_the_program_and_leaves_nothing() {
    let home = Home::new();
    let mut child = home
        .ctl(&["exec", "--", "sh", "-c", "echo > begun; sleep 1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the program to begin", || {
        home.workspace().join("begun").exists().then_some(())
    });
    assert_eq!(child.try_wait().unwrap(), None);
    signal(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.status.signal()),
        (Some(130), None),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    home.no_agents();
}

#[test]
fn a_reader_that_goes_away_ends_it_without_a_word() {
    let home = Home::new();
    let mut child = home
        .ctl(&["exec", "--", "sh", "-c", "yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 2];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"y\n");
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
    home.no_agents();
}
