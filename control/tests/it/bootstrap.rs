//! Starting the private runner: a shell script plays the process, a test runner the one that then listens.

use std::error::Error as _;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oqto_control::protocol::enrol::Grant;
use oqto_control::{Control, LocalError, Options, StartError};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use tempfile::TempDir;
use tokio::net::UdpSocket;

use crate::support::{Papers, Reaction, TestRunner, signing_request, welcome};

struct Bench {
    dir: TempDir,
    control: Control,
    runner: TestRunner,
}

impl Bench {
    /// A control whose runner's program is a script that says `lines` and does `then`.
    fn new(script: impl FnOnce(&Path, &TestRunner) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("oqto-runner");
        let options = Options::under(dir.path().join("oqto")).runner_program(&program);
        let control = Control::open(options).unwrap();
        let runner = TestRunner::start(control.authority(), |_, _| Reaction::Begin(welcome("r-1")));
        fs::write(&program, format!("#!/bin/sh\n{}\n", script(dir.path(), &runner))).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        Self { dir, control, runner }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("oqto/runner")
    }

    async fn refused(&self) -> StartError {
        match self.control.local().await.unwrap_err() {
            LocalError::Start { source, .. } => source,
            other => panic!("{other:?}"),
        }
    }
}

fn request_line() -> String {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let request = serde_json::to_string(&signing_request(&key)).unwrap();
    format!(r#"{{"oqto_bootstrap":1,"runner_id":"r-1","request":{request}}}"#)
}

/// What a runner does that starts well, and leaves behind what it was given.
fn starts_well(dir: &Path, runner: &TestRunner) -> String {
    let (dir, at) = (dir.display(), runner.at.address);
    let line = request_line();
    format!(
        r#"echo started >> {dir}/starts
echo "$@" > {dir}/arguments
echo 'Welcome to this host. {{ not json'
echo '{{"other":"json"}}'
echo '{line}'
read -r grant && printf '%s' "$grant" > {dir}/grant
echo '{{"runner_id":"r-1","address":"{at}","pid":'"$PPID"'}}' > {dir}/oqto/runner/runner.json
echo '{{"listening":"{at}"}}'"#
    )
}

#[tokio::test]
async fn a_runner_that_asks_gets_its_certificate_and_is_connected() {
    let bench = Bench::new(starts_well);
    let runner = bench.control.local().await.unwrap();
    assert_eq!(runner.addr(), bench.runner.at);
    let grant: Grant = serde_json::from_slice(&fs::read(bench.dir.path().join("grant")).unwrap()).unwrap();
    assert_eq!(grant.runner_id, bench.runner.at.id);
    assert_eq!(grant.authority_id, *bench.control.authority().id());
    let arguments = fs::read_to_string(bench.dir.path().join("arguments")).unwrap();
    let state = bench.state();
    let wanted = format!(
        "serve --state-dir {} --bootstrap --exit-when-idle 600\n",
        state.display()
    );
    assert_eq!(arguments, wanted);
}

#[tokio::test]
async fn two_that_need_a_runner_at_once_start_one() {
    let bench = Bench::new(starts_well);
    let (one, two) = tokio::join!(bench.control.local(), bench.control.local());
    assert_eq!(one.unwrap().addr(), two.unwrap().addr());
    assert_eq!(
        fs::read_to_string(bench.dir.path().join("starts")).unwrap(),
        "started\n"
    );
}

#[tokio::test]
async fn a_runner_that_runs_is_not_started_again() {
    let bench = Bench::new(|_, _| "echo 'should not be started' >&2; exit 1".to_owned());
    fs::create_dir_all(bench.state()).unwrap();
    let (id, at, pid) = (&bench.runner.at.id, bench.runner.at.address, std::process::id());
    let record = format!(r#"{{"runner_id":"{id}","address":"{at}","pid":{pid}}}"#);
    fs::write(bench.state().join("runner.json"), record).unwrap();
    assert_eq!(bench.control.local().await.unwrap().addr(), bench.runner.at);
}

/// Passes packets between whoever sends them here and `to`, from when `opens` is there.
async fn pass_on(here: UdpSocket, to: SocketAddr, opens: PathBuf) {
    let there = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    there.connect(to).await.unwrap();
    let (mut sent, mut answered) = (vec![0; 65536], vec![0; 65536]);
    let mut from = None;
    loop {
        tokio::select! {
            Ok((len, sender)) = here.recv_from(&mut sent) => {
                from = Some(sender);
                if opens.exists() {
                    there.send(&sent[..len]).await.unwrap();
                }
            }
            Ok(len) = there.recv(&mut answered) => {
                here.send_to(&answered[..len], from.unwrap()).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_runner_that_is_slow_to_answer_is_waited_for_when_no_other_starts() {
    let bench = Bench::new(|dir, _| {
        format!(
            "touch {}/tried; echo 'another runs here' >&2; exit 1",
            dir.display()
        )
    });
    fs::create_dir_all(bench.state()).unwrap();
    let slow = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (id, at, pid) = (
        &bench.runner.at.id,
        slow.local_addr().unwrap(),
        std::process::id(),
    );
    let record = format!(r#"{{"runner_id":"{id}","address":"{at}","pid":{pid}}}"#);
    fs::write(bench.state().join("runner.json"), record).unwrap();
    let passing = tokio::spawn(pass_on(
        slow,
        bench.runner.at.address,
        bench.dir.path().join("tried"),
    ));
    assert_eq!(bench.control.local().await.unwrap().addr().address, at);
    passing.abort();
}

#[tokio::test]
async fn a_record_of_a_dead_runner_starts_another() {
    let bench = Bench::new(starts_well);
    fs::create_dir_all(bench.state()).unwrap();
    // No process has this number: it is past the kernel's limit.
    let record = r#"{"runner_id":"r-1","address":"127.0.0.1:9","pid":4194305}"#;
    fs::write(bench.state().join("runner.json"), record).unwrap();
    assert_eq!(bench.control.local().await.unwrap().addr(), bench.runner.at);
}

#[tokio::test]
async fn what_a_runner_says_when_it_does_not_start_is_in_the_error() {
    let bench = Bench::new(|_, _| "echo 'oqto-runner: no bubblewrap here' >&2; exit 3".to_owned());
    let error = bench.refused().await.to_string();
    assert_eq!(
        error,
        "it ended (exit status: 3): oqto-runner: no bubblewrap here"
    );
}

#[tokio::test]
async fn a_runner_that_fails_after_its_request_is_heard_too() {
    let line = request_line();
    let bench = Bench::new(|_, _| {
        format!("echo '{line}'; read -r grant; echo 'oqto-runner: cannot bind' >&2; exit 1")
    });
    let error = bench.refused().await.to_string();
    assert_eq!(error, "it ended (exit status: 1): oqto-runner: cannot bind");
}

#[tokio::test]
async fn noise_without_end_is_not_listened_to_without_end() {
    let bench = Bench::new(|_, _| "while echo noise; do :; done".to_owned());
    let error = bench.refused().await;
    assert!(matches!(error, StartError::Noise { .. }), "{error:?}");
    let bench = Bench::new(|_, _| "head -c 1000000 /dev/zero; cat".to_owned());
    let error = bench.refused().await;
    assert!(matches!(error, StartError::LongLine), "{error:?}");
}

#[tokio::test]
async fn another_version_of_the_bootstrap_is_said() {
    let line = request_line().replace(r#""oqto_bootstrap":1"#, r#""oqto_bootstrap":2"#);
    let bench = Bench::new(|_, _| format!("echo '{line}'; cat"));
    let error = bench.refused().await;
    assert!(matches!(error, StartError::Version { theirs: 2 }), "{error:?}");
}

#[tokio::test]
async fn a_runner_that_takes_the_name_of_a_known_one_gets_no_certificate() {
    let line = request_line();
    let bench = Bench::new(|_, _| format!("echo '{line}'; cat"));
    bench.control.remember(&bench.runner.at).unwrap();
    let error = bench.control.local().await.unwrap_err();
    assert!(matches!(error, LocalError::Taken { .. }), "{error:?}");
    bench.control.forget(&bench.runner.at.id).unwrap();
    assert_eq!(bench.control.runners().unwrap(), []);
}

#[tokio::test]
async fn a_runner_that_is_not_trusted_any_more_and_in_the_way_is_named_with_the_way_out() {
    let bench = Bench::new(|_, _| "echo 'oqto-runner: another runs here' >&2; exit 125".to_owned());
    let papers = Papers::signed("r-1", bench.control.authority(), Duration::ZERO);
    let expired = TestRunner::start_with(
        "r-1",
        bench.control.authority(),
        papers,
        Duration::ZERO,
        |_, _| Reaction::HangUp,
    );
    fs::create_dir_all(bench.state()).unwrap();
    let pid = std::process::id();
    let record = format!(
        r#"{{"runner_id":"r-1","address":"{}","pid":{pid}}}"#,
        expired.at.address
    );
    fs::write(bench.state().join("runner.json"), record).unwrap();
    // A certificate ends with its second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = bench.control.local().await.unwrap_err();
    assert!(
        error.to_string().contains(&format!("kill -KILL {pid}")),
        "{error}"
    );
    assert!(error.source().unwrap().to_string().contains("ended"), "{error:?}");
}
