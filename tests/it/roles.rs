//! Who may do what on a real runner: controls of one authority, each with the role that the runner's file gives it.

use std::path::Path;
use std::sync::Arc;

use oqto_control::history::File;
use oqto_control::{
    CommandError, Control, Event, Options, QueryError, Runner, Session, SessionConfig, SubscribeError,
};
use oqto_protocol::command::{Command, SessionCreate, SetSessionName};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::reply::ReplyData;
use oqto_protocol::role::ControlRole;
use oqto_runner::event_log::{EventLog, Retention};
use oqto_tests::{Home, end, is_root};
use serde_json::Value;

/// A control of the home's authority, under a name of its own, connected to the runner of `owner`.
async fn connected(home: &Home, name: &str, owner: &Runner) -> (Control, Runner) {
    let options = Options::under(home.path("data/oqto")).control_id(name.parse().unwrap());
    let control = Control::open(options).unwrap();
    let runner = control.connect(owner.addr()).await.unwrap();
    (control, runner)
}

fn config(cwd: Option<&str>) -> SessionConfig {
    SessionConfig {
        harness: "exec".to_owned(),
        cwd: cwd.map(str::to_owned),
        ..SessionConfig::default()
    }
}

#[track_caller]
fn refusal<T: std::fmt::Debug>(answer: Result<T, CommandError>) -> Fault {
    match answer {
        Err(CommandError::Refused { source, .. }) => source.0,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn denied<T: std::fmt::Debug>(answer: Result<T, CommandError>) -> String {
    let fault = refusal(answer);
    assert_eq!(fault.code, FaultCode::Denied, "{fault:?}");
    fault.message
}

fn rename() -> Command {
    Command::SetSessionName(SetSessionName {
        name: "named".to_owned(),
    })
}

/// Whether a command got past who may give it: the harness says what it thinks of it.
fn is_let_in<T: std::fmt::Debug>(answer: Result<T, CommandError>) -> bool {
    match answer {
        Ok(_) => true,
        Err(CommandError::Refused { source, .. }) => {
            !matches!(source.0.code, FaultCode::Denied | FaultCode::NotFound)
        }
        Err(error) => panic!("{error:?}"),
    }
}

async fn may_follow(session: &Session) -> bool {
    match session.events().await {
        Ok(_) => true,
        Err(SubscribeError::Exchange { .. }) => false,
        Err(error) => panic!("{error:?}"),
    }
}

fn records(home: &Home) -> Vec<Value> {
    let mut command = home.environment(&home.runner_program());
    command.args(["audit", "export", "--state-dir"]).arg(home.state());
    let text = end(&mut command).ok();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_four_controls_may_do_what_its_role_says_and_no_more() {
    let home = Home::new();
    home.configure(
        r#"
[[role]]
control = "main"
role = "owner"
[[role]]
control = "executor"
role = "execute"
[[role]]
control = "writer"
role = "write"
[[role]]
control = "reader"
role = "read"
"#,
    );
    let main = home.control();
    let owner = main.local().await.unwrap();
    let workspace = home.workspace().display().to_string();
    let session = owner.create(config(Some(&workspace))).await.unwrap();
    assert_eq!(owner.welcome().await.unwrap().role, Some(ControlRole::Owner));

    for (name, role) in [
        ("reader", ControlRole::Read),
        ("writer", ControlRole::Write),
        ("executor", ControlRole::Execute),
    ] {
        let (control, runner) = connected(&home, name, &owner).await;
        assert_eq!(runner.welcome().await.unwrap().role, Some(role));
        let its = runner.session(session.id().clone());
        its.state().await.unwrap();
        its.messages(None, None).await.unwrap();
        assert!(may_follow(&its).await);
        assert_eq!(runner.sessions().await.unwrap().len(), 1);
        runner.policies().await.unwrap();
        assert_eq!(
            is_let_in(runner.command(session.id(), rename()).await),
            role >= ControlRole::Write,
            "{name}"
        );
        let executes = role >= ControlRole::Execute;
        assert_eq!(is_let_in(its.prompt("true").await), executes, "{name}");
        assert_eq!(is_let_in(its.abort().await), executes, "{name}");
        let made = runner.create(config(Some(&workspace))).await;
        assert_eq!(made.is_ok(), executes, "{name}: {made:?}");
        if let Ok(made) = made {
            denied(made.delete().await);
            made.close().await.unwrap();
            owner.session(made.id().clone()).delete().await.unwrap();
        } else {
            let message = denied(made);
            for word in ["session.create", "execute", name, &role.to_string()] {
                assert!(message.contains(word), "{word}: {message}");
            }
        }
        denied(its.delete().await);
        control.close().await;
    }

    let (control, nobody) = connected(&home, "nobody", &owner).await;
    let welcome = nobody.welcome().await.unwrap();
    assert_eq!((welcome.role, welcome.harnesses.len()), (None, 0));
    let status = nobody.status().await;
    assert!(
        matches!(&status, Err(QueryError::Refused { source, .. }) if source.0.code == FaultCode::Denied),
        "{status:?}"
    );
    let hidden = refusal(nobody.session(session.id().clone()).state().await);
    assert_eq!(hidden.code, FaultCode::NotFound);
    let absent = refusal(nobody.session("s-absent".parse().unwrap()).state().await);
    assert_eq!(
        hidden.message.replace(session.id().as_str(), "s-absent"),
        absent.message,
        "whether a session is there is not told"
    );
    control.close().await;

    session.close().await.unwrap();
    session.delete().await.unwrap();
    let all = records(&home);
    let refused = |control: &str, what: &str| {
        all.iter()
            .find(|record| record["control"] == control && record["what"] == what)
            .unwrap_or_else(|| panic!("no {what} of {control}"))
            .clone()
    };
    for (control, what, reason) in [
        ("reader", "prompt", "denied"),
        ("writer", "session.create", "denied"),
        ("executor", "session.delete", "denied"),
        // What is not recorded when it is allowed is when it is refused.
        ("nobody", "runner.status", "denied"),
    ] {
        let record = refused(control, what);
        assert_eq!(
            (&record["outcome"], &record["reason"]),
            (&"refused".into(), &reason.into()),
            "{record}"
        );
    }
    main.close().await;
}

/// Has `name` keep all that a session tells while it works, in a history of its own.
async fn kept_by(home: &Home, name: &str, owner: &Runner, session: &Session) {
    let options = Options::under(home.path("data/oqto"))
        .control_id(name.parse().unwrap())
        .history(Arc::new(File::new(home.path(&format!("history-{name}")))));
    let control = Control::open(options).unwrap();
    let runner = control.connect(owner.addr()).await.unwrap();
    let mut events = runner.session(session.id().clone()).events().await.unwrap();
    // What was acknowledged is noted with what is told next.
    for _ in 0..4 {
        session.prompt("true").await.unwrap();
        while !matches!(events.next().await.unwrap().unwrap().event, Event::StreamDone(_)) {}
    }
    session.close().await.unwrap();
    while let Some(event) = events.next().await {
        event.unwrap();
    }
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_makes_no_runner_forget() {
    let home = Home::new();
    home.configure(
        "[[role]]\ncontrol = \"main\"\nrole = \"owner\"\n[[role]]\ncontrol = \"reader\"\nrole = \"read\"\n\
         [[role]]\ncontrol = \"writer\"\nrole = \"write\"\n",
    );
    let main = home.control();
    let owner = main.local().await.unwrap();
    let workspace = home.workspace().display().to_string();
    let read = owner.create(config(Some(&workspace))).await.unwrap();
    kept_by(&home, "reader", &owner, &read).await;
    let written = owner.create(config(Some(&workspace))).await.unwrap();
    kept_by(&home, "writer", &owner, &written).await;
    main.close().await;
    assert_eq!(home.stop(), []);
    let stores = std::fs::read_dir(home.state().join("events")).unwrap();
    let store = stores.map(|dir| dir.unwrap().path().join("events.sqlite")).next();
    let log = EventLog::open(&store.unwrap(), Retention::DEFAULT).unwrap();
    let acknowledged = |session: &Session| log.session(session.id().as_str()).unwrap().acked_seq();
    assert_eq!(acknowledged(&read), 0);
    assert_ne!(acknowledged(&written), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_for_a_workspace_ends_where_the_workspace_does_whatever_leads_there() {
    let home = Home::new();
    let mine = home.directory("work/mine");
    let other = home.directory("work/other");
    // Of root's runner the directory that a session gets belongs to nobody whom an agent could run as.
    let principal = if is_root() { "principal = \"daemon\"\n" } else { "" };
    home.configure(&format!(
        r#"{principal}
[[role]]
control = "main"
role = "owner"
[[role]]
control = "ci"
role = "owner"
workspace = "{}"
"#,
        mine.display()
    ));
    let main = home.control();
    let owner = main.local().await.unwrap();
    let elsewhere = owner.create(config(other.to_str())).await.unwrap();
    let unnamed = owner.create(config(None)).await.unwrap();
    let (control, runner) = connected(&home, "ci", &owner).await;
    assert_eq!(runner.welcome().await.unwrap().role, None);
    runner.status().await.unwrap();

    let link = home.path("work/link");
    std::os::unix::fs::symlink(&other, &link).unwrap();
    std::os::unix::fs::symlink(&other, mine.join("out")).unwrap();
    for cwd in [
        Some(other.display().to_string()),
        Some(link.display().to_string()),
        Some(mine.join("out").display().to_string()),
        Some(mine.join("../other").display().to_string()),
        // What is not there is refused as what is elsewhere.
        Some(home.path("work/absent").display().to_string()),
        Some("mine".to_owned()),
        None,
    ] {
        denied(runner.create(config(cwd.as_deref())).await);
    }
    let below = mine.join("deep");
    std::fs::create_dir(&below).unwrap();
    let back = home.path("work/back");
    std::os::unix::fs::symlink(&below, &back).unwrap();
    let session = runner.create(config(back.to_str())).await.unwrap();
    let state = session.state().await.unwrap();
    assert_eq!(state.info.cwd, below.display().to_string());

    // Who knows the name of somebody else's command gets nothing of what it made.
    let (id, known) = (CommandId([9; 16]), "s-known".parse().unwrap());
    let create = |cwd: &Path| {
        Command::SessionCreate(SessionCreate {
            config: Box::new(config(cwd.to_str())),
        })
    };
    let made = owner.command_as(id, &known, create(&other)).await;
    assert!(matches!(made, Ok(Some(ReplyData::Created(_)))), "{made:?}");
    let again = owner.command_as(id, &known, create(&other)).await;
    assert!(matches!(again, Ok(Some(ReplyData::Created(_)))), "{again:?}");
    let taken = refusal(runner.command_as(id, &known, create(&mine)).await);
    assert_eq!(taken.code, FaultCode::Exists, "{taken:?}");
    owner.session(known).delete().await.unwrap();

    let seen = runner.sessions().await.unwrap();
    let seen: Vec<_> = seen.iter().map(|info| &info.session_id).collect();
    assert_eq!(seen, [session.id()]);
    assert_eq!(owner.sessions().await.unwrap().len(), 3);
    for hidden in [&elsewhere, &unnamed] {
        let its = runner.session(hidden.id().clone());
        assert_eq!(refusal(its.state().await).code, FaultCode::NotFound);
        assert_eq!(refusal(its.prompt("true").await).code, FaultCode::NotFound);
        assert_eq!(refusal(its.delete().await).code, FaultCode::NotFound);
        assert!(!may_follow(&its).await);
    }
    session.delete().await.unwrap();
    control.close().await;
    main.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_whom_a_control_asks_is_written_down_and_believed_by_nobody() {
    let home = Home::new();
    home.configure("[[role]]\ncontrol = \"main\"\nrole = \"execute\"\n");
    let control = home.control();
    let runner = control
        .local()
        .await
        .unwrap()
        .on_behalf_of("alice@example \"root\"");
    let workspace = home.workspace().display().to_string();
    let session = runner.create(config(Some(&workspace))).await.unwrap();
    drop(session.events().await.unwrap());
    denied(session.delete().await);
    for bad in ["", "two\nlines", "turned \u{202e}around", &"x".repeat(257)] {
        let fault = refusal(session.on_behalf_of(bad).abort().await);
        assert_eq!(fault.code, FaultCode::Invalid, "{bad:?}");
    }
    session.close().await.unwrap();
    let all = records(&home);
    for what in ["session.create", "subscribe", "session.delete", "session.close"] {
        let record = all.iter().find(|record| record["what"] == what).unwrap();
        assert_eq!(record["on_behalf_of"], "alice@example \"root\"", "{record}");
    }
    let aborts: Vec<_> = all.iter().filter(|record| record["what"] == "abort").collect();
    assert_eq!(aborts.len(), 4);
    for record in aborts {
        assert_eq!(
            (&record["reason"], &record["on_behalf_of"]),
            (&"invalid".into(), &Value::Null)
        );
    }
    control.close().await;
}
