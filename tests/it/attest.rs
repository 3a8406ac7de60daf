//! What a runner is: said by a real one, lied about by another, and what a posture makes of it.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use oqto_control::posture::{Rule, VerifyError};
use oqto_control::{AttestError, CommandError, Control, Options, Posture, Runner, SessionConfig};
use oqto_protocol::attest::{Attest, Attestation, Statement};
use oqto_protocol::codec::{Blob, Json, decode_all};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::frame::{Frame, Kind};
use oqto_protocol::id::Digest;
use oqto_protocol::query::{Answer, Query};
use oqto_tests::{Ended, Home, built};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::liar::{Liar, now_ms, report, sign, statement};
use crate::stranger::{Stranger, control_papers, first_answer, frame, hello};

fn posture(text: &str) -> Posture {
    Posture::parse(text, "posture.toml").unwrap()
}

/// The control of a home, with these rules.
fn strict(home: &Home, rules: &str) -> Control {
    let options = Options::under(home.path("data/oqto"))
        .local_dir(home.state())
        .runner_program(home.runner_program())
        .posture(posture(rules));
    Control::open(options).unwrap()
}

fn exec(home: &Home) -> SessionConfig {
    SessionConfig {
        harness: "exec".to_owned(),
        cwd: Some(home.workspace().display().to_string()),
        ..SessionConfig::default()
    }
}

/// `sha256:` and the digest of a file.
fn sha256(path: &Path) -> String {
    let out = std::process::Command::new("sha256sum")
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    format!("sha256:{}", text.split_whitespace().next().unwrap())
}

/// Lets a home go where it may wait.
async fn gone(home: Home) {
    tokio::task::spawn_blocking(|| drop(home)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_says_what_it_is_and_its_word_is_verified() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let verified = runner.attest().await.unwrap();
    let said = verified.statement();
    assert_eq!(said.runner_id, *runner.id());
    assert_eq!(format!("sha256:{}", said.binary), sha256(&built("oqto-runner")));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(said.kernel, kernel.trim());
    assert_eq!(said.version, runner.status().await.unwrap().version);
    assert_eq!(said.policies, runner.policies().await.unwrap());
    let check = verified.sandbox().unwrap();
    assert!(check.holds && check.tried() >= 25 && check.not_stopped().next().is_none());
    assert_eq!(check.binary, said.binary);
    assert!(check.landlock_abi.is_some_and(|abi| abi >= 3));
    assert!(check.layer("seccomp").unwrap().is_enforced());
    let again = runner.attest().await.unwrap();
    assert_ne!(again.statement().nonce, said.nonce);
    assert_eq!(again.statement().channel, said.channel, "the same connection");
    control.close().await;
    gone(home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_ask_the_sandbox_is_checked_once() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let checked_at = |statement: &Statement| statement.sandbox_check.value()["checked_at"].clone();
    // Some ask and are gone: what they began is what the next ones get.
    let papers = control_papers(
        &home.path("data/oqto/authority"),
        control.authority().id().as_str(),
    );
    let hasty = Stranger::of(&control, runner.addr())
        .with(papers)
        .connect()
        .await
        .unwrap();
    first_answer(&hasty, &hello(1, 1)).await.unwrap();
    let question = frame(&Query::RunnerAttest(Attest {
        nonce: Blob(vec![1; 32]),
    }));
    for _ in 0..100 {
        let (mut up, mut down) = hasty.open_bi().await.unwrap();
        up.write_all(&question).await.unwrap();
        up.finish().unwrap();
        // The stream may be gone already.
        let _gone = down.stop(0_u8.into());
    }
    hasty.close(0_u8.into(), b"");
    let askers: Vec<_> = (0..100)
        .map(|_| {
            let runner = runner.clone();
            tokio::spawn(async move { runner.attest().await.unwrap() })
        })
        .collect();
    let mut times = Vec::new();
    for asker in askers {
        times.push(checked_at(asker.await.unwrap().statement()));
    }
    times.dedup();
    assert_eq!(times.len(), 1, "{times:?}");
    control.close().await;
    gone(home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_that_could_have_been_used_before_is_refused() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let papers = control_papers(
        &home.path("data/oqto/authority"),
        control.authority().id().as_str(),
    );
    let link = Stranger::of(&control, runner.addr())
        .with(papers)
        .connect()
        .await
        .unwrap();
    first_answer(&link, &hello(1, 1)).await.unwrap();
    for (len, allowed) in [
        (0, false),
        (15, false),
        (16, true),
        (64, true),
        (65, false),
        (100_000, false),
    ] {
        let nonce = Blob(vec![5; len]);
        let question = frame(&Query::RunnerAttest(Attest { nonce: nonce.clone() }));
        let (kind, body) = first_answer(&link, &question).await.unwrap();
        let answer: Answer = Frame { kind, body: &body }.body().unwrap();
        assert_eq!(kind, Kind::ANSWER);
        match answer {
            Answer::Attested(Attestation { statement, .. }) => {
                assert!(allowed, "{len}");
                assert_eq!(decode_all::<Statement>(&statement.0).unwrap().nonce, nonce);
            }
            Answer::Fault(fault) => {
                assert!(!allowed, "{len}: {fault:?}");
                assert_eq!(fault.code, FaultCode::Invalid);
            }
            other => panic!("{other:?}"),
        }
    }
    link.close(0_u8.into(), b"");
    control.close().await;
    gone(home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_whose_file_was_replaced_says_which_program_runs_and_which_lies_there() {
    let home = Home::new();
    let program = home.path("bin/replaced");
    std::fs::copy(built("oqto-runner"), &program).unwrap();
    let config = home.path("runner.toml");
    home.program(
        "runner",
        &format!("#!/bin/sh\nexec {program:?} \"$@\" --config {config:?}\n"),
    );
    let first = sha256(&program);
    let rules = format!("[all]\nbinary = [{first:?}]\n");
    let control = strict(&home, &rules);
    let runner = control.local().await.unwrap();
    let verified = runner.attest().await.unwrap();
    assert_eq!(format!("sha256:{}", verified.statement().binary), first);
    // An upgrade, as package managers do it: another file under the same name.
    let new = home.path("bin/new");
    let mut bytes = std::fs::read(&program).unwrap();
    bytes.push(0);
    std::fs::write(&new, bytes).unwrap();
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(&new, &program).unwrap();
    let second = sha256(&program);
    let verified = runner.attest().await.unwrap();
    assert_eq!(format!("sha256:{}", verified.statement().binary), first);
    assert_eq!(format!("sha256:{}", verified.sandbox().unwrap().binary), second);
    let refused = runner.create(exec(&home)).await.unwrap_err();
    let CommandError::Posture(finding) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(finding.rule, Rule::Binary);
    assert!(finding.found.contains(&second), "{finding}");
    assert_eq!(runner.sessions().await.unwrap(), []);
    control.close().await;
    gone(home).await;
}

async fn lied(say: impl Fn(&crate::liar::Asking<'_>) -> Attestation + Send + Sync + 'static) -> VerifyError {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(Options::under(dir.path())).unwrap();
    let liar = Liar::start(&control, say);
    let runner = control.connect(liar.at.clone()).await.unwrap();
    let error = loop {
        match runner.attest().await {
            Ok(_) => liar.hang_up(),
            Err(AttestError::Verify(error)) => break error,
            Err(other) => panic!("{other:?}"),
        }
    };
    control.close().await;
    error
}

#[tokio::test]
async fn what_was_said_before_is_not_believed_again() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(Options::under(dir.path())).unwrap();
    let kept = Mutex::new(None);
    let liar = Liar::start(&control, move |asking| {
        let said = || sign(asking.key, &statement(asking));
        kept.lock().unwrap().get_or_insert_with(said).clone()
    });
    let runner = control.connect(liar.at.clone()).await.unwrap();
    runner.attest().await.unwrap();
    let error = runner.attest().await.unwrap_err();
    assert!(
        matches!(error, AttestError::Verify(VerifyError::Nonce)),
        "{error:?}"
    );
    assert_eq!(liar.asked(), 2);
    control.close().await;
}

#[tokio::test]
async fn what_was_said_on_another_connection_is_not_believed_here() {
    let first = Mutex::new(Vec::new());
    let error = lied(move |asking| {
        let mut said = statement(asking);
        let mut first = first.lock().unwrap();
        if asking.link == 0 {
            *first = asking.channel.clone();
        } else {
            said.channel = Blob(first.clone());
        }
        sign(asking.key, &said)
    })
    .await;
    assert!(matches!(error, VerifyError::Channel), "{error:?}");
}

#[tokio::test]
async fn what_another_key_signed_or_was_edited_since_is_not_believed() {
    let error = lied(|asking| {
        let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        sign(&other, &statement(asking))
    })
    .await;
    assert!(matches!(error, VerifyError::Signature(_)), "{error:?}");
    // A layer that is absent, called enforced on the way.
    let error = lied(|asking| {
        let mut worse = report();
        worse["check"]["layers"][1]["state"] = "absent  ".into();
        let mut said = statement(asking);
        said.sandbox_check = Json::from(&worse);
        let mut signed = sign(asking.key, &said);
        let bytes = &mut signed.statement.0;
        let at = bytes.windows(8).position(|part| part == b"absent  ").unwrap();
        bytes[at..at + 8].copy_from_slice(b"enforced");
        signed
    })
    .await;
    assert!(matches!(error, VerifyError::Signature(_)), "{error:?}");
    // Signed without the words that say what for.
    let error = lied(|asking| {
        use rcgen::SigningKey as _;
        let mut signed = sign(asking.key, &statement(asking));
        signed.signature = Blob(asking.key.sign(&signed.statement.0).unwrap());
        signed
    })
    .await;
    assert!(matches!(error, VerifyError::Signature(_)), "{error:?}");
}

#[tokio::test]
async fn another_runners_name_and_another_time_are_not_believed() {
    let error = lied(|asking| {
        let mut said = statement(asking);
        said.runner_id = "r-honest".parse().unwrap();
        sign(asking.key, &said)
    })
    .await;
    assert!(matches!(error, VerifyError::OtherRunner { .. }), "{error:?}");
    for (at, words) in [
        (now_ms() - 3_600_000, "behind this one"),
        (now_ms() + 3_600_000, "ahead of this one"),
    ] {
        let error = lied(move |asking| {
            let mut said = statement(asking);
            said.taken_at = at;
            sign(asking.key, &said)
        })
        .await;
        assert!(matches!(error, VerifyError::Clock { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
    // Two minutes are what clocks do.
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(Options::under(dir.path())).unwrap();
    let liar = Liar::signing(&control, |said| said.taken_at -= 120_000);
    let runner = control.connect(liar.at.clone()).await.unwrap();
    runner.attest().await.unwrap();
    control.close().await;
}

/// What becomes of a session that a liar is asked for under these rules.
async fn asked_for(
    rules: &str,
    edit: impl Fn(&mut Statement) + Send + Sync + 'static,
) -> Result<(), CommandError> {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::under(dir.path()).posture(posture(rules));
    let control = Control::open(options).unwrap();
    let liar = Liar::signing(&control, edit);
    let runner = control.connect(liar.at.clone()).await.unwrap();
    let error = runner.create(SessionConfig::default()).await.unwrap_err();
    let commands = liar.commands();
    control.close().await;
    match error {
        // The command came to the runner, which is what a posture decides.
        CommandError::Refused { .. } => {
            assert_eq!(commands, 1);
            Ok(())
        }
        error => {
            assert_eq!(commands, 0, "{error:?}");
            Err(error)
        }
    }
}

type Edit = fn(&mut Statement);

fn reported(said: &mut Statement, edit: impl Fn(&mut serde_json::Value)) {
    let mut report = said.sandbox_check.value();
    edit(&mut report["check"]);
    said.sandbox_check = Json::from(&report);
}

#[tokio::test]
async fn each_rule_refuses_what_it_is_there_for_and_nothing_else() {
    let (seven, nine) = ("07".repeat(32), "09".repeat(32));
    let binary = format!("binary = [\"sha256:{nine}\", \"sha256:{seven}\"]");
    let policies = format!("policies = {{ workspace = \"sha256:{nine}\" }}");
    let no_report: Edit = |said| said.sandbox_check = Json::from(&serde_json::json!({"error": "no bwrap"}));
    let rules: &[(Rule, &str, &[Edit])] = &[
        (
            Rule::LandlockMin,
            "landlock_min = 4",
            &[
                |said| reported(said, |check| check["landlock_abi"] = 3.into()),
                |said| reported(said, |check| check["landlock_abi"] = serde_json::Value::Null),
                no_report,
                |said| said.sandbox_check = Json::default(),
            ],
        ),
        (
            Rule::Seccomp,
            "seccomp = \"required\"",
            &[
                |said| reported(said, |check| check["layers"][2]["state"] = "absent".into()),
                |said| reported(said, |check| check["layers"] = serde_json::json!([])),
                no_report,
            ],
        ),
        (
            Rule::Layers,
            "layers = [\"namespaces\", \"landlock\"]",
            &[
                |said| reported(said, |check| check["layers"][0]["state"] = "off".into()),
                |said| reported(said, |check| check["layers"][1]["layer"] = "sealock".into()),
                no_report,
            ],
        ),
        (
            Rule::Sandbox,
            "sandbox = \"holds\"",
            &[
                |said| reported(said, |check| check["holds"] = false.into()),
                |said| reported(said, |check| check["attempts"] = serde_json::json!([])),
                |said| reported(said, |check| check["attempts"][0]["forbidden"] = false.into()),
                |said| {
                    reported(said, |check| {
                        check["attempts"][0]["stopped_by"] = serde_json::Value::Null;
                    });
                },
                no_report,
            ],
        ),
        (
            Rule::Binary,
            &binary,
            &[
                |said| said.binary = Digest([8; 32]),
                |said| reported(said, |check| check["binary"] = "08".repeat(32).into()),
                no_report,
            ],
        ),
        (
            Rule::VersionMin,
            "version_min = \"0.5\"",
            &[
                |said| said.version = "0.4.99".to_owned(),
                |said| said.version = "newest".to_owned(),
            ],
        ),
        (
            Rule::KernelMin,
            "kernel_min = \"6.7\"",
            &[
                |said| said.kernel = "6.6.99".to_owned(),
                |said| said.kernel = String::new(),
            ],
        ),
        (
            Rule::Policies,
            &policies,
            &[
                |said| said.policies[0].digest = Digest([8; 32]),
                |said| said.policies.clear(),
            ],
        ),
    ];
    for (rule, text, edits) in rules {
        let text = format!("[all]\n{text}\n");
        asked_for(&text, |_| {})
            .await
            .unwrap_or_else(|error| panic!("{rule}: {error:?}"));
        for edit in *edits {
            match asked_for(&text, *edit).await.unwrap_err() {
                CommandError::Posture(finding) => {
                    assert_eq!(finding.rule, *rule);
                    let said = finding.to_string();
                    assert!(said.starts_with(&format!("{rule} wants ")), "{said}");
                }
                other => panic!("{rule}: {other:?}"),
            }
            // The same runner is good enough for who does not ask.
            asked_for("[runner.r-other]\nlandlock_min = 99\n", *edit)
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn without_a_statement_that_is_believed_no_work_is_given() {
    let error = asked_for("[all]\nversion_min = \"0.1\"\n", |said| {
        said.nonce = Blob(vec![0; 32]);
    })
    .await;
    assert!(
        matches!(
            error,
            Err(CommandError::Attest(AttestError::Verify(VerifyError::Nonce)))
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_runner_is_asked_once_a_connection_and_again_when_that_is_too_long_ago() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::under(dir.path()).posture(posture("[all]\nlandlock_min = 4\nmax_age = \"1s\"\n"));
    let control = Control::open(options).unwrap();
    let liar = Liar::signing(&control, |_| {});
    let runner = control.connect(liar.at.clone()).await.unwrap();
    let create = || async { runner.create(SessionConfig::default()).await.unwrap_err() };
    let begun = std::time::Instant::now();
    let all = (0..20).map(|_| {
        let runner = runner.clone();
        tokio::spawn(async move { runner.create(SessionConfig::default()).await })
    });
    for made in all.collect::<Vec<_>>() {
        assert!(matches!(made.await.unwrap(), Err(CommandError::Refused { .. })));
    }
    // On a machine that stood still meanwhile, twice is right.
    if begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(liar.asked(), 1);
    }
    let before = liar.asked();
    // It is the age itself that is waited for.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    create().await;
    assert_eq!(liar.asked(), before + 1);
    liar.hang_up();
    create().await;
    assert_eq!(liar.asked(), before + 2);
    control.close().await;
}

/// Makes a session under these rules with a real runner, or says which rule refuses.
async fn real(home: &Home, rules: &str) -> Result<(), Rule> {
    let control = strict(home, rules);
    let runner = control.local().await.unwrap();
    let created = runner.create(exec(home)).await;
    let left = runner.sessions().await.unwrap().len();
    let said = match created {
        Ok(session) => {
            session.close().await.unwrap();
            delete(&runner, session.id()).await;
            Ok(())
        }
        Err(CommandError::Posture(finding)) => {
            assert_eq!(left, 0, "{finding}");
            Err(finding.rule)
        }
        Err(error) => panic!("{rules}: {error:?}"),
    };
    control.close().await;
    said
}

async fn delete(runner: &Runner, id: &oqto_protocol::id::SessionId) {
    use oqto_protocol::command::{Command, SessionDelete};
    runner
        .command(id, Command::SessionDelete(SessionDelete {}))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_runner_keeps_the_rules_that_fit_it_and_is_refused_by_each_that_does_not() {
    let home = Home::new();
    let own = sha256(&built("oqto-runner"));
    let control = home.control();
    let runner = control.local().await.unwrap();
    let policies = runner.policies().await.unwrap();
    let workspace = policies.iter().find(|policy| policy.name == "workspace").unwrap();
    let digest = workspace.digest;
    let rules = format!(
        "[all]\nlandlock_min = 3\nseccomp = \"required\"\nlayers = [\"namespaces\", \"mounts\", \"privileges\"]\n\
         sandbox = \"holds\"\nbinary = [{own:?}]\nversion_min = \"0.1\"\nkernel_min = \"5.13\"\n\
         policies = {{ workspace = \"sha256:{digest}\" }}\nmax_age = \"10m\"\n"
    );
    assert_eq!(real(&home, &rules).await, Ok(()));
    let no = "0".repeat(64);
    for (rule, text) in [
        (Rule::LandlockMin, "landlock_min = 99".to_owned()),
        (Rule::Layers, "layers = [\"moat\"]".to_owned()),
        (Rule::Binary, format!("binary = [\"sha256:{no}\"]")),
        (Rule::Binary, "binary = []".to_owned()),
        (Rule::VersionMin, "version_min = \"99\"".to_owned()),
        (Rule::KernelMin, "kernel_min = \"99.1\"".to_owned()),
        (
            Rule::Policies,
            format!("policies = {{ workspace = \"sha256:{no}\" }}"),
        ),
    ] {
        assert_eq!(
            real(&home, &format!("[all]\n{text}\n")).await,
            Err(rule),
            "{text}"
        );
        let id = runner.id();
        assert_eq!(
            real(&home, &format!("[runner.{id}]\n{text}\n")).await,
            Err(rule),
            "{text}"
        );
    }
    control.close().await;
    gone(home).await;
}

fn rules_of(home: &Home, text: &str) {
    std::fs::create_dir_all(home.path("config/oqto")).unwrap();
    std::fs::write(home.path("config/oqto/posture.toml"), text).unwrap();
}

#[test]
fn oqtoctl_shows_what_a_runner_is_and_which_rules_hold() {
    let home = Home::new();
    let page = home.run(&["attest"]).ok();
    for words in [
        "program   sha256:",
        "all stopped",
        "enforced  seccomp ",
        "no rule of posture.toml",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    rules_of(&home, "[all]\nlandlock_min = 3\nsandbox = \"holds\"\n");
    let page = home.run(&["attest"]).ok();
    assert!(page.contains("holds  landlock_min: version "), "{page}");
    assert_eq!(home.sh("echo fit").ok(), "fit\n");
    rules_of(&home, "[all]\nsandbox = \"holds\"\nkernel_min = \"99\"\n");
    let Ended { code, .. } = home.run(&["attest"]);
    assert_eq!(code, 1);
    let ended = home.run(&["attest", "--json"]);
    assert_eq!(ended.code, 1);
    let said: serde_json::Value = serde_json::from_str(ended.text()).unwrap();
    assert_eq!(said["holds"], false);
    assert_eq!(said["rules"][1]["rule"], "kernel_min");
    assert_eq!(said["rules"][1]["holds"], false);
    assert_eq!(
        said["statement"]["sandbox_check"]["check"]["holds"], true,
        "{said}"
    );
    home.sh("echo unfit > it-ran")
        .failed(125, &["kernel_min wants 99.0 or later", "hint: oqtoctl attest"]);
    assert!(!home.workspace().join("it-ran").exists());
    rules_of(&home, "[all]\nkernel_mim = \"6\"\n");
    home.run(&["attest"]).failed(125, &["posture.toml", "kernel_mim"]);
    home.sh("true").failed(125, &["posture.toml", "kernel_mim"]);
    rules_of(&home, "");
    home.run(&["attest", "r-nobody"]).failed(125, &["r-nobody"]);
}
