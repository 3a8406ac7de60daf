//! What cannot work is said clearly, with its cause, and leaves nothing: no process, no half-made session.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use oqto_protocol::event::{Envelope, Event};
use oqto_tests::{Home, end, events, is_root};

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
        (
            "[harness.pie]\n",
            &["harness.pie is none of this runner's", "dialect = \"acp\""],
        ),
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

/// Creates a session of the policy `mine` and asserts that it is refused with these words, before anything ran.
#[track_caller]
fn refused(home: &Home, words: &[&str]) {
    let ended = home.run(&["exec", "--policy", "mine", "--", "touch", "ran"]);
    ended.failed(125, words);
    assert!(!home.path("workspace/ran").exists());
}

/// A home whose runner has a directory of policies, and the file of the policy `mine` in it.
fn with_policies() -> (Home, std::path::PathBuf) {
    let home = Home::new();
    let policies = home.path("policies");
    std::fs::create_dir(&policies).unwrap();
    home.configure(&format!("policy_dir = {policies:?}\n"));
    let file = policies.join("mine.toml");
    mine(&file, "description = \"mine\"\nextends = \"workspace\"\n");
    (home, file)
}

fn mine(file: &std::path::Path, text: impl AsRef<[u8]>) {
    std::fs::write(file, text).unwrap();
    mode(file, 0o644);
    mode(file.parent().unwrap(), 0o755);
}

fn mode(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_policy_that_is_none_makes_no_session() {
    let (home, file) = with_policies();
    assert_eq!(home.run(&["exec", "--policy", "mine", "--", "true"]).code, 0);
    for (text, words) in [
        ("", &["mine.toml:1:", "description"][..]),
        ("description = \"d\"\nextends = \n", &["mine.toml:2:"]),
        (
            "description = \"d\"\n[filesystem]\nraed = []\n",
            &["mine.toml:3:", "did you mean read?"],
        ),
        (
            "description = \"d\"\nextends = \"mine\"\n",
            &["mine → mine", "circle"],
        ),
        (
            "description = \"d\"\nextends = \"nothing\"\n",
            &["there is no policy nothing"],
        ),
    ] {
        mine(&file, text);
        refused(&home, words);
    }
    mine(&file, [b'#', 0xff]);
    refused(&home, &["mine.toml", "utf-8"]);
    mine(&file, "#".repeat(1024 * 1024 + 1));
    refused(&home, &["mine.toml", "longer than 1048576 bytes"]);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    refused(&home, &["mine.toml", "no plain file"]);
    std::fs::remove_dir(&file).unwrap();
    std::os::unix::fs::symlink("/nonexistent/policy", &file).unwrap();
    refused(&home, &["/nonexistent", "No such file"]);
    home.no_agents();
}

#[test]
fn a_policy_that_others_could_change_makes_no_session() {
    let (home, file) = with_policies();
    let directory = file.parent().unwrap();
    for (path, bits, words) in [
        (file.as_path(), 0o666, ["mine.toml has mode 0666", "chmod go-w"]),
        (directory, 0o777, ["policies has mode 0777", "chmod go-w"]),
        (directory, 0o1777, ["policies has mode 1777", "chmod go-w"]),
        (home.dir(), 0o775, ["has mode 0775", "chmod go-w"]),
    ] {
        let was = path.metadata().unwrap().permissions();
        // The runner has read its configuration already, and looks at the policies for each session.
        assert_eq!(home.run(&["exec", "--policy", "mine", "--", "true"]).code, 0);
        mode(path, bits);
        refused(&home, &["the policies cannot be believed"]);
        refused(&home, &words);
        std::fs::set_permissions(path, was).unwrap();
    }
    if !is_root() {
        return oqto_tests::not_run(
            "a policy of somebody else under a daemon",
            "only root can give a file away",
        );
    }
    std::os::unix::fs::chown(&file, Some(oqto_tests::SOMEBODY), None).unwrap();
    refused(&home, &["mine.toml belongs to user 61234", "chown 0 "]);
}

#[test]
fn a_configuration_that_others_could_change_stops_the_start() {
    let home = Home::new();
    mode(&home.path("runner.toml"), 0o666);
    home.run(&["exec", "--", "true"]).failed(
        125,
        &[
            "the configuration cannot be believed",
            "runner.toml has mode 0666",
        ],
    );
    mode(&home.path("runner.toml"), 0o644);
    mode(home.dir(), 0o777);
    home.run(&["exec", "--", "true"])
        .failed(125, &["the configuration cannot be believed", "has mode 0777"]);
    mode(home.dir(), 0o755);
    assert_eq!(home.run(&["exec", "--", "true"]).code, 0);
}

#[test]
fn a_workspaces_own_policy_that_cannot_be_used_makes_no_session() {
    let (home, _) = with_policies();
    home.directory("workspace/.oqto");
    let own = home.path("workspace/.oqto/sandbox.toml");
    for (text, words) in [
        ("[limits]\nprocesses = \n", &[".oqto/sandbox.toml:2:"][..]),
        (
            "[limits]\nproceses = 3\n",
            &[".oqto/sandbox.toml:2:", "did you mean processes?"],
        ),
        (
            "[filesystem]\nread = [\"/srv\"]\n",
            &["read asks for /srv", "can only narrow it"],
        ),
        (
            "[network]\nmode = \"host\"\n",
            &["mode asks for \"host\"", "can only narrow it"],
        ),
    ] {
        home.file("workspace/.oqto/sandbox.toml", text);
        refused(&home, words);
    }
    home.file("workspace/.oqto/sandbox.toml", &"#".repeat(256 * 1024 + 1));
    refused(&home, &["longer than 262144 bytes"]);
    let words = &["sandbox.toml", "a plain file, and no link"];
    std::fs::remove_file(&own).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &own).unwrap();
    refused(&home, words);
    std::fs::remove_file(&own).unwrap();
    nix::unistd::mkfifo(&own, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused(&home, words);
    std::fs::remove_file(&own).unwrap();
    std::fs::create_dir(&own).unwrap();
    refused(&home, words);
    home.no_agents();
}

#[test]
fn a_layer_that_the_policy_requires_and_the_host_lacks_makes_no_session() {
    let (home, file) = with_policies();
    let text = "description = \"d\"\nextends = \"workspace\"\n[layers]\ncgroup = \"required\"\n";
    mine(&file, text);
    let ended = home.run(&["exec", "--policy", "mine", "--", "touch", "ran"]);
    if ended.code == 0 {
        return oqto_tests::not_run(
            "a required cgroup that the host does not give a daemon",
            "this host gives the tests one",
        );
    }
    ended.failed(125, &["cgroup"]);
    refused(&home, &["cgroup"]);
    home.no_agents();
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

/// An agent that says as much as a message may hold, and then the result of a tool in a line as long as one may be.
const LONG: &str = r#"#!/usr/bin/python3
import json, sys

LINE_LEN_MAX = 16 * 1024 * 1024

def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()

def update(kind, fields):
    return {"method": "session/update", "params": {"sessionId": "s", "update": {"sessionUpdate": kind, **fields}}}

for line in sys.stdin:
    message = json.loads(line)
    number, method = message.get("id"), message.get("method")
    if method == "initialize":
        send({"id": number, "result": {"protocolVersion": 1}})
    elif method == "session/new":
        send({"id": number, "result": {"sessionId": "s"}})
    elif method == "session/prompt":
        for _ in range(4):
            text = {"type": "text", "text": "x" * (LINE_LEN_MAX // 4 - 1024)}
            send(update("agent_message_chunk", {"content": text}))
        result = {"toolCallId": "t", "status": "completed", "rawOutput": "x" * (LINE_LEN_MAX - 1024)}
        send(update("tool_call_update", result))
        send({"id": number, "result": {"stopReason": "end_turn"}})
"#;

#[test]
fn the_longest_line_behind_the_longest_message_is_kept_with_all_that_it_means() {
    let home = Home::new();
    let agent = home.program("long/agent.py", LONG);
    home.configure(&format!(
        "[harness.long]\ndialect = \"acp\"\nprogram = {agent:?}\n"
    ));
    let ended = home.run(&[
        "run",
        "--json",
        "--policy",
        "open-net",
        "--harness",
        "long",
        "hello",
    ]);
    let told = events(&ended.ok());
    let is_result =
        |it: &Envelope| matches!(&it.event, Event::ToolEnd(end) if end.output.text().len() > 16_000_000);
    assert_eq!(told.iter().filter(|it| is_result(it)).count(), 1);
    assert!(matches!(
        told.last().map(|it| &it.event),
        Some(Event::AgentIdle(_))
    ));
    home.no_agents();
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
