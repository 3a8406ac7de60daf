//! Every role, held against everything that can be asked of a runner: the table below is written out by hand, beside the
//! one that is enforced.

use std::collections::BTreeSet;

use oqto_protocol::command::{Command, CommandEnvelope};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::id::ControlId;
use oqto_protocol::query::Query;
use oqto_protocol::role::ControlRole;

use super::authorise::judge;
use super::needs::{Need, Place, of_command, of_query, of_subscription};
use super::roles::{RoleDocument, Roles};
use crate::supervisor::Workplace;

/// A command as it comes, and what it needs in the workspace of its session.
const COMMANDS: &[(&str, &str, &str)] = &[
    (
        "session.create",
        r#""config":{"harness":"exec","cwd":"/srv/work/a"}"#,
        "execute",
    ),
    ("session.close", "", "execute"),
    ("session.delete", "", "owner"),
    ("session.restart", "", "execute"),
    ("session.new", "", "execute"),
    ("session.switch", r#""session_path":"x""#, "execute"),
    ("list_sessions", "", "read"),
    ("prompt", r#""message":"x""#, "execute"),
    ("steer", r#""message":"x""#, "execute"),
    ("follow_up", r#""message":"x""#, "execute"),
    ("abort", "", "execute"),
    ("input_response", r#""request_id":"x""#, "execute"),
    ("shell", r#""command":"x""#, "execute"),
    ("get_state", "", "read"),
    ("get_messages", "", "read"),
    ("get_stats", "", "read"),
    ("get_models", "", "read"),
    ("get_commands", "", "read"),
    ("get_fork_points", "", "read"),
    ("set_model", r#""provider":"x","model_id":"x""#, "execute"),
    ("cycle_model", "", "execute"),
    ("set_thinking_level", r#""level":"x""#, "execute"),
    ("cycle_thinking_level", "", "execute"),
    ("set_auto_compaction", r#""enabled":true"#, "execute"),
    ("set_auto_retry", r#""enabled":true"#, "execute"),
    ("compact", "", "execute"),
    ("abort_retry", "", "execute"),
    ("set_session_name", r#""name":"x""#, "write"),
    ("set_mode", r#""mode_id":"x""#, "execute"),
    ("fork", r#""entry_id":"x""#, "execute"),
    (
        "delegate",
        r#""target_session_id":"s-2","message":"x","mode":"sync""#,
        "execute",
    ),
    ("delegate.cancel", r#""request_id":"x""#, "execute"),
];

/// A query as it comes, what it needs, and where: in the session's workspace, anywhere, or on the whole runner.
const QUERIES: &[(&str, &str, &str, &str)] = &[
    ("runner.status", "", "read", "anywhere"),
    ("runner.attest", r#""nonce":"AAAA""#, "read", "anywhere"),
    ("runner.sessions", "", "read", "anywhere"),
    ("policy.list", "", "read", "anywhere"),
    ("policy.show", r#""name":"x""#, "read", "anywhere"),
    (
        "files.list",
        r#""session_id":"s-1","path":"x""#,
        "read",
        "session",
    ),
    (
        "files.stat",
        r#""session_id":"s-1","path":"x""#,
        "read",
        "session",
    ),
    (
        "files.read",
        r#""session_id":"s-1","path":"x","offset":0"#,
        "read",
        "session",
    ),
    (
        "files.write",
        r#""session_id":"s-1","path":"x","size":1,"mode":"create""#,
        "write",
        "session",
    ),
    (
        "files.remove",
        r#""session_id":"s-1","path":"x""#,
        "write",
        "session",
    ),
    (
        "files.rename",
        r#""session_id":"s-1","from":"x","to":"y""#,
        "write",
        "session",
    ),
    (
        "files.mkdir",
        r#""session_id":"s-1","path":"x""#,
        "write",
        "session",
    ),
    (
        "terminal.open",
        r#""session_id":"s-1","rows":1,"cols":1"#,
        "execute",
        "session",
    ),
    ("audit.tail", "", "owner", "runner"),
    // Whoever carries it: it is signed.
    ("trust", r#""statement":"AAAA","signature":"AAAA""#, "nothing", ""),
    // Controls answer these.
    (
        "enrol",
        r#""token":"x","request":{"algorithm":"ecdsa_p256_sha256","public_key":"AAAA"}"#,
        "nobody",
        "",
    ),
    (
        "renew",
        r#""request":{"algorithm":"ecdsa_p256_sha256","public_key":"AAAA"}"#,
        "nobody",
        "",
    ),
];

/// What a control has, where: roles of a file, and what comes of them in the workspace `/srv/work/a` and on the runner.
struct Having {
    rules: &'static str,
    here: Option<ControlRole>,
    runner: Option<ControlRole>,
}

const HAVING: &[Having] = &[
    Having {
        rules: "",
        here: Some(ControlRole::Owner),
        runner: Some(ControlRole::Owner),
    },
    Having {
        rules: r#"[[role]]
control = "other"
role = "owner""#,
        here: None,
        runner: None,
    },
    Having {
        rules: r#"[[role]]
control = "me"
role = "owner"
workspace = "/srv/elsewhere/**""#,
        here: None,
        runner: None,
    },
    Having {
        rules: r#"[[role]]
control = "*"
role = "read""#,
        here: Some(ControlRole::Read),
        runner: Some(ControlRole::Read),
    },
    Having {
        rules: r#"[[role]]
control = "me"
role = "write""#,
        here: Some(ControlRole::Write),
        runner: Some(ControlRole::Write),
    },
    Having {
        rules: r#"[[role]]
control = "me"
role = "execute""#,
        here: Some(ControlRole::Execute),
        runner: Some(ControlRole::Execute),
    },
    Having {
        rules: r#"[[role]]
control = "me"
role = "owner""#,
        here: Some(ControlRole::Owner),
        runner: Some(ControlRole::Owner),
    },
    Having {
        rules: r#"[[role]]
control = "me"
role = "read"
workspace = "/srv/work/a""#,
        here: Some(ControlRole::Read),
        runner: None,
    },
    Having {
        rules: r#"[[role]]
control = "me"
role = "write"
workspace = "/srv/work/?""#,
        here: Some(ControlRole::Write),
        runner: None,
    },
    Having {
        rules: r#"[[role]]
control = "me"
role = "execute"
workspace = "/srv/**/a""#,
        here: Some(ControlRole::Execute),
        runner: None,
    },
    Having {
        rules: r#"[[role]]
control = "me"
role = "owner"
workspace = "/srv""#,
        here: Some(ControlRole::Owner),
        runner: None,
    },
    // The highest that matches counts, whatever its place in the file.
    Having {
        rules: r#"[[role]]
control = "me"
role = "execute"
workspace = "/srv/work/*"
[[role]]
control = "*"
role = "write"
[[role]]
control = "me"
role = "read"
workspace = "/srv/work/a""#,
        here: Some(ControlRole::Execute),
        runner: Some(ControlRole::Write),
    },
];

fn roles(rules: &str) -> Roles {
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(default)]
        role: Vec<RoleDocument>,
    }
    let file: File = toml::from_str(rules).unwrap();
    Roles::try_from(file.role).unwrap()
}

fn me() -> ControlId {
    "me".parse().unwrap()
}

fn command(name: &str, fields: &str) -> CommandEnvelope {
    let comma = if fields.is_empty() { "" } else { "," };
    let text = format!(
        r#"{{"id":"{}","session_id":"s-1","cmd":"{name}"{comma}{fields}}}"#,
        "01".repeat(16)
    );
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn query(name: &str, fields: &str) -> Query {
    let comma = if fields.is_empty() { "" } else { "," };
    let text = format!(r#"{{"query":"{name}"{comma}{fields}}}"#);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Holds what is asked against everything that somebody can have.
#[track_caller]
fn walk(name: &str, need: Need<'_>, role: &str, place: &str) {
    let needed: Option<ControlRole> = role.parse().ok();
    let here = Workplace::Named("/srv/work/a".into());
    for having in HAVING {
        let roles = roles(having.rules);
        let said = judge(&roles, &me(), name, need, Some(&here)).map_err(|fault| fault.code);
        let has = match place {
            "session" | "directory" => having.here,
            "runner" => having.runner,
            // A rule for another workspace is one, too.
            "anywhere" => roles.anywhere(&me()),
            _ => None,
        };
        let expected = match (role, needed) {
            ("nothing", _) => Ok(()),
            ("nobody", _) => Err(FaultCode::Unsupported),
            (_, Some(needed)) if has.is_some_and(|has| has >= needed) => Ok(()),
            (_, Some(_)) if has.is_none() && place == "session" => Err(FaultCode::NotFound),
            (_, Some(_)) => Err(FaultCode::Denied),
            (_, None) => panic!("no role {role}"),
        };
        assert_eq!(said, expected, "{name} with {:?}", having.rules);
    }
}

#[test]
fn every_role_may_give_the_commands_of_the_table_and_no_others() {
    let written: BTreeSet<_> = COMMANDS.iter().map(|(name, ..)| *name).collect();
    let known: BTreeSet<_> = Command::NAMES.iter().map(|(name, _)| *name).collect();
    assert_eq!(written, known);
    for (name, fields, role) in COMMANDS {
        let envelope = command(name, fields);
        let (need, _) = of_command(&envelope.command, &envelope.session_id);
        let place = if *name == "session.create" {
            "directory"
        } else {
            "session"
        };
        walk(name, need, role, place);
    }
}

#[test]
fn every_role_may_ask_the_queries_of_the_table_and_no_others() {
    let written: BTreeSet<_> = QUERIES.iter().map(|(name, ..)| *name).collect();
    let known: BTreeSet<_> = Query::NAMES.iter().map(|(name, _)| *name).collect();
    assert_eq!(written, known);
    for (name, fields, role, place) in QUERIES {
        let query = query(name, fields);
        walk(name, of_query(&query).0, role, place);
    }
}

#[test]
fn to_follow_a_session_is_to_read_it() {
    let session = "s-1".parse().unwrap();
    walk("subscribe", of_subscription(&session).0, "read", "session");
}

#[test]
fn what_this_version_does_not_know_nobody_may_have() {
    let unknown = r#"{"query":"x-unknown","kind":999,"bytes":""}"#;
    let query: Query = serde_json::from_str(unknown).unwrap();
    assert_eq!(of_query(&query).0, Need::Unserved);
    let mut envelope = command("abort", "");
    let unknown = r#"{"cmd":"x-unknown","kind":999,"bytes":""}"#;
    envelope.command = serde_json::from_str(unknown).unwrap();
    assert_eq!(
        of_command(&envelope.command, &envelope.session_id).0,
        Need::Unserved
    );
}

#[test]
fn a_session_without_a_named_workspace_is_in_nobodys_rule_for_one() {
    let roles = roles("[[role]]\ncontrol = \"me\"\nrole = \"owner\"\nworkspace = \"/**\"\n");
    let session = "s-1".parse().unwrap();
    let need = Need::Role(ControlRole::Read, Place::Session(&session));
    let said = |workplace| judge(&roles, &me(), "get_state", need, workplace).map_err(|fault| fault.code);
    assert_eq!(said(Some(&Workplace::Own)), Err(FaultCode::NotFound));
    assert_eq!(said(Some(&Workplace::Named("/anywhere".into()))), Ok(()));
    let made = Need::Role(ControlRole::Execute, Place::Directory(None));
    let said = judge(&roles, &me(), "session.create", made, None);
    assert!(said.unwrap_err().message.contains("on the whole runner"));
}

#[test]
fn a_session_that_may_not_be_seen_is_told_of_as_one_that_is_not_there() {
    let roles = roles("[[role]]\ncontrol = \"me\"\nrole = \"owner\"\nworkspace = \"/srv/mine\"\n");
    let session = "s-1".parse().unwrap();
    for role in [ControlRole::Read, ControlRole::Owner] {
        let need = Need::Role(role, Place::Session(&session));
        let other = Workplace::Named("/srv/other".into());
        let hidden = judge(&roles, &me(), "prompt", need, Some(&other)).unwrap_err();
        let absent = judge(&roles, &me(), "prompt", need, None).unwrap_err();
        assert_eq!(hidden, absent);
    }
}

#[test]
fn who_is_refused_is_told_what_it_needs_where_and_what_it_has() {
    let roles = roles("[[role]]\ncontrol = \"me\"\nrole = \"read\"\n");
    let session = "s-1".parse().unwrap();
    let need = Need::Role(ControlRole::Execute, Place::Session(&session));
    let here = Workplace::Named("/srv/work/a".into());
    let fault = judge(&roles, &me(), "prompt", need, Some(&here)).unwrap_err();
    for word in ["prompt", "execute", "s-1", "control me", "read", "[[role]]"] {
        assert!(fault.message.contains(word), "{word}: {}", fault.message);
    }
    let long = format!("/{}", "x".repeat(5000));
    let need = Need::Role(ControlRole::Execute, Place::Directory(Some(&long)));
    let fault = judge(&roles, &me(), "session.create", need, None).unwrap_err();
    assert!(fault.message.len() < 600, "{}", fault.message.len());
}
