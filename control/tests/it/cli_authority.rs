//! `oqtoctl` as a process: tokens, listening, revocations, rotations, known runners.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;

use oqto_control::protocol::enrol::Token;
use oqto_control::protocol::fault::FaultCode;
use oqto_control::{Authority, Control, Options, Outcome};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::dialler::{Dialler, PATIENCE};
use crate::support::{Ask, Reaction, TestRunner, welcome};

struct User(TempDir);

/// A listening `oqtoctl`, ended with its test.
struct Listening {
    child: Child,
    lines: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Listening {
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl User {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data/oqto")
    }

    fn authority(&self) -> Authority {
        Authority::open(&self.data().join("authority")).unwrap()
    }

    fn oqtoctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oqtoctl"));
        command
            .args(args)
            .env_clear()
            .env("XDG_DATA_HOME", self.0.path().join("data"))
            .env("XDG_STATE_HOME", self.0.path().join("state"))
            .env("XDG_CONFIG_HOME", self.0.path().join("config"))
            .stdin(Stdio::null());
        command
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = self.oqtoctl(args);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// What a verb that succeeds writes as JSON.
    async fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[&["--json"], args].concat()).await;
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn listen(&self) -> Listening {
        let mut child = self
            .oqtoctl(&["--json", "listen", "--address", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        let first: Value = serde_json::from_str(&first).unwrap();
        assert_eq!(first["outcome"], "listening", "{first}");
        let address = first["address"].as_str().unwrap().parse().unwrap();
        Listening {
            child,
            lines,
            address,
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_token_alone_is_on_standard_output_and_the_whole_command_beside_it() {
    let user = User::new();
    let output = user
        .run(&["token", "create", "--runner-id", "r-1", "--ttl", "1h"])
        .await;
    let (token, told) = (text(&output.stdout).trim_end(), text(&output.stderr));
    assert!(
        token.starts_with("oqto1-") && token.len() == 58 && !told.contains(token),
        "{output:?}"
    );
    let pin = user.authority().pin();
    let command =
        format!("oqto-runner enrol --control HOST:7443 --ca-pin {pin} --token-file - --runner-id r-1");
    assert!(
        told.contains(&command) && told.contains("for runner r-1") && told.contains("60 min"),
        "{told}"
    );
    let made = user.json(&["token", "create"]).await;
    let fields: Vec<&String> = made.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["expires_at", "id", "pin", "token"]);
    assert_eq!(made["pin"], json!(pin));
    let open = user.json(&["token", "list"]).await;
    assert_eq!(open["tokens"].as_array().unwrap().len(), 2);
    let id = made["id"].as_str().unwrap();
    assert!(user.run(&["token", "revoke", id]).await.status.success());
    let output = user.run(&["token", "revoke", id]).await;
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("no open token"), "{output:?}");
    assert_eq!(
        user.run(&["token", "create", "--ttl", "15"]).await.status.code(),
        Some(2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_use_one_token_in_two_processes_at_once_one_gets_a_certificate() {
    let user = User::new();
    let authority = user.authority();
    for round in 0..3 {
        // New ones each time: an old one would no longer listen to an address that failed so often.
        let listening = [user.listen(), user.listen()];
        let made = user.json(&["token", "create"]).await;
        let token = Arc::new(Token::new(made["token"].as_str().unwrap().to_owned()));
        let asking: Vec<_> = (0..8)
            .map(|number| {
                let server = listening[number % 2].address;
                let dialler = Dialler::new(&format!("r-{round}-{number}"), &authority, server);
                let token = Arc::clone(&token);
                tokio::spawn(async move { dialler.enrol(&token).await.map(drop).map_err(|fault| fault.code) })
            })
            .collect();
        let mut answers = Vec::new();
        for asked in asking {
            answers.push(asked.await.unwrap());
        }
        assert_eq!(
            answers.iter().filter(|answer| answer.is_ok()).count(),
            1,
            "{answers:?}"
        );
        let denied = |answer: &&Result<(), FaultCode>| **answer == Err(FaultCode::Denied);
        assert_eq!(answers.iter().filter(denied).count(), 7, "{answers:?}");
    }
    assert_eq!(authority.issued().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_tells_who_came_enrolled_was_cut_and_refused() {
    let user = User::new();
    let mut listening = user.listen();
    let made = user.json(&["token", "create"]).await;
    let token = Token::new(made["token"].as_str().unwrap().to_owned());
    let dialler = Dialler::new("r-1", &user.authority(), listening.address);
    let grant = dialler.enrol(&token).await.unwrap();
    let line = listening.next();
    assert_eq!(
        (&line["outcome"], &line["runner_id"], &line["token"]),
        (&json!("enrolled"), &json!("r-1"), &made["id"])
    );
    let link = dialler.dial(&grant.certificate.0).await;
    let line = listening.next();
    assert_eq!(
        (&line["outcome"], &line["runner_id"]),
        (&json!("connected"), &json!("r-1"))
    );
    dialler.renew(&link.quic).await.unwrap();
    assert_eq!(listening.next()["outcome"], "renewed");
    dialler.enrol(&token).await.unwrap_err();
    let line = listening.next();
    assert_eq!(
        (&line["outcome"], &line["reason"]),
        (&json!("refused"), &json!("the token was used before"))
    );
    // Another process revokes it.
    let told = user.json(&["revoke", "r-1", "--reason", "sold"]).await;
    assert_eq!(told, json!({"trust_number": 1, "reached": [], "away": []}));
    tokio::time::timeout(PATIENCE, link.quic.closed()).await.unwrap();
    let line = listening.next();
    assert_eq!(
        (&line["outcome"], &line["runner_id"]),
        (&json!("disconnected"), &json!("r-1"))
    );
    let shown = user.json(&["authority", "show"]).await;
    assert_eq!(shown["revoked"]["runners"][0]["reason"], "sold");
    assert_eq!(shown["runners"][0]["runner_id"], "r-1");
    let page = user.run(&["authority", "show"]).await;
    let page = text(&page.stdout).to_owned();
    let pin = user.authority().pin();
    for part in [pin.as_str(), "runner r-1", "sold", "signs", "UTC"] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_reaches_the_known_runners_and_a_rotation_waits_for_them() {
    let user = User::new();
    let control = Control::open(Options::under(user.data())).unwrap();
    let told = Arc::new(std::sync::Mutex::new(0));
    let count = Arc::clone(&told);
    let runner = TestRunner::start(control.authority(), move |_, ask| match ask {
        Ask::Hello(_) => Reaction::Begin(welcome("r-1")),
        Ask::Query(oqto_control::protocol::query::Query::Trust(_)) => {
            *count.lock().unwrap() += 1;
            let done = oqto_control::protocol::query::Done {};
            Reaction::Answer(crate::support::frames([
                oqto_control::protocol::query::Answer::Done(done),
            ]))
        }
        _ => Reaction::HangUp,
    });
    let address = runner.at.address.to_string();
    assert!(
        user.run(&["runners", "add", "r-1", &address])
            .await
            .status
            .success()
    );
    assert!(
        user.run(&["runners", "add", "r-9", "127.0.0.1:9"])
            .await
            .status
            .success()
    );
    assert!(user.run(&["runners", "remove", "r-9"]).await.status.success());
    assert_eq!(
        user.run(&["runners", "remove", "r-9"]).await.status.code(),
        Some(125)
    );
    let listed = user.json(&["runners"]).await;
    assert_eq!(listed["runners"], json!([{"id": "r-1", "address": address}]));

    let reached = user.json(&["revoke", "--control", "web"]).await;
    assert_eq!(
        reached,
        json!({"trust_number": 1, "reached": ["r-1"], "away": []})
    );
    assert_eq!(*told.lock().unwrap(), 1);
    let output = user.run(&["revoke", "--control", "main"]).await;
    assert!(text(&output.stderr).contains("it is this one"), "{output:?}");
    assert_eq!(user.run(&["revoke"]).await.status.code(), Some(2));
    assert_eq!(
        user.run(&["revoke", "r-1", "--control", "x"]).await.status.code(),
        Some(2)
    );

    // The runner's certificate is in no record, since a test has signed it: nobody is known to be locked out.
    assert_eq!(
        user.json(&["authority", "rotate"]).await["reached"],
        json!(["r-1"])
    );
    let output = user.run(&["authority", "rotate"]).await;
    assert!(
        text(&output.stderr).contains("a next root is there already"),
        "{output:?}"
    );
    assert_eq!(user.json(&["authority", "switch"]).await["trust_number"], 3);
    assert_eq!(user.json(&["authority", "drop"]).await["trust_number"], 4);
    let output = user.run(&["authority", "drop"]).await;
    assert!(
        text(&output.stderr).contains("there is no old root"),
        "{output:?}"
    );
    assert_eq!(user.authority().id(), control.authority().id());
    let log = std::fs::read_to_string(user.data().join("authority/audit.jsonl")).unwrap();
    let outcomes: Vec<Outcome> = log
        .lines()
        .map(|line| {
            serde_json::from_str::<oqto_control::Record>(line)
                .unwrap()
                .outcome
        })
        .collect();
    let wanted = [
        Outcome::Revoked,
        Outcome::RootAdded,
        Outcome::RootSwitched,
        Outcome::RootDropped,
    ];
    assert_eq!(outcomes, wanted);
}
