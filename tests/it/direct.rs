//! A daemon on a host that gives no namespaces, and a policy that can do without.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use oqto_tests::{Ended, Home, end};

#[test]
fn a_daemon_without_namespaces_holds_a_session_by_what_is_left_and_refuses_what_needs_them() {
    let home = Home::new();
    let policies = home.path("policies");
    fs::create_dir(&policies).unwrap();
    let text = "description = \"alone\"\nextends = \"workspace\"\n[layers]\nnamespaces = \"if-available\"\n";
    fs::write(policies.join("alone.toml"), text).unwrap();
    fs::set_permissions(policies.join("alone.toml"), Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&policies, Permissions::from_mode(0o755)).unwrap();
    home.configure(&format!("policy_dir = {policies:?}\n"));
    home.directory("home/plain");
    let secret = home.file("home/plain/secret", "hush");
    // No bubblewrap is there for the runner, which is started by the first of these.
    let nowhere = home.path("empty");
    fs::create_dir(&nowhere).unwrap();
    let run = |words: &[&str]| -> Ended { end(home.ctl(words).env("PATH", &nowhere)) };

    let secret = secret.display();
    let script =
        format!("id -u; cat {secret}; echo x >{secret}; echo x >../beside; echo made >made; cat made");
    let ended = run(&["exec", "--policy", "alone", "--", "/bin/sh", "-c", &script]);
    let owner = home.workspace().metadata().unwrap().uid();
    assert_eq!(ended.text(), format!("{owner}\nmade\n"), "{}", ended.err);
    assert_eq!(
        fs::read_to_string(home.path("home/plain/secret")).unwrap(),
        "hush"
    );
    assert!(!home.path("beside").exists());
    let script =
        "import socket\ntry: socket.socket(); print('REACHED')\nexcept OSError as error: print(error.errno)";
    let ended = run(&[
        "exec",
        "--policy",
        "alone",
        "--",
        "/usr/bin/python3",
        "-c",
        script,
    ]);
    assert_eq!(ended.text(), "1\n", "{}", ended.err);

    let ended = run(&["exec", "--policy", "workspace", "--", "/bin/touch", "ran"]);
    ended.failed(
        125,
        &[
            "bubblewrap (bwrap) is not installed",
            "apt-get install bubblewrap",
        ],
    );
    home.directory("workspace/.git/hooks");
    let ended = run(&["exec", "--policy", "alone", "--", "/bin/touch", "ran"]);
    ended.failed(
        125,
        &[".git/hooks is protected and lies below something writable"],
    );
    assert!(!home.path("workspace/ran").exists());
    home.no_agents();
}
