//! What cannot work is said clearly, with its cause, and leaves nothing: no process, no half-made session.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use oqto_protocol::event::{Envelope, Event};
use oqto_tests::{Home, end, is_root};

fn events(text: &str) -> Vec<Envelope> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn an_unknown_harness_is_named_with_those_that_there_are() {
    let home = Home::new();
    home.run(&["run", "--harness", "emacs", "hello"])
        .failed(125, &["no harness is called", "emacs", "pi", "exec"]);
    home.run(&["run", "--harness", "exce", "hello"])
        .failed(125, &["hint: did you mean exec?"]);
    home.no_sessions();
}

#[test]
fn a_harness_that_is_not_installed_is_named_with_the_way_to_get_it() {
    let home = Home::new();
    home.run(&["run", "--policy", "open-net", "hello"])
        .failed(125, &["pi is not installed", "PATH", "runner.toml"]);
    home.no_sessions();
    let listed = home.run(&["status"]).ok();
    assert!(listed.contains("there is no program pi"), "{listed}");
}

#[test]
fn a_configured_harness_that_is_no_program_is_named() {
    let home = Home::new();
    home.configure_pi(&home.file("harness-config/pi", "no program"));
    home.run(&["run", "--policy", "open-net", "hello"])
        .failed(125, &["harness-config/pi is no program", "runner.toml"]);
    home.no_sessions();
}

#[test]
fn a_missing_bubblewrap_is_said_with_the_way_to_get_it() {
    let home = Home::new();
    home.program("empty/sh", "#!/bin/sh\n");
    let path = home.path("empty");
    let ended = end(home.ctl(&["exec", "--", "true"]).env("PATH", &path));
    ended.failed(125, &["bubblewrap"]);
    home.no_sessions();
    let doctor = end(home
        .environment(&oqto_tests::built("oqto-runner"))
        .arg("doctor")
        .env("PATH", &path));
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(
        doctor.text().contains("bubblewrap (bwrap) is not installed"),
        "{doctor:?}"
    );
    assert!(doctor.text().contains("apt"), "{doctor:?}");
}

#[test]
fn a_configuration_that_cannot_be_used_stops_the_start() {
    for (text, words) in [
        ("sesions_max = 3\n", &["runner.toml", "sesions_max", "line 1"][..]),
        ("sessions_max = \n", &["runner.toml", "line 1"]),
        ("[harness.pi]\nprogramm = \"/x\"\n", &["programm", "line 2"]),
        ("[harness.pie]\n", &["no harness is called \"pie\""]),
        ("principal = \"no-such-user-here\"\n", &["no such user"]),
    ] {
        let home = Home::new();
        home.configure(text);
        home.run(&["exec", "--", "true"]).failed(125, words);
        assert_eq!(home.stop(), []);
    }
}

#[test]
fn a_configuration_that_cannot_be_read_stops_the_start() {
    let home = Home::new();
    std::fs::remove_file(home.path("runner.toml")).unwrap();
    home.run(&["exec", "--", "true"]).failed(
        125,
        &["cannot read the configuration", "runner.toml", "No such file"],
    );
    std::fs::create_dir(home.path("runner.toml")).unwrap();
    home.run(&["exec", "--", "true"]).failed(
        125,
        &["cannot read the configuration", "runner.toml", "no plain file"],
    );
    if !is_root() {
        std::fs::remove_dir(home.path("runner.toml")).unwrap();
        home.configure("");
        let mode = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(home.path("runner.toml"), mode).unwrap();
        home.run(&["exec", "--", "true"])
            .failed(125, &["cannot read the configuration", "Permission denied"]);
    }
    assert_eq!(home.stop(), []);
}

#[test]
fn an_unknown_policy_is_answered_with_the_one_that_was_meant() {
    let home = Home::new();
    home.run(&["exec", "--policy", "workspce", "--", "true"])
        .failed(125, &["workspce", "hint: did you mean workspace?"]);
    home.run(&["exec", "--policy", "../etc", "--", "true"])
        .failed(125, &["../etc"]);
    home.no_sessions();
}

#[test]
fn a_workspace_that_is_not_there_or_no_directory_is_named() {
    let home = Home::new();
    home.file("plain", "");
    home.run(&["exec", "--cwd", "/no/such/place", "--", "true"])
        .failed(125, &["/no/such/place", "No such file"]);
    home.run(&["exec", "--cwd", "../plain", "--", "true"])
        .failed(125, &["../plain", "Not a directory"]);
    home.no_sessions();
}

#[test]
fn a_workspace_of_root_is_refused_with_the_way_to_go_on() {
    if !is_root() {
        return oqto_tests::not_run(
            "a workspace of root under a runner of root",
            "these tests are not run by root",
        );
    }
    let home = Home::new();
    let path = home.path("of-root");
    std::fs::create_dir(&path).unwrap();
    home.run(&["exec", "--cwd", path.to_str().unwrap(), "--", "true"])
        .failed(125, &["of-root", "root", "principal"]);
    home.no_sessions();
}

#[test]
fn an_agent_that_needs_the_network_says_so_under_a_policy_without_one() {
    let home = Home::new();
    home.configure_pi(&home.program("fake/pi", "#!/bin/sh\nexec cat\n"));
    home.run(&["run", "hello"]).failed(125, &["network", "open-net"]);
    home.no_sessions();
}

/// Runs `pi` being that script, and gives how it ended and what was told.
fn run_fake(home: &Home, script: &str) -> (oqto_tests::Ended, Vec<Envelope>) {
    home.configure_pi(&home.program("fake/pi", script));
    let ended = home.run(&["run", "--json", "--policy", "open-net", "hello"]);
    let told = events(ended.text());
    home.no_agents();
    (ended, told)
}

#[test]
fn a_harness_that_dies_at_its_start_is_told_with_its_own_words() {
    let home = Home::new();
    let began = Instant::now();
    let (ended, _) = run_fake(&home, "#!/bin/sh\necho this model is not for you >&2\nexit 3\n");
    assert_ne!(ended.code, 0);
    assert!(ended.err.contains("this model is not for you"), "{ended:?}");
    assert!(ended.err.contains('3'), "{ended:?}");
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

#[test]
fn a_harness_that_cannot_be_started_at_all_is_told() {
    let home = Home::new();
    let (ended, _) = run_fake(&home, "#!/no/such/interpreter\n");
    assert_ne!(ended.code, 0);
    assert!(ended.err.contains("oqtoctl: "), "{ended:?}");
}

#[test]
fn a_harness_that_is_killed_is_told() {
    let home = Home::new();
    let (ended, _) = run_fake(&home, "#!/bin/sh\nkill -9 $$\n");
    assert_ne!(ended.code, 0);
    // In the words of bubblewrap, which stands in between.
    assert!(ended.err.contains("137"), "{ended:?}");
}

#[test]
fn a_harness_that_prints_garbage_for_ever_is_ended() {
    let home = Home::new();
    let (ended, _) = run_fake(
        &home,
        "#!/bin/sh\nwhile :; do echo this is no line of any protocol; printf '\\377\\000\\n'; done\n",
    );
    assert_ne!(ended.code, 0);
    assert!(ended.err.contains("oqtoctl: "), "{ended:?}");
}

#[test]
fn a_line_of_sixty_four_megabytes_ends_the_harness_and_not_the_runner() {
    let home = Home::new();
    let (ended, told) = run_fake(
        &home,
        "#!/bin/sh\nhead -c 67108864 /dev/zero | tr '\\0' x\necho\nexec sleep 1000\n",
    );
    assert_ne!(ended.code, 0);
    let said = told
        .iter()
        .any(|envelope| matches!(&envelope.event, Event::AgentError(error) if error.error.contains("line")));
    assert!(said || ended.err.contains("line"), "{ended:?}");
    assert_eq!(home.sh("echo alive").ok(), "alive\n");
}

#[test]
fn a_harness_that_answers_nothing_is_not_waited_for_when_it_is_closed() {
    let home = Home::new();
    home.configure_pi(&home.program("fake/pi", "#!/bin/sh\necho $$ > begun\nexec sleep 1000\n"));
    let mut child = home
        .ctl(&["run", "--json", "--policy", "open-net", "hello"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    oqto_tests::wait_until("the harness to begin", || {
        home.path("workspace/begun").exists().then_some(())
    });
    let listed = home.run(&["sessions", "--json"]).ok();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let session = listed["sessions"][0]["session_id"].as_str().unwrap().to_owned();
    assert_eq!(home.run(&["close", &session]).code, 0);
    let code = child.wait().unwrap().code();
    assert_ne!(code, Some(0));
    home.no_agents();
}
