//! The Agent Client Protocol where no recording has it: what is refused, what is rare, and what a hostile agent says.

use oqto_protocol::command::*;
use oqto_protocol::event::{Event, InputRequest, PermissionRequest, PlanStatus};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::id::CommandId;
use oqto_protocol::message::{Content, Message, Role, StopReason};
use oqto_protocol::reply::{Reply, ReplyData};
use oqto_protocol::session::{Capability, SessionState};
use oqto_runner::harness::{Harness, Harnesses};
use oqto_runner::session::{Action, Input, Report, Session};
use serde_json::{Value, json};

mod support;

use support::{T0, setup};

const MODES: &str = r#""modes":{"currentModeId":"auto","availableModes":[{"id":"auto","name":"Auto"},{"id":"ask","name":"Ask"}]}"#;

/// An agent, line by line.
struct Agent {
    session: Session,
    now: u64,
    ids: u8,
}

impl Agent {
    /// One that was started and asked who it is.
    fn started(mode: Option<&str>, continue_session: Option<&str>) -> Self {
        Self::of(Harness::acp("agent", "agent", mode), continue_session)
    }

    fn of(harness: Harness, continue_session: Option<&str>) -> Self {
        let mut setup = setup(harness);
        setup.continue_session = continue_session.map(str::to_owned);
        let mut agent = Self {
            session: Session::new(setup, T0),
            now: T0,
            ids: 0,
        };
        let asked = agent.step(&Input::Report(&Report::Confined { layers: Vec::new() }));
        assert_eq!(written(&asked)[0]["method"], "initialize");
        agent
    }

    /// One that waits for a prompt.
    fn idle() -> Self {
        let mut agent = Self::started(Some("ask"), None);
        agent.initialized(
            r#"{"loadSession":true,"promptCapabilities":{"image":true,"embeddedContext":true}}"#,
        );
        agent.out(&format!(
            r#"{{"jsonrpc":"2.0","id":"open","result":{{"sessionId":"s1",{MODES}}}}}"#
        ));
        agent.out(r#"{"jsonrpc":"2.0","id":"configure","result":{}}"#);
        assert_eq!(agent.session.state(), SessionState::Idle);
        agent
    }

    /// One that works at a prompt of this id.
    fn working() -> (Self, CommandId) {
        let mut agent = Self::idle();
        let (id, _) = agent.tell(prompt("work"));
        assert_eq!(agent.session.state(), SessionState::Streaming);
        (agent, id)
    }

    fn initialized(&mut self, capabilities: &str) -> Vec<Action> {
        self.out(&format!(
            r#"{{"jsonrpc":"2.0","id":"initialize","result":{{"protocolVersion":1,"agentCapabilities":{capabilities},"agentInfo":{{"name":"agent","version":"1.2.3"}},"authMethods":[{{"id":"key","name":"Key"}}]}}}}"#
        ))
    }

    fn step(&mut self, input: &Input<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        self.session.step(input, self.now, &mut out);
        out
    }

    fn out(&mut self, line: &str) -> Vec<Action> {
        self.step(&Input::Out(format!("{line}\n").as_bytes()))
    }

    fn update(&mut self, update: &Value) -> Vec<Action> {
        let params = json!({ "sessionId": "s1", "update": update });
        self.out(&json!({ "jsonrpc": "2.0", "method": "session/update", "params": params }).to_string())
    }

    fn says(&mut self, text: &str) -> Vec<Action> {
        self.update(
            &json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": text } }),
        )
    }

    fn ends(&mut self, id: CommandId, result: &Value) -> Vec<Action> {
        self.out(&json!({ "jsonrpc": "2.0", "id": id.to_string(), "result": result }).to_string())
    }

    /// Answers the request that was written.
    fn answers(&mut self, asked: &[Action], result: &Value) -> Vec<Action> {
        let id = &written(asked)[0]["id"];
        self.out(&json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string())
    }

    fn asks(&mut self, call: &Value) -> Vec<Action> {
        let options = json!([
            { "optionId": "a", "name": "Always", "kind": "allow_always" },
            { "optionId": "y", "name": "Yes", "kind": "allow_once" },
            { "optionId": "n", "name": "No", "kind": "reject_once" },
        ]);
        let params = json!({ "sessionId": "s1", "toolCall": call, "options": options });
        let request =
            json!({ "jsonrpc": "2.0", "id": 0, "method": "session/request_permission", "params": params });
        self.out(&request.to_string())
    }

    fn tell(&mut self, command: Command) -> (CommandId, Vec<Action>) {
        self.ids += 1;
        let id = CommandId([self.ids; 16]);
        let envelope = CommandEnvelope {
            id,
            session_id: "s".parse().expect("a name"),
            runner_id: None,
            command,
            on_behalf_of: None,
        };
        (id, self.step(&Input::Command(&envelope)))
    }

    fn wait(&mut self) -> Vec<Action> {
        self.now = self.session.poll_timeout().expect("something to wait for");
        self.step(&Input::Deadline)
    }
}

fn prompt(text: &str) -> Command {
    Command::Prompt(Prompt {
        message: text.to_owned(),
        images: Vec::new(),
        client_id: None,
        resources: Vec::new(),
    })
}

fn switch(to: &str) -> Command {
    Command::SessionSwitch(SessionSwitch {
        session_path: to.to_owned(),
    })
}

/// What a new session is answered with.
fn opened(session: &str) -> Value {
    serde_json::from_str(&format!(r#"{{"sessionId":"{session}",{MODES}}}"#)).expect("JSON")
}

/// The lines that were written.
fn written(actions: &[Action]) -> Vec<Value> {
    let bytes: Vec<u8> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Write { bytes, .. } => Some(bytes.as_slice()),
            _ => None,
        })
        .flatten()
        .copied()
        .collect();
    let text = String::from_utf8(bytes).expect("text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn events(actions: &[Action]) -> Vec<&Event> {
    let recorded = actions.iter().filter_map(|action| match action {
        Action::Record { event, .. } => Some(event),
        _ => None,
    });
    recorded.collect()
}

fn messages(actions: &[Action]) -> Vec<&Message> {
    let ended = events(actions).into_iter().filter_map(|event| match event {
        Event::MessageEnd(end) => Some(&*end.message),
        _ => None,
    });
    ended.collect()
}

fn error(actions: &[Action]) -> Option<String> {
    events(actions).into_iter().find_map(|event| match event {
        Event::AgentError(it) => Some(it.error.clone()),
        _ => None,
    })
}

fn reply(actions: &[Action]) -> &Reply {
    let mut replies = actions.iter().filter_map(|action| match action {
        Action::Reply(reply) => Some(reply),
        _ => None,
    });
    replies.next().expect("a reply")
}

fn asked(actions: &[Action]) -> &PermissionRequest {
    let mut requests = events(actions).into_iter().filter_map(|event| match event {
        Event::InputNeeded(needed) => match &needed.request {
            InputRequest::PermissionRequest(request) => Some(request),
            _ => None,
        },
        _ => None,
    });
    requests.next().expect("a request")
}

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

#[test]
fn a_message_longer_than_is_kept_becomes_several_and_loses_nothing() {
    let (mut agent, id) = Agent::working();
    let piece = "0123456789abcdef".repeat(64 * 1024);
    let (mut said, mut told) = (0, String::new());
    for _ in 0..20 {
        let actions = agent.says(&piece);
        said += piece.len();
        told.extend(messages(&actions).into_iter().map(text));
    }
    let end = agent.ends(id, &json!({ "stopReason": "end_turn" }));
    assert_eq!(messages(&end).last().unwrap().stop_reason, Some(StopReason::Stop));
    told.extend(messages(&end).into_iter().map(text));
    assert_eq!(told.len(), said);
    assert!(told == piece.repeat(20));
}

fn text(message: &Message) -> String {
    let texts = message.parts.iter().map(|part| match &part.content {
        Content::Text(text) => text.text.as_str(),
        other => panic!("{other:?}"),
    });
    texts.collect()
}

#[test]
fn a_message_of_more_parts_than_are_kept_becomes_several_too() {
    let (mut agent, id) = Agent::working();
    let mut parts = 0;
    for n in 0..700 {
        let kind = ["agent_message_chunk", "agent_thought_chunk"][n % 2];
        let content = json!({ "type": "text", "text": n.to_string() });
        let actions = agent.update(&json!({ "sessionUpdate": kind, "content": content }));
        parts += messages(&actions).iter().map(|it| it.parts.len()).sum::<usize>();
    }
    let end = agent.ends(id, &json!({ "stopReason": "end_turn" }));
    parts += messages(&end).iter().map(|it| it.parts.len()).sum::<usize>();
    assert_eq!(parts, 700);
}

#[test]
fn parts_that_are_no_text_are_kept_with_their_message() {
    let (mut agent, id) = Agent::working();
    agent.says("look:");
    for content in [
        json!({ "type": "image", "data": "AAEC", "mimeType": "image/png" }),
        json!({ "type": "resource_link", "uri": "file:///w/a.rs", "name": "a.rs" }),
        json!({ "type": "hologram", "beam": 1 }),
    ] {
        agent.update(&json!({ "sessionUpdate": "agent_message_chunk", "content": content }));
    }
    let end = agent.ends(id, &json!({ "stopReason": "end_turn" }));
    let message = *messages(&end).last().unwrap();
    let kinds: Vec<&Content> = message.parts.iter().map(|part| &part.content).collect();
    assert!(
        matches!(
            kinds.as_slice(),
            [
                Content::Text(_),
                Content::Image(_),
                Content::FileRef(_),
                Content::Extension(_)
            ]
        ),
        "{kinds:?}"
    );
}

#[test]
fn a_plan_and_notes_are_told_as_such() {
    let (mut agent, _) = Agent::working();
    let entries = json!([
        { "content": "one", "priority": "high", "status": "completed" },
        { "content": "two", "priority": "low", "status": "in_progress" },
    ]);
    let told = agent.update(&json!({ "sessionUpdate": "plan", "entries": entries }));
    let Some(Event::Plan(plan)) = events(&told).into_iter().next() else {
        panic!("{told:?}");
    };
    assert_eq!(plan.entries[1].status, PlanStatus::InProgress);
    let told = agent.update(&json!({ "sessionUpdate": "notice", "severity": "warning", "title": "slow" }));
    assert!(matches!(events(&told).as_slice(), [Event::Notify(it)] if it.message == "slow"));
    agent.update(
        &json!({ "sessionUpdate": "compaction_update", "compactionId": "c", "status": "in_progress" }),
    );
    agent.update(
        &json!({ "sessionUpdate": "compaction_summary_chunk", "compactionId": "c",
        "content": { "type": "text", "text": "short" } }),
    );
    let told = agent
        .update(&json!({ "sessionUpdate": "compaction_update", "compactionId": "c", "status": "completed" }));
    assert!(
        matches!(events(&told).as_slice(), [Event::CompactEnd(it), ..] if it.success && it.summary.as_deref() == Some("short")),
        "{told:?}"
    );
    let told = agent.update(&json!({ "sessionUpdate": "from_the_future", "x": 1 }));
    assert!(
        matches!(events(&told).as_slice(), [Event::Status(it)] if it.key == "x-acp-from_the_future"),
        "{told:?}"
    );
}

#[test]
fn what_a_client_does_not_serve_is_answered_so_and_shown() {
    let mut agent = Agent::idle();
    for (id, method) in [
        (json!(0), "fs/read_text_file"),
        (json!("x"), "elicitation/create"),
    ] {
        let line =
            json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "path": "/etc/shadow" } });
        let actions = agent.out(&line.to_string());
        let answer = &written(&actions)[0];
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id, &json!(-32601)));
        assert!(
            matches!(events(&actions).as_slice(), [Event::Status(it)] if it.key == format!("x-acp-{method}"))
        );
    }
}

#[test]
fn an_update_or_a_request_that_cannot_be_read_is_kept_as_it_came() {
    let (mut agent, _) = Agent::working();
    let kept = |said: &[Action]| {
        let notes: Vec<_> = events(said)
            .into_iter()
            .filter_map(|event| match event {
                Event::Status(note) => Some((note.key.clone(), note.text.clone().unwrap_or_default())),
                Event::Notify(_) => panic!("{event:?}"),
                _ => None,
            })
            .collect();
        assert_eq!(notes.len(), 1, "{notes:?}");
        notes[0].clone()
    };
    for unread in [
        json!({ "sessionUpdate": "tool_call", "toolCallId": "c", "title": 7 }),
        json!({ "sessionUpdate": "usage_update", "used": "much" }),
        json!({ "sessionUpdate": "plan", "entries": "none" }),
        json!({ "sessionUpdate": "agent_message_chunk", "content": "bare" }),
    ] {
        let (key, text) = kept(&agent.update(&unread));
        assert_eq!(
            key,
            format!("x-acp-{}", unread["sessionUpdate"].as_str().unwrap())
        );
        assert!(text.contains("sessionUpdate"), "{text}");
    }
    let request =
        r#"{"jsonrpc":"2.0","id":7,"method":"session/request_permission","params":{"sessionId":"s1"}}"#;
    let said = agent.out(request);
    assert_eq!(written(&said)[0]["error"]["code"], -32602);
    assert_eq!(kept(&said).0, "x-acp-session/request_permission");
    // What is not ours is nobody's.
    let other = r#"{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s9","update":{"sessionUpdate":"plan","title":7}}}"#;
    assert!(events(&agent.out(other)).is_empty());
}

/// A session that had the model `b` before, whose agent answers now with these models.
fn again(models: &str) -> (Agent, Vec<Action>) {
    let mut setup = setup(Harness::acp("agent", "agent", Some("ask")));
    setup.continue_session = Some("s1".to_owned());
    setup.model = Some("b".to_owned());
    let mut agent = Agent {
        session: Session::new(setup, T0),
        now: T0,
        ids: 0,
    };
    agent.step(&Input::Report(&Report::Confined { layers: Vec::new() }));
    agent.initialized(r#"{"loadSession":true}"#);
    let opened = agent.out(&format!(
        r#"{{"jsonrpc":"2.0","id":"open","result":{{"modes":{{"currentModeId":"ask","availableModes":[{{"id":"ask","name":"Ask"}}]}}{models}}}}}"#
    ));
    (agent, opened)
}

fn warning(actions: &[Action]) -> Option<String> {
    events(actions).into_iter().find_map(|event| match event {
        Event::Notify(note) => Some(note.message.clone()),
        _ => None,
    })
}

#[test]
fn a_model_that_the_agent_has_no_longer_keeps_no_session_from_going_on() {
    for models in [
        "",
        r#","models":{"currentModelId":"a","availableModels":[{"modelId":"a","name":"A"}]}"#,
    ] {
        let (agent, opened) = again(models);
        let said = warning(&opened).expect("a warning");
        assert!(said.contains("\"b\""), "{said}");
        assert_eq!(agent.session.state(), SessionState::Idle);
    }
    // One that is offered and then refused is no better.
    let models = r#","models":{"currentModelId":"a","availableModels":[{"modelId":"a","name":"A"},{"modelId":"b","name":"B"}]}"#;
    let (mut agent, opened) = again(models);
    assert_eq!(written(&opened)[0]["params"]["modelId"], "b");
    let refused =
        agent.out(r#"{"jsonrpc":"2.0","id":"configure","error":{"code":-32603,"message":"not today"}}"#);
    assert!(warning(&refused).expect("a warning").contains("not today"));
    assert_eq!(agent.session.state(), SessionState::Idle);
}

#[test]
fn a_permission_is_answered_under_the_agents_own_name_and_never_by_place() {
    for (response, outcome) in [
        (
            json!({ "value": "n" }),
            json!({ "outcome": "selected", "optionId": "n" }),
        ),
        (
            json!({ "value": "a" }),
            json!({ "outcome": "selected", "optionId": "a" }),
        ),
        (json!({ "cancelled": true }), json!({ "outcome": "cancelled" })),
    ] {
        let (mut agent, _) = Agent::working();
        let call =
            json!({ "toolCallId": "t", "kind": "execute", "rawInput": { "command": "ls" }, "title": "ls" });
        let request_id = asked(&agent.asks(&call)).request_id.clone();
        let (_, actions) = agent.tell(Command::InputResponse(InputResponse {
            request_id,
            value: response["value"].as_str().map(str::to_owned),
            confirmed: response["confirmed"].as_bool(),
            cancelled: response["cancelled"].as_bool(),
        }));
        let answer = &written(&actions)[0];
        assert_eq!(
            (&answer["id"], &answer["result"]["outcome"]),
            (&json!(0), &outcome)
        );
    }
}

#[test]
fn a_permission_of_another_session_and_one_taken_back_are_not_open() {
    let (mut agent, _) = Agent::working();
    let request = json!({ "jsonrpc": "2.0", "id": 4, "method": "session/request_permission",
        "params": { "sessionId": "another", "toolCall": { "toolCallId": "t" }, "options": [] } });
    let actions = agent.out(&request.to_string());
    assert_eq!(written(&actions)[0]["result"]["outcome"]["outcome"], "cancelled");
    assert!(events(&actions).is_empty());
    agent.asks(&json!({ "toolCallId": "t", "title": "x" }));
    assert!(agent.session.status().pending_request.is_some());
    let actions = agent.out(r#"{"jsonrpc":"2.0","method":"$/cancel_request","params":{"requestId":0}}"#);
    assert!(
        matches!(events(&actions).as_slice(), [Event::InputResolved(_)]),
        "{actions:?}"
    );
    let answer = &written(&actions)[0];
    assert_eq!(
        (&answer["id"], &answer["result"]["outcome"]["outcome"]),
        (&json!(0), &json!("cancelled"))
    );
    assert!(agent.session.status().pending_request.is_none());
}

#[test]
fn the_targets_of_a_permission_are_all_that_it_names() {
    for (call, targets) in [
        (
            json!({ "toolCallId": "t", "kind": "execute", "rawInput": { "command": "ls; rm -rf /" },
                "locations": [{ "path": "/w/a" }] }),
            vec!["ls; rm -rf /"],
        ),
        (
            json!({ "toolCallId": "t", "kind": "execute", "rawInput": { "command": ["bash", "-lc", "ls | sh"] } }),
            vec!["ls | sh"],
        ),
        (
            json!({ "toolCallId": "t", "kind": "execute", "rawInput": { "command": ["rm", "a b; c"] } }),
            vec!["rm 'a b; c'"],
        ),
        (
            json!({ "toolCallId": "t", "kind": "edit", "rawInput": { "file_path": "/w/a" },
                "locations": [{ "path": "/w/b" }], "content": [{ "type": "diff", "path": "/w/c", "newText": "" }] }),
            vec!["/w/a", "/w/b", "/w/c"],
        ),
        (
            json!({ "toolCallId": "t", "kind": "edit",
                "rawInput": { "edits": [{ "path": "/w/a" }, { "in": { "file_path": "/etc/b" } }] } }),
            vec!["/etc/b", "/w/a"],
        ),
        (
            json!({ "toolCallId": "t", "kind": "fetch", "rawInput": { "url": "https://x.test/" } }),
            vec!["https://x.test/"],
        ),
        (json!({ "toolCallId": "t", "kind": "other" }), vec![]),
        // Of what cannot be read no rule may speak.
        (
            json!({ "toolCallId": "t", "kind": "edit", "rawInput": { "path": "/w/a" }, "locations": [{ "path": 7 }] }),
            vec![],
        ),
        (
            json!({ "toolCallId": "t", "kind": "execute", "rawInput": { "command": ["ls", 7] },
                "locations": [{ "path": "/w/a" }] }),
            vec![],
        ),
    ] {
        let (mut agent, _) = Agent::working();
        let actions = agent.asks(&call);
        assert_eq!(asked(&actions).tool.as_ref().unwrap().targets, targets, "{call}");
    }
}

#[test]
fn what_is_too_long_to_be_repeated_is_asked_about_with_no_target_that_a_rule_knows() {
    let (mut agent, _) = Agent::working();
    let input = json!({ "command": "x".repeat(1 << 20) });
    let call = json!({ "toolCallId": "t", "kind": "execute", "rawInput": input });
    let actions = agent.asks(&call);
    assert!(
        messages(&actions)[0].parts.len() == 1,
        "the whole call stands in the message"
    );
    let request = asked(&actions);
    let tool = request.tool.as_ref().unwrap();
    assert!(request.metadata.is_none() && tool.input.is_none());
    assert_eq!(tool.targets.len(), 1);
    assert!((4097..10_000).contains(&tool.targets[0].len()));
    // Asked again without it, it is not taken for what its place says.
    let again = agent.asks(&json!({ "toolCallId": "t", "locations": [{ "path": "/w/a" }] }));
    assert!(asked(&again).tool.as_ref().unwrap().targets.is_empty());
}

#[test]
fn an_error_that_is_hidden_in_the_end_of_a_turn_is_an_error() {
    for (result, said) in [
        (
            json!({ "stopReason": "end_turn", "_meta": { "codex": { "error": { "message": "500 from the provider" } } } }),
            "500 from the provider",
        ),
        (json!({ "stopReason": "refusal" }), "refused"),
        (json!({ "stopReason": "max_turn_requests" }), "requests"),
        (json!({ "stopReason": "bored" }), "bored"),
    ] {
        let (mut agent, id) = Agent::working();
        let end = agent.ends(id, &result);
        assert!(error(&end).unwrap().contains(said), "{end:?}");
        assert_eq!(agent.session.state(), SessionState::Idle);
    }
}

#[test]
fn what_is_said_after_the_end_of_a_turn_is_a_message_that_ends_by_itself() {
    let (mut agent, id) = Agent::working();
    agent.ends(id, &json!({ "stopReason": "end_turn" }));
    assert_eq!(agent.session.state(), SessionState::Idle);
    agent.says("one more thing");
    let end = agent.wait();
    assert_eq!(messages(&end).len(), 1);
    assert_eq!(messages(&end)[0].role, Role::Assistant);
    assert!(agent.session.snapshot().is_some(), "at rest again");
}

#[test]
fn a_call_that_never_ends_is_ended_with_its_turn() {
    let (mut agent, id) = Agent::working();
    agent.update(
        &json!({ "sessionUpdate": "tool_call", "toolCallId": "t", "title": "x", "status": "in_progress" }),
    );
    let end = agent.ends(id, &json!({ "stopReason": "cancelled" }));
    let ended = events(&end)
        .into_iter()
        .filter(|event| matches!(event, Event::ToolEnd(it) if it.is_error));
    assert_eq!(ended.count(), 1, "{end:?}");
    assert!(agent.session.snapshot().is_some());
}

#[test]
fn a_new_session_of_the_agents_is_in_the_mode_that_asks_before_the_command_is_answered() {
    let mut agent = Agent::idle();
    let (_, asked) = agent.tell(Command::SessionNew(SessionNew { parent_session: None }));
    assert_eq!(written(&asked)[0]["method"], "session/new");
    let (_, refused) = agent.tell(prompt("too early"));
    assert_eq!(
        reply(&refused).error.as_ref().unwrap().code,
        FaultCode::WrongState
    );
    let opened = agent.answers(&asked, &opened("s2"));
    assert_eq!(
        written(&opened)[0]["params"],
        json!({ "sessionId": "s2", "modeId": "ask" })
    );
    let done = agent.answers(&opened, &json!({}));
    assert!(reply(&done).success, "{done:?}");
    let (_, said) = agent.tell(prompt("now"));
    assert_eq!(written(&said)[0]["params"]["sessionId"], "s2");
}

#[test]
fn what_is_said_of_the_session_before_changes_nothing_of_the_one_that_is_opened() {
    let mut agent = Agent::idle();
    let (_, asked) = agent.tell(Command::SessionNew(SessionNew { parent_session: None }));
    let model = json!({ "id": "model", "name": "Model", "category": "model", "type": "select",
        "currentValue": "old", "options": [{ "value": "old", "name": "Old" }] });
    let update = json!({ "sessionUpdate": "config_option_update", "configOptions": [model] });
    agent.update(&update);
    let opened = agent.answers(&asked, &opened("s2"));
    agent.update(&update);
    agent.answers(&opened, &json!({}));
    assert_eq!(agent.session.status().info.model, None);
}

#[test]
fn a_session_that_cannot_be_opened_leaves_the_one_before() {
    for error in [
        json!({ "code": -32002, "message": "Resource not found" }),
        json!("Resource not found"),
    ] {
        let mut agent = Agent::idle();
        let (_, asked) = agent.tell(switch("gone"));
        let id = &written(&asked)[0]["id"];
        let failed = agent.out(&json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string());
        let fault = reply(&failed).error.as_ref().expect("refused");
        assert!(fault.message.contains("Resource not found"), "{fault:?}");
        let (_, said) = agent.tell(prompt("still there"));
        assert_eq!(written(&said)[0]["params"]["sessionId"], "s1");
    }
}

#[test]
fn an_answer_that_nobody_waits_for_any_more_is_none_to_what_was_asked_since() {
    let mut agent = Agent::idle();
    let (_, first) = agent.tell(switch("first"));
    let late = agent.wait();
    assert_eq!(reply(&late).error.as_ref().unwrap().code, FaultCode::Timeout);
    assert!(agent.session.snapshot().is_some(), "at rest again");
    let (_, second) = agent.tell(switch("second"));
    let ignored = agent.answers(&first, &Value::Null);
    assert!(ignored.is_empty(), "{ignored:?}");
    let there = agent.answers(&second, &opened("second"));
    let done = agent.answers(&there, &json!({}));
    assert!(reply(&done).success, "{done:?}");
    let (_, said) = agent.tell(prompt("there"));
    assert_eq!(written(&said)[0]["params"]["sessionId"], "second");
}

#[test]
fn a_choice_that_is_never_answered_keeps_no_session_from_its_rest() {
    let mut agent = Agent::idle();
    for _ in 0..3 {
        let mode_id = "auto".to_owned();
        agent.tell(Command::SetMode(SetMode { mode_id }));
        let late = agent.wait();
        assert_eq!(reply(&late).error.as_ref().unwrap().code, FaultCode::Timeout);
        assert!(agent.session.snapshot().is_some());
    }
}

#[test]
fn an_earlier_session_is_there_also_where_nothing_is_said_of_it() {
    let mut agent = Agent::started(None, Some("before"));
    agent.initialized(r#"{"loadSession":true}"#);
    agent.out(r#"{"jsonrpc":"2.0","id":"open","result":null}"#);
    assert_eq!(agent.session.state(), SessionState::Idle);
}

#[test]
fn a_turn_is_over_in_whatever_form_the_agent_says_so() {
    for (end, fails) in [
        (
            r#""result":{"stopReason":"end_turn","usage":{"inputTokens":null}}"#,
            false,
        ),
        (r#""result":{"stopReason":7}"#, true),
        (r#""result":null"#, true),
        (r#""error":"overloaded""#, true),
        (r#""error":{"code":"E1","message":"overloaded"}"#, true),
    ] {
        let (mut agent, id) = Agent::working();
        agent.says("a word");
        let ended = agent.out(&format!(r#"{{"jsonrpc":"2.0","id":"{id}",{end}}}"#));
        assert_eq!(agent.session.state(), SessionState::Idle, "{end}");
        assert_eq!(error(&ended).is_some(), fails, "{end}: {ended:?}");
        assert_eq!(messages(&ended).len(), 1, "{end}");
    }
}

#[test]
fn resources_and_what_is_known_already_need_no_guess() {
    let mut agent = Agent::idle();
    agent.update(&json!({ "sessionUpdate": "available_commands_update",
        "availableCommands": [{ "name": "init", "description": "d" }] }));
    let (_, actions) = agent.tell(Command::GetCommands(GetCommands {}));
    assert!(written(&actions).is_empty());
    assert!(
        matches!(&reply(&actions).data, Some(ReplyData::HarnessAnswer(it)) if it.answer.text().contains("init")),
        "{actions:?}"
    );
    let (_, said) = agent.tell(Command::Prompt(Prompt {
        message: "read".to_owned(),
        images: Vec::new(),
        client_id: None,
        resources: vec![
            Resource {
                uri: "file:///w/a.rs".to_owned(),
                label: None,
                mime: None,
                text: None,
            },
            Resource {
                uri: "file:///w/b.rs".to_owned(),
                label: None,
                mime: Some("text/x-rust".to_owned()),
                text: Some("fn b() {}".to_owned()),
            },
        ],
    }));
    let blocks = &written(&said)[0]["params"]["prompt"];
    assert_eq!(
        (&blocks[1]["type"], &blocks[1]["name"]),
        (&json!("resource_link"), &json!("a.rs"))
    );
    assert_eq!(blocks[2]["resource"]["text"], "fn b() {}");
}

#[test]
fn a_request_that_could_not_be_told_or_answered_is_refused() {
    let long = "x".repeat(100 * 1024);
    let option = |id: &str, name: &str, kind: &str| json!({ "optionId": id, "name": name, "kind": kind });
    for (id, options) in [
        (long.as_str(), json!([option("y", "Yes", "allow_once")])),
        ("t", json!([option(&long, "Yes", "allow_once")])),
        // Whoever chooses one of them chooses the other.
        (
            "t",
            json!([option("y", "No", "reject_once"), option("y", "Yes", "allow_once")]),
        ),
    ] {
        let (mut agent, _) = Agent::working();
        let request = json!({ "jsonrpc": "2.0", "id": 7, "method": "session/request_permission", "params":
            { "sessionId": "s1", "toolCall": { "toolCallId": id, "title": "t" }, "options": options } });
        let actions = agent.out(&request.to_string());
        assert_eq!(written(&actions)[0]["error"]["code"], -32602);
        assert!(agent.session.status().pending_request.is_none());
    }
}

#[test]
fn an_answer_to_a_step_that_was_not_taken_yet_opens_nothing() {
    for early in ["configure", "close"] {
        let mut agent = Agent::started(Some("ask"), None);
        agent.out(&json!({ "jsonrpc": "2.0", "id": early, "result": {} }).to_string());
        assert_eq!(agent.session.state(), SessionState::Starting, "{early}");
        agent.initialized("{}");
        agent.out(&json!({ "jsonrpc": "2.0", "id": early, "result": {} }).to_string());
        assert_eq!(agent.session.state(), SessionState::Starting, "{early}");
    }
    let mut agent = Agent::started(Some("ask"), None);
    agent.initialized("{}");
    let opened = format!(r#"{{"jsonrpc":"2.0","id":"open","result":{{"sessionId":"s1",{MODES}}}}}"#);
    agent.out(&opened);
    // Once more, as one that is in that mode already.
    let again = opened.replace(r#""currentModeId":"auto""#, r#""currentModeId":"ask""#);
    assert!(written(&agent.out(&again)).is_empty());
    assert_eq!(agent.session.state(), SessionState::Starting);
}
