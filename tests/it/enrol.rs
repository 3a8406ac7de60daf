//! A token makes a runner: `oqtoctl` on one side, `oqto-runner enrol` on the other, and the library between.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use oqto_tests::{Home, signal};

use crate::far::{Far, PATIENCE, enrol, has_all, id};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_dials_is_given_work_as_any_other() {
    let mut far = Far::new(DAY);
    far.enrolled("web-1");
    let runner = far.dialling().await;
    assert_eq!(runner.id(), &id("web-1"));
    let (session, mut watch) = far.talks(&runner, 50).await;
    watch.rest().await;
    has_all(&watch, 50);
    assert_eq!(runner.status().await.unwrap().notes, Vec::<String>::new());
    session.close().await.unwrap();
    far.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_runners_with_one_token_one_is_enrolled() {
    let far = Far::new(DAY);
    let (token, _) = far.control.authority().create_token(PATIENCE, None).unwrap();
    let tries: Vec<_> = (0..20)
        .map(|n| {
            let mut command = far.home.environment(&far.home.runner_program());
            command.args(["enrol", "--control", &far.listener.address().to_string()]);
            command.args([
                "--ca-pin",
                &far.control.authority().pin(),
                "--token-file",
                "token",
            ]);
            command
                .arg("--state-dir")
                .arg(far.home.path(&format!("state/r{n}")));
            command
        })
        .collect();
    let path = far.home.workspace().join("token");
    std::fs::write(&path, token.reveal()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let children = tries.into_iter().map(|mut command| {
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        });
        let children: Vec<_> = children.collect();
        let codes = children.into_iter().map(|mut child| child.wait().unwrap().code());
        codes.collect::<Vec<_>>()
    });
    let mut codes = ended.await.unwrap();
    codes.sort_unstable();
    assert_eq!(codes[0], Some(0));
    // They are told no, or were not answered in time on a busy machine.
    assert!(
        codes[1..].iter().all(|code| matches!(code, Some(1 | 3))),
        "{codes:?}"
    );
    assert_eq!(far.control.authority().issued().unwrap().len(), 1);
    far.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_used_is_for_another_or_is_none_is_refused_in_the_same_words() {
    let far = Far::new(DAY);
    let authority = far.control.authority();
    let (used, _) = authority.create_token(PATIENCE, Some(id("web-1"))).unwrap();
    let (other, _) = authority.create_token(PATIENCE, Some(id("web-2"))).unwrap();
    let first = far.home.path("state/first");
    let ended = far.enrol(&first, used.reveal(), &["--runner-id", "web-1"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let forged = format!("oqto1-{}", "a".repeat(52));
    let mut mistyped = other.reveal().to_owned();
    mistyped.pop();
    let said = [used.reveal(), other.reveal(), &forged, &mistyped, "x"].map(|token| {
        let state = far.home.path("state/second");
        let ended = far.enrol(&state, token, &["--runner-id", "web-3"]);
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(!state.join("identity/certificate.json").exists());
        ended.err
    });
    let first = &said[0];
    assert!(said.iter().all(|other| other == first), "{said:#?}");
    far.end().await;
}

#[test]
fn what_oqtoctl_prints_is_what_enrol_takes() {
    let home = Home::new();
    let mut listening = home
        .ctl(&["listen", "--address", "127.0.0.1:0", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(listening.stdout.take().unwrap()).lines();
    let first: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let address = first["address"].as_str().unwrap_or_else(|| panic!("{first}"));
    let address = address.parse().unwrap();
    let made = home
        .run(&["--json", "token", "create", "--runner-id", "web-1"])
        .ok();
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let (token, pin) = (made["token"].as_str().unwrap(), made["pin"].as_str().unwrap());
    let ended = enrol(
        &home,
        address,
        pin,
        &home.state(),
        token,
        &["--runner-id", "web-1"],
    );
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.text().contains("Enrolled as web-1"), "{ended:?}");
    signal(i32::try_from(listening.id()).unwrap(), Signal::SIGINT);
    listening.wait().unwrap();
}
