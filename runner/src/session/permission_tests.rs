//! Requests of an agent, answered by a person, a rule, the clock and what ends them.

use oqto_protocol::command::{Abort, Command, CommandEnvelope, InputResponse};
use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::{
    Event, InputNeeded, InputRequest, InputResolved, PermissionKind, PermissionOption, PermissionRequest,
    PermissionTool, Phase, ResolvedBy,
};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::id::{CommandId, Digest};
use oqto_protocol::policy::{NetworkAccess, SandboxReport};
use oqto_protocol::reply::Reply;

use super::action::Action;
use super::bounds::{ASKED_MAX, DEADLINE_SLACK_MS};
use super::fact::Fact;
use super::input::{Input, Report};
use super::machine::Session;
use super::setup::Setup;
use crate::harness::{Edition, Fragment, Harness, Outcome};
use crate::policy::{AbsolutePath, Catalog, Permissions, Request, resolve};

const T0: u64 = 1_000_000;

/// A session whose agent works, under a policy with these permissions.
struct Bench {
    session: Session,
    now: u64,
    commands: u8,
}

impl Bench {
    fn new(permissions: &str) -> Self {
        let sandbox = SandboxReport {
            policy: "p".to_owned(),
            digest: Digest([0; 32]),
            network: NetworkAccess::None,
            layers: Vec::new(),
        };
        let session = Session::new(
            Setup {
                session_id: "s".parse().unwrap(),
                harness: Harness::pi(),
                cwd: "/work".to_owned(),
                sandbox,
                edition: Edition::default(),
                permissions: rules(permissions),
                continue_session: None,
                title: None,
                provider: None,
                model: None,
                labels: std::collections::BTreeMap::default(),
                created_at: T0,
                cursor: Cursor { epoch: 1, seq: 0 },
                next_idx: 0,
            },
            T0,
        );
        let mut bench = Self {
            session,
            now: T0,
            commands: 0,
        };
        bench.step(&Input::Report(&Report::Confined { layers: Vec::new() }));
        bench.says(Fragment::Ready);
        bench.says(Fragment::Began(Phase::Generating));
        bench
    }

    fn step(&mut self, input: &Input<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        self.session.step(input, self.now, &mut out);
        out
    }

    fn says(&mut self, fragment: Fragment) -> Vec<Action> {
        let mut out = Vec::new();
        self.session.apply(fragment, &mut out);
        out
    }

    /// The agent asks to run a command; what its request is called.
    fn asks(&mut self, own: &str, command: &str) -> String {
        let out = self.says(Fragment::Asks(InputRequest::PermissionRequest(request(
            own, command,
        ))));
        let needed = out.iter().find_map(|action| match action {
            Action::Record {
                event: Event::InputNeeded(InputNeeded { request }),
                ..
            } => Some(super::permission::name(request).to_owned()),
            _ => None,
        });
        needed.unwrap()
    }

    fn command(&mut self, command: Command) -> Vec<Action> {
        self.commands += 1;
        let envelope = CommandEnvelope {
            id: CommandId([self.commands; 16]),
            session_id: "s".parse().unwrap(),
            runner_id: None,
            command,
            on_behalf_of: None,
        };
        self.step(&Input::Command(&envelope))
    }

    fn answers(&mut self, request_id: &str, value: Option<&str>, confirmed: Option<bool>) -> Vec<Action> {
        self.command(Command::InputResponse(InputResponse {
            request_id: request_id.to_owned(),
            value: value.map(str::to_owned),
            confirmed,
            cancelled: None,
        }))
    }

    fn decided(&mut self, request_id: &str, is_recorded: bool) -> Vec<Action> {
        self.step(&Input::Seen(&Fact::Decided {
            request_id: request_id.to_owned(),
            is_recorded,
        }))
    }

    fn deadline(&mut self, after_ms: u64) -> Vec<Action> {
        self.now += after_ms;
        self.step(&Input::Deadline)
    }
}

fn rules(permissions: &str) -> Permissions {
    let path = |text: &str| AbsolutePath::try_from(text.to_owned()).unwrap();
    let mut catalog = Catalog::shipped();
    let text = format!("description = \"d\"\n[network]\nmode = \"none\"\n[permissions]\n{permissions}\n");
    catalog
        .add("p".parse().unwrap(), "p.toml".to_owned(), text)
        .unwrap();
    let request = Request {
        workspace: path("/work"),
        user_home: path("/home/a"),
        session_home: path("/run/s"),
        read: Vec::new(),
        closed: Vec::new(),
        network_for: None,
        policy_at_most: None,
        workspace_file: None,
    };
    resolve(&catalog, &"p".parse().unwrap(), &request)
        .unwrap()
        .permissions
}

fn request(own: &str, command: &str) -> PermissionRequest {
    let option = |id: &str, kind| PermissionOption {
        id: id.to_owned(),
        label: id.to_owned(),
        kind,
    };
    PermissionRequest {
        request_id: own.to_owned(),
        title: command.to_owned(),
        description: None,
        options: vec![
            option("always", PermissionKind::AllowAlways),
            option("yes", PermissionKind::AllowOnce),
            option("no", PermissionKind::RejectOnce),
        ],
        metadata: None,
        tool: Some(PermissionTool {
            tool_call_id: None,
            name: "Bash".to_owned(),
            kind: Some("execute".to_owned()),
            targets: vec![command.to_owned()],
            input: None,
        }),
        timeout: None,
    }
}

fn resolved(out: &[Action]) -> Vec<InputResolved> {
    let events = out.iter().filter_map(|action| match action {
        Action::Record {
            event: Event::InputResolved(resolved),
            ..
        } => Some(resolved.clone()),
        _ => None,
    });
    events.collect()
}

fn written(out: &[Action]) -> String {
    let written = out.iter().filter_map(|action| match action {
        Action::Write { bytes, .. } => Some(String::from_utf8(bytes.clone()).unwrap()),
        _ => None,
    });
    written.collect()
}

fn fault(out: &[Action]) -> Option<FaultCode> {
    out.iter().find_map(|action| match action {
        Action::Reply(Reply {
            error: Some(error), ..
        }) => Some(error.code),
        _ => None,
    })
}

#[test]
fn a_person_answers_by_an_option_or_yes_or_no_and_the_agent_is_told_its_own_id() {
    let mut bench = Bench::new("");
    let id = bench.asks("5", "ls");
    assert!(bench.session.decisions().is_empty());
    assert_eq!(
        fault(&bench.answers("4", Some("yes"), None)),
        Some(FaultCode::NotFound)
    );
    assert_eq!(
        fault(&bench.answers(&id, Some("maybe"), None)),
        Some(FaultCode::Invalid)
    );
    assert_eq!(fault(&bench.answers(&id, None, None)), Some(FaultCode::Invalid));
    assert_eq!(
        fault(&bench.answers(&id, Some("no"), Some(true))),
        Some(FaultCode::Invalid)
    );
    let out = bench.answers(&id, None, Some(true));
    assert!(
        written(&out).contains(r#""id":"5","value":"yes""#),
        "{}",
        written(&out)
    );
    let said = &resolved(&out)[0];
    assert_eq!(
        (&said.request_id, said.by, said.decision),
        (&id, Some(ResolvedBy::Answer), Some(PermissionKind::AllowOnce))
    );
    let id = bench.asks("6", "ls");
    let out = bench.answers(&id, Some("always"), None);
    assert_eq!(resolved(&out)[0].decision, Some(PermissionKind::AllowAlways));
    let id = bench.asks("7", "ls");
    let out = bench.answers(&id, None, Some(false));
    assert!(written(&out).contains(r#""value":"no""#));
}

#[test]
fn an_answer_that_comes_late_is_never_one_to_the_next_request_of_the_same_id() {
    let mut bench = Bench::new("");
    let first = bench.asks("5", "ls");
    bench.answers(&first, None, Some(false));
    let second = bench.asks("5", "rm -rf /");
    assert_ne!(first, second);
    let out = bench.answers(&first, None, Some(true));
    assert_eq!(
        (fault(&out), written(&out)),
        (Some(FaultCode::NotFound), String::new())
    );
}

#[test]
fn what_a_rule_decides_waits_until_it_is_on_record_and_nobody_overtakes_it() {
    let mut bench = Bench::new("allow = [\"execute:ls *\"]\ndeny = [\"execute:rm *\"]");
    for (command, allow, kind, told) in [
        ("ls -l", true, PermissionKind::AllowOnce, "yes"),
        ("rm -rf x", false, PermissionKind::RejectOnce, "no"),
    ] {
        let id = bench.asks("5", command);
        let decision = bench.session.decisions()[0].clone();
        assert_eq!((decision.allow, decision.by), (allow, ResolvedBy::Rule));
        let out = bench.answers(&id, None, Some(true));
        assert_eq!(
            (fault(&out), written(&out)),
            (Some(FaultCode::WrongState), String::new())
        );
        let out = bench.decided(&id, true);
        assert!(written(&out).contains(&format!(r#""id":"5","value":"{told}""#)));
        let said = &resolved(&out)[0];
        assert_eq!((said.by, said.decision), (Some(ResolvedBy::Rule), Some(kind)));
        assert_eq!(said.rule, decision.rule);
        assert!(bench.session.decisions().is_empty());
        assert!(bench.decided(&id, true).is_empty(), "once");
    }
}

#[test]
fn what_cannot_be_recorded_is_not_allowed() {
    let mut bench = Bench::new("allow = [\"execute\"]");
    let id = bench.asks("5", "ls");
    let out = bench.decided(&id, false);
    assert!(written(&out).contains(r#""value":"no""#));
    assert_eq!(resolved(&out)[0].decision, Some(PermissionKind::RejectOnce));
    assert!(out.iter().any(|action| matches!(
        action,
        Action::Record {
            event: Event::Notify(_),
            ..
        }
    )));
}

#[test]
fn a_rule_never_answers_for_always() {
    let mut bench = Bench::new("allow = [\"execute:ls\"]\ndeny = [\"execute:rm\"]");
    let mut only_always = request("5", "ls");
    only_always
        .options
        .retain(|option| option.kind == PermissionKind::AllowAlways);
    bench.says(Fragment::Asks(InputRequest::PermissionRequest(only_always)));
    assert!(bench.session.decisions().is_empty(), "somebody has to choose");
    let mut none = request("6", "rm");
    none.options.clear();
    bench.says(Fragment::Asks(InputRequest::PermissionRequest(none)));
    let id = bench.session.decisions()[0].request_id.clone();
    let out = bench.decided(&id, true);
    assert!(
        written(&out).contains(r#""id":"6","cancelled":true"#),
        "{}",
        written(&out)
    );
}

#[test]
fn a_request_that_nobody_answers_is_denied_and_the_agent_told() {
    let mut bench = Bench::new("timeout_s = 7");
    let id = bench.asks("5", "ls");
    assert!(bench.deadline(6_999 + DEADLINE_SLACK_MS).is_empty());
    let out = bench.deadline(1);
    assert!(resolved(&out).is_empty(), "it is put on record first");
    assert_eq!(bench.session.decisions()[0].by, ResolvedBy::Timeout);
    assert_eq!(
        fault(&bench.answers(&id, None, Some(true))),
        Some(FaultCode::WrongState)
    );
    let out = bench.decided(&id, false);
    assert!(written(&out).contains(r#""value":"no""#));
    assert_eq!(resolved(&out)[0].by, Some(ResolvedBy::Timeout));
    assert!(bench.session.poll_timeout().is_none_or(|at| at > bench.now));
}

#[test]
fn abort_and_the_end_of_a_run_end_what_is_asked_also_what_a_rule_had_decided() {
    let mut bench = Bench::new("allow = [\"execute:ls\"]");
    let (open, ruled) = (bench.asks("5", "cat x"), bench.asks("6", "ls"));
    let out = bench.command(Command::Abort(Abort {}));
    let by: Vec<_> = resolved(&out).iter().map(|said| said.by).collect();
    assert_eq!(by, [Some(ResolvedBy::Abort); 2]);
    assert!(bench.decided(&ruled, true).is_empty());
    assert_eq!(
        fault(&bench.answers(&open, None, Some(true))),
        Some(FaultCode::NotFound)
    );
    // Asked before the agent heard of it: told no at once.
    let out = bench.says(Fragment::Asks(InputRequest::PermissionRequest(request(
        "7", "ls",
    ))));
    assert!(written(&out).contains(r#""id":"7","cancelled":true"#));
    bench.says(Fragment::Ended(Outcome::Aborted));
    bench.says(Fragment::Began(Phase::Generating));
    bench.asks("8", "cat x");
    let out = bench.says(Fragment::Ended(Outcome::Done));
    assert_eq!(resolved(&out)[0].by, Some(ResolvedBy::Agent));
}

#[test]
fn a_flood_of_requests_is_bounded_and_each_of_them_told() {
    let mut bench = Bench::new("allow = [\"execute:ls\"]");
    let first = bench.asks("0", "ls");
    for n in 1..ASKED_MAX {
        bench.asks(&n.to_string(), "cat x");
    }
    let out = bench.says(Fragment::Asks(InputRequest::PermissionRequest(request(
        "x", "cat x",
    ))));
    assert!(written(&out).contains(r#""id":"0","value":"no""#));
    let said = &resolved(&out)[0];
    assert_eq!(
        (&said.request_id, said.decision),
        (&first, Some(PermissionKind::RejectOnce))
    );
    assert!(bench.session.decisions().is_empty());
    assert!(bench.decided(&first, true).is_empty());
}
