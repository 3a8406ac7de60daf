//! The beginning: what is said before the first prompt, and what the agent is refused for.

use oqto_protocol::command::*;
use oqto_protocol::event::Event;
use oqto_protocol::fault::FaultCode;
use oqto_protocol::session::Capability;
use oqto_runner::harness::Harnesses;
use oqto_runner::session::{Action, Input, Report, Session};
use serde_json::json;

use crate::agent::{Agent, MODES, error, events, prompt, reply, written};
use crate::support::{T0, setup};

#[test]
fn nothing_is_said_before_the_agent_is_in_the_mode_that_asks() {
    let mut agent = Agent::started(Some("ask"), None);
    let (_, early) = agent.tell(prompt("early"));
    assert!(written(&early).is_empty());
    agent.initialized("{}");
    let opened = agent.out(&format!(
        r#"{{"jsonrpc":"2.0","id":"open","result":{{"sessionId":"s1",{MODES}}}}}"#
    ));
    let said = written(&opened);
    assert_eq!((said.len(), &said[0]["method"]), (1, &json!("session/set_mode")));
    assert_eq!(said[0]["params"]["modeId"], "ask");
    let ready = agent.out(r#"{"jsonrpc":"2.0","id":"configure","result":{}}"#);
    assert_eq!(written(&ready)[0]["method"], "session/prompt");
}

#[test]
fn a_model_is_set_by_the_name_that_the_agent_has_for_it_unless_its_arguments_said_it() {
    let defined = |more: &str| {
        let text = format!("[agent]\ndialect = \"acp\"\nprogram = \"agent\"\n{more}");
        Harnesses::new(toml::from_str(&text).unwrap())
            .unwrap()
            .find("agent")
            .unwrap()
    };
    let models = r#""models":{"currentModelId":"a","availableModels":[{"modelId":"a","name":"A"},{"modelId":"p/m","name":"M"}]}"#;
    for (more, is_set) in [("", true), ("model_args = [\"-m\", \"$MODEL\"]", false)] {
        let mut setup = setup(defined(more));
        setup.provider = Some("p".to_owned());
        setup.model = Some("m".to_owned());
        let mut agent = Agent {
            session: Session::new(setup, T0),
            now: T0,
            ids: 0,
        };
        agent.step(&Input::Report(&Report::Confined { layers: Vec::new() }));
        agent.initialized("{}");
        let opened = agent.out(&format!(
            r#"{{"jsonrpc":"2.0","id":"open","result":{{"sessionId":"s1",{models}}}}}"#
        ));
        let said = written(&opened);
        let set: Vec<_> = said.iter().map(|it| it["params"]["modelId"].clone()).collect();
        assert_eq!(
            set,
            if is_set { vec![json!("p/m")] } else { Vec::new() },
            "{said:?}"
        );
    }
}

#[test]
fn an_agent_that_cannot_be_put_in_the_mode_that_asks_is_not_used() {
    let mut agent = Agent::started(Some("ask"), None);
    agent.initialized("{}");
    let opened = agent.out(r#"{"jsonrpc":"2.0","id":"open","result":{"sessionId":"s1"}}"#);
    assert!(error(&opened).unwrap().contains("offers no choice of a mode"));
    assert!(opened.iter().any(|action| matches!(action, Action::Kill)));

    let mut agent = Agent::started(Some("careful"), None);
    agent.initialized("{}");
    let opened = agent.out(&format!(
        r#"{{"jsonrpc":"2.0","id":"open","result":{{"sessionId":"s1",{MODES}}}}}"#
    ));
    let said = error(&opened).unwrap();
    assert!(said.contains("careful") && said.contains("auto, ask"), "{said}");

    let mut agent = Agent::started(Some("ask"), None);
    agent.initialized("{}");
    agent.out(&format!(
        r#"{{"jsonrpc":"2.0","id":"open","result":{{"sessionId":"s1",{MODES}}}}}"#
    ));
    let refused =
        agent.out(r#"{"jsonrpc":"2.0","id":"configure","error":{"code":-32603,"message":"not today"}}"#);
    assert!(error(&refused).unwrap().contains("not today"));
    assert!(refused.iter().any(|action| matches!(action, Action::Kill)));
}

#[test]
fn an_agent_of_another_version_or_without_a_memory_is_refused_by_what_it_lacks() {
    let mut agent = Agent::started(None, None);
    let said = agent.out(r#"{"jsonrpc":"2.0","id":"initialize","result":{"protocolVersion":2}}"#);
    assert!(error(&said).unwrap().contains("version 2"));

    let mut agent = Agent::started(None, Some("earlier"));
    let said = agent.initialized("{}");
    assert!(
        error(&said)
            .unwrap()
            .contains("cannot go on with an earlier session")
    );

    let mut agent = Agent::started(None, Some("earlier"));
    agent.initialized(r#"{"loadSession":true}"#);
    let said = agent.out(
        r#"{"jsonrpc":"2.0","id":"open","error":{"code":-32002,"message":"Resource not found","data":{"sessionId":"earlier"}}}"#,
    );
    assert!(error(&said).unwrap().contains("Resource not found"));
}

#[test]
fn who_asks_for_a_login_is_told_of_in_words_that_help() {
    let mut agent = Agent::started(None, None);
    agent.initialized("{}");
    let said = agent
        .out(r#"{"jsonrpc":"2.0","id":"open","error":{"code":-32000,"message":"Authentication required"}}"#);
    let said = error(&said).unwrap();
    assert!(
        said.contains("auth_method") && said.contains("key") && said.contains("Authentication required"),
        "{said}"
    );
}

#[test]
fn a_way_to_log_in_that_is_named_is_tried_once() {
    let table = "[agent]\ndialect = \"acp\"\nprogram = \"agent\"\nauth_method = \"key\"\n";
    let harnesses = Harnesses::new(toml::from_str(table).unwrap()).unwrap();
    let mut agent = Agent::of(harnesses.find("agent").unwrap(), None);
    agent.initialized("{}");
    let wanted =
        r#"{"jsonrpc":"2.0","id":"open","error":{"code":-32000,"message":"Authentication required"}}"#;
    let asked = agent.out(wanted);
    assert_eq!(written(&asked)[0]["method"], "authenticate");
    assert_eq!(written(&asked)[0]["params"]["methodId"], "key");
    let again = agent.out(r#"{"jsonrpc":"2.0","id":"authenticate","result":{}}"#);
    assert_eq!(written(&again)[0]["method"], "session/new");
    let refused = agent.out(wanted);
    assert!(
        error(&refused).unwrap().contains("does not know who its user is"),
        "{refused:?}"
    );
}

#[test]
fn what_the_agent_can_do_is_told_with_the_session_and_the_rest_refused_by_name() {
    let mut agent = Agent::started(None, None);
    agent.initialized(r#"{"sessionCapabilities":{"resume":{},"list":{}}}"#);
    let opened = agent.out(r#"{"jsonrpc":"2.0","id":"open","result":{"sessionId":"s1"}}"#);
    let Some(Event::SessionCreated(created)) = events(&opened).into_iter().next() else {
        panic!("{opened:?}");
    };
    assert_eq!(created.version.as_deref(), Some("1.2.3"));
    for capability in [
        Capability::Resume,
        Capability::ListSessions,
        Capability::Permission,
    ] {
        assert!(created.capabilities.contains(&capability), "{capability}");
    }
    for command in [
        Command::SetModel(SetModel {
            provider: "p".to_owned(),
            model_id: "m".to_owned(),
        }),
        Command::SetMode(SetMode {
            mode_id: "m".to_owned(),
        }),
        Command::Steer(Steer {
            message: "x".to_owned(),
            client_id: None,
        }),
        Command::Fork(Fork {
            entry_id: "x".to_owned(),
        }),
    ] {
        let (_, actions) = agent.tell(command);
        let fault = reply(&actions).error.clone().unwrap();
        assert_eq!(fault.code, FaultCode::Unsupported, "{fault:?}");
    }
}
