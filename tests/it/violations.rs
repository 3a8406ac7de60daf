//! What reaches a session of what its sandbox refused, ended, or could only watch.

use std::fs;

use oqto_control::{Event, Session, SessionConfig};
use oqto_protocol::event::{Envelope, SandboxViolation, ViolationDecision};
use oqto_protocol::session::SessionState;
use oqto_tests::{Home, Owner, is_root, not_run};

/// A call through the door for x32, which has other numbers for the same calls.
const X32: &str = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)";

fn config(home: &Home) -> SessionConfig {
    SessionConfig {
        harness: "exec".to_owned(),
        cwd: Some(home.workspace().display().to_string()),
        ..SessionConfig::default()
    }
}

/// Every event of a session that is over.
async fn story(session: &Session) -> Vec<Envelope> {
    let mut events = session.events().await.unwrap();
    let mut told = Vec::new();
    while let Some(envelope) = events.next().await {
        told.push(envelope.unwrap());
    }
    told
}

fn violations(told: &[Envelope]) -> Vec<SandboxViolation> {
    let found = told.iter().filter_map(|envelope| match &envelope.event {
        Event::SandboxViolation(violation) => Some(violation.clone()),
        _ => None,
    });
    found.collect()
}

fn watched(home: &Home, operation: &str, name: &str) -> SandboxViolation {
    SandboxViolation {
        layer: "mounts".to_owned(),
        operation: operation.to_owned(),
        target: Some(home.workspace().join(name).display().to_string()),
        decision: ViolationDecision::Logged,
    }
}

/// Waits until the session has told so many violations.
async fn until_told(session: &Session, count: usize) -> Vec<Envelope> {
    let mut events = session.events().await.unwrap();
    let mut told = Vec::new();
    while violations(&told).len() < count {
        told.push(events.next().await.expect("more events").unwrap());
    }
    told
}

#[tokio::test]
async fn a_protected_path_that_appears_is_told_once_when_the_turn_is_over() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(config(&home)).await.unwrap();
    // The second fits a pattern, since a repository may lie in the workspace.
    session
        .prompt("touch .envrc; mkdir -p lib/.git/hooks")
        .await
        .unwrap();
    let told = until_told(&session, 2).await;
    let expected = [".envrc", "lib/.git/hooks"].map(|name| watched(&home, "create", name));
    assert_eq!(violations(&told), expected);
    session.prompt("true").await.unwrap();
    session.close().await.unwrap();
    home.no_agents();
    assert_eq!(violations(&story(&session).await).len(), 2);
    control.close().await;
}

#[tokio::test]
async fn what_is_told_of_protected_paths_keeps_its_numbers_when_the_runner_is_replaced() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(config(&home)).await.unwrap();
    session.prompt("touch .envrc").await.unwrap();
    let before = until_told(&session, 1).await;
    home.kill_runner();
    let runner = control.local().await.unwrap();
    let session = runner.session(session.id().clone());
    // Between turns, and nobody looks before the end.
    home.file("workspace/.vimrc", "set nocompatible");
    session.close().await.unwrap();
    home.no_agents();
    let told = story(&session).await;
    assert_eq!(told[..before.len()], before);
    let numbers: Vec<u64> = told.iter().map(|envelope| envelope.seq.unwrap()).collect();
    assert_eq!(numbers, (1..=told.len() as u64).collect::<Vec<_>>());
    let expected = [
        watched(&home, "create", ".envrc"),
        watched(&home, "create", ".vimrc"),
    ];
    assert_eq!(violations(&told), expected);
    assert!(matches!(told.last().unwrap().event, Event::SessionClosed(_)));
    control.close().await;
}

#[tokio::test]
async fn a_protected_file_that_somebody_replaces_is_told_although_the_shim_was_killed() {
    let home = Home::new();
    home.directory("workspace/.git");
    home.file("workspace/.git/config", "[core]\n");
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(config(&home)).await.unwrap();
    // As `git config` does it on the host.
    home.file("workspace/.git/config.lock", "[core]\n\tbare = false\n");
    fs::rename(
        home.path("workspace/.git/config.lock"),
        home.path("workspace/.git/config"),
    )
    .unwrap();
    for process in home.agents() {
        if process.words.starts_with("oqto-runner shim") {
            process.kill();
        }
    }
    let told = story(&session).await;
    assert_eq!(violations(&told), [watched(&home, "replace", ".git/config")]);
    home.no_agents();
    control.close().await;
}

#[tokio::test]
async fn a_session_in_which_nothing_happens_has_no_violations() {
    let home = Home::new();
    home.directory("workspace/.git");
    home.file("workspace/.git/config", "[core]\n");
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(config(&home)).await.unwrap();
    session
        .prompt("touch plain; echo x >> .git/config")
        .await
        .unwrap();
    let state = async || session.state().await.unwrap().info.state;
    while state().await != SessionState::Idle {
        tokio::task::yield_now().await;
    }
    session.close().await.unwrap();
    let told = story(&session).await;
    assert_eq!(violations(&told), []);
    home.no_agents();
    control.close().await;
}

/// What a program that makes a foreign call leads to.
fn killed(home: &Home) -> Vec<SandboxViolation> {
    let ended = home.run(&["exec", "--json", "--", "/usr/bin/python3", "-c", X32]);
    assert_eq!(ended.code, 128 + 31, "{ended:?}");
    let told = oqto_tests::events(ended.text());
    let found = violations(&told);
    assert!(found.iter().all(|violation| {
        (violation.layer.as_str(), violation.decision) == ("seccomp", ViolationDecision::Killed)
    }));
    found
}

#[test]
fn a_program_that_dies_of_a_foreign_call_is_told() {
    if cfg!(not(target_arch = "x86_64")) {
        return not_run(
            "a_program_that_dies_of_a_foreign_call_is_told",
            "only x86_64 has a second door to the same calls",
        );
    }
    assert!(!killed(&Home::new()).is_empty());
    if is_root() {
        // Its runner may not read the kernel's records, and the program's end tells all the same.
        let found = killed(&Home::of(Owner::Somebody));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].operation.as_str(), &found[0].target),
            ("system call", &None)
        );
    }
}

/// Why the kernel's records do not reach a runner of this test, if they do not.
fn no_records() -> Option<String> {
    oqto_runner::kernel_audit::socket::probe()
        .err()
        .map(|error| error.to_string())
}

#[tokio::test]
async fn the_kernels_records_name_the_call_and_the_program_also_behind_double_forks() {
    let name = "the_kernels_records_name_the_call_and_the_program_also_behind_double_forks";
    if cfg!(not(target_arch = "x86_64")) {
        return not_run(name, "only x86_64 has a second door to the same calls");
    }
    if let Some(why) = no_records() {
        return not_run(name, &why);
    }
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let (one, other) = (
        runner.create(config(&home)).await.unwrap(),
        runner.create(config(&home)).await.unwrap(),
    );
    // Its parents are gone when it dies, and the shell's own code says nothing of it.
    let script = format!("(setsid /usr/bin/python3 -c '{X32}' &) ; true");
    one.prompt(script).await.unwrap();
    let told = until_told(&one, 1).await;
    let found = violations(&told);
    assert_eq!(found[0].operation, "x32 call 39 (getpid)");
    let program = fs::canonicalize("/usr/bin/python3").unwrap();
    assert_eq!(found[0].target.as_deref(), program.to_str());
    assert_eq!(found[0].decision, ViolationDecision::Killed);
    for session in [&one, &other] {
        session.close().await.unwrap();
    }
    assert_eq!(violations(&story(&one).await).len(), 1);
    assert_eq!(violations(&story(&other).await), [], "it was the neighbour's");
    home.no_agents();
    control.close().await;
}

#[tokio::test]
async fn what_landlock_denies_is_told_where_the_kernel_keeps_records_of_it() {
    let name = "what_landlock_denies_is_told_where_the_kernel_keeps_records_of_it";
    let settings = fs::read_to_string("/proc/cmdline").unwrap();
    if !settings.split_whitespace().any(|setting| setting == "audit=1") {
        return not_run(name, "the kernel was not started with audit=1");
    }
    if let Some(why) = no_records() {
        return not_run(name, &why);
    }
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(config(&home)).await.unwrap();
    // No mount keeps a process from renaming itself.
    session.prompt("echo other >/proc/$$/comm; true").await.unwrap();
    let told = until_told(&session, 1).await;
    session.close().await.unwrap();
    let [found] = &violations(&told)[..] else {
        panic!("what the sandbox tries by itself is not told: {told:?}");
    };
    assert_eq!(
        (found.layer.as_str(), found.operation.as_str()),
        ("landlock", "fs.write_file")
    );
    assert!(
        found
            .target
            .as_ref()
            .is_some_and(|target| target.ends_with("/comm")),
        "{found:?}"
    );
    assert_eq!(found.decision, ViolationDecision::Denied);
    control.close().await;
}

#[test]
fn a_human_is_told_in_one_line() {
    let home = Home::new();
    let ended = home.run(&["exec", "--", "sh", "-c", "touch .envrc"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let session = home.run(&["sessions", "--json"]).ok();
    let session = session
        .split(r#""session_id":""#)
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let shown = home.run(&["attach", session]).ok();
    let line = format!(
        "⛔ sandbox logged create {}",
        home.path("workspace/.envrc").display()
    );
    assert!(shown.contains(&line), "{shown}");
}
