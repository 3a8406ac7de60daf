//! `sandbox check`: a sandbox that says of itself that it holds.

use std::process::Command;

use serde_json::Value;

use crate::bed::{Ended, end, runner, weak};
use crate::escapes::TRIED;

fn check(words: &[&str]) -> Ended {
    end(Command::new(runner()).args(["sandbox", "check"]).args(words))
}

#[test]
fn every_shipped_policy_stops_what_it_forbids_and_says_which_layer_did() {
    for policy in TRIED {
        let ended = check(&["--policy", policy, "--json"]);
        let report: Value = serde_json::from_str(&ended.ok()).unwrap();
        assert_eq!(report["holds"], true, "{report}");
        assert_eq!(report["policy"], policy);
        let attempts = report["attempts"].as_array().unwrap();
        let forbidden: Vec<_> = attempts
            .iter()
            .filter(|tried| tried["forbidden"] == true)
            .collect();
        assert!(
            forbidden.len() >= 25,
            "{policy} forbids {} attempts",
            forbidden.len()
        );
        for tried in forbidden {
            assert!(tried["stopped_by"].is_string(), "{policy}: {tried}");
        }
        let network = attempts.iter().find(|tried| tried["name"] == "internet").unwrap();
        assert_eq!(network["forbidden"], policy != "open-net", "{policy}: {network}");
    }
}

#[test]
fn the_page_for_people_says_the_same() {
    let page = check(&[]).ok();
    assert!(page.starts_with("policy workspace on Linux "), "{page}");
    assert!(
        page.contains("stopped   connect to a service on the host's 127.0.0.1: namespaces"),
        "{page}"
    );
    assert!(page.ends_with("attempts, all stopped\n"), "{page}");
}

#[test]
fn a_check_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        scratch.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o1777),
    )
    .unwrap();
    let ended = end(Command::new(runner())
        .args(["sandbox", "check"])
        .env("TMPDIR", scratch.path()));
    ended.ok();
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_checked_is_said_and_is_no_success() {
    let ended = check(&["--policy", "workspase"]);
    assert_eq!(ended.code, 125);
    assert!(
        ended.err.contains("there is no policy workspase"),
        "{}",
        ended.err
    );
    assert_eq!(ended.out, "");
}

/// A check of the policy `workspace` without these layers: whether it holds, and the attempts that were not stopped.
fn without(layers: &[&str]) -> (bool, Vec<String>) {
    let ended = end(Command::new(weak()).args(["check", "workspace"]).args(layers));
    let report: Value =
        serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {}", ended.err));
    let holds = report["holds"].as_bool().unwrap();
    assert_eq!(ended.code, i32::from(!holds));
    let failed = report["attempts"].as_array().unwrap().iter();
    let failed = failed.filter(|tried| tried["forbidden"] == true && tried["stopped_by"].is_null());
    (
        holds,
        failed
            .map(|tried| tried["name"].as_str().unwrap().to_owned())
            .collect(),
    )
}

#[test]
fn a_sandbox_that_lacks_a_layer_does_not_pass() {
    let table: &[(&[&str], &[&str])] = &[
        (
            &["seccomp"],
            &["setuid-file", "executable-memory", "audit-socket"],
        ),
        (&["privileges"], &["gain-privileges"]),
        (&["landlock"], &["memory-of-init"]),
        (&["namespaces"], &["host-loopback", "name-server"]),
        (
            &["namespaces", "landlock"],
            &["abstract-socket", "signal-outside"],
        ),
    ];
    for (layers, names) in table {
        let (holds, failed) = without(layers);
        assert!(!holds, "without {layers:?}");
        for name in *names {
            assert!(
                failed.iter().any(|found| found == name),
                "without {layers:?}: {name} is not in {failed:?}"
            );
        }
    }
}
